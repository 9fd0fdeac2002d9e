//! The store that hosts of a chain share on AWS, on a local one.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{local_aws::LocalAws, program};

/// The stack.
pub const STACK: &str = "stores";

/// Where `tapeline-aws` is built, which keeps it for a host.
pub fn keeper() -> PathBuf {
    program::components().join("../lambda/tapeline-aws")
}

/// Makes the stack of a pipeline without functions. It has the tables, the bucket and the outputs that the CDK gives it
/// (`infra/cdk/src/stores.ts`), and nothing that this does not read; the CDK's own is deployed by the tests of functions.
///
/// # Errors
/// When it does not come to be.
pub fn create(aws: &LocalAws, pipeline: &str) -> Result<()> {
    let tables = [
        ("State", "key", None),
        ("Rows", "table_symbol", Some("at")),
        ("DeadLetters", "stage", Some("at")),
        ("Ledger", "stage_symbol", Some("day_partition")),
    ];
    let (mut resources, mut outputs) = (json!({}), json!({}));
    for (name, key, sort) in tables {
        resources[name] = table(key, sort);
        outputs[format!("{name}Table")] = json!({ "Value": { "Ref": name } });
    }
    resources["Objects"] = json!({ "Type": "AWS::S3::Bucket" });
    outputs["ObjectsBucket"] = json!({ "Value": { "Ref": "Objects" } });
    outputs["PipelineName"] = json!({ "Value": pipeline });
    outputs["Functions"] = json!({ "Value": "false" });
    outputs["Segments"] = json!({ "Value": "[]" });
    outputs["Stages"] = json!({ "Value": r#"["fetch","dedup","enrich","aggregate","alarm","write"]"# });
    aws.create_stack(STACK, &json!({ "Resources": resources, "Outputs": outputs }).to_string())
}

fn table(key: &str, sort: Option<&str>) -> Value {
    let keys: Vec<(&str, &str)> = [(key, "HASH")].into_iter().chain(sort.map(|sort| (sort, "RANGE"))).collect();
    let attributes = keys.iter().map(|(name, _)| json!({ "AttributeName": name, "AttributeType": "S" }));
    let schema = keys.iter().map(|(name, kind)| json!({ "AttributeName": name, "KeyType": kind }));
    json!({
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": attributes.collect::<Vec<_>>(),
            "KeySchema": schema.collect::<Vec<_>>(),
        },
    })
}
