//! The Spin application of `spin.toml`: every conformance case, and whole pipelines.
//!
//! There is no `spin` program here. The manifest is loaded, each front is composed with its stage, and the components run
//! behind real HTTP in the stand-in of this package, with instances kept as Spin keeps them and with a fresh one for each
//! request.

mod application;
mod conformance;
mod pipeline;

use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_spin_tests::Reuse;
use tapeline_tests::{
    conformance::{Case, Runtime, check},
    recordings,
};

use crate::conformance::Composed;

type Test = fn() -> Result<()>;

fn main() {
    let arguments = Arguments::from_args();
    let trials = trials().unwrap_or_else(|error| {
        let failed = Failed::from(format!("{error:#}"));
        vec![Trial::test("the_cases_can_be_read", || Err(failed))]
    });
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials() -> Result<Vec<Trial>> {
    let tests: [(&str, Test); 15] = [
        ("settings_are_those_of_the_main_job", application::settings_are_those_of_the_main_job),
        ("every_component_has_one_route", application::every_component_has_one_route),
        ("what_is_asked_wrongly_is_told_so", application::what_is_asked_wrongly_is_told_so),
        ("sessions_need_the_token", application::sessions_need_the_token),
        ("sessions_have_limits", application::sessions_have_limits),
        ("a_pipeline_writes_what_the_host_writes", pipeline::a_pipeline_writes_what_the_host_writes),
        ("a_killed_request_leaves_nothing_behind", pipeline::a_killed_request_leaves_nothing_behind),
        ("requests_at_once_come_one_after_the_other", pipeline::requests_at_once_come_one_after_the_other),
        ("a_request_with_a_key_is_answered_again", pipeline::a_request_with_a_key_is_answered_again),
        ("a_stage_that_traps_stores_nothing", pipeline::a_stage_that_traps_stores_nothing),
        ("a_call_leaves_nothing_to_the_next", pipeline::a_call_leaves_nothing_to_the_next),
        ("a_stage_in_another_language_begins_anew", pipeline::a_stage_in_another_language_begins_anew),
        ("a_fault_of_the_settings_is_told_as_one", pipeline::a_fault_of_the_settings_is_told_as_one),
        ("the_order_of_stages_is_checked", pipeline::the_order_of_stages_is_checked),
        ("one_stage_is_swapped_by_a_file_name", pipeline::one_stage_is_swapped_by_a_file_name),
    ];
    let trial = |(name, test): (&str, Test)| Trial::test(name, move || test().map_err(told));
    let mut trials: Vec<Trial> = tests.map(trial).into();
    trials.push(
        trial(("the_recorded_market", pipeline::the_recorded_market)).with_ignored_flag(recordings::folder().is_none()),
    );

    let cases: Vec<Arc<Case>> = Case::load_all()?.into_iter().map(Arc::new).collect();
    for (name, reuse) in [("spin", Reuse::SPIN), ("spin_fresh", Reuse::FRESH)] {
        let runtime = Arc::new(Composed::new(name, reuse));
        trials.extend(cases.iter().map(|case| {
            let (runtime, case) = (Arc::clone(&runtime), Arc::clone(case));
            Trial::test(format!("{name}::{}", case.name), move || check(&*runtime as &dyn Runtime, &case).map_err(told))
        }));
    }
    Ok(trials)
}

fn told(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
