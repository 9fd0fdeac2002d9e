//! `tapeline-aws stage`: which version each stage is pointed to, and pointing it elsewhere.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tapeline_aws::operate::{CompiledFile, Listed, Pointed, Pushed, To, list, push, rollback};

use crate::{
    change, find,
    output::{Failure, say, table, visible},
};

/// Push, list and roll back versions of stages
#[derive(Args)]
pub(crate) struct Stage {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    List(List),
    Push(Push),
    Rollback(Rollback),
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// A list of objects
    Json,
}

/// Write what each stage is pointed to, since when, by whom and why
#[derive(Args)]
#[command(after_help = "\
A version that failed on what the one before took is not run any more by that partition: `taken
back` says so.

Examples:
  tapeline-aws stage list tapeline-bitcoin-trades
  tapeline-aws stage list tapeline-bitcoin-trades --format json")]
struct List {
    /// The stack
    stack: String,
    /// How to write it
    #[arg(long, default_value = "text")]
    format: Format,
}

/// Bring a compiled component in, in place of what a stage runs
#[derive(Args)]
#[command(after_help = "\
The component must be of the stage's world and start with its settings. It is run from the next
batch on. `tapeline stage push STAGE FILE --aws STACK` compiles a component and calls this.

Examples:
  tapeline-aws stage push tapeline-prices alarm --compiled DIGEST-ENGINES.cwasm
  tapeline-aws stage push tapeline-prices alarm --compiled FILE --architecture arm64 --why 'a fix'")]
struct Push {
    /// The stack
    stack: String,
    /// The stage
    stage: String,
    /// What `tapeline compile` has made of the component: DIGEST-ENGINES.cwasm. It is run here, to look at it
    #[arg(long, value_name = "FILE")]
    compiled: PathBuf,
    /// What it was compiled for
    #[arg(long, default_value = HERE, value_parser = ["x86_64", "arm64"])]
    architecture: String,
    /// Why, for those who look later; 80 letters are kept
    #[arg(long, default_value = "")]
    why: String,
}

/// Point a stage to what it ran before
#[derive(Args)]
#[command(after_help = "\
Without --to it is what the stage was pointed to before, so that the same once more goes forth
again. What --to names must have been pushed to some stage, for the engines that the functions have
now.

Examples:
  tapeline-aws stage rollback tapeline-bitcoin-trades alarm
  tapeline-aws stage rollback tapeline-bitcoin-trades alarm --to deployed --why 'too many alarms'
  tapeline-aws stage rollback tapeline-bitcoin-trades alarm --to 3f2a91")]
struct Rollback {
    /// The stack
    stack: String,
    /// The stage
    stage: String,
    /// The first letters of a digest, or `deployed`: what the stack was deployed with [default: what it was before]
    #[arg(long, value_parser = To::parse)]
    to: Option<To>,
    /// Why, for those who look later; 80 letters are kept
    #[arg(long, default_value = "")]
    why: String,
}

/// What a component is compiled for on this machine.
const HERE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };

impl Stage {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.task {
            Task::List(task) => task.run().await,
            Task::Push(task) => task.run().await,
            Task::Rollback(task) => task.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let (account, stack) = find(&self.stack).await?;
        let stages = list(&account, &stack).await?;
        match self.format {
            Format::Json => {
                let text = Value::from_iter(stages.iter().map(object));
                say(&format!("{text:#}"))?;
            }
            Format::Text => {
                let rows: Vec<_> = stages.iter().map(row).collect();
                table(["stage", "pointed to", "since", "before", "by", "taken back", "why"], &rows)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn object(listed: &Listed) -> Value {
    let pointer = &listed.pointer;
    let refused = listed.refused.iter();
    let refused = refused.map(|refused| json!({ "digest": refused.digest, "partitions": refused.partitions }));
    json!({
        "stage": pointer.stage,
        "to": pointer.to.as_str(),
        "since": pointer.since,
        "before": pointer.before.as_ref().map(Pointed::as_str),
        "by": pointer.by,
        "why": pointer.why,
        "taken_back": Value::from_iter(refused),
    })
}

fn row(listed: &Listed) -> [String; 7] {
    let pointer = &listed.pointer;
    let refused = listed.refused.iter().map(|refused| {
        let partitions: Vec<String> = refused.partitions.iter().map(ToString::to_string).collect();
        format!("{} by partition {}", Pointed::To(refused.digest.clone()), partitions.join(", "))
    });
    [
        pointer.stage.clone(),
        pointer.to.to_string(),
        pointer.since.clone().unwrap_or_default(),
        pointer.before.as_ref().map(ToString::to_string).unwrap_or_default(),
        visible(&pointer.by),
        refused.collect::<Vec<_>>().join("; "),
        visible(&pointer.why),
    ]
}

impl Push {
    async fn run(self) -> Result<ExitCode, Failure> {
        let compiled = CompiledFile::read(&self.compiled, &self.architecture)?;
        let (account, stack) = find(&self.stack).await?;
        let pushed = push(&account, &stack, &self.stage, compiled, &change(self.why)).await?;
        let Pushed { from, to, component, is_new } = pushed;
        let component = visible(&component);
        let there = if is_new { "" } else { ", which was there" };
        say(&match from == to {
            true => {
                format!("{}: was pointed to {to} already ({component}); `stage list` says who took it back", self.stage)
            }
            false => format!("{}: from {from} to {to} ({component}{there}), from the next batch on", self.stage),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Rollback {
    async fn run(self) -> Result<ExitCode, Failure> {
        let (account, stack) = find(&self.stack).await?;
        let to = self.to.unwrap_or(To::Before);
        let (from, to) = rollback(&account, &stack, &self.stage, &to, &change(self.why)).await?;
        say(&match from == to {
            true => format!("{}: was pointed to {to} already", self.stage),
            false => format!("{}: from {from} to {to}, from the next batch on", self.stage),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
