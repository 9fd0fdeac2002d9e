//! `tapeline stage`: brings other versions of stages into a running pipeline, and takes them back.

mod client;
mod show;

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand, ValueEnum};

use self::client::Client;
use super::{
    DataFolder,
    aws::{AwsProgram, OnAws},
    exit::Exit,
    output,
    stage_new::New,
};
use crate::{
    error::{Context as _, Error, Kind, Result},
    pipeline::{Pushed, StageStatus, Standing},
    registry::What,
};

/// How often it is looked whether a version is live.
const LOOK: Duration = Duration::from_millis(100);
/// Ending of a detached signature's file.
const SIGNATURE_ENDING: &str = "minisig";

/// Push, compare, approve, promote and roll back versions of stages, while data flows
#[derive(Args)]
pub(super) struct Stage {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    New(New),
    List(List),
    Show(Show),
    Versions(Versions),
    Push(Push),
    Approve(Approve),
    Diff(Diff),
    Promote(Change),
    Discard(Discard),
    Rollback(Rollback),
    Prune(Prune),
}

/// Where the pipeline is, and who one is.
#[derive(Args)]
struct Host {
    #[command(flatten)]
    data: DataFolder,
    /// Address of a host that runs the pipeline [default: what the data folder says]
    #[arg(long, value_name = "URL")]
    at: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// What the host answers
    Json,
}

/// Write which version of each stage is live
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage list
  tapeline stage list --at http://10.0.0.7:7070 --format json
  tapeline stage list --aws tapeline-bitcoin-trades")]
struct List {
    #[command(flatten)]
    host: Host,
    #[command(flatten)]
    on_aws: OnAws,
    /// How to write it
    #[arg(long, default_value = "text")]
    format: Format,
}

/// Write what is known of a stage: what runs where, what waits for approval and what it wants, what was done
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage show alarm
  tapeline stage show alarm --format json")]
struct Show {
    /// The stage
    stage: String,
    #[command(flatten)]
    host: Host,
    /// How to write it
    #[arg(long, default_value = "text")]
    format: Format,
}

/// Write all versions of a stage that are kept
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage versions alarm")]
struct Versions {
    /// The stage
    stage: String,
    #[command(flatten)]
    host: Host,
}

/// Bring a component in, in place of the live version or beside it
#[derive(Args)]
#[command(after_help = "\
The component is compiled apart, checked, and given a copy of the state that there is; if it does not fit, nothing changes.
It then takes the live version's place at the next commit. As long as it has not taken as many records as `swap.probation`
says, the version before stands by: when the new one traps, exceeds its limits or refuses too many records, that one goes on.
Needs TAPELINE_ADMIN_TOKEN, the same as the host has. A signature FILE.minisig beside the component is sent along.

With --aws it is compiled for functions and checked here, uploaded, and run from the next batch on; as long as it has not taken
10,000 records of a partition, the version before comes back there when it fails. It runs with the settings and limits that the
stack was deployed with. Runs `tapeline-aws` (`cargo xtask lambda`), with the credentials and the region of the environment or
of AWS_PROFILE.

Examples:
  tapeline stage push alarm my-alarm.wasm --why 'ticket 17'
  tapeline stage push alarm my-alarm.wasm --shadow --differences-max 0 --promote-after 100000
  tapeline stage push alarm my-alarm.wasm --settings '{\"relative\": 0.01}'
  tapeline stage push alarm my-alarm.wasm --aws tapeline-bitcoin-trades")]
struct Push {
    /// The stage
    stage: String,
    /// The component
    file: PathBuf,
    /// Run it beside the live version and compare; nobody sees what it gives out
    #[arg(long, conflicts_with = "aws")]
    shadow: bool,
    /// With --shadow: let it go live after so many records [default: by hand]
    #[arg(long, value_name = "RECORDS", requires = "shadow")]
    promote_after: Option<u64>,
    /// With --shadow: throw it out at the first difference beyond this number [default: 0 with --promote-after, otherwise
    /// never]
    #[arg(long, value_name = "NUMBER", requires = "shadow")]
    differences_max: Option<u64>,
    /// Settings of its own, a JSON object [default: those of the pipeline file]
    #[arg(long, value_name = "JSON", conflicts_with = "aws")]
    settings: Option<String>,
    /// Memory that it may use, MiB [default: as in the pipeline file]
    #[arg(long, conflicts_with = "aws")]
    memory_mib: Option<u64>,
    /// Time that it may take for a batch [default: as in the pipeline file]
    #[arg(long, value_name = "TIME", conflicts_with = "aws")]
    time_per_batch: Option<String>,
    /// Why, for the log
    #[arg(long, default_value = "")]
    why: String,
    /// A signature of minisign [default: FILE.minisig, if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "aws")]
    signature: Option<PathBuf>,
    /// Wait so long until it is live; 0s: do not wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration,
          conflicts_with = "aws")]
    wait: Duration,
    #[command(flatten)]
    host: Host,
    #[command(flatten)]
    on_aws: OnAws,
}

