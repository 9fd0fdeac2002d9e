//! A local AWS: ministack, which `cargo xtask test` installs with pip. Without AWS' clients: what needs them has its own.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program;

/// The account that whoever asks without one of its own is taken for.
pub const ACCOUNT: &str = "000000000000";
/// The region of all tests.
pub const REGION: &str = "us-east-1";
/// It takes less than a second.
const START: Duration = Duration::from_secs(60);
/// What is shown of its log when something went wrong.
const LOG_BYTES_SHOWN: usize = 20_000;

/// A server of its own. It ends with this, and with it the functions that run in it.
pub struct LocalAws {
    server: Child,
    port: u16,
    /// What it unpacks, and its log.
    folder: TempDir,
}

impl LocalAws {
    /// Whether it is installed.
    pub fn is_there() -> bool {
        packages().join("ministack").is_dir()
    }

    /// Starts one on a free port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = TempDir::new()?;
        let log = File::create(folder.path().join("log.txt"))?;
        let server = Command::new("python3")
            .args(["-m", "ministack.app"])
            .env("PYTHONPATH", packages())
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("IOT_MTLS_ENABLED", "0")
            .env("TMPDIR", folder.path())
            // Functions are told what it is told itself.
            .env("AWS_ENDPOINT_URL", endpoint(port))
            // What it starts is in its group, and ends with it.
            .process_group(0)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start ministack")?;
        let mut started = Self { server, port, folder };
        let until = Instant::now() + START;
        while !started.answers() {
            if let Some(status) = started.server.try_wait()? {
                bail!("ministack has ended: {status}: {}", started.log());
            }
            if Instant::now() > until {
                bail!("ministack does not answer: {}", started.log());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(started)
    }

    /// Where it is: what all services are asked at.
    pub fn endpoint(&self) -> String {
        endpoint(self.port)
    }

    /// Its port on this machine.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The end of what it and the functions have logged.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log.txt")).unwrap_or_default();
        String::from_utf8_lossy(log.get(log.len().saturating_sub(LOG_BYTES_SHOWN)..).unwrap_or_default()).into_owned()
    }

    /// What whoever asks it has in the environment.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let text = str::to_owned;
        [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", text(REGION)),
            ("AWS_ACCESS_KEY_ID", text("test")),
            ("AWS_SECRET_ACCESS_KEY", text("test")),
        ]
    }

    /// Makes a stack of a template, which is JSON, and waits until it is there.
    ///
    /// # Errors
    /// When it is refused, or does not come to be.
    pub fn create_stack(&self, name: &str, template: &str) -> Result<()> {
        self.ask_cloud_formation(&[("Action", "CreateStack"), ("StackName", name), ("TemplateBody", template)])?;
        let until = Instant::now() + START;
        loop {
            let said = self.ask_cloud_formation(&[("Action", "DescribeStacks"), ("StackName", name)])?;
            if said.contains("CREATE_COMPLETE") {
                return Ok(());
            }
            ensure!(!said.contains("FAILED") && !said.contains("ROLLBACK"), "stack {name}: {said}");
            ensure!(Instant::now() < until, "stack {name} does not come to be: {said}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// An output of a stack.
    ///
    /// # Errors
    /// When there is none of the name.
    pub fn stack_output(&self, stack: &str, output: &str) -> Result<String> {
        let said = self.ask_cloud_formation(&[("Action", "DescribeStacks"), ("StackName", stack)])?;
        let (key, value) = (format!("<OutputKey>{output}</OutputKey>"), ["<OutputValue>", "</OutputValue>"]);
        let found = between(&said, "<member>", "</member>").find(|member| member.contains(&key));
        let found = found.and_then(|member| between(member, value[0], value[1]).next());
        Ok(found.with_context(|| format!("no output {output} in {said}"))?.to_owned())
    }

    fn ask_cloud_formation(&self, parameters: &[(&str, &str)]) -> Result<String> {
        let form = parameters.iter().copied().chain([("Version", "2010-05-15")]);
        let mut answer =
            agent().post(self.endpoint()).header("authorization", signed_for("cloudformation")).send_form(form)?;
        let (status, said) = (answer.status(), answer.body_mut().read_to_string()?);
        ensure!(status.is_success(), "{status}: {said}");
        Ok(said)
    }

    /// How many items a table has.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn count(&self, table: &str) -> Result<u64> {
        let (mut count, mut start) = (0, Value::Null);
        loop {
            let mut asked = json!({ "TableName": table, "Select": "COUNT", "ConsistentRead": true });
            if !start.is_null() {
                asked["ExclusiveStartKey"] = start;
            }
            let ask = agent().post(self.endpoint()).header("x-amz-target", "DynamoDB_20120810.Scan");
            let ask = ask.header("authorization", signed_for("dynamodb")).content_type("application/x-amz-json-1.0");
            let mut answer = ask.send(asked.to_string())?;
            let (status, said) = (answer.status(), answer.body_mut().read_to_string()?);
            ensure!(status.is_success(), "{status}: {said}");
            let mut page: Value = serde_json::from_str(&said)?;
            count += page["Count"].as_u64().with_context(|| format!("a count in {said}"))?;
            start = page["LastEvaluatedKey"].take();
            if start.is_null() {
                return Ok(count);
            }
        }
    }

    /// The keys of a bucket, in their order.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn keys(&self, bucket: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        loop {
            let behind: &str = keys.last().map_or("", String::as_str);
            let page = agent()
                .get(format!("{}/{bucket}", self.endpoint()))
                .query_pairs([("list-type", "2"), ("start-after", behind)])
                .header("authorization", signed_for("s3"))
                .call()?
                .body_mut()
                .read_to_string()?;
            let found: Vec<String> = between(&page, "<Key>", "</Key>").map(str::to_owned).collect();
            if found.is_empty() {
                return Ok(keys);
            }
            keys.extend(found);
        }
    }

    /// An object.
    ///
    /// # Errors
    /// When there is none.
    pub fn object(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        // What a path may hold stands for itself, but for what an address gives a meaning to.
        let path = key.replace('%', "%25").replace('=', "%3D").replace(' ', "%20");
        let ask = agent().get(format!("{}/{bucket}/{path}", self.endpoint())).header("authorization", signed_for("s3"));
        let mut answer = ask.call()?;
        ensure!(answer.status().is_success(), "{key}: {}", answer.status());
        Ok(answer.body_mut().read_to_vec()?)
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET /_ministack/health HTTP/1.0\r\n\r\n")?;
            let mut first = [0; 12];
            stream.read_exact(&mut first)?;
            Ok(first.ends_with(b"200"))
        };
        ask().unwrap_or(false)
    }
}

impl Drop for LocalAws {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.server.id().cast_signed()), Signal::SIGKILL);
        let _ = self.server.wait();
    }
}

/// What lies between two texts, each time.
fn between<'a>(text: &'a str, from: &'a str, to: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(from).skip(1).filter_map(move |rest| rest.split(to).next())
}

/// Says which service is asked; nobody here looks whether it is signed.
fn signed_for(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into()
}

fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Where `cargo xtask test` installs it.
fn packages() -> PathBuf {
    program::components().join("../tools/ministack")
}
