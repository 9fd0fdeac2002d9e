//! The conformance suite, in the library, in real processes, and at any base address that the environment names.

use std::{env, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_tests::conformance::{Base, Case, Embedded, Http, Runtime, check};

/// Where else to run the cases, such as `http://127.0.0.1:3000`.
const BASE: &str = "TAPELINE_CONFORMANCE_BASE";
/// What is shown there.
const TOKEN: &str = "TAPELINE_ADMIN_TOKEN";

fn main() {
    let arguments = Arguments::from_args();
    let trials = trials().unwrap_or_else(|error| {
        let failed = Failed::from(format!("{error:#}"));
        vec![Trial::test("the_cases_can_be_read", || Err(failed))]
    });
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials() -> anyhow::Result<Vec<Trial>> {
    let cases: Vec<Arc<Case>> = Case::load_all()?.into_iter().map(Arc::new).collect();
    let mut trials = Vec::new();
    // What these leave out would be the same each time, and is no test that was skipped.
    let always: [Arc<dyn Runtime>; 2] = [Arc::new(Embedded::new()?), Arc::new(Http::default())];
    for runtime in always {
        let cases = cases.iter().filter(|case| runtime.leaves_out(case).is_none());
        trials.extend(cases.map(|case| trial(&runtime, case)));
    }
    if let Ok(url) = env::var(BASE) {
        let token = env::var(TOKEN).ok();
        let base: Arc<dyn Runtime> = Arc::new(Base::new(&url, token.as_deref()));
        trials.extend(cases.iter().map(|case| trial(&base, case).with_ignored_flag(base.leaves_out(case).is_some())));
    }
    Ok(trials)
}

fn trial(runtime: &Arc<dyn Runtime>, case: &Arc<Case>) -> Trial {
    let (runtime, case) = (Arc::clone(runtime), Arc::clone(case));
    let name = format!("{}::{}", runtime.name(), case.name);
    Trial::test(name, move || check(&*runtime, &case).map_err(|error| Failed::from(format!("{error:#}"))))
}
