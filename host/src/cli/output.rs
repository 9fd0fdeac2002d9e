//! Standard output: buffered, and done with quietly when whoever reads it has stopped reading.

use std::{
    error::Error as StdError,
    fmt,
    io::{self, BufWriter, Write},
};

use crate::error::Error;

/// Bytes that are written at once: a system call for each costs little then.
const BUFFER_BYTES: usize = 64 * 1024;

/// Standard output. What is buffered must be flushed at the end, so that an error is seen.
pub(super) type Output = BufWriter<Stdout>;

/// Takes standard output for as long as the command runs.
pub(super) fn lock() -> Output {
    BufWriter::with_capacity(BUFFER_BYTES, Stdout(io::stdout().lock()))
}

/// Whether an error is that nobody reads standard output any more.
pub(super) fn is_closed(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let stdout = error.downcast_ref::<io::Error>().filter(|error| is_ours(error));
        if stdout.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_ours(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<StdoutError>())
}

/// Standard output whose errors can be told from those of other files.
pub(super) struct Stdout(io::StdoutLock<'static>);

#[derive(Debug)]
struct StdoutError(io::Error);

impl fmt::Display for StdoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write to standard output: {}", self.0)
    }
}

impl StdError for StdoutError {}

fn mark(error: io::Error) -> io::Error {
    // Whoever writes tries again after this one, and only when it is as it came.
    if error.kind() == io::ErrorKind::Interrupted { error } else { io::Error::new(error.kind(), StdoutError(error)) }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark)
    }
}

/// A text that a terminal shows as it is: control characters, which could move its cursor or worse, are spelled out.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Context as _, Kind, Result};

    #[test]
    fn only_standard_output_that_is_closed_is_no_error() {
        let failed = |error: io::Error| -> Error {
            let result: Result<()> = Err(Error::from(error)).doing(|| "query".to_owned());
            result.unwrap_err()
        };
        assert!(is_closed(&failed(mark(io::ErrorKind::BrokenPipe.into()))));
        assert!(!is_closed(&failed(mark(io::ErrorKind::StorageFull.into()))));
        assert!(!is_closed(&failed(io::ErrorKind::BrokenPipe.into())));
        assert!(!is_closed(&Error::new(Kind::Internal, "query")));
    }

    #[test]
    fn terminals_get_no_control_characters() {
        assert_eq!(visible("a\u{1b}[2Jb\nc é"), "a\\u{1b}[2Jb\\nc é");
    }
}
