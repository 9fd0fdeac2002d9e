//! Many instances of a stage, each with settings of its own, that are fed with the same events: what alarms would each
//! have given?
//!
//! The counts are part of the state, so that what is done again after a fault is counted once.

use std::{collections::BTreeMap, time::Duration};

use super::lexicon::Lexicon;
use crate::{
    batch,
    contract::{Columns, Decoded, Description, Entry, Frames, Input, Output, Written},
    error::{Error, Kind, Result},
    runtime::{Fault, Instance},
    segment::{Blueprint, Role},
};

/// Alarms by symbol and window (ns).
pub(super) type Alarms = BTreeMap<(String, u64), u64>;

/// Stages that are one for their worker. All are the same component.
pub(super) struct Forked(pub(super) Vec<Box<dyn Blueprint>>);

impl Forked {
    fn first(&self) -> Option<&dyn Blueprint> {
        self.0.first().map(AsRef::as_ref)
    }
}

impl Blueprint for Forked {
    fn name(&self) -> &str {
        self.first().map_or("", Blueprint::name)
    }

    fn role(&self) -> Role {
        self.first().map_or(Role::Stage, Blueprint::role)
    }

    fn digest(&self) -> &str {
        self.first().map_or("", Blueprint::digest)
    }

    fn settings(&self) -> &str {
        self.first().map_or("{}", Blueprint::settings)
    }

    fn call_time_max(&self) -> Duration {
        self.first().map_or(Duration::MAX, Blueprint::call_time_max)
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        let branches = self.0.iter().map(|blueprint| Ok(Branch::new(blueprint.instantiate()?)));
        Ok(Box::new(Fork { branches: branches.collect::<Result<_, Fault>>()? }))
    }
}

/// The counts of each branch in the state of such a stage.
///
/// # Errors
/// `Corrupt` when they are not what [`Forked`] keeps.
pub(super) fn alarms_of(state: &[Entry], branches: usize) -> Result<Vec<Alarms>> {
    let mut all = vec![Alarms::new(); branches];
    for entry in state {
        if let Owner::Counts(branch) = Owner::of(&entry.key)
            && let Some(alarms) = all.get_mut(branch)
        {
            *alarms = decode_counts(entry).map_err(|reason| Error::new(Kind::Corrupt, reason))?;
        }
    }
    Ok(all)
}

/// Lets all events pass, and keeps the alarms that the instances add to them for itself.
struct Fork {
    branches: Vec<Branch>,
}

struct Branch {
    instance: Box<dyn Instance>,
    lexicon: Lexicon,
    alarms: Alarms,
    is_changed: bool,
}

/// Whose a state entry is: `7` are the counts of branch 7, `7/BTC` is what its instance keeps as `BTC`.
enum Owner<'a> {
    Counts(usize),
    Instance(usize, &'a str),
    Nobody,
}

impl<'a> Owner<'a> {
    fn of(key: &'a str) -> Self {
        match key.split_once('/') {
            None => key.parse().map_or(Self::Nobody, Self::Counts),
            Some((branch, key)) => branch.parse().map_or(Self::Nobody, |branch| Self::Instance(branch, key)),
        }
    }
}

fn decode_counts(entry: &Entry) -> Result<Alarms, String> {
    let counts: Vec<((String, u64), u64)> = serde_json::from_slice(entry.value.as_deref().unwrap_or_default())
        .map_err(|error| format!("read the counts of alarms: {error}"))?;
    Ok(counts.into_iter().collect())
}

fn encode_counts(branch: usize, alarms: &Alarms) -> Entry {
    let counts: Vec<_> = alarms.iter().collect();
    Entry {
        key: branch.to_string(),
        part: 0,
        version: 1,
        // Texts and numbers, which JSON can always write.
        value: Some(serde_json::to_vec(&counts).unwrap_or_default()),
        wake_at: None,
        expires_at: None,
    }
}

impl Branch {
    fn new(instance: Box<dyn Instance>) -> Self {
        Self { instance, lexicon: Lexicon::default(), alarms: Alarms::new(), is_changed: false }
    }

    fn process(&mut self, input: &Input) -> Result<(), Fault> {
        let output = self.instance.process(input)?;
        batch::check_answer(&input.events, &output).map_err(|breach| Fault::Breach(breach.to_string()))?;
        self.lexicon.hear(&input.names);
        self.lexicon.coin(&output.names);
        for group in &output.emitted.groups {
            let Columns::Alarms(alarms) = &group.columns else { continue };
            for (symbol, window) in group.symbol.iter().zip(&alarms.window) {
                let key = (self.lexicon.text(*symbol).to_owned(), *window);
                *self.alarms.entry(key).or_default() += 1;
                self.is_changed = true;
            }
        }
        Ok(())
    }
}

