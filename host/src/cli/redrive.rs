//! `tapeline redrive`: messages that the functions of a pipeline on AWS could not take, once more.

use std::time::Duration;

use clap::Args;

use super::{aws::AwsProgram, exit::Exit};
use crate::error::Result;

/// Send what is in the dead-letter queues of a pipeline on AWS back to the queues it came from
#[derive(Args)]
#[command(after_help = "\
A message comes there when its function has failed on it a thousand times; the function's log says
why. Records that a stage could not take are not messages: they are in the table of dead letters.
Runs `tapeline-aws` (`cargo xtask lambda`), with the credentials and the region of the environment
or of AWS_PROFILE.

Examples:
  tapeline redrive --aws tapeline-bitcoin-trades --dry-run
  tapeline redrive --aws tapeline-bitcoin-trades --function dedup")]
pub(super) struct Redrive {
    /// Name of the pipeline's stack: tapeline-PIPELINE
    #[arg(long, value_name = "STACK")]
    aws: String,
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
    pub(super) fn run(self) -> Result<Exit> {
        AwsProgram::find()?.run(self.line())
    }

    fn line(self) -> Vec<String> {
        let mut line =
            vec!["redrive".to_owned(), self.aws, format!("--wait={}", humantime::format_duration(self.wait))];
        line.extend(self.function.map(|function| format!("--function={function}")));
        line.extend(self.dry_run.then(|| "--dry-run".to_owned()));
        line
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        redrive: Redrive,
    }

    #[test]
    fn what_is_told_is_passed_on() {
        let line =
            |words: &[&str]| Line::try_parse_from([&["redrive"], words].concat()).map(|line| line.redrive.line());
        assert_eq!(line(&["--aws", "s"]).unwrap(), ["redrive", "s", "--wait=30s"]);
        let all = line(&["--aws", "s", "--function", "dedup", "--dry-run", "--wait", "90s"]).unwrap();
        assert_eq!(all, ["redrive", "s", "--wait=1m 30s", "--function=dedup", "--dry-run"]);
        assert!(line(&[]).is_err());
    }
}
