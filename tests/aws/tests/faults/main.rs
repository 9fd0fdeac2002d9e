//! Functions that are killed, called twice and called at once, on the way to services that refuse and that do not answer:
//! what they store is what one process stores, and nothing twice. Reported as ignored, by name, where there is no ministack.
//!
//! AWS Lambda cannot run here. What stands for it is ours (`lambda`), since the one of ministack, which
//! the tests of a deployed stack have, does none of that. The functions, their package, queues, tables and buckets are
//! those of a stack.

mod chaos;
mod job;
mod limits;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_aws_tests::{lambda::faults::Faults, local_aws::LocalAws, stack::Account};

use crate::job::Job;

/// What all tests share.
struct Shared {
    account: Arc<Account>,
    job: Job,
    /// They have two cores; and each is quick alone.
    one_at_a_time: Mutex<()>,
}

/// Made when it is first needed, or why it cannot be. It ends with the last test.
type Lazy = LazyLock<Result<Shared, String>>;

fn main() {
    let arguments = Arguments::from_args();
    let none = Faults::default();
    let all = Faults { killed: 15, twice: 20, at_once: 25, throttled: 8, lost: 3, late: 1 };
    let shared: Arc<Lazy> = Arc::new(LazyLock::new(|| shared().map_err(|error| format!("{error:#}"))));
    let chaos = |test: &str, name: &'static str, faults| {
        trial(test, &shared, move |shared| chaos::run(&shared.account, &shared.job, name, faults))
    };
    let limit = |name, test: fn(&Arc<Account>) -> Result<()>| trial(name, &shared, move |shared| test(&shared.account));
    let trials = vec![
        limit("what_is_missing_stops_its_group_and_no_other", limits::what_is_missing_stops_its_group_and_no_other),
        limit("what_is_none_of_ours_fails", limits::what_is_none_of_ours_fails),
        limit("a_record_that_a_stage_fails_on_is_put_aside", limits::a_record_that_a_stage_fails_on_is_put_aside),
        limit("what_an_instance_did_before_harms_no_record", limits::what_an_instance_did_before_harms_no_record),
        limit("a_record_that_takes_too_long_is_put_aside", limits::a_record_that_takes_too_long_is_put_aside),
        chaos("processes_are_killed", "killed", Faults { killed: 35, ..none }),
        chaos("each_batch_is_delivered_twice", "twice", Faults { twice: 100, ..none }),
        chaos("writes_are_throttled_and_answers_are_lost", "throttled", Faults { throttled: 15, lost: 5, ..none }),
        chaos("a_group_is_given_to_two_at_once", "at-once", Faults { at_once: 100, late: 1, ..none }),
        chaos("all_of_it_goes_wrong", "all", all),
    ];
    let is_missing = !LocalAws::is_there();
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(is_missing)).collect();
    drop(shared);
    libtest_mimic::run(&arguments, trials).exit();
}

fn shared() -> Result<Shared> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let account = Arc::new(Account { aws: LocalAws::start()?, runtime });
    Ok(Shared { account, job: Job::new()?, one_at_a_time: Mutex::default() })
}

fn trial(name: &str, shared: &Arc<Lazy>, test: impl FnOnce(&Shared) -> Result<()> + Send + 'static) -> Trial {
    let shared = Arc::clone(shared);
    Trial::test(name, move || {
        let run = || {
            let shared = shared.as_ref().as_ref().map_err(|error| anyhow!("{error}"))?;
            let _alone = shared.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
            test(shared)
        };
        run().map_err(|error: anyhow::Error| Failed::from(format!("{error:#}")))
    })
}
