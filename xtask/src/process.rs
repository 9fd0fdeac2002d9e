//! Runs other programs, and says which one failed and how.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end, with our own input and output.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs a program to its end and returns what it printed, without the white space around it.
///
/// # Errors
/// When it cannot be started, does not succeed or prints something other than UTF-8.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", describe(command), output.status);
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("reading `{}`", describe(command)))?;
    Ok(text.trim().to_owned())
}

/// Tells whether a program can be started and succeeds. Prints nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Becomes another program: Ctrl-C reaches it once, and its exit code is ours. Returns only where that is impossible.
///
/// # Errors
/// When the program cannot be started.
#[cfg(unix)]
pub(crate) fn become_program(command: &mut Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec()).with_context(|| cannot_start(command))
}

/// Runs another program to its end and returns its exit code.
///
/// # Errors
/// When the program cannot be started.
#[cfg(not(unix))]
pub(crate) fn become_program(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| cannot_start(command))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Writes a command as one would type it, without its environment.
pub(crate) fn describe(command: &Command) -> String {
    let program = command.get_program();
    let program = if Path::new(program).ends_with("cargo") { OsStr::new("cargo") } else { program };
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("starting `{}`", describe(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_described_as_typed() {
        let mut command = Command::new("/toolchain/bin/cargo");
        assert_eq!(describe(command.args(["test", "--release"]).env("A", "b")), "cargo test --release");
        assert_eq!(describe(Command::new("/bin/id").arg("-u")), "/bin/id -u");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let mut missing = Command::new("/no/such/program");
        assert!(run(&mut missing).is_err_and(|error| error.to_string() == "starting `/no/such/program`"));
        assert!(!succeeds(&mut missing));
    }
}
