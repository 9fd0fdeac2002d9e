//! Asks a runtime what a case asks, and compares every byte of what it answers.

use std::hash::{BuildHasher, RandomState};

use anyhow::{Context, Result, ensure};

use super::{Answer, Call, Case, Counts, Expected, NDJSON, PROBLEM_JSON, Runtime};

/// What a line is shown with, at most: enough for a bar, and for most of a reason.
const LINE_CHARS_MAX: usize = 600;

/// Makes the calls of a case, and compares the answers. Sessions have names that no other run of this or another case has.
///
/// # Errors
/// When an answer is another one than it must be; says of which call, and shows the first difference.
pub fn check(runtime: &dyn Runtime, case: &Case) -> Result<()> {
    let run = format!("{:016x}", RandomState::new().hash_one(&case.name));
    for (at, call) in case.calls.iter().enumerate() {
        let answer = runtime.call(case, &call.of_run(&run));
        let compared = answer.and_then(|answer| compare(call, &answer));
        compared.with_context(|| format!("{}: {}\n{}", case.name, case.about, call_text(at, case, call)))?;
    }
    Ok(())
}

fn call_text(at: usize, case: &Case, call: &Call) -> String {
    let Call { method, query, .. } = call;
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("call {}, {method} /stages/{}/invoke{query}", at + 1, case.stage)
}

fn compare(call: &Call, answer: &Answer) -> Result<()> {
    let Expected { status, counts, file, body } = &call.expected;
    let content_type = if *status == 200 { NDJSON } else { PROBLEM_JSON };
    ensure!(
        answer.status == *status,
        "status: expected {status}, found {}: {}",
        answer.status,
        shown(lines(&answer.body).next())
    );
    if let Some(difference) = first_difference(body, &answer.body) {
        anyhow::bail!("{file}, {difference}");
    }
    let counts_text = |counts: &Option<Counts>| counts.map_or_else(|| "none".to_owned(), |counts| counts.to_string());
    ensure!(
        answer.counts == *counts,
        "counts: expected {}, found {}",
        counts_text(counts),
        counts_text(&answer.counts)
    );
    let found = &answer.content_type;
    ensure!(found == content_type, "content type: expected {content_type}, found {found}");
    Ok(())
}

/// Where two bodies differ first: the line, and what it is in each.
fn first_difference(expected: &[u8], found: &[u8]) -> Option<String> {
    let (mut expected, mut found) = (lines(expected), lines(found));
    for number in 1_u64.. {
        let (expected, found) = (expected.next(), found.next());
        if expected != found {
            return Some(format!("line {number}:\n  expected {}\n  found    {}", shown(expected), shown(found)));
        }
        expected?;
    }
    None
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split_inclusive(|byte| *byte == b'\n')
}

/// A line, with what cannot be seen written out.
fn shown(line: Option<&[u8]>) -> String {
    let Some(line) = line else { return "nothing more".to_owned() };
    let text = String::from_utf8_lossy(line).replace('\r', "\\r").replace('\n', "\\n");
    match text.char_indices().nth(LINE_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}... ({} bytes)", text.get(..end).unwrap_or_default(), line.len()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers what it is told to.
    struct Told {
        answer: Answer,
        queries: Mutex<Vec<String>>,
    }

    impl Runtime for Told {
        fn name(&self) -> &str {
            "told"
        }

        fn leaves_out(&self, _: &Case) -> Option<&'static str> {
            None
        }

        fn call(&self, _: &Case, call: &Call) -> Result<Answer> {
            self.queries.lock().unwrap().push(call.query.clone());
            Ok(self.answer.clone())
        }
    }

    fn case(name: &str) -> Case {
        Case::load_all().unwrap().into_iter().find(|case| case.name == name).unwrap()
    }

    fn right(call: &Call) -> Answer {
        let Expected { status, counts, body, .. } = call.expected.clone();
        Answer { status, content_type: NDJSON.to_owned(), counts, body }
    }

    fn told(case: &Case, change: impl FnOnce(&mut Answer)) -> Result<(), String> {
        let mut answer = right(&case.calls[0]);
        change(&mut answer);
        check(&Told { answer, queries: Mutex::default() }, case).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn any_difference_is_found_and_shown() {
        let case = case("dedup-by-id");
        assert_eq!(told(&case, |_| ()), Ok(()));
        let error = told(&case, |answer| _ = answer.body.pop()).unwrap_err();
        assert!(error.contains("output.ndjson, line 9:\n") && error.contains("\"price\":1}\\n\n"), "{error}");
        assert!(error.contains("call 1, POST /stages/dedup/invoke"), "{error}");
        let error = told(&case, |answer| answer.body.extend(b"x")).unwrap_err();
        assert!(error.ends_with("expected nothing more\n  found    x"), "{error}");
        assert!(told(&case, |answer| answer.status = 201).unwrap_err().contains("expected 200, found 201"));
        assert!(told(&case, |answer| answer.counts = None).unwrap_err().contains("found none"));
        assert!(told(&case, |answer| answer.content_type.clear()).unwrap_err().contains("content type"));
    }

    #[test]
    fn each_run_has_sessions_of_its_own() {
        let case = case("dedup-session");
        let runtime = Told { answer: right(&case.calls[0]), queries: Mutex::default() };
        let first = |case: &Case| Case { calls: case.calls[..1].to_vec(), ..case.clone() };
        (0..2).for_each(|_| check(&runtime, &first(&case)).unwrap());
        let queries = runtime.queries.into_inner().unwrap();
        assert!(queries[0].starts_with("session=") && !queries[0].contains('{'), "{queries:?}");
        assert_ne!(queries[0], queries[1]);
    }
}
