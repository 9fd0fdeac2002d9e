//! Sets up the packages of `infra/cdk`, whose tests are one of ours (`tests/tests/cdk.rs`).

use crate::npm;
use crate::workspace::Workspace;

/// The folder of the CDK app, below the root.
const SOURCE: &str = "infra/cdk";
/// In it: what the packages were installed by. It goes when they go.
const INSTALLED: &str = "node_modules/.tapeline-installed";

/// Installs the packages, unless they are those of the lock file. Where there is no Node.js, or no package to be had, says
/// so: the test is reported as skipped.
pub(crate) fn set_up(workspace: &Workspace) {
    if let Err(error) = npm::check_node().and_then(|()| npm::install(&workspace.root().join(SOURCE), INSTALLED)) {
        eprintln!("no CDK, which a test needs: {error:#}");
    }
}