/// Let a version in that waits for approval, since it wants more than the live one has
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage show alarm
  tapeline stage approve alarm 3 --why 'it needs the memory'")]
struct Approve {
    /// The stage
    stage: String,
    /// Number of the version, or the first letters of its digest
    version: String,
    /// Why, for the log
    #[arg(long, default_value = "")]
    why: String,
    #[command(flatten)]
    host: Host,
}

/// Write how the candidate of a stage compares: counts, first differences, by symbol
#[derive(Args)]
#[command(after_help = "\
The exit code is 1 when there are differences.

Examples:
  tapeline stage diff alarm")]
struct Diff {
    /// The stage
    stage: String,
    #[command(flatten)]
    host: Host,
}

/// Make the candidate of a stage live
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage promote alarm --why 'no difference in a day'")]
struct Change {
    /// The stage
    stage: String,
    /// Why, for the log
    #[arg(long, default_value = "")]
    why: String,
    #[command(flatten)]
    host: Host,
}

/// Throw the candidate of a stage out
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage discard alarm")]
struct Discard {
    #[command(flatten)]
    change: Change,
}

/// Go back to the version that was live before, or to another one
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage rollback alarm --why 'too many alarms'
  tapeline stage rollback alarm --to 1
  tapeline stage rollback alarm --aws tapeline-bitcoin-trades --to deployed")]
struct Rollback {
    #[command(flatten)]
    change: Change,
    /// Number of the version, or the first letters of its digest; with --aws those, or `deployed` for what the stack was deployed
    /// with [default: the one that was live before]
    #[arg(long)]
    to: Option<String>,
    #[command(flatten)]
    on_aws: OnAws,
}

/// Forget old versions; those in use stay
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline stage prune alarm --keep 10")]
struct Prune {
    /// The stage
    stage: String,
    /// How many of the latest versions stay
    #[arg(long)]
    keep: usize,
    #[command(flatten)]
    host: Host,
}

impl Stage {
    pub(super) fn run(self) -> Result<Exit> {
        match self.task {
            Task::New(task) => task.run(),
            Task::List(task) => task.run(),
            Task::Show(task) => task.run(),
            Task::Versions(task) => task.run(),
            Task::Push(task) => task.run(),
            Task::Approve(task) => task.run(),
            Task::Diff(task) => task.run(),
            Task::Promote(Change { stage, why, host }) => {
                let pushed: Pushed = host.client()?.post(&stage, "promote", &[("why", &why)])?;
                tell(&pushed)
            }
            Task::Discard(Discard { change: Change { stage, why, host } }) => {
                let gone: serde_json::Value = host.client()?.post(&stage, "discard", &[("why", &why)])?;
                say(&format!("thrown out: version {}", gone["versions"][0]))
            }
            Task::Rollback(Rollback { change: Change { stage, why, .. }, to, on_aws: OnAws { aws: Some(stack) } }) => {
                let mut line = vec!["stage".to_owned(), "rollback".to_owned(), stack, stage, format!("--why={why}")];
                line.extend(to.map(|to| format!("--to={to}")));
                AwsProgram::find()?.run(line)
            }
            Task::Rollback(Rollback { change: Change { stage, why, host }, to, .. }) => {
                let mut query = vec![("why", why.as_str())];
                query.extend(to.as_deref().map(|to| ("version", to)));
                let pushed: Pushed = host.client()?.post(&stage, "rollback", &query)?;
                tell(&pushed)
            }
            Task::Prune(task) => {
                let keep = task.keep.to_string();
                let gone: serde_json::Value = task.host.client()?.post(&task.stage, "prune", &[("keep", &keep)])?;
                let gone = gone["versions"].as_array().cloned().unwrap_or_default();
                let numbers = gone.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                say(&format!("forgotten: {}", if numbers.is_empty() { "none" } else { &numbers }))
            }
        }
    }
}

impl Host {
    fn client(&self) -> Result<Client> {
        Client::of(self.at.as_deref(), &self.data.path)
    }
}

impl List {
    fn run(self) -> Result<Exit> {
        if let Some(stack) = &self.on_aws.aws {
            let format = match self.format {
                Format::Text => "--format=text",
                Format::Json => "--format=json",
            };
            return AwsProgram::find()?.run(["stage", "list", stack, format]);
        }
        let client = self.host.client()?;
        let stages: serde_json::Value = client.get("/stages")?;
        match self.format {
            Format::Json => say(&pretty(&stages)),
            Format::Text => show::list(&stages),
        }
    }
}

