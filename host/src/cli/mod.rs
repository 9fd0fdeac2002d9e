//! The program's commands: reads the command line, calls the library, writes what comes of it.
//!
//! One file per command; what they share is here, in `output.rs` (standard output), `rows.rs` (tables, CSV, JSON) and
//! `exit.rs` (errors and exit codes). Nothing here knows how a pipeline works.

mod aws;
mod backtest;
mod cdk;
mod chained;
mod check;
mod compile;
mod compile_component;
mod dead_letters;
mod deploy;
mod destroy;
mod doctor;
mod exit;
mod explain;
mod invoke;
mod ledger;
mod local_server;
mod output;
mod query;
mod redrive;
mod replay;
mod rows;
mod run;
mod simulate;
mod stage;
mod stage_new;
mod tail;
mod up;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use tapeline_events::{Day, parse_time};
use tracing_subscriber::EnvFilter;

use self::exit::Exit;
use crate::{
    error::{Error, Kind, Result},
    pipeline::{
        Components,
        replay::{Recorded, Window},
        spec::Pipeline,
    },
    runtime::{CompiledCache, Engine},
};

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well; also when whoever reads the output has stopped reading
  1  it failed, or (ledger) the ledger does not balance, or (doctor) something is wrong, or (explain) the alarm does not
     come out again
  2  wrong usage, or a pipeline, component, table or file that is not there or wrong
  3  (run) finished, with new dead letters";

/// Runs pipelines of WebAssembly stages over market events, and loses nothing.
#[derive(Parser)]
#[command(name = "tapeline", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What all commands have.
#[derive(Args)]
#[command(next_help_heading = "General options")]
struct Globals {
    /// Folder of the components [default: beside the program, or ../target/components from the pipeline file]
    #[arg(long, global = true, value_name = "DIR", env = "TAPELINE_COMPONENTS")]
    components: Option<PathBuf>,
    /// Folder for compiled components [default: tapeline in the user's cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "TAPELINE_CACHE")]
    cache: Option<PathBuf>,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as tapeline=debug
    #[arg(long, global = true, value_name = "LEVEL", env = "TAPELINE_LOG", default_value = "warn")]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Run(run::Run),
    Invoke(invoke::Invoke),
    Query(query::QueryCommand),
    Tail(tail::Tail),
    Ledger(ledger::Ledger),
    DeadLetters(dead_letters::DeadLetters),
    Replay(replay::Replay),
    Backtest(backtest::Backtest),
    Explain(explain::Explain),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Simulate(simulate::Simulate),
    Stage(stage::Stage),
    Compile(compile::Compile),
    Deploy(deploy::Deploy),
    Destroy(destroy::Destroy),
    Redrive(redrive::Redrive),
    #[command(hide = true)]
    CompileComponent(compile_component::CompileComponent),
}

/// The folder where a pipeline keeps what must not be lost.
#[derive(Args)]
struct DataFolder {
    /// Folder of the pipeline's data
    #[arg(long = "data", value_name = "DIR", default_value = "./data")]
    path: PathBuf,
}

/// A window of event time.
#[derive(Args)]
struct WindowArgs {
    /// Only events of this time and later: a day, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time_arg)]
    from: Option<i64>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time_arg)]
    to: Option<i64>,
}

/// Whose settings stages have that ran before.
#[derive(Args)]
struct SettingsArgs {
    /// Give all stages the settings of the pipeline file, also those whose component ran with others
    #[arg(long)]
    file_settings: bool,
}

impl SettingsArgs {
    fn apply(&self, recorded: Recorded) -> Recorded {
        Recorded { uses_file_settings: self.file_settings, ..recorded }
    }
}

impl WindowArgs {
    /// The window.
    ///
    /// # Errors
    /// `Invalid` when no time can be in it.
    fn window(&self) -> Result<Window> {
        let Self { from, to } = *self;
        match (from, to) {
            (Some(from), Some(to)) if from >= to => {
                Err(Error::invalid("use a window whose --to is not behind its --from"))
            }
            _ => Ok(Window { from, to }),
        }
    }
}

/// The program: reads the command line, runs the command, reports its error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::CompileComponent(command) = cli.command {
        return command.run();
    }
    exit::conclude(start_log(&cli.globals.log).and_then(|()| cli.command.run(&cli.globals)))
}

