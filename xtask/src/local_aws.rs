//! Sees to it that there is a local AWS for the tests of what runs there.

use crate::nats_server::install;
use crate::workspace::Workspace;

/// DynamoDB, S3, SQS, Lambda and more in one Python program; it takes stacks of the CDK as they are.
const PACKAGE: &str = "ministack==1.5.33";

/// Installs it into the target directory, unless it is there. Where it cannot, the tests that need it are reported as
/// skipped.
pub(crate) fn set_up(workspace: &Workspace) {
    let folder = workspace.target().join("tools/ministack");
    if folder.join("ministack").is_dir() {
        return;
    }
    if let Err(error) = install(&folder, PACKAGE) {
        eprintln!("no local AWS, which tests need, and it could not be installed: {error:#}");
    }
}
