use super::*;

fn version(digest: &str) -> Version {
    Version {
        number: 0,
        digest: digest.repeat(8),
        bytes: 1,
        origin: Origin::Upload,
        name: "alarm".to_owned(),
        semver: "1.0.0".to_owned(),
        state_version: 1,
        imports: Vec::new(),
        settings: None,
        memory_mib: None,
        batch_ms: None,
        by: "me".to_owned(),
        why: String::new(),
        at: 0,
        signature: None,
        signed_by: None,
        is_allowed: false,
    }
}

fn change() -> Change {
    Change { at: 1, by: "me".to_owned(), why: "because".to_owned() }
}

const RULE: ProbationRule = ProbationRule { records: 10, dead_max: 1 };

/// One that is live, and one that must prove itself.
fn on_probation() -> Deployment {
    let mut deployment = Deployment::default();
    let first = deployment.add(version("a"), &change()).unwrap();
    deployment.go_live(first, Some(RULE), &change());
    assert_eq!(deployment.before, None, "there is nothing to go back to");
    let second = deployment.add(version("b"), &change()).unwrap();
    deployment.go_live(second, Some(RULE), &change());
    deployment
}

#[test]
fn a_version_that_fails_gives_way_to_the_last_good_one() {
    let mut deployment = on_probation();
    assert_eq!((deployment.live, deployment.before), (2, Some((1, RULE))));
    let third = deployment.add(version("c"), &change()).unwrap();
    deployment.go_live(third, Some(RULE), &change());
    assert_eq!(deployment.before, Some((1, RULE)), "the second has not proven itself");
    deployment.roll_back(2, 1, &change());
    assert_eq!(deployment.live, 3, "the second is not live any more");
    deployment.roll_back(3, 1, &change());
    assert_eq!((deployment.live, deployment.before), (1, None));
    assert_eq!(deployment.log.last().map(|logged| (logged.what, logged.version)), Some((What::Live, 1)));
}

#[test]
fn one_that_has_proven_itself_stays() {
    let mut deployment = on_probation();
    deployment.prove(1, &change());
    assert!(deployment.before.is_some(), "that was another");
    deployment.prove(2, &change());
    assert_eq!((deployment.live, deployment.before), (2, None));
    assert_eq!(deployment.previous(), Ok(1));
    deployment.roll_back(2, 1, &change());
    assert!(deployment.previous().is_err(), "one does not go back to what was taken back");
}

#[test]
fn the_same_component_with_the_same_settings_is_one_version() {
    let mut deployment = on_probation();
    assert_eq!(deployment.add(version("a"), &change()), Ok(1));
    let other = Version { settings: Some("{\"a\":1}".to_owned()), ..version("a") };
    assert_eq!(deployment.add(other, &change()), Ok(3));
    assert_eq!(deployment.find("aaaaaaaa").unwrap().number, 3);
    assert_eq!(deployment.find("1").unwrap().number, 1);
    assert!(deployment.find("aaa").is_err() && deployment.find("cccccccc").is_err());
}

#[test]
fn candidates_are_promoted_or_thrown_out() {
    let mut deployment = on_probation();
    assert!(deployment.go_beside(2, ShadowRule::default(), &change()).is_err());
    deployment.go_beside(1, ShadowRule::default(), &change()).unwrap();
    assert_eq!(deployment.promote(&change()), Ok(1));
    assert_eq!((deployment.live, deployment.shadow), (1, None));
    assert!(deployment.throw_out(&change()).is_err());
}

#[test]
fn what_waits_is_approved_once() {
    let mut deployment = on_probation();
    deployment.wait(1, Way::Swap, vec!["more memory".to_owned()], &change());
    assert_eq!(deployment.approve(1, &change()), Ok(Way::Swap));
    assert!(deployment.approve(1, &change()).is_err());
}

#[test]
fn versions_and_log_are_limited() {
    let mut deployment = on_probation();
    for at in 0..VERSIONS_MAX as u64 - 2 {
        deployment.add(Version { memory_mib: Some(at + 10), ..version("x") }, &change()).unwrap();
    }
    assert!(deployment.add(version("y"), &change()).is_err());
    assert!(deployment.log.len() <= LOG_MAX);
    let gone = deployment.prune(3, &change());
    assert!(gone.is_empty(), "the component of a kept version is kept: {gone:?}");
    assert!(deployment.version(1).is_some() && deployment.version(2).is_some(), "live, and the one before");
    assert_eq!(deployment.versions.len(), 5);
    assert_eq!(deployment.add(version("y"), &change()), Ok(VERSIONS_MAX as u64 + 1), "numbers are not given twice");
}

#[test]
fn a_version_that_was_let_in_is_not_asked_about_again() {
    let mut deployment = Deployment::default();
    let first = deployment.add(version("a"), &change()).unwrap();
    deployment.go_live(first, None, &change());
    let second = deployment.add(version("b"), &change()).unwrap();
    assert!(deployment.is_allowed(first) && !deployment.is_allowed(second));
    deployment.wait(second, Way::Swap, vec!["more".to_owned()], &change());
    let way = deployment.approve(second, &change()).unwrap();
    assert_eq!(way, Way::Swap);
    deployment.go_live(second, Some(RULE), &change());
    // The one before is known, whatever it wants beyond the live one.
    assert_eq!(deployment.add(version("a"), &change()), Ok(first));
    assert!(deployment.is_allowed(first) && deployment.is_allowed(second));
    // One that waits still from a time before this was noted is let go of by going back to it.
    deployment.wait(first, Way::Swap, vec!["less".to_owned()], &change());
    deployment.roll_back(second, first, &change());
    assert!(deployment.pending.is_empty() && deployment.live == first);
}
