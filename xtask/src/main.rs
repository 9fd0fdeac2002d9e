//! The tasks of this repository: `cargo xtask up | spin | lambda | build | check | test | bench`.
//!
//! This program finds tools, calls cargo and copies files. It knows where artifacts lie and nothing of what is in them.

mod bench;
mod browser;
mod build;
mod cdk;
mod check;
mod guest;
mod js_guest;
mod lambda;
mod local_aws;
mod nats_server;
mod npm;
mod process;
mod spin;
mod test;
mod test_report;
mod up;
mod wasm_target;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::{HostProfile, Workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of this repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the components and the program, or the components of some stages only.
    Build {
        /// Stages in functions/ to build; the program is left as it is [default: all, and the program].
        stages: Vec<String>,
        /// Build the program without optimisation: target/debug/tapeline.
        #[arg(long, conflicts_with = "stages")]
        debug_host: bool,
    },
    /// Build, then run the Bitcoin pipeline until Ctrl-C, with its data in ./data.
    Up {
        /// Passed on to `tapeline up`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the components, then serve them with `spin up` until Ctrl-C.
    Spin {
        /// Passed on to `spin up`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the package of the functions on AWS Lambda: target/lambda/ARCHITECTURE.
    Lambda {
        /// What the functions run on.
        #[arg(long, default_value = "x86_64")]
        architecture: lambda::Architecture,
    },
    /// Run every test, after building what the tests need.
    Test {
        /// Passed on to `cargo test`; a word is a filter of test names.
        #[arg(allow_hyphen_values = true, value_terminator = "--")]
        args: Vec<String>,
        /// Passed on to the test programs.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        program_args: Vec<String>,
    },
    /// Check format, lints, documentation and dependencies.
    Check,
    /// Build, then run the benchmarks.
    Bench {
        /// `functions` for those on AWS Lambda alone, and what is passed on to the benchmark program [default: all].
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    run(Cli::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    match task {
        Task::Build { stages, .. } if !stages.is_empty() => build::stages(&workspace, &stages),
        Task::Build { debug_host: false, .. } => build::run(&workspace, HostProfile::Release),
        Task::Build { debug_host: true, .. } => build::run(&workspace, HostProfile::Debug),
        Task::Up { args } => up::run(&workspace, &args),
        Task::Lambda { architecture } => lambda::run(&workspace, architecture),
        Task::Spin { args } => spin::run(&workspace, &args),
        Task::Test { args, program_args } => test::run(&workspace, &args, &program_args),
        Task::Check => check::run(&workspace),
        Task::Bench { args } => bench::run(&workspace, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn build_takes_stages() {
        let Task::Build { stages, debug_host: false } = Cli::parse_from(["xtask", "build", "dedup", "my-stage"]).task
        else {
            panic!("not the build task");
        };
        assert_eq!(stages, ["dedup", "my-stage"]);
    }

    fn test_args(line: &[&str]) -> (Vec<String>, Vec<String>) {
        match Cli::parse_from(["xtask", "test"].iter().chain(line)).task {
            Task::Test { args, program_args } => (args, program_args),
            _ => panic!("not the test task"),
        }
    }

    #[test]
    fn test_tells_cargo_arguments_from_those_of_the_test_programs() {
        let (args, program_args) = test_args(&["redelivery", "--test", "scenarios", "--", "--nocapture", "x"]);
        assert_eq!(args, ["redelivery", "--test", "scenarios"]);
        assert_eq!(program_args, ["--nocapture", "x"]);
        let (args, program_args) = test_args(&["--", "--nocapture"]);
        assert!(args.is_empty());
        assert_eq!(program_args, ["--nocapture"]);
    }

    #[test]
    fn up_passes_options_on() {
        let Task::Up { args } = Cli::parse_from(["xtask", "up", "--nats", "URL"]).task else {
            panic!("not the up task");
        };
        assert_eq!(args, ["--nats", "URL"]);
    }
}
