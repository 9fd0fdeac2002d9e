//! A pipeline's stack, deployed to a local AWS by the command line of the CDK, as a user does it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::Value;
use tapeline_aws::message::{ENTRANCE_GROUP, Raw};
use tapeline_harness::program;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    assembly::Assembly,
    local_aws::{ACCOUNT, LocalAws, REGION},
};

/// How long the functions may take for a job; it takes seconds on a machine that does nothing else.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// One call.
const CALL: Duration = Duration::from_secs(60);

/// An account that stacks can be deployed to.
pub struct Account {
    /// What it is.
    pub aws: LocalAws,
    /// What waits for answers of services.
    pub runtime: Runtime,
}

impl Account {
    /// Whether what it needs is installed: the local AWS, and the CDK.
    pub fn is_there() -> bool {
        LocalAws::is_there() && cdk().is_file()
    }

    /// Starts one, and prepares it for the CDK.
    ///
    /// # Errors
    /// When something does not start.
    pub fn open() -> Result<Self> {
        let aws = LocalAws::start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let account = Self { aws, runtime };
        // Without an app: nothing of ours is needed for it.
        account.run_cdk(&["bootstrap", &format!("aws://{ACCOUNT}/{REGION}"), "--app", ""])?;
        Ok(account)
    }

    pub(crate) fn run_cdk(&self, arguments: &[&str]) -> Result<()> {
        // It leaves some things where temporary files are.
        let temporary = TempDir::new()?;
        let output = Command::new(cdk())
            .args(arguments)
            .current_dir(folder())
            .env("TMPDIR", temporary.path())
            // The number instead of the name would make addresses of buckets that nobody knows.
            .env("AWS_ENDPOINT_URL", format!("http://localhost:{}", self.aws.port()))
            .env("NO_PROXY", "localhost,127.0.0.1")
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", REGION)])
            .env_remove("AWS_PROFILE")
            .stdin(Stdio::null())
            .output()
            .context("start the CDK")?;
        let said = || [&output.stdout[..], &output.stderr].concat();
        let verb = arguments.first().copied().unwrap_or_default();
        ensure!(output.status.success(), "cdk {verb}: {}\n{}", output.status, String::from_utf8_lossy(&said()));
        Ok(())
    }
}

/// A stack, and what its outputs say.
pub struct Stack {
    /// Where it is.
    pub account: Arc<Account>,
    /// Its name; none of what was made by hand.
    pub name: String,
    /// The stages in the order of the data, each with a function of its own.
    pub stages: Vec<String>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) template: Value,
    /// What it was deployed from.
    pub(crate) assembly: Option<TempDir>,
}

impl Stack {
    /// Synthesizes the stack of a pipeline, with a package of functions and more context, and deploys the template.
    ///
    /// # Errors
    /// When it cannot be deployed; says what the CDK said.
    pub fn deploy(account: &Arc<Account>, pipeline: &Path, package: &Path, context: &[&str]) -> Result<Self> {
        let package = format!("package={}", package.display());
        // What empties buckets when a stack goes is a function of the CDK's, which the local AWS cannot run. And a call of a
        // function while another one runs must not be refused: a batch comes back only after minutes.
        let context = [&["keep=true", "concurrency=unreserved", &package], context].concat();
        Assembly::synthesize(account, pipeline, &context)?.deploy()
    }

    /// Takes it away.
    ///
    /// # Errors
    /// When something does not go; says what the CDK said.
    pub fn destroy(&self) -> Result<()> {
        let assembly = self.assembly.as_ref().context("what it was deployed from")?;
        self.account.run_cdk(&["destroy", "--force", "--app", text(assembly.path())?])
    }

    /// What is like a stack, and was made without the CDK: its stages, and the outputs that it would have.
    pub const fn by_hand(account: Arc<Account>, stages: Vec<String>, outputs: BTreeMap<String, String>) -> Self {
        Self { account, name: String::new(), stages, outputs, template: Value::Null, assembly: None }
    }

