//! State in DynamoDB passes the suite of every key-value store, by AWS' own client, against a local AWS (ministack).

use anyhow::{Context as _, Result};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_aws::{DynamoBucket, KEY};
use tapeline_state::testsuite;

use tapeline_aws_tests::local_aws::LocalAws;

fn main() {
    let arguments = Arguments::from_args();
    let suite = Trial::test("a_table_is_a_bucket", || run().map_err(|error| Failed::from(format!("{error:#}"))));
    libtest_mimic::run(&arguments, vec![suite.with_ignored_flag(!LocalAws::is_there())]).exit();
}

fn run() -> Result<()> {
    let aws = LocalAws::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = aws_sdk_dynamodb::Client::from_conf(aws.dynamodb());
        let key = KeySchemaElement::builder().attribute_name(KEY).key_type(KeyType::Hash).build()?;
        let text = AttributeDefinition::builder().attribute_name(KEY).attribute_type(ScalarAttributeType::S).build()?;
        let table = client.create_table().table_name("state").key_schema(key).attribute_definitions(text);
        table.billing_mode(BillingMode::PayPerRequest).send().await.context("make the table")?;
        testsuite::check(&DynamoBucket::new(client.clone(), "state".to_owned()), "suite").await;
        // Another one does not see what is in this one, and one that is not there says so.
        let missing = DynamoBucket::new(client, "nothing".to_owned());
        let said = tapeline_state::Bucket::increment(&missing, "x", 1).await.err().map(|error| error.to_string());
        anyhow::ensure!(said.as_ref().is_some_and(|said| said.contains("ResourceNotFound")), "{said:?}");
        Ok(())
    })
}
