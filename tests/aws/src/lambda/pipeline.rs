//! A pipeline on a local AWS: what a stack has, made without the CDK because each test needs one of its own, and the
//! functions with what `infra/cdk` tells them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::instance::Function;
use crate::stack::{Account, Stack};

/// What is shown of a log when something went wrong.
const LOG_BYTES_SHOWN: usize = 6_000;
const LOG: &str = "log.txt";
const PRINTED: &str = "printed.ndjson";

/// A pipeline.
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Where what it stores is.
    pub stack: Stack,
    /// The functions in the order of the data.
    pub functions: Vec<Function>,
    /// The queue into each of them, and into none.
    pub queues: Vec<String>,
    /// Its partitions.
    pub partitions: u32,
    folder: TempDir,
}

/// What a pipeline is made of.
pub struct Plan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its stages, as in a pipeline file, each in a function of its own.
    pub stages: Vec<Value>,
    /// How records enter it; none for what is fed with events.
    pub watermark: Option<Value>,
    /// Its partitions.
    pub partitions: u32,
    /// The package of its functions.
    pub package: PathBuf,
}

impl Plan<'_> {
    /// The pipeline of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file<'a>(name: &'a str, file: &Path, partitions: u32, package: PathBuf) -> Result<Plan<'a>> {
        let file: Value = toml::from_str(&fs::read_to_string(file)?)?;
        let stages = file["stages"].as_array().context("stages")?.clone();
        Ok(Plan { name, stages, watermark: Some(file["watermark"].clone()), partitions, package })
    }
}

impl Pipeline {
    /// Makes what it needs.
    ///
    /// # Errors
    /// When AWS does not take it.
    pub fn make(account: &Arc<Account>, plan: &Plan<'_>) -> Result<Self> {
        let folder = TempDir::new()?;
        let made = account.runtime.block_on(Made::make(account, plan))?;
        let stages =
            plan.stages.iter().map(|stage| Ok(stage["name"].as_str().context("the name of a stage")?.to_owned()));
        let stages = stages.collect::<Result<Vec<String>>>()?;
        let functions = made.functions(plan, &stages, folder.path())?;
        let stack = Stack::by_hand(Arc::clone(account), stages, made.outputs);
        Ok(Self {
            name: plan.name.to_owned(),
            stack,
            functions,
            queues: made.queues,
            partitions: plan.partitions,
            folder,
        })
    }

    /// The end of what the functions have logged.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(log.get(log.len().saturating_sub(LOG_BYTES_SHOWN)..).unwrap_or_default()).into_owned()
    }

    /// What the functions have told CloudWatch of a count, in all.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn told(&self, metric: &str) -> Result<u64> {
        let lines = fs::read_to_string(self.folder.path().join(PRINTED)).context("what CloudWatch is told")?;
        let counts = lines.lines().map(|line| {
            let line: Value = serde_json::from_str(line)?;
            Ok(line[metric].as_u64().unwrap_or_default())
        });
        counts.sum()
    }
}

/// What was made.
struct Made {
    queues: Vec<String>,
    /// As a stack calls them.
    outputs: BTreeMap<String, String>,
}

