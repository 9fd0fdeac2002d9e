//! A local AWS: ministack, which `cargo xtask test` installs with pip.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use tapeline_harness::program;

/// It takes a second or two.
const START: Duration = Duration::from_secs(60);

/// A server of its own, which ends with this.
pub struct LocalAws {
    server: Child,
    port: u16,
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
        let server = Command::new("python3")
            .args(["-m", "ministack.app"])
            .env("PYTHONPATH", packages())
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("IOT_MTLS_ENABLED", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start ministack")?;
        let mut started = Self { server, port };
        let until = Instant::now() + START;
        while !started.answers() {
            if let Some(status) = started.server.try_wait()? {
                bail!("ministack has ended: {status}");
            }
            if Instant::now() > until {
                bail!("ministack does not answer");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(started)
    }

    /// Where it is: what all services are asked at.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Settings of a client of DynamoDB.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Config {
        aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(self.endpoint())
            .credentials_provider(Credentials::from_keys("test", "test", None))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build()
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
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Where `cargo xtask test` installs it.
fn packages() -> PathBuf {
    program::components().join("../tools/ministack")
}