impl Show {
    fn run(self) -> Result<Exit> {
        let status: StageStatus = self.host.client()?.get(&format!("/stages/{}", self.stage))?;
        match self.format {
            Format::Json => say(&pretty(&status)),
            Format::Text => show::stage(&status),
        }
    }
}

impl Versions {
    fn run(self) -> Result<Exit> {
        let status: StageStatus = self.host.client()?.get(&format!("/stages/{}", self.stage))?;
        show::versions(&status)
    }
}

impl Diff {
    fn run(self) -> Result<Exit> {
        let status: StageStatus = self.host.client()?.get(&format!("/stages/{}", self.stage))?;
        show::diff(&status)
    }
}

impl Approve {
    fn run(self) -> Result<Exit> {
        let query = [("version", self.version.as_str()), ("why", &self.why)];
        let pushed: Pushed = self.host.client()?.post(&self.stage, "approve", &query)?;
        tell(&pushed)
    }
}

impl Push {
    fn run(self) -> Result<Exit> {
        if let Some(stack) = &self.on_aws.aws {
            return AwsProgram::find()?.push(stack, &self.stage, &self.file, &self.why);
        }
        let client = self.host.client()?;
        let bytes = std::fs::read(&self.file).doing(|| format!("read {}", self.file.display()))?;
        let signature = self.signature()?;
        let mut query = vec![("mode", if self.shadow { "shadow".to_owned() } else { "swap".to_owned() })];
        let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
        add("promote_after", self.promote_after.map(|records| records.to_string()));
        add("differences_max", self.differences_max.map(|number| number.to_string()));
        add("settings", self.settings.clone());
        add("memory_mib", self.memory_mib.map(|mib| mib.to_string()));
        add("time_per_batch", self.time_per_batch.clone());
        add("why", Some(self.why.clone()).filter(|why| !why.is_empty()));
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let began = Instant::now();
        let pushed: Pushed = client.put(&self.stage, &query, signature.as_deref(), &bytes)?;
        tell(&pushed)?;
        match pushed.standing {
            Standing::Live if !self.wait.is_zero() => self.wait_until_live(&client, &pushed, began),
            _ => Ok(Exit::Fine),
        }
    }

    fn signature(&self) -> Result<Option<String>> {
        let mut beside = self.file.clone().into_os_string();
        beside.push(".");
        beside.push(SIGNATURE_ENDING);
        let beside = Some(PathBuf::from(beside)).filter(|path| path.exists());
        let Some(path) = self.signature.clone().or(beside) else { return Ok(None) };
        std::fs::read_to_string(&path).doing(|| format!("read {}", path.display())).map(Some)
    }

    /// Waits until a worker runs it, or it has been taken back.
    fn wait_until_live(&self, client: &Client, pushed: &Pushed, began: Instant) -> Result<Exit> {
        while began.elapsed() < self.wait {
            let status: StageStatus = client.get(&format!("/stages/{}", self.stage))?;
            let back = status.deployment.log.iter().rev().find(|logged| logged.version == pushed.version);
            if let Some(back) = back.filter(|logged| logged.what == What::RolledBack) {
                return Err(Error::invalid(format!("run version {}: it was taken back: {}", pushed.version, back.why)));
            }
            if status.deployment.live != pushed.version {
                let live = status.deployment.live;
                return say(&format!("another version is live by now: {live}"));
            }
            if status.workers.values().any(|worker| worker.live == pushed.version) {
                return say(&format!("version {} runs", pushed.version));
            }
            std::thread::sleep(LOOK);
        }
        let wait = humantime::format_duration(self.wait);
        let message = format!("see version {} run: no worker has taken it up in {wait}", pushed.version);
        Err(Error::new(Kind::Unavailable, message))
    }
}

fn tell(pushed: &Pushed) -> Result<Exit> {
    let Pushed { stage, version, digest, standing, wants, notes } = pushed;
    let short = digest.get(..12).unwrap_or(digest);
    let text = match standing {
        Standing::Live => format!("{stage}: version {version} ({short}) goes live at the next commit"),
        Standing::Shadow => format!(
            "{stage}: version {version} ({short}) runs beside the live one; `tapeline stage diff {stage}` compares"
        ),
        Standing::Pending => format!(
            "{stage}: version {version} ({short}) waits for approval, since it wants more than the live one has:\n  {}\n`tapeline stage approve {stage} {version}` lets it in",
            wants.join("\n  ")
        ),
    };
    notes.iter().fold(say(&text), |said, note| said.and_then(|_| say(&format!("  note: {}", output::visible(note)))))
}

fn say(text: &str) -> Result<Exit> {
    let mut out = output::lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(Exit::Fine)
}

fn pretty<T: serde::Serialize>(value: &T) -> String {
    // What was read as JSON can be written as it.
    serde_json::to_string_pretty(value).unwrap_or_default()
}
