//! What CloudWatch is told of a call, and `infra/cdk/src/monitoring.ts` watches: a line on standard output in the embedded
//! metric format:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.
//!
//! A metric is paid for each hour in which it is told. So there is a line only when there is something to tell, and in it
//! no count that is zero.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::position::{Partial, Position};

const NAMESPACE: &str = "Tapeline";
/// Of a pipeline as a whole.
const OF_PIPELINE: &[&str] = &["Pipeline"];
/// Of one function: its stages, joined by `+`, as `infra/cdk` calls it.
const OF_FUNCTION: &[&str] = &["Pipeline", "Function"];

/// What happened in calls, counted at most once.
///
/// What a commit says is counted by the process whose commit it was, when the store has said so. It is lost if the process
/// ends before its call does, or if the store's answer is lost: then a crash, or a message that is not done, tells that
/// something was wrong, and the tables have what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    /// Records, or marks, that were put aside because a stage failed on them.
    put_aside: u64,
    /// Records whose fate is dead: what was put aside, what stages refused, what the watermark did not believe, what was too
    /// large to be sent. Not those that are late.
    dead: u64,
    /// Versions of components that were taken back, each once a partition.
    taken_back: u64,
    /// Messages that a call gave back: it failed on one, or on one before it in its group. Each time that they come.
    not_done: u64,
}

impl Happened {
    /// What a commit says, by the positions before it and with it.
    pub(crate) fn of_commit(before: &Position, after: &Position) -> Self {
        // Until the record itself is done, it is only known what will be put aside.
        let is_done = |partial: &&Partial| {
            let Partial { producer, number, done, .. } = *partial;
            after.last_of(producer) >= *number || after.partial_of(producer, *number).done > *done
        };
        let refused = |position: &Position, stage: &str| position.runs.get(stage).and_then(|runs| runs.refused.clone());
        let is_taken_back = |stage: &&String| {
            let refused_now = refused(after, stage);
            refused_now.is_some() && refused_now != refused(before, stage)
        };
        let put_aside = before.partial.iter().filter(|partial| !partial.aside.is_empty()).filter(is_done).count();
        Self {
            put_aside: put_aside as u64,
            dead: after.dead.saturating_sub(before.dead),
            taken_back: after.runs.keys().filter(is_taken_back).count() as u64,
            not_done: 0,
        }
    }

    /// Messages that a call gave back.
    pub(crate) fn of_answer(not_done: usize) -> Self {
        Self { not_done: not_done as u64, ..Self::default() }
    }

    /// Adds what happened besides.
    pub(crate) const fn add(&mut self, other: Self) {
        self.put_aside += other.put_aside;
        self.dead += other.dead;
        self.taken_back += other.taken_back;
        self.not_done += other.not_done;
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = [
            ("RecordsPutAside", self.put_aside),
            ("RecordsDead", self.dead),
            ("VersionsTakenBack", self.taken_back),
            ("MessagesNotDone", self.not_done),
        ];
        counts.into_iter().filter(|(_, count)| *count > 0)
    }
}

/// Who tells, and when, ns since the epoch.
pub(crate) struct Teller<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) function: &'a str,
    pub(crate) now: i64,
}

