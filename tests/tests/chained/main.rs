//! A pipeline chained by a real NATS server: the same tables, objects and ledger as in one process, whatever happens.
//! Reported as ignored, by name, where there is no `nats-server`, or no ministack for those that write to AWS.

#![allow(clippy::print_stdout, reason = "the seed of a schedule is printed, so that it can be repeated")]

mod broker;
mod chaos;
mod dead_letters;
mod equal;
mod job;
mod shared;
mod swap;
mod takeover;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_harness::local_aws::LocalAws;
use tapeline_tests::cluster::NatsServer;

type Test = fn() -> Result<()>;

fn main() {
    let with_aws: [(&str, Test); 2] = [
        (
            "hosts_that_share_a_store_and_are_killed_store_what_one_process_stores",
            shared::hosts_that_share_a_store_and_are_killed_store_what_one_process_stores,
        ),
        ("a_store_of_another_chain_is_refused", shared::a_store_of_another_chain_is_refused),
    ];
    let tests: [(&str, Test); 21] = [
        ("one_host_stores_what_one_process_stores", equal::one_host_stores_what_one_process_stores),
        ("three_hosts_store_what_one_process_stores", equal::three_hosts_store_what_one_process_stores),
        ("standard_input_goes_through_a_chain", equal::standard_input_goes_through_a_chain),
        ("a_live_chain_goes_on_where_it_was_killed", equal::a_live_chain_goes_on_where_it_was_killed),
        (
            "a_record_that_traps_comes_back_once_its_stage_is_fixed",
            dead_letters::a_record_that_traps_comes_back_once_its_stage_is_fixed,
        ),
        (
            "a_dead_letter_is_redriven_into_a_running_chain",
            dead_letters::a_dead_letter_is_redriven_into_a_running_chain,
        ),
        ("a_standby_takes_over_within_five_seconds", takeover::a_standby_takes_over_within_five_seconds),
        ("a_doctor_sees_what_somebody_has_changed", broker::a_doctor_sees_what_somebody_has_changed),
        ("a_full_stream_slows_its_source_and_loses_nothing", broker::a_full_stream_slows_its_source_and_loses_nothing),
        ("a_message_that_the_broker_has_lost_is_noticed", broker::a_message_that_the_broker_has_lost_is_noticed),
        (
            "tables_of_a_chain_that_the_broker_has_forgotten_are_refused",
            broker::tables_of_a_chain_that_the_broker_has_forgotten_are_refused,
        ),
        ("a_broker_that_cannot_hold_a_chain_is_refused", broker::a_broker_that_cannot_hold_a_chain_is_refused),
        ("a_local_server_that_is_killed_is_started_again", broker::a_local_server_that_is_killed_is_started_again),
        ("a_trace_goes_on_over_the_hops", broker::a_trace_goes_on_over_the_hops),
        ("a_hop_is_followed_as_text", broker::a_hop_is_followed_as_text),
        ("a_thousand_swaps_on_two_hosts_change_nothing", swap::a_thousand_swaps_on_two_hosts_change_nothing),
        (
            "a_host_that_was_away_comes_back_to_what_was_decided",
            swap::a_host_that_was_away_comes_back_to_what_was_decided,
        ),
        ("uploads_while_hosts_are_killed_end_in_one_version", swap::uploads_while_hosts_are_killed_end_in_one_version),
        ("hosts_share_the_partitions_evenly", takeover::hosts_share_the_partitions_evenly),
        (
            "kills_pauses_cuts_and_broker_restarts_leave_no_trace",
            chaos::kills_pauses_cuts_and_broker_restarts_leave_no_trace,
        ),
        (
            "a_cluster_loses_one_server_after_the_other_and_nothing_else",
            chaos::a_cluster_loses_one_server_after_the_other_and_nothing_else,
        ),
    ];
    let is_missing = !NatsServer::is_there();
    let trial = |(name, test): (&str, Test), is_missing: bool| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
            .with_ignored_flag(is_missing)
    };
    let trials = tests.map(|test| trial(test, is_missing)).into_iter();
    let trials = trials.chain(with_aws.map(|test| trial(test, is_missing || !LocalAws::is_there())));
    let mut arguments = Arguments::from_args();
    // Each has a broker and several hosts: on two cores they would only wait for each other.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
