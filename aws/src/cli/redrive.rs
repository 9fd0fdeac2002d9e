//! `tapeline-aws redrive`: messages that functions could not take, once more.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use tapeline_aws::operate::{Redriven, Waiting, redrive, waiting};

use crate::{
    find,
    output::{Failure, say},
};

/// Send what is in dead-letter queues back to the queues it came from
#[derive(Args)]
#[command(after_help = "\
A message comes to a dead-letter queue when its function has failed on it a thousand times; the
function's log says why. SQS moves them by itself: what it has begun goes on when this program has
ended. Records that a stage could not take are not messages: they are in the table of dead letters.
The exit code is 1 when a redrive failed.

Examples:
  tapeline-aws redrive tapeline-bitcoin-trades --dry-run
  tapeline-aws redrive tapeline-bitcoin-trades
  tapeline-aws redrive tapeline-bitcoin-trades --function dedup --wait 5m")]
pub(crate) struct Redrive {
    /// The stack
    stack: String,
    /// Only this function, by the name of one of its stages [default: all]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Only say what there is
    #[arg(long)]
    dry_run: bool,
    /// Wait so long for SQS to be done; 0s: do not wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

impl Redrive {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (account, stack) = find(&self.stack).await?;
        let found = waiting(&account, &stack, self.function.as_deref()).await?;
        let mut code = ExitCode::SUCCESS;
        for waiting in &found {
            let is_running = waiting.last.as_ref().is_some_and(Redriven::is_running);
            if self.dry_run || (waiting.messages == 0 && !is_running) {
                say(&told(waiting))?;
                continue;
            }
            let before = if is_running { "; SQS was at it already" } else { "" };
            let redriven = redrive(&account, waiting, self.wait).await?;
            if !redriven.is_done() && !redriven.is_running() {
                code = ExitCode::FAILURE;
            }
            say(&format!(
                "{}: {} in its dead-letter queue{before}; {}",
                waiting.function,
                messages(waiting.messages),
                how(&redriven)
            ))?;
        }
        Ok(code)
    }
}

/// What there is.
fn told(waiting: &Waiting) -> String {
    let last = waiting.last.as_ref().map(|last| format!("; the last redrive: {}", how(last))).unwrap_or_default();
    format!("{}: {} in its dead-letter queue{last}", waiting.function, messages(waiting.messages))
}

fn messages(number: u64) -> String {
    match number {
        0 => "nothing".to_owned(),
        1 => "1 message".to_owned(),
        number => format!("{number} messages"),
    }
}

fn how(redriven: &Redriven) -> String {
    let Redriven { status, moved, of, reason } = redriven;
    let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let status = status.to_lowercase();
    format!("{status}, {moved}{of} moved{reason}")
}
