//! A pipeline that runs while what it stores is replayed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tapeline_tests::program;

use super::{Result, check, place::Place};

/// How long a live pipeline may take to work off what a test sends; it takes some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What keeps the simulator from sending.
pub(super) const NO_SOURCE: &[(&str, &str)] = &[
    ("type = \"simulator\"", "type = \"none\""),
    ("seed = 1\n", ""),
    ("symbols = [\"BTCUSDT\", \"ETHUSDT\"]", ""),
    ("rate = 50", ""),
    ("noise = 0.33", ""),
];

/// A live pipeline that is stopped with the test at the latest.
pub(super) struct Up {
    child: Child,
    address: String,
}

impl Up {
    pub(super) fn start(place: &Place, pipeline: &Path) -> Result<Self> {
        let mut command = Command::new(program::path());
        command.arg("up").arg(pipeline).arg("--listen").arg("127.0.0.1:0").arg("--data").arg(place.path("data"));
        command.arg("--components").arg(program::components());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        let up = Self { child, address };
        check(!up.address.is_empty(), line)?;
        Ok(up)
    }

    /// Sends frames, and waits until so many trades are rows.
    pub(super) fn send(&self, place: &Place, frames: &[&str], trades: usize) -> Result {
        let url = format!("{}/pipelines/bitcoin-trades/events?format=binance", self.address);
        ureq::post(&url).send(frames.join("\n"))?;
        let started = Instant::now();
        let data = place.path("data");
        // There is no table before the first commit.
        while program::query(&data, &["trades"]).map_or(0, |rows| rows.len()) < trades {
            check(started.elapsed() < PATIENCE, "the trades do not become rows")?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    pub(super) fn stop(mut self) -> Result {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let status = self.child.wait()?;
        check(status.success(), format!("{status}"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It fails when the process has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
