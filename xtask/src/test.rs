//! `cargo xtask test`: builds what the tests load, runs them all, and says which did not run.
//!
//! Nothing is compiled without optimisation: the engine takes minutes, and a slow one would hide races. What runs on AWS has
//! an engine without a compiler, and a profile of its own.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result};

use crate::lambda::{self, Architecture};
use crate::test_report::TestReport;
use crate::workspace::Workspace;
use crate::{browser, cdk, guest, js_guest, local_aws, nats_server, process};

/// Why a test of ours is ignored; no other reason is accepted in review.
const SKIP_REASON: &str = "needs the recordings (../shared/data or TAPELINE_RECORDINGS), Chromium, nats-server or Node.js 20 on the path, or ministack by pip";

/// The tests that are compiled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// All but those of functions.
    Host,
    /// Those of what runs on AWS: without the compiler that the host asks for, as its program is.
    Functions,
}

impl Set {
    /// The sets in which a test may be that these arguments of cargo ask for.
    fn asked_for(args: &[String]) -> &'static [Self] {
        let names_package = |arg: &String| lambda::PACKAGES.contains(&arg.trim_start_matches("--package="));
        if args.iter().any(names_package) {
            &[Self::Functions]
        } else if args.iter().any(|arg| arg.starts_with('-')) {
            &[Self::Host]
        } else {
            &[Self::Host, Self::Functions]
        }
    }

    /// What is told to cargo so that it picks the same features of dependencies whatever is built of a set.
    fn selection(self) -> Vec<&'static str> {
        let others = lambda::PACKAGES.into_iter();
        match self {
            Self::Host => {
                ["--workspace", "--release"].into_iter().chain(others.flat_map(|name| ["--exclude", name])).collect()
            }
            Self::Functions => lambda::SELECTION.to_vec(),
        }
    }
}

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
    build_all(workspace)?;

    let (mut succeeded, mut report) = (true, TestReport::default());
    for set in Set::asked_for(args) {
        let mut tests = workspace.cargo("test");
        tests.args(set.selection()).arg("--no-fail-fast").args(args).env("PATH", nats_server::path(workspace));
        let status = watch(tests.arg("--").args(program_args), &mut report)?;
        if !status.success() && !report.has_failed() {
            eprintln!("`cargo test` failed without a failed test: {status}");
        }
        succeeded &= status.success();
    }
    conclude(succeeded, &report).context("writing the summary")
}

/// Builds what the tests load, and the tests.
fn build_all(workspace: &Workspace) -> Result<()> {
    let build = |set: Set| {
        // The same packages, targets and profile as the tests, so that the tests reuse it.
        let mut programs = workspace.cargo("build");
        process::run(programs.args(set.selection()).args(["--lib", "--bins", "--tests"]))
    };
    // A component is put together by one processor. It has a target directory of its own, so that others need not wait.
    thread::scope(|scope| {
        let guests = scope.spawn(|| guest::build_all(workspace).and_then(|()| js_guest::build(workspace)));
        let host = build(Set::Host);
        let guests = guests.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        guests.and(host)
    })?;
    build(Set::Functions)?;
    lambda::pack(workspace, Architecture::X86_64, &lambda::program(workspace)).map(drop)
}

/// Runs the tests, passing their output on line by line while reading it.
fn watch(tests: &mut Command, report: &mut TestReport) -> Result<ExitStatus> {
    let mut child = tests.stdout(Stdio::piped()).spawn().context("starting `cargo test`")?;
    follow(&mut child, report).context("reading the output of `cargo test`")?;
    child.wait().context("waiting for `cargo test`")
}

fn follow(child: &mut Child, report: &mut TestReport) -> io::Result<()> {
    let Some(output) = child.stdout.take() else { return Ok(()) };
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        io::stdout().write_all(&line)?;
        io::stdout().flush()?;
        report.read_line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

fn conclude(succeeded: bool, report: &TestReport) -> io::Result<ExitCode> {
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
    writeln!(out, "{report}")?;
    Ok(if succeeded && !skips_fail { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells whether `CI` is set to anything but a no.
fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !["", "0", "false"].iter().any(|no| value == *no))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_for(args: &[&str]) -> &'static [Set] {
        Set::asked_for(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_arguments_ask_for_is_looked_for_where_it_may_be() {
        assert_eq!(asked_for(&[]), [Set::Host, Set::Functions]);
        assert_eq!(asked_for(&["swap"]), [Set::Host, Set::Functions]);
        assert_eq!(asked_for(&["--test", "chained"]), [Set::Host]);
        assert_eq!(asked_for(&["-p", "tapeline-aws-tests", "--test", "faults"]), [Set::Functions]);
        assert_eq!(asked_for(&["--package=tapeline-aws"]), [Set::Functions]);
    }

    #[test]
    fn a_package_is_in_one_set() {
        let (host, functions) = (Set::Host.selection(), Set::Functions.selection());
        for package in lambda::PACKAGES {
            assert!(host.windows(2).any(|pair| pair == ["--exclude", package]), "{host:?}");
            assert!(functions.windows(2).any(|pair| pair == ["--package", package]), "{functions:?}");
        }
    }
}
