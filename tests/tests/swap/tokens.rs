//! Who may change what runs.

use anyhow::{Result, ensure};
use tapeline_tests::live::{LiveHost, TOKEN, component};

use super::job::{Job, ODD};

const CHANGES: [&str; 6] = [
    "/stages/odd/approve?version=1",
    "/stages/odd/promote",
    "/stages/odd/discard",
    "/stages/odd/rollback",
    "/stages/odd/prune?keep=1",
    "/dead-letters/redrive?ids=1",
];

fn kind(answer: &serde_json::Value) -> &str {
    answer["type"].as_str().unwrap_or_default()
}

#[test]
fn without_the_token_nothing_can_be_changed() -> Result<()> {
    let job = Job::new(ODD, 100)?;
    let host = job.start("tokens")?;
    let faulty = component("test/faulty")?;
    for token in [None, Some(""), Some("the-token-of-these-testz"), Some("the-token-of-these-tests-"), Some("x")] {
        let (status, answer) = host.push_as("odd", "", token, &faulty)?;
        ensure!((status, kind(&answer)) == (401, "/problems/unauthorized"), "{token:?}: {status} {answer}");
        for path in CHANGES {
            let (status, answer) = host.post_as(path, token, b"")?;
            ensure!((status, kind(&answer)) == (401, "/problems/unauthorized"), "{path} {token:?}: {status} {answer}");
        }
        let (status, answer) = host.post_as("/stages/odd/invoke?session=s", token, b"")?;
        ensure!(status == 401, "{token:?}: {status} {answer}");
        ensure!(!answer.to_string().contains(TOKEN), "it is told");
    }
    // What leaves nothing behind needs none.
    ensure!(host.post_as("/stages/odd/invoke", None, b"")?.0 == 200);
    ensure!(host.get("/stages")?.0 == 200);
    ensure!(host.post_as("/stages/odd/invoke?session=s", Some(TOKEN), b"")?.0 == 200);
    let (status, answer) = host.post("/stages/odd/promote")?;
    ensure!((status, kind(&answer)) == (409, "/problems/not-now"), "{status} {answer}");
    ensure!(!host.errors().contains(TOKEN), "it is logged:\n{}", host.errors());
    host.stop()
}

#[test]
fn without_a_token_of_its_own_a_host_cannot_be_administered() -> Result<()> {
    let job = Job::new(ODD, 100)?;
    let host = LiveHost::start_as(&job.pipeline, &job.data("off"), &[], None)?;
    for token in [None, Some(""), Some(TOKEN)] {
        let (status, answer) = host.push_as("odd", "", token, b"")?;
        ensure!((status, kind(&answer)) == (403, "/problems/admin-off"), "{token:?}: {status} {answer}");
        for path in CHANGES {
            let (status, answer) = host.post_as(path, token, b"")?;
            ensure!((status, kind(&answer)) == (403, "/problems/admin-off"), "{path}: {status} {answer}");
        }
        ensure!(host.post_as("/stages/odd/invoke?session=s", token, b"")?.0 == 403);
    }
    host.stop()?;
    // One that can be guessed is none, and says so.
    for wrong in ["", "short"] {
        let data = job.data("guessed");
        let Err(error) = LiveHost::start_as(&job.pipeline, &data, &[], Some(wrong)) else {
            anyhow::bail!("it starts with {wrong:?}");
        };
        let error = format!("{error:#}");
        ensure!(error.contains("TAPELINE_ADMIN_TOKEN") && error.contains("16 or more"), "{error}");
    }
    Ok(())
}
