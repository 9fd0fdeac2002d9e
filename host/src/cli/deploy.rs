//! `tapeline deploy`: puts a pipeline on AWS, by the CDK app of the clone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{cdk::CdkArgs, exit::Exit};
use crate::error::{Error, Result};

/// The file of a package that Lambda runs.
const PROGRAM: &str = "bootstrap";

/// Put a pipeline on AWS: functions, queues, tables, buckets; or only what hosts of our own keep there
#[derive(Args)]
#[command(after_help = "\
Runs `cdk deploy` in infra/cdk of a clone of Tapeline, and first installs its packages where they
are missing. It shows what rights it will give, and asks. infra/README.md says what is made, how it
is set and what it costs. Needs Node.js 20 or later with npm, credentials of an account in the
environment, and the package of the functions (`cargo xtask lambda`), unless the pipeline file says
`functions = false`: then there are only tables and a bucket, for hosts that run the stages.

Examples:
  tapeline deploy pipelines/bitcoin-trades.toml --bootstrap
  tapeline deploy pipelines/bitcoin-trades.toml -- -c keep=true --require-approval never")]
pub(super) struct Deploy {
    #[command(flatten)]
    cdk: CdkArgs,
    /// Folder of the package of the functions [default: target/lambda/ARCHITECTURE of the clone]
    #[arg(long, value_name = "DIR")]
    package: Option<PathBuf>,
    /// First make the account and region ready for the CDK, which is needed once
    #[arg(long)]
    bootstrap: bool,
}

impl Deploy {
    pub(super) fn run(self) -> Result<Exit> {
        let app = self.cdk.find()?;
        match &self.package {
            // Hosts of our own run the stages.
            _ if !self.cdk.has_functions()? => {}
            Some(folder) => check_package(folder)?,
            // Which of them it is, the app knows: it reads the architecture.
            None => check_packages(&app.packages())?,
        }
        app.set_up()?;
        // What is asked for besides is for the stack, of which only the place matters here.
        let bootstrap = self.cdk.line_without_more("bootstrap", Some(&app.stand_in_package()))?;
        if self.bootstrap && app.run(&bootstrap)? != Exit::Fine {
            return Ok(Exit::Failed);
        }
        app.run(&self.cdk.line("deploy", self.package.as_deref())?)
    }
}

fn check_package(folder: &Path) -> Result<()> {
    if folder.join(PROGRAM).is_file() { Ok(()) } else { Err(no_package(folder)) }
}

/// Checks that something was built for any architecture.
fn check_packages(folder: &Path) -> Result<()> {
    let mut packages = fs::read_dir(folder).into_iter().flatten().flatten();
    match packages.any(|package| check_package(&package.path()).is_ok()) {
        true => Ok(()),
        false => Err(no_package(folder)),
    }
}

fn no_package(folder: &Path) -> Error {
    Error::not_found(format!(
        "find the package of the functions: no {PROGRAM} in {}; `cargo xtask lambda` builds it",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_package_that_is_missing_is_told_with_what_builds_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let package = folder.path().join("arm64");
        for missing in [check_packages(folder.path()), check_packages(&package), check_package(&package)] {
            let error = missing.unwrap_err();
            assert!(error.kind() == Kind::NotFound && error.to_string().contains("`cargo xtask lambda`"), "{error}");
        }
        fs::create_dir(&package).unwrap();
        fs::write(package.join(PROGRAM), "").unwrap();
        check_packages(folder.path()).unwrap();
        check_package(&package).unwrap();
    }
}
