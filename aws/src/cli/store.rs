//! `tapeline-aws store`: the store that hosts share, for one of them.

use std::{io, process::ExitCode};

use clap::Args;
use tapeline_aws::{
    operate::{Account, OperateError, SharedStores},
    shared,
};
use tapeline_aws_protocol::{Hello, Refusal, RefusalKind, VERSION, frame};

use crate::output::Failure;

/// Keep what hosts of a pipeline share, for one of them; `tapeline up --aws` calls this
#[derive(Args)]
#[command(after_help = "\
Speaks frames with the host over standard input and output, and ends when the host does.

Examples:
  tapeline-aws store tapeline-bitcoin-trades --pipeline bitcoin-trades --stages write --partitions 4")]
pub(crate) struct Store {
    /// The stack, without functions
    stack: String,
    /// The pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: String,
    /// The stages of the last segment
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    stages: Vec<String>,
    /// Parts into which symbols are divided
    #[arg(long, value_name = "NUMBER")]
    partitions: u32,
}

impl Store {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let found = async {
            let account = Account::of_environment().await?;
            let stores = SharedStores::find(&account, &self.stack, &self.pipeline).await?;
            Ok((account.stores(), stores))
        };
        let (clients, stores) = match found.await {
            Ok(found) => found,
            // The host tells it, with what it was about to do.
            Err(error) => return Ok(refuse(&error)?),
        };
        shared::serve(&shared::Shared::new(&stores, clients, self.stages, self.partitions)).await?;
        Ok(ExitCode::SUCCESS)
    }
}

fn refuse(error: &OperateError) -> Result<ExitCode, frame::FrameError> {
    let kind = match error {
        OperateError::Wrong(_) => RefusalKind::Invalid,
        OperateError::Conflict(_) => RefusalKind::Conflict,
        OperateError::Service { .. } => RefusalKind::Unavailable,
    };
    let refused = Some(Refusal::new(kind, error.told()));
    frame::write(&mut io::stdout().lock(), &Hello { version: VERSION, refused })?;
    Ok(ExitCode::FAILURE)
}
