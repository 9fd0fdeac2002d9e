//! `cargo xtask test`: builds what the tests load, runs them all, and says which did not run.
//!
//! Everything is compiled once, in the release profile: the engine takes minutes, and a slow one would hide races.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};

use crate::test_report::TestReport;
use crate::workspace::Workspace;
use crate::{browser, cdk, guest, js_guest, local_aws, nats_server, process};

/// Why a test of ours is ignored; no other reason is accepted in review.
const SKIP_REASON: &str = "needs the recordings (../shared/data or TAPELINE_RECORDINGS), Chromium, nats-server or Node.js 20 on the path, or ministack by pip";

/// Runs every test whose name fits. The last line on stdout is `N passed, N failed, N skipped`.
///
/// Fails when a test failed, and in CI also when one was skipped.
///
/// # Errors
/// When something does not compile.
pub(crate) fn run(workspace: &Workspace, args: &[String], program_args: &[String]) -> Result<ExitCode> {
    browser::set_up();
    nats_server::set_up(workspace);
    local_aws::set_up(workspace);
    cdk::set_up(workspace);
    guest::build_all(workspace)?;
    js_guest::build(workspace)?;
    // The same packages, targets and profile as the tests, so that cargo picks the same features and the tests reuse it.
    let mut programs = workspace.cargo("build");
    process::run(programs.args(["--workspace", "--release", "--lib", "--bins", "--tests"]))?;

    let mut tests = workspace.cargo("test");
    tests.args(["--workspace", "--release", "--no-fail-fast"]).args(args).env("PATH", nats_server::path(workspace));
    tests.arg("--").args(program_args);
    let (status, report) = watch(&mut tests)?;
    conclude(status, &report).context("writing the summary")
}

/// Runs the tests, passing their output on line by line while reading it.
fn watch(tests: &mut Command) -> Result<(ExitStatus, TestReport)> {
    let mut child = tests.stdout(Stdio::piped()).spawn().context("starting `cargo test`")?;
    let report = follow(&mut child).context("reading the output of `cargo test`")?;
    let status = child.wait().context("waiting for `cargo test`")?;
    Ok((status, report))
}

fn follow(child: &mut Child) -> io::Result<TestReport> {
    let mut report = TestReport::default();
    let Some(output) = child.stdout.take() else {
        return Ok(report);
    };
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        io::stdout().write_all(&line)?;
        io::stdout().flush()?;
        report.read_line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(report)
}

fn conclude(status: ExitStatus, report: &TestReport) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    // Once more at the end: a thousand lines of other tests may stand behind them.
    for line in report.failures() {
        writeln!(out, "{line}")?;
    }
    if !report.skipped_names().is_empty() {
        writeln!(out, "skipped: {SKIP_REASON}")?;
    }
    for name in report.skipped_names() {
        writeln!(out, "  {name}")?;
    }
    let skips_fail = in_ci() && report.has_skipped();
    if skips_fail {
        writeln!(out, "in CI a skipped test is a failure")?;
    }
    if !status.success() && !report.has_failed() {
        writeln!(out, "`cargo test` failed without a failed test: {status}")?;
    }
    writeln!(out, "{report}")?;
    Ok(if status.success() && !skips_fail { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells whether `CI` is set to anything but a no.
fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !["", "0", "false"].iter().any(|no| value == *no))
}