impl Made {
    async fn make(account: &Account, plan: &Plan<'_>) -> Result<Self> {
        let name = plan.name;
        let (dynamodb, s3) = (
            aws_sdk_dynamodb::Client::from_conf(account.aws.dynamodb()),
            aws_sdk_s3::Client::from_conf(account.aws.s3()),
        );
        let (sqs, sns) = (aws_sdk_sqs::Client::new(&account.aws.sdk()), aws_sdk_sns::Client::new(&account.aws.sdk()));
        let mut outputs = BTreeMap::new();
        for (output, keys) in [
            ("StateTable", ["key"].as_slice()),
            ("RowsTable", &["table_symbol", "at"]),
            ("DeadLettersTable", &["stage", "at"]),
            ("LedgerTable", &["stage_symbol", "day_partition"]),
        ] {
            let table = format!("{name}-{output}");
            let mut create = dynamodb.create_table().table_name(&table).billing_mode(BillingMode::PayPerRequest);
            for (key, kind) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
                let text = ScalarAttributeType::S;
                create = create
                    .key_schema(KeySchemaElement::builder().attribute_name(*key).key_type(kind).build()?)
                    .attribute_definitions(
                        AttributeDefinition::builder().attribute_name(*key).attribute_type(text).build()?,
                    );
            }
            create.send().await.with_context(|| format!("make {table}"))?;
            outputs.insert(output.to_owned(), table);
        }
        for output in ["ObjectsBucket", "ComponentsBucket"] {
            let bucket = format!("{name}-{}", output.to_lowercase());
            s3.create_bucket().bucket(&bucket).send().await.with_context(|| format!("make {bucket}"))?;
            outputs.insert(output.to_owned(), bucket);
        }
        let topic = sns.create_topic().name(format!("{name}-alarms")).send().await?.topic_arn;
        outputs.insert("AlarmsTopicArn".to_owned(), topic.context("the address of a topic")?);
        let mut queues = Vec::new();
        for at in 0..plan.stages.len() + usize::from(plan.watermark.is_none()) {
            let create = sqs.create_queue().queue_name(format!("{name}-{at}.fifo"));
            let create = create.attributes(QueueAttributeName::FifoQueue, "true");
            let create = create.attributes(QueueAttributeName::DeduplicationScope, "messageGroup");
            let create = create.attributes(QueueAttributeName::FifoThroughputLimit, "perMessageGroupId");
            queues.push(create.send().await?.queue_url.context("the address of a queue")?);
        }
        Ok(Self { queues, outputs })
    }

    /// The functions, with the environment that `infra/cdk/src/environment.ts` gives them.
    fn functions(&self, plan: &Plan<'_>, stages: &[String], folder: &Path) -> Result<Vec<Function>> {
        let output = |name: &str| self.outputs.get(name).cloned().unwrap_or_default();
        let last = stages.len().saturating_sub(1);
        let function = |(at, (name, stage)): (usize, (&String, &Value))| {
            let stage = json!([{
                "name": name,
                "component": stage.get("component").cloned().unwrap_or_else(|| name.clone().into()),
                "settings": stage.get("settings").cloned().unwrap_or_else(|| json!({})),
                "memory_mib": stage.get("memory_mib").cloned().unwrap_or_else(|| 256.into()),
                "time_per_batch": stage.get("time_per_batch").cloned().unwrap_or_else(|| "5s".into()),
            }]);
            let mut environment = BTreeMap::from([
                ("TAPELINE_PIPELINE", plan.name.to_owned()),
                ("TAPELINE_STAGES", stage.to_string()),
                ("TAPELINE_PARTITIONS", plan.partitions.to_string()),
                ("TAPELINE_STATE_TABLE", output("StateTable")),
                ("TAPELINE_DEAD_LETTERS_TABLE", output("DeadLettersTable")),
                ("TAPELINE_LEDGER_TABLE", output("LedgerTable")),
                ("TAPELINE_COMPONENTS_BUCKET", output("ComponentsBucket")),
                ("TAPELINE_IN_QUEUE_URL", self.queues.get(at).cloned().unwrap_or_default()),
            ]);
            environment.extend(self.queues.get(at + 1).map(|queue| ("TAPELINE_OUT_QUEUE_URL", queue.clone())));
            if let Some(watermark) = plan.watermark.as_ref().filter(|_| at == 0) {
                environment.insert("TAPELINE_WATERMARK", watermark.to_string());
                environment.insert("TAPELINE_FORMAT", "binance".to_owned());
                environment.insert("TAPELINE_OBJECTS_BUCKET", output("ObjectsBucket"));
            }
            if at == last && plan.watermark.is_some() {
                environment.insert("TAPELINE_ROWS_TABLE", output("RowsTable"));
                environment.insert("TAPELINE_OBJECTS_BUCKET", output("ObjectsBucket"));
                environment.insert("TAPELINE_ALARMS_TOPIC_ARN", output("AlarmsTopicArn"));
            }
            Function {
                name: format!("{}-{name}", plan.name),
                environment,
                package: plan.package.clone(),
                log: folder.join(LOG),
                printed: folder.join(PRINTED),
            }
        };
        Ok(stages.iter().zip(&plan.stages).enumerate().map(function).collect())
    }
}