impl Instance for Fork {
    fn describe(&mut self) -> Result<Description, Fault> {
        let none = || Fault::Breach("a fork without branches".to_owned());
        self.branches.first_mut().ok_or_else(none)?.instance.describe()
    }

    fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        let mut states = vec![Vec::new(); self.branches.len()];
        for entry in entries {
            match Owner::of(&entry.key) {
                Owner::Counts(at) => {
                    if let Some(branch) = self.branches.get_mut(at) {
                        branch.alarms = decode_counts(entry).map_err(Fault::State)?;
                    }
                }
                Owner::Instance(at, key) => {
                    let entry = Entry { key: key.to_owned(), ..entry.clone() };
                    states.get_mut(at).into_iter().for_each(|state: &mut Vec<Entry>| state.push(entry.clone()));
                }
                Owner::Nobody => return Err(Fault::State(format!("{:?} is a key of no branch", entry.key))),
            }
        }
        let mut branches = self.branches.iter_mut().zip(&states);
        branches.try_for_each(|(branch, state)| branch.instance.restore(state, watermark))
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        let mut entries = Vec::new();
        for (at, branch) in self.branches.iter_mut().enumerate() {
            let own = branch.instance.checkpoint()?.into_iter();
            entries.extend(own.map(|entry| Entry { key: format!("{at}/{}", entry.key), ..entry }));
            if std::mem::take(&mut branch.is_changed) {
                entries.push(encode_counts(at, &branch.alarms));
            }
        }
        Ok(entries)
    }

    fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        self.branches.iter_mut().try_for_each(|branch| branch.process(input))?;
        Ok(Output {
            names: Vec::new(),
            fates: Vec::new(),
            rules: Vec::new(),
            rejects: Vec::new(),
            emitted: batch::empty(),
        })
    }

    fn decode(&mut self, _: &Frames) -> Result<Decoded, Fault> {
        Err(Fault::Breach("no decode in a stage".to_owned()))
    }

    fn write(&mut self, _: &Input) -> Result<Written, Fault> {
        Err(Fault::Breach("no write in a stage".to_owned()))
    }

    fn set_call_time_max(&mut self, limit: Duration) {
        self.branches.iter_mut().for_each(|branch| branch.instance.set_call_time_max(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::replay::testing::{MovesBlueprint, input, trade};

    fn forked() -> Forked {
        Forked([0.5, 1.5].map(|tolerance| Box::new(MovesBlueprint(tolerance)) as Box<dyn Blueprint>).into())
    }

    fn counts(state: &[Entry]) -> Vec<Vec<(String, u64)>> {
        let of = |alarms: Alarms| alarms.into_iter().map(|((symbol, _), count)| (symbol, count)).collect();
        alarms_of(state, 2).unwrap().into_iter().map(of).collect()
    }

    fn count(symbol: &str, count: u64) -> (String, u64) {
        (symbol.to_owned(), count)
    }

    #[test]
    fn each_branch_counts_its_alarms_and_all_events_pass() {
        let mut fork = forked().instantiate().unwrap();
        fork.restore(&[], i64::MIN).unwrap();
        let lines =
            [trade("A", 1, 1.0), trade("B", 2, 5.0), trade("A", 3, 2.0), trade("A", 4, 4.0), trade("B", 5, 6.0)];
        let output = fork.process(&input(&lines)).unwrap();
        assert!(output.fates.is_empty() && output.emitted.groups.is_empty());
        let state = fork.checkpoint().unwrap();
        assert_eq!(counts(&state), [vec![count("A", 2), count("B", 1)], vec![count("A", 1)]]);
    }

    #[test]
    fn a_fork_goes_on_from_its_state() {
        let mut fork = forked().instantiate().unwrap();
        fork.process(&input(&[trade("A", 1, 1.0), trade("A", 2, 2.0)])).unwrap();
        let state = fork.checkpoint().unwrap();
        // What is not committed is done again, and counted once.
        fork.process(&input(&[trade("A", 3, 4.0)])).unwrap();
        let mut fork = forked().instantiate().unwrap();
        fork.restore(&state, i64::MIN).unwrap();
        fork.process(&input(&[trade("A", 3, 4.0)])).unwrap();
        let state = fork.checkpoint().unwrap();
        assert_eq!(counts(&state), [vec![count("A", 2)], vec![count("A", 1)]]);
        let stranger = Entry { key: "x/A".to_owned(), ..state[0].clone() };
        assert!(matches!(fork.restore(&[stranger], i64::MIN), Err(Fault::State(_))));
    }
}
