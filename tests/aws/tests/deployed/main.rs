//! A pipeline of six functions, deployed from the synthesized template to a local AWS (ministack): what the embedded host
//! stores, whatever is pushed meanwhile, and the conformance suite over HTTP. Reported as ignored, by name, where there is
//! no ministack or no Node.js.

mod conformance;
mod destroy;
mod equal;
mod keeper;
mod market;
mod on_hosts;
mod operate;
mod read;
mod swap;

use std::sync::{Arc, LazyLock};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_aws_tests::stack::{Account, Stack, package};
use tapeline_harness::{
    conformance::{Case, Runtime, check},
    program,
};

use crate::conformance::Functions;

/// Made when it is first needed, or why it cannot be.
type Lazy<T> = LazyLock<Result<T, String>, Box<dyn FnOnce() -> Result<T, String> + Send>>;
/// A stack that several tests use.
type SharedStack = Lazy<Stack>;

fn main() {
    let arguments = Arguments::from_args();
    let trials = trials().unwrap_or_else(|error| {
        let failed = told(error);
        vec![Trial::test("the_cases_can_be_read", || Err(failed))]
    });
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials() -> Result<Vec<Trial>> {
    let account: Arc<Lazy<Arc<Account>>> = lazy(|| Account::open().map(Arc::new));
    let stack: Arc<SharedStack> = {
        let account = Arc::clone(&account);
        let context = ["authorization=token"];
        lazy(move || Stack::deploy(made(&account)?, &program::bitcoin_pipeline(), &package(), &context))
    };
    let functions = Arc::new(Functions::new(Arc::clone(&stack)));
    let operated: Arc<SharedStack> = {
        let account = Arc::clone(&account);
        lazy(move || operate::deploy(made(&account)?))
    };
    let operate = |name: &'static str, test: fn(&Stack) -> Result<()>| {
        let stack = Arc::clone(&operated);
        trial(name, move || test(made(&stack)?))
    };
    let on_account = |name: &'static str, test: fn(&Arc<Account>) -> Result<()>| {
        let account = Arc::clone(&account);
        trial(name, move || test(made(&account)?))
    };
    let mut trials = vec![
        on_account(
            "nothing_is_left_of_a_stack_that_is_destroyed",
            destroy::nothing_is_left_of_a_stack_that_is_destroyed,
        ),
        on_account("data_that_is_to_be_kept_is_left", destroy::data_that_is_to_be_kept_is_left),
        on_account(
            "stores_alone_are_read_kept_and_have_no_functions",
            on_hosts::stores_alone_are_read_kept_and_have_no_functions,
        ),
        on_account(
            "a_component_that_is_pushed_takes_effect_and_one_that_traps_is_taken_back",
            swap::a_component_that_is_pushed_takes_effect_and_one_that_traps_is_taken_back,
        ),
        operate("a_stage_is_pushed_listed_and_taken_back", operate::a_stage_is_pushed_listed_and_taken_back),
        operate("of_those_who_push_at_once_one_is_told", operate::of_those_who_push_at_once_one_is_told),
        operate(
            "what_does_not_fit_is_refused_and_changes_nothing",
            operate::what_does_not_fit_is_refused_and_changes_nothing,
        ),
        operate(
            "nobody_without_credentials_or_a_region_gets_far",
            operate::nobody_without_credentials_or_a_region_gets_far,
        ),
        operate("what_failed_is_sent_again", operate::what_failed_is_sent_again),
        trial("six_functions_store_what_one_process_stores", move || {
            equal::six_functions_store_what_one_process_stores(made(&stack)?)
        }),
    ];
    // What is left out would be so each time, and is no test that was skipped.
    let cases = Case::load_all()?.into_iter().filter(|case| functions.leaves_out(case).is_none());
    trials.extend(cases.map(|case| {
        let functions = Arc::clone(&functions);
        trial(&format!("functions::{}", case.name), move || check(&*functions, &case))
    }));
    let is_missing = !Account::is_there();
    Ok(trials.into_iter().map(|trial| trial.with_ignored_flag(is_missing)).collect())
}

fn trial(name: &str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(told))
}

fn lazy<T>(make: impl FnOnce() -> Result<T> + Send + 'static) -> Arc<Lazy<T>> {
    Arc::new(LazyLock::new(Box::new(move || make().map_err(|error| format!("{error:#}")))))
}

fn made<T>(lazy: &Lazy<T>) -> Result<&T> {
    lazy.as_ref().map_err(|error| anyhow!("{error}"))
}

fn told(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
