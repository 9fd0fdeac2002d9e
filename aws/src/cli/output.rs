//! What the program writes, and what it ends with: as `tapeline` does.

use std::{
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
};

use tapeline_aws::operate::OperateError;
use tapeline_aws_protocol::frame::FrameError;

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It could not be done.
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// This machine does not let it begin.
    #[error("start")]
    Start(#[source] io::Error),
    /// A host does not speak with us any more.
    #[error("speak with the host")]
    Frame(#[from] FrameError),
    /// Nobody can be told.
    #[error("write to standard output")]
    Output(#[from] io::Error),
}

/// Reports an error on standard error, and gives the exit code.
pub(crate) fn conclude(result: Result<ExitCode, Failure>) -> ExitCode {
    match result {
        Ok(code) => code,
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = io::stderr().write_all(describe(&failure).as_bytes());
            match failure {
                Failure::Operate(OperateError::Wrong(_)) => ExitCode::from(2),
                Failure::Operate(_) | Failure::Start(_) | Failure::Frame(_) | Failure::Output(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn describe(failure: &Failure) -> String {
    let mut text = format!("error: failed to {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        text = format!("{text}\n  because: {error}");
        cause = error.source();
    }
    text.push('\n');
    text
}

/// Writes a line.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Writes rows below their headings, each column as wide as its widest cell.
pub(crate) fn table<const COLUMNS: usize>(
    headings: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> Result<(), Failure> {
    let headings = headings.map(str::to_owned);
    let lines = || std::iter::once(&headings).chain(rows);
    let mut widths = [0; COLUMNS];
    for line in lines() {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    lines().try_for_each(|line| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end())
    })
}

/// A text that a terminal shows as it is: control characters, which could move its cursor or worse, are spelled out.
pub(crate) fn visible(text: &str) -> String {
    let spelled = |letter: char| letter.escape_default().collect::<String>();
    text.chars().map(|letter| if letter.is_control() { spelled(letter) } else { letter.into() }).collect()
}