    /// An output, such as `RowsTable`.
    ///
    /// # Errors
    /// When there is none of the name.
    pub fn output(&self, name: &str) -> Result<&str> {
        self.outputs.get(name).map(String::as_str).with_context(|| format!("no output {name} in {:?}", self.outputs))
    }

    /// Where its HTTP API is on this machine.
    ///
    /// # Errors
    /// When the stack has no address.
    pub fn url(&self) -> Result<String> {
        let url = self.output("ApiUrl")?;
        let api = url.split("://").nth(1).and_then(|host| host.split('.').next());
        let api = api.with_context(|| format!("the name of an API in {url}"))?;
        Ok(format!("{}/_aws/execute-api/{api}/$default", self.account.aws.endpoint()))
    }

    /// What callers over HTTP must show.
    ///
    /// # Errors
    /// When the stack was not deployed with authorization "token".
    pub fn token(&self) -> Result<String> {
        let client = aws_sdk_secretsmanager::Client::new(&self.account.aws.sdk());
        let secret = client.get_secret_value().secret_id(self.output("TokenSecretArn")?).send();
        let secret = self.account.runtime.block_on(secret).context("read the token")?;
        Ok(secret.secret_string().context("a token")?.to_owned())
    }

    /// Of a stage: its function, its queue or its dead-letter queue, as `kind` says.
    ///
    /// # Errors
    /// When there is none.
    pub fn output_of(&self, kind: &str, stage: &str) -> Result<&str> {
        let upper = stage
            .split('-')
            .flat_map(|word| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)));
        self.output(&upper.fold(kind.to_owned(), |name, letter| name + letter.encode_utf8(&mut [0; 4])))
    }

    /// The bucket and the key of the package that the functions were made of.
    ///
    /// # Errors
    /// When the template names none.
    pub fn package(&self) -> Result<(String, String)> {
        let resources = self.template["Resources"].as_object().context("resources")?;
        let functions = resources.values().filter(|resource| resource["Type"] == "AWS::Lambda::Function");
        let code = functions.map(|function| &function["Properties"]["Code"]).next().context("a function")?;
        let bucket = code["S3Bucket"]["Fn::Sub"].as_str().context("a bucket")?;
        let bucket = bucket.replace("${AWS::AccountId}", ACCOUNT).replace("${AWS::Region}", REGION);
        Ok((bucket, code["S3Key"].as_str().context("a key")?.to_owned()))
    }

    /// Sends lines into the pipeline over HTTP.
    ///
    /// # Errors
    /// When they are not taken.
    pub fn send(&self, pipeline: &str, format: &str, lines: &[&str]) -> Result<()> {
        let url = format!("{}/pipelines/{pipeline}/events?format={format}", self.url()?);
        let request = agent().post(&url).content_type("application/x-ndjson");
        let request = request.header("authorization", format!("Bearer {}", self.token()?));
        let mut answer = request.send(lines.join("\n"))?;
        let (status, said) = (answer.status(), answer.body_mut().read_to_string()?);
        ensure!(status == 202, "{status}: {said}");
        ensure!(said.contains(&format!("\"accepted\":{}", lines.len())), "{} lines were sent: {said}", lines.len());
        Ok(())
    }

    /// Says that nothing comes any more: all that is still open is closed.
    ///
    /// # Errors
    /// When the first queue does not take it.
    pub fn end(&self) -> Result<()> {
        let client = aws_sdk_sqs::Client::new(&self.account.aws.sdk());
        let first = self.stages.first().context("a stage")?;
        let message = client
            .send_message()
            .queue_url(self.output_of("Queue", first)?)
            .message_body(Raw::Mark { mark: i64::MAX, quiet_since: None }.encode());
        let message = message.message_group_id(ENTRANCE_GROUP).message_deduplication_id("end");
        self.account.runtime.block_on(message.send()).context("send the end")?;
        Ok(())
    }

    /// Lets messages that failed come back after so long, instead of minutes.
    ///
    /// # Errors
    /// When a queue cannot be changed.
    pub fn set_visibility_timeout(&self, timeout: Duration) -> Result<()> {
        let client = aws_sdk_sqs::Client::new(&self.account.aws.sdk());
        for stage in &self.stages {
            let change = client.set_queue_attributes().queue_url(self.output_of("Queue", stage)?);
            let change = change.attributes(QueueAttributeName::VisibilityTimeout, timeout.as_secs().to_string());
            self.account.runtime.block_on(change.send())?;
        }
        Ok(())
    }

    /// Waits until all that was sent has been through.
    ///
    /// # Errors
    /// When that takes too long, or a message came to a dead-letter queue.
    pub fn wait_until_done(&self) -> Result<()> {
        let started = Instant::now();
        while let Some(waiting) = self.waiting()? {
            ensure!(started.elapsed() < PATIENCE, "{waiting} after {PATIENCE:?}\n{}", self.account.aws.log());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Where messages are; `None` when there are none and none can come any more. A message is in the next queue before
    /// it leaves the one before, so that queues that are empty when asked in this order stay empty.
    fn waiting(&self) -> Result<Option<String>> {
        for stage in &self.stages {
            let dead = self.messages(self.output_of("DeadLetterQueue", stage)?)?;
            ensure!(dead == 0, "{dead} messages failed before {stage}\n{}", self.account.aws.log());
            let messages = self.messages(self.output_of("Queue", stage)?)?;
            if messages > 0 {
                return Ok(Some(format!("{messages} messages wait before {stage}")));
            }
        }
        Ok(None)
    }

    /// The processes that run the functions at present.
    ///
    /// # Errors
    /// When this machine does not say what runs on it.
    pub fn instances(&self) -> Result<Vec<i32>> {
        let names: Vec<String> = self
            .stages
            .iter()
            .map(|stage| self.output_of("Function", stage))
            .map(|name| Ok(format!("AWS_LAMBDA_FUNCTION_NAME={}", name?)))
            .collect::<Result<_>>()?;
        let is_function = |environment: &[u8]| {
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| names.iter().any(|name| name.as_bytes() == variable))
        };
        let processes = fs::read_dir("/proc")?.filter_map(Result::ok);
        let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        // One that has ended meanwhile has no environment.
        let environment = |id: &i32| fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        Ok(ids.filter(|id| is_function(&environment(id))).collect())
    }

    fn messages(&self, queue: &str) -> Result<u64> {
        let client = aws_sdk_sqs::Client::new(&self.account.aws.sdk());
        let ask = client.get_queue_attributes().queue_url(queue);
        let found = self.account.runtime.block_on(ask.attribute_names(QueueAttributeName::All).send())?;
        let counts = found.attributes().context("attributes of a queue")?;
        let counts = counts.iter().filter(|(name, _)| name.as_str().starts_with("ApproximateNumberOfMessages"));
        counts.map(|(_, count)| Ok(count.parse::<u64>()?)).sum()
    }
}

/// The package that `cargo xtask lambda` has built.
///
/// # Panics
/// When it has not been built; says how to.
pub fn package() -> PathBuf {
    let folder = program::components().join("../lambda/x86_64");
    assert!(folder.join("bootstrap").exists(), "{} is missing: `cargo xtask lambda` makes it", folder.display());
    folder
}

/// What asks over HTTP: answers of any status are answers.
pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    config.timeout_global(Some(CALL)).build().into()
}

/// The names of a pipeline's stages, in the order of its file.
pub(crate) fn stages(pipeline: &Path) -> Result<Vec<String>> {
    let file: toml::Table = toml::from_str(&fs::read_to_string(pipeline)?)?;
    let stages = file.get("stages").and_then(toml::Value::as_array).context("stages")?;
    let name = |stage: &toml::Value| stage.get("name").and_then(toml::Value::as_str).map(str::to_owned);
    stages.iter().map(|stage| name(stage).context("the name of a stage")).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/cdk")
}

fn cdk() -> PathBuf {
    folder().join("node_modules/.bin/cdk")
}

/// The path as text.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}
