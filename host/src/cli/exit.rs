//! What a command ends with: exit codes, and how an error looks.

use std::{error::Error as StdError, fmt::Write as _, process::ExitCode};

use super::output;
use crate::error::{Error, Kind, Result};

/// Lines of causes below an error. What is behind them goes on in the last one.
const CAUSE_LINES_MAX: usize = 2;

/// What an error of a file says when nobody has said which. Behind one that does it says nothing.
const ANY_FILE: &str = "read or write a file";

/// What a command that has come to its end says by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All is well.
    Fine,
    /// It came to its end, and found what it was asked to look for to be wrong.
    Failed,
    /// The job has come to its end, with new dead letters.
    DeadLetters,
    /// Another program has done it, or has told what is wrong; it ended with this code.
    Told(u8),
}

/// Reports an error on standard error, and gives the exit code.
pub(super) fn conclude(result: Result<Exit>) -> ExitCode {
    match result {
        Ok(Exit::Fine) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::FAILURE,
        Ok(Exit::DeadLetters) => ExitCode::from(3),
        Ok(Exit::Told(code)) => ExitCode::from(code),
        // Whoever reads has seen enough, as in `tapeline query trades | head`.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", describe(&error));
            match error.kind() {
                Kind::Invalid | Kind::NotFound => ExitCode::from(2),
                Kind::Unavailable | Kind::Conflict | Kind::Corrupt | Kind::Internal => ExitCode::FAILURE,
            }
        }
    }
}

/// An error with its causes, in one to three lines.
fn describe(error: &Error) -> String {
    let message = error.to_string();
    let failed = if reads_on(&message) { "failed to " } else { "" };
    let mut text = format!("error: {failed}{message}");
    let mut said = message;
    let mut lines = 0;
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Some libraries repeat the cause in the text of the effect.
        if message != ANY_FILE && !said.contains(&message) {
            let before = if lines < CAUSE_LINES_MAX { "\n  because: " } else { ": " };
            let _ = write!(text, "{before}{message}");
            lines += 1;
            said = message;
        }
        cause = error.source();
    }
    text.push('\n');
    text
}

/// Whether a message reads on after "failed to", as the library's do, but for those that begin with a place in a file.
fn reads_on(message: &str) -> bool {
    let verb = message.split(' ').next().unwrap_or_default();
    !verb.is_empty() && verb.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Context as _;

    #[test]
    fn an_error_is_told_with_its_causes_in_three_lines() {
        let deep: Result<()> = Err(Error::invalid("read four")).doing(|| "read three".to_owned());
        let deep = deep.doing(|| "read two".to_owned()).doing(|| "read one".to_owned());
        let text = describe(&deep.unwrap_err());
        assert_eq!(text, "error: failed to read one\n  because: read two\n  because: read three: read four\n");
    }

    #[test]
    fn a_place_in_a_file_stands_first() {
        let error = Error::invalid("pipelines/x.toml:3: name: a name is missing");
        assert_eq!(describe(&error), "error: pipelines/x.toml:3: name: a name is missing\n");
    }

    #[test]
    fn a_file_is_told_once() {
        let missing: Result<(), std::io::Error> = Err(std::io::Error::other("no such file"));
        let error = missing.doing(|| "read pipeline x.toml".to_owned()).unwrap_err();
        assert_eq!(describe(&error), "error: failed to read pipeline x.toml\n  because: no such file\n");
    }

    #[test]
    fn a_cause_is_not_told_twice() {
        let error = Error::caused(Kind::Internal, "open it: no such file", std::io::Error::other("no such file"));
        assert_eq!(describe(&error), "error: failed to open it: no such file\n");
    }
}
