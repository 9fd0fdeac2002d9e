//! How fast a stage answers over HTTP, on one connection that is kept alive.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::program;

/// Requests before it counts, and requests that count.
const WARM_UP: usize = 2_000;
const REQUESTS: usize = 20_000;

const TRADE: &str = r#"{"kind":"trade","symbol":"BTCUSDT","time":"2024-08-08T23:54:15.342Z","source":"binance","id":3735683259,"price":61837.63,"size":0.02}"#;

/// A pipeline that only listens; stopped when it is dropped.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // It is gone already when this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Requests a second, and the 99th percentile of their time, for one trade through dedup.
///
/// # Errors
/// When the program does not start or does not answer as it should.
pub fn measure(folder: &Path) -> Result<(f64, Duration)> {
    let mut up = Up(Command::new(program::path())
        .args(["up", "--no-source", "--listen", "127.0.0.1:0", "--components"])
        .arg(program::components())
        .arg("--data")
        .arg(folder.join("invoke"))
        .arg(program::bitcoin_pipeline())
        .stdout(Stdio::piped())
        .spawn()?);
    let mut line = String::new();
    BufReader::new(up.0.stdout.take().context("the program has an output")?).read_line(&mut line)?;
    let address = line.trim().rsplit("http://").next().context("an address")?.to_owned();
    let stream = TcpStream::connect(&address)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = format!(
        "POST /stages/dedup/invoke HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{TRADE}",
        TRADE.len()
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
        answer(&mut reader)?;
        times.push(sent.elapsed());
    }
    let rate = REQUESTS as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok((rate, times[times.len() * 99 / 100]))
}

/// Reads one answer, which must be good and hold the trade.
fn answer(reader: &mut BufReader<TcpStream>) -> Result<()> {
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
    ensure!(body.starts_with(b"{\"kind\":\"trade\""), "{}", String::from_utf8_lossy(&body));
    Ok(())
}
