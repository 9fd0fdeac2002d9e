//! A local AWS: ministack, which `cargo xtask test` installs with pip.

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

use anyhow::{Context as _, Result, bail};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_dynamodb::config::BehaviorVersion;
use aws_types::{SdkConfig, region::Region};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tapeline_tests::program;
use tempfile::TempDir;

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

    /// Settings of a client of any service.
    pub fn sdk(&self) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(self.endpoint())
            .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys("test", "test", None)))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build()
    }

    /// Settings of a client of DynamoDB.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Config {
        aws_sdk_dynamodb::Config::from(&self.sdk())
    }

    /// Settings of a client of S3: names of buckets are no names of this machine.
    pub fn s3(&self) -> aws_sdk_s3::Config {
        aws_sdk_s3::config::Builder::from(&self.sdk()).force_path_style(true).build()
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

fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Where `cargo xtask test` installs it.
fn packages() -> PathBuf {
    program::components().join("../tools/ministack")
}
