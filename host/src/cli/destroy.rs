//! `tapeline destroy`: takes a pipeline away from AWS, by the CDK app of the clone.

use clap::Args;

use super::{cdk::CdkArgs, exit::Exit};
use crate::error::Result;

/// Take a pipeline away from AWS, with its data unless that is to be kept
#[derive(Args)]
#[command(after_help = "\
Runs `cdk destroy` in infra/cdk of a clone of Tapeline, which asks first. Tables, buckets and queues
stay only if the stack was last deployed with `keep_data`. Needs what `tapeline deploy` needs, but
for the package.

Examples:
  tapeline destroy pipelines/bitcoin-trades.toml
  tapeline destroy pipelines/bitcoin-trades.toml -- --force")]
pub(super) struct Destroy {
    #[command(flatten)]
    cdk: CdkArgs,
}

impl Destroy {
    pub(super) fn run(self) -> Result<Exit> {
        let app = self.cdk.find()?;
        app.set_up()?;
        // The app makes the stack to know its name, and a stack has a package.
        app.run(&self.cdk.line("destroy", Some(&app.stand_in_package()))?)
    }
}
