//! The CDK app of `infra/cdk`: its own checks and tests, by its own commands, without a network or an account.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    // What `cargo xtask test` installs where there is Node.js.
    let is_missing = !folder().join("node_modules").is_dir();
    let trial =
        |name: &'static str, script: &'static str| Trial::test(name, move || run(script)).with_ignored_flag(is_missing);
    let trials = vec![trial("it_is_well_formed", "check"), trial("its_tests_pass", "test")];
    libtest_mimic::run(&arguments, trials).exit();
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/cdk")
}

fn run(script: &str) -> Result<(), Failed> {
    let output = Command::new("npm").args(["run", "--silent", script]).current_dir(folder()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Failed::from(format!("npm run {script}: {}\n{}", output.status, String::from_utf8_lossy(&said))))
}