impl Teller<'_> {
    /// Tells what happened, and how long ago the newest of the events that are in the tables now was received, ns since the
    /// epoch.
    #[expect(clippy::print_stdout, reason = "this is how CloudWatch is told")]
    pub(crate) fn tell(&self, happened: &Happened, received: Option<i64>) {
        if let Some(line) = self.line(happened, received) {
            println!("{line}");
        }
    }

    fn line(&self, happened: &Happened, received: Option<i64>) -> Option<String> {
        let metric = |(name, unit)| Metric { name, unit };
        let lag = received.map(|received| ("LagMilliseconds", self.now.saturating_sub(received) / 1_000_000));
        let lag_metrics: Vec<_> = lag.iter().map(|(name, _)| metric((*name, "Milliseconds"))).collect();
        let counts: Vec<_> = happened.counts().map(|(name, _)| metric((name, "Count"))).collect();
        let directives = [(&[OF_PIPELINE][..], lag_metrics), (&[OF_PIPELINE, OF_FUNCTION][..], counts)];
        let directives = directives.into_iter().filter(|(_, metrics)| !metrics.is_empty());
        let directives =
            directives.map(|(dimensions, metrics)| Directive { namespace: NAMESPACE, dimensions, metrics });
        let directives: Vec<_> = directives.collect();
        let counts = happened.counts().map(|(name, count)| (name, i64::try_from(count).unwrap_or(i64::MAX)));
        let line = Line {
            aws: About { timestamp: self.now / 1_000_000, directives: &directives },
            pipeline: self.pipeline,
            function: self.function,
            values: lag.into_iter().chain(counts).collect(),
        };
        (!directives.is_empty()).then(|| tapeline_invoke::json(&line))
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "_aws")]
    aws: About<'a>,
    #[serde(rename = "Pipeline")]
    pipeline: &'a str,
    #[serde(rename = "Function")]
    function: &'a str,
    #[serde(flatten)]
    values: BTreeMap<&'static str, i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct About<'a> {
    /// Milliseconds since the epoch.
    timestamp: i64,
    #[serde(rename = "CloudWatchMetrics")]
    directives: &'a [Directive<'a>],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'static str,
    /// Each set of them makes a metric of its own.
    dimensions: &'a [&'static [&'static str]],
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    name: &'static str,
    unit: &'static str,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::position::Runs;

    fn told(happened: &Happened, received: Option<i64>) -> Option<Value> {
        let teller = Teller { pipeline: "p", function: "dedup+enrich", now: 5_000_000_000 };
        teller.line(happened, received).map(|line| serde_json::from_str(&line).unwrap())
    }

    #[test]
    fn what_happened_is_told_in_one_line() {
        let happened = Happened { put_aside: 1, dead: 3, taken_back: 0, not_done: 2 };
        let count = |name| json!({ "Name": name, "Unit": "Count" });
        let lag = json!({ "Name": "LagMilliseconds", "Unit": "Milliseconds" });
        let counts = json!([count("RecordsPutAside"), count("RecordsDead"), count("MessagesNotDone")]);
        let expected = json!({
            "_aws": {
                "Timestamp": 5_000,
                "CloudWatchMetrics": [
                    { "Namespace": "Tapeline", "Dimensions": [["Pipeline"]], "Metrics": [lag] },
                    { "Namespace": "Tapeline", "Dimensions": [["Pipeline"], ["Pipeline", "Function"]], "Metrics": counts },
                ],
            },
            "Pipeline": "p",
            "Function": "dedup+enrich",
            "LagMilliseconds": 1_200,
            "RecordsPutAside": 1,
            "RecordsDead": 3,
            "MessagesNotDone": 2,
        });
        assert_eq!(told(&happened, Some(3_800_000_000)), Some(expected));
    }

    #[test]
    fn what_did_not_happen_is_not_told() {
        assert_eq!(told(&Happened::default(), None), None);
        let line = told(&Happened::of_answer(4), None).unwrap();
        assert_eq!(line["_aws"]["CloudWatchMetrics"].as_array().unwrap().len(), 1);
        assert_eq!((&line["MessagesNotDone"], line.get("LagMilliseconds")), (&json!(4), None));
        let line = told(&Happened::default(), Some(5_000_000_000)).unwrap();
        let directives = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        assert_eq!((directives.len(), &directives[0]["Dimensions"]), (1, &json!([["Pipeline"]])));
        assert_eq!(line["LagMilliseconds"], 0);
    }

    fn position(partial: Option<(u128, u32, &[u32])>, last: u128, dead: u64) -> Position {
        let partial = partial.map(|(number, done, aside)| Partial {
            producer: "before".to_owned(),
            number,
            done,
            span: 1,
            aside: aside.iter().map(|at| (*at, "a trap".to_owned())).collect(),
        });
        Position { partial, last: BTreeMap::from([("before".to_owned(), last)]), dead, ..Position::default() }
    }

    #[test]
    fn a_record_is_put_aside_with_the_commit_that_does_so() {
        let put_aside = |before: &Position, after: &Position| {
            let Happened { put_aside, dead, .. } = Happened::of_commit(before, after);
            (put_aside, dead)
        };
        let dead = 12;
        let narrowed = position(Some((4, 2, &[])), 3, dead);
        let decided = position(Some((4, 2, &[0])), 3, dead);
        let decided_again = position(Some((4, 2, &[0, 1])), 3, dead);
        // A decision puts nothing aside; the commit of the record does, whether or not it is the last of its message.
        assert_eq!(put_aside(&narrowed, &decided), (0, 0));
        assert_eq!(put_aside(&decided, &decided_again), (0, 0));
        assert_eq!(put_aside(&decided_again, &position(Some((4, 3, &[])), 3, 13)), (1, 1));
        assert_eq!(put_aside(&decided, &position(None, 4, 13)), (1, 1));
        // What stages refuse by themselves.
        assert_eq!(put_aside(&narrowed, &position(None, 4, 15)), (0, 3));
    }

    #[test]
    fn a_version_is_taken_back_once() {
        let running = |stages: [Runs; 2]| Position {
            runs: ["a", "b"].map(str::to_owned).into_iter().zip(stages).collect(),
            ..Position::default()
        };
        let first = Runs::default().towards("1").unwrap();
        let second = first.towards("2").unwrap();
        let back = second.rolled_back().unwrap();
        let third = back.towards("3").unwrap();
        let back_again = third.rolled_back().unwrap();
        let taken_back = |before: &Runs, after: &Runs| {
            let positions = (running([first.clone(), before.clone()]), running([first.clone(), after.clone()]));
            Happened::of_commit(&positions.0, &positions.1).taken_back
        };
        assert_eq!((taken_back(&first, &second), taken_back(&second, &back)), (0, 1));
        assert_eq!((taken_back(&back, &back), taken_back(&back, &third)), (0, 0));
        assert_eq!((taken_back(&third, &back_again), taken_back(&back, &back.towards("1").unwrap())), (1, 0));
        assert_eq!(Happened::of_commit(&Position::default(), &running([first.clone(), first])), Happened::default());
    }

    #[test]
    fn what_happens_adds_up() {
        let mut happened = Happened { put_aside: 1, dead: 2, taken_back: 3, not_done: 4 };
        happened.add(Happened { put_aside: 10, dead: 20, taken_back: 30, not_done: 40 });
        assert_eq!(happened, Happened { put_aside: 11, dead: 22, taken_back: 33, not_done: 44 });
    }
}
