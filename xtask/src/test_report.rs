//! Adds up what the test programs print. Knows the format of libtest, which libtest-mimic prints too.

use std::fmt;

/// Lines kept of what failed tests have said.
const FAILURE_LINES_MAX: usize = 200;

/// The sum over every test program of a run.
#[derive(Default)]
pub(crate) struct TestReport {
    passed: u64,
    failed: u64,
    skipped: u64,
    skipped_names: Vec<String>,
    failures: Vec<String>,
    /// Whether the lines read now say why a test failed.
    is_in_failure: bool,
}

impl TestReport {
    /// Takes in one line of output. Lines of no interest change nothing.
    pub(crate) fn read_line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.starts_with("---- ") {
            self.is_in_failure = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.is_in_failure = false;
        }
        if self.is_in_failure && !line.is_empty() && self.failures.len() < FAILURE_LINES_MAX {
            self.failures.push(line.to_owned());
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.skipped += count(result, "ignored");
        } else if let Some(name) = ignored_name(line) {
            self.skipped_names.push(name.to_owned());
        }
    }

    /// Names the tests that did not run, in the order of output.
    pub(crate) fn skipped_names(&self) -> &[String] {
        &self.skipped_names
    }

    /// What the tests that failed have said, in the order of output, at most [`FAILURE_LINES_MAX`] lines.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Tells whether a test did not run.
    pub(crate) fn has_skipped(&self) -> bool {
        self.skipped > 0 || !self.skipped_names.is_empty()
    }

    /// Tells whether a test failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed > 0
    }
}

impl fmt::Display for TestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Finds the number before a word in `ok. 5 passed; 0 failed; 1 ignored; ...`; zero when the word is not there.
fn count(result: &str, word: &str) -> u64 {
    let part = result.split(';').find_map(|part| part.trim_end().strip_suffix(word));
    let number = part.and_then(|part| part.split_whitespace().next_back());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn ignored_name(line: &str) -> Option<&str> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let ignored = outcome == "ignored" || outcome.starts_with("ignored, ");
    ignored.then(|| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(output: &str) -> TestReport {
        let mut report = TestReport::default();
        output.lines().for_each(|line| report.read_line(line));
        report
    }

    #[test]
    fn results_of_every_program_are_summed() {
        let sum = report(
            "running 3 tests\n\
             test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.02s\n\
             test result: FAILED. 3 passed; 2 failed; 4 ignored; 0 measured; 0 filtered out; finished in 1.00s\n\
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(sum.to_string(), "15 passed, 2 failed, 5 skipped");
        assert!(sum.has_failed() && sum.has_skipped());
    }

    #[test]
    fn ignored_tests_are_named() {
        let found = report(
            "test plain ... ignored\n\
             test padded by libtest-mimic    ... ignored\n\
             test with::reason ... ignored, no recordings\n\
             test [slow] kind ... ignored\n\
             test fine ... ok\n\
             test ignored ... FAILED\n\
             the word ignored ... ignored",
        );
        let names = ["plain", "padded by libtest-mimic", "with::reason", "[slow] kind"];
        assert_eq!(found.skipped_names(), names);
    }

    #[test]
    fn what_failed_is_kept() {
        let found = report(
            "test one ... FAILED\n\nfailures:\n\n---- one ----\nit is 2\n  not 1\n\n---- two stdout ----\nboom\n\n\n\
             failures:\n    one\n    two\n\ntest result: FAILED. 3 passed; 2 failed\nrunning 1 test",
        );
        assert_eq!(found.failures(), ["---- one ----", "it is 2", "  not 1", "---- two stdout ----", "boom"]);
    }

    #[test]
    fn other_output_changes_nothing() {
        let none = report("warning: 3 failed\ntest result: odd\n\ntest result: ok. many passed; 0 failed");
        assert_eq!(none.to_string(), "0 passed, 0 failed, 0 skipped");
        assert!(!none.has_failed() && !none.has_skipped());
    }
}
