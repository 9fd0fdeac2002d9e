//! The program `tapeline-aws`: what people do with a pipeline on AWS from their own machine. `tapeline` calls it, so that the
//! host needs none of AWS' clients; it can be called by hand as well.

mod output;
mod read;
mod redrive;
mod stage;
mod store;

use std::{env, process::ExitCode};

use clap::{Parser, Subcommand};
use tapeline_aws::operate::{Account, Change, Stack, Stores};

use self::output::{Failure, conclude};

const EXIT_CODES: &str = "\
Credentials, region and endpoint come from the environment or from a profile, as AWS' own tools
find them: AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL.

Exit codes:
  0  all is well
  1  it failed, or somebody else was first
  2  wrong usage, or a stack, stage, component or file that is not there or wrong";

/// Brings other versions of stages into a pipeline on AWS, sends again what failed, reads what was written and counted.
#[derive(Parser)]
#[command(name = "tapeline-aws", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Stage(stage::Stage),
    Redrive(redrive::Redrive),
    Ledger(read::LedgerCommand),
    Rows(read::RowsCommand),
    Store(store::Store),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).without_time().with_writer(std::io::stderr).init();
    conclude(run(cli.command))
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    runtime.block_on(async {
        match command {
            Command::Stage(command) => command.run().await,
            Command::Redrive(command) => command.run().await,
            Command::Ledger(command) => command.run().await,
            Command::Rows(command) => command.run().await,
            Command::Store(command) => command.run().await,
        }
    })
}

/// The account of the environment, and a stack in it that has functions.
async fn find(stack: &str) -> Result<(Account, Stack), Failure> {
    let account = Account::of_environment().await?;
    let stack = Stack::find(&account, stack).await?;
    Ok((account, stack))
}

/// The account of the environment, and what of a stack in it can be read.
async fn find_stores(stack: &str) -> Result<(Account, Stores), Failure> {
    let account = Account::of_environment().await?;
    let stores = Stores::find(&account, stack).await?;
    Ok((account, stores))
}

/// Who changes something, for those who look later.
fn change(why: String) -> Change {
    let by = env::var("USER").or_else(|_| env::var("LOGNAME"));
    Change { by: by.unwrap_or_else(|_| "somebody".to_owned()), why }
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
            command.get_subcommands().for_each(check);
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(command.has_subcommands() || help.contains("Examples:"), "{}: {help}", command.get_name());
        }
        check(&Cli::command());
    }
}