impl Command {
    fn run(self, globals: &Globals) -> Result<Exit> {
        match self {
            Self::Up(command) => command.run(globals),
            Self::Run(command) => command.run(globals),
            Self::Invoke(command) => command.run(globals),
            Self::Query(command) => command.run(),
            Self::Tail(command) => command.run(),
            Self::Ledger(command) => command.run(),
            Self::DeadLetters(command) => command.run(),
            Self::Replay(command) => command.run(globals),
            Self::Backtest(command) => command.run(globals),
            Self::Explain(command) => command.run(globals),
            Self::Check(command) => command.run(globals),
            Self::Doctor(command) => command.run(),
            Self::Simulate(command) => command.run(),
            Self::Stage(command) => command.run(),
            Self::Compile(command) => command.run(),
            Self::Deploy(command) => command.run(),
            Self::Destroy(command) => command.run(),
            Self::Redrive(command) => command.run(),
            // Has no log and exit codes of its own.
            Self::CompileComponent(_) => Ok(Exit::Fine),
        }
    }
}

impl Globals {
    fn engine(&self) -> Result<Engine> {
        let engine = Engine::new(self.cache.as_ref().map_or_else(CompiledCache::of_user, CompiledCache::new))?;
        Ok(match std::env::current_exe() {
            Ok(program) => engine.with_compiler(program),
            Err(_) => engine,
        })
    }

    fn components_folder(&self) -> Option<&Path> {
        self.components.as_deref()
    }

    /// A pipeline file with the past of a data folder.
    fn recorded(&self, pipeline: &Path, data: DataFolder) -> Result<Recorded> {
        Ok(Recorded {
            pipeline: Pipeline::load(pipeline)?,
            engine: self.engine()?,
            components_folder: self.components.clone(),
            data: data.path,
            uses_file_settings: false,
        })
    }

    fn load_components(&self, engine: &Engine, pipeline: &Pipeline) -> Result<Components> {
        Components::load(engine, pipeline, self.components_folder())
    }
}

fn start_log(level: &str) -> Result<()> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| Error::caused(Kind::Invalid, format!("use the log level {level:?}"), error))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

/// Reads a time of the command line, in ns since the epoch: `2024-08-08`, or RFC 3339.
fn parse_time_arg(text: &str) -> Result<i64, String> {
    const DAY_NS: i64 = 86_400_000_000_000;
    match Day::parse(text).and_then(|day| i64::from(day.0).checked_mul(DAY_NS)) {
        Some(ns) => Ok(ns),
        None => {
            parse_time(text).map(|(ns, _)| ns).map_err(|error| format!("{error}, and not a day such as 2024-08-08"))
        }
    }
}

fn is_output_terminal() -> bool {
    std::io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_how_it_is_used_by_example() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            for part in command.get_subcommands() {
                check(part);
            }
            if command.is_hide_set() {
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(command.has_subcommands() || help.contains("Examples:"), "{name}: {help}");
        }
        check(&Cli::command());
    }

    #[test]
    fn what_is_for_a_host_is_not_for_a_stack() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' ')).map(drop).map_err(|error| error.to_string());
        for words in [
            "stage list --at http://localhost:7070",
            "stage list --data data",
            "stage rollback alarm --at http://localhost:7070",
            "stage push alarm a.wasm --data data",
            "stage push alarm a.wasm --shadow",
            "stage push alarm a.wasm --settings {}",
            "stage push alarm a.wasm --memory-mib 64",
            "stage push alarm a.wasm --time-per-batch 1s",
            "stage push alarm a.wasm --signature a.minisig",
            "stage push alarm a.wasm --wait 1s",
        ] {
            let words = format!("tapeline {words}");
            assert_eq!(parse(&words), Ok(()), "{words}");
            let error = parse(&format!("{words} --aws tapeline-x")).unwrap_err();
            assert!(error.contains("cannot be used with") && error.contains("--aws <STACK>"), "{words}: {error}");
        }
        for words in
            ["stage list --format json", "stage push alarm a.wasm --why x", "stage rollback alarm --to deployed"]
        {
            assert_eq!(parse(&format!("tapeline {words} --aws tapeline-x")), Ok(()), "{words}");
        }
    }

    #[test]
    fn times_are_days_or_rfc_3339() {
        assert_eq!(parse_time_arg("1970-01-02"), Ok(86_400_000_000_000));
        assert_eq!(parse_time_arg("1970-01-01T00:00:01.5Z"), Ok(1_500_000_000));
        assert_eq!(parse_time_arg("1970-01-01T01:00:00+01:00"), Ok(0));
        for wrong in ["", "yesterday", "9999-01-01", "1700000000"] {
            assert!(parse_time_arg(wrong).unwrap_err().contains("2024-08-08"), "{wrong}");
        }
    }
}
