//! A pipeline of six functions, deployed from the synthesized template to a local AWS (ministack): what the embedded host
//! stores, whatever is pushed meanwhile, and the conformance suite over HTTP. Reported as ignored, by name, where there is
//! no ministack or no Node.js.

mod conformance;
mod equal;

use std::sync::{Arc, LazyLock};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_aws_tests::stack::{Account, Stack, package};
use tapeline_tests::{
    conformance::{Case, Runtime, check},
    program,
};

use crate::conformance::Functions;

/// The stack of the main job, deployed when it is first needed.
type MainStack = LazyLock<Result<Stack, String>, fn() -> Result<Stack, String>>;

fn main() {
    let arguments = Arguments::from_args();
    let trials = trials().unwrap_or_else(|error| {
        let failed = told(error);
        vec![Trial::test("the_cases_can_be_read", || Err(failed))]
    });
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials() -> Result<Vec<Trial>> {
    let is_missing = !Account::is_there();
    let stack: Arc<MainStack> = Arc::new(LazyLock::new(|| deploy().map_err(|error| format!("{error:#}"))));
    let mut trials = vec![{
        let stack = Arc::clone(&stack);
        let test = move || equal::six_functions_store_what_one_process_stores(deployed(&stack)?);
        Trial::test("six_functions_store_what_one_process_stores", move || test().map_err(told))
    }];
    let functions = Arc::new(Functions::new(Arc::clone(&stack)));
    // What is left out would be so each time, and is no test that was skipped.
    let cases = Case::load_all()?.into_iter().filter(|case| functions.leaves_out(case).is_none());
    trials.extend(cases.map(|case| {
        let functions = Arc::clone(&functions);
        Trial::test(format!("functions::{}", case.name), move || check(&*functions, &case).map_err(told))
    }));
    Ok(trials.into_iter().map(|trial| trial.with_ignored_flag(is_missing)).collect())
}

fn deploy() -> Result<Stack> {
    let account = Arc::new(Account::open()?);
    Stack::deploy(&account, &program::bitcoin_pipeline(), &package(), &["authorization=token"])
}

/// The stack, or why there is none.
fn deployed(stack: &MainStack) -> Result<&Stack> {
    stack.as_ref().map_err(|error| anyhow!("{error}"))
}

fn told(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
