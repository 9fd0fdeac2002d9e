//! How fast a stage answers over HTTP, on one connection that is kept alive, next to `wasmtime serve` with a component
//! that does nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{listening::Listening, program};

/// Requests before it counts, and requests that count.
const WARM_UP: usize = 2_000;
const REQUESTS: usize = 20_000;

const TRADE: &str = r#"{"kind":"trade","symbol":"BTCUSDT","time":"2024-08-08T23:54:15.342Z","source":"binance","id":3735683259,"price":61837.63,"size":0.02}"#;

/// How fast a server answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Answers {
    /// Requests a second.
    pub per_second: f64,
    /// 99th percentile of their time.
    pub p99_seconds: f64,
}

fn measure(address: &str, path: &str, body: &str, expected: &str) -> Result<Answers> {
    let stream = TcpStream::connect(address).with_context(|| format!("connect to {}", address))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{body}",
        address,
        body.len()
    );
    let mut times = Vec::with_capacity(REQUESTS);
    let mut started = Instant::now();
    for number in 0..WARM_UP + REQUESTS {
        if number == WARM_UP {
            started = Instant::now();
            times.clear();
        }
        let sent = Instant::now();
        (&stream).write_all(request.as_bytes())?;
        let body = answer(&mut reader)?;
        ensure!(body.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&body));
        times.push(sent.elapsed());
    }
    let per_second = REQUESTS as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or(Duration::MAX);
    Ok(Answers { per_second, p99_seconds: p99.as_secs_f64() })
}

/// One trade through dedup.
///
/// # Errors
/// When the program does not start or does not answer as it should.
pub fn of_stage(folder: &Path) -> Result<Answers> {
    let mut up = Command::new(program::path());
    up.args(["up", "--no-source", "--listen", "127.0.0.1:0", "--components"]).arg(program::components());
    up.arg("--data").arg(folder.join("invoke")).arg(program::bitcoin_pipeline());
    let server = Listening::start(up.stdout(Stdio::piped()))?;
    measure(&server.address, "/stages/dedup/invoke", TRADE, "{\"kind\":\"trade\"")
}

/// The same request to `wasmtime serve`; `None` when there is no `wasmtime` on the path.
///
/// # Errors
/// When it does not start or does not answer as it should.
pub fn of_wasmtime() -> Result<Option<Answers>> {
    let mut version = Command::new("wasmtime");
    if version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let mut serve = Command::new("wasmtime");
    serve.args(["serve", "--addr", "127.0.0.1:0"]).arg(program::components().join("test/nothing.wasm"));
    let server = Listening::start(serve.stderr(Stdio::piped()))?;
    measure(&server.address, "/", TRADE, "").map(Some)
}

/// Reads one answer, which must be good; gives its body.
fn answer(reader: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let (mut line, mut length, mut is_first) = (String::new(), 0, true);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if std::mem::take(&mut is_first) {
            ensure!(line.contains(" 200 "), "{line}");
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}
