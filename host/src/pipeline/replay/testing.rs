//! Small stages of native code that the tests of this folder run instead of components.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tapeline_events::{Alarm, Kind};

use crate::{
    batch::{self, Element},
    contract::{Columns, Decoded, Description, Entry, Frames, Group, INPUT, Input, Kinds, MARK, Output, Written},
    names::{Names, Told},
    runtime::{Fault, Instance},
    segment::{Blueprint, Role},
};

/// Decodes JSON lines, an event a frame. Like an instance of a component it knows only the names that it coined.
#[derive(Default)]
pub(super) struct Lines {
    names: Names,
}

/// Frames of lines.
pub(super) fn frames(lines: &[String]) -> Frames {
    let mut end = 0;
    let ends = lines.iter().map(|line| {
        end += line.len() as u32;
        end
    });
    Frames {
        names: Vec::new(),
        format: "events".to_owned(),
        received: Vec::new(),
        ends: ends.collect(),
        bytes: lines.concat().into_bytes(),
    }
}

impl Instance for Lines {
    fn describe(&mut self) -> Result<Description, Fault> {
        Ok(description(Kinds::empty()))
    }

    fn restore(&mut self, _: &[Entry], _: i64) -> Result<(), Fault> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        Ok(Vec::new())
    }

    fn process(&mut self, _: &Input) -> Result<Output, Fault> {
        Err(Fault::Breach("a decoder".to_owned()))
    }

    fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        let mut start = 0;
        let lines = frames.ends.iter().map(|end| {
            let line = &frames.bytes[start..*end as usize];
            start = *end as usize;
            line
        });
        let known = self.names.len();
        let mut events = batch::from_lines(lines, None, &mut self.names).unwrap();
        let names = (known..self.names.len()).map(|at| self.names.text(tapeline_events::Name(at as u32)).to_owned());
        let names = names.collect();
        let coined = batch::visit_names::<()>(&mut events, |name| {
            *name += crate::contract::COINED;
            Ok(())
        });
        coined.unwrap();
        Ok(Decoded { names, records: vec![1; frames.ends.len()], events, dropped: Vec::new(), rejects: Vec::new() })
    }

    fn write(&mut self, _: &Input) -> Result<Written, Fault> {
        Err(Fault::Breach("a decoder".to_owned()))
    }

    fn set_call_time_max(&mut self, _: Duration) {}
}

/// What such a stage says of itself.
pub(super) fn description(takes: Kinds) -> Description {
    let (name, version) = ("native".to_owned(), "0.0.0".to_owned());
    Description { name, version, takes, gives: Kinds::empty(), state_version: 0 }
}

/// Gives an alarm when a symbol's price moves by more than a tolerance from one trade to the next.
#[derive(Default)]
pub(super) struct Moves {
    tolerance: f64,
    names: Vec<String>,
    last: BTreeMap<String, f64>,
    changed: BTreeSet<String>,
}

/// The blueprint of such a stage.
pub(super) struct MovesBlueprint(pub(super) f64);

impl Blueprint for MovesBlueprint {
    fn name(&self) -> &'static str {
        "moves"
    }

    fn role(&self) -> Role {
        Role::Stage
    }

    fn digest(&self) -> &'static str {
        "native"
    }

    fn settings(&self) -> &'static str {
        "{}"
    }

    fn call_time_max(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        Ok(Box::new(Moves { tolerance: self.0, ..Moves::default() }))
    }
}

/// Events of lines as a stage is given them: with all names, for its first call.
pub(super) fn input(lines: &[String]) -> Input {
    let mut names = Names::default();
    let events = batch::from_lines(lines.iter().map(String::as_bytes), None, &mut names).unwrap();
    Input { names: Told::default().untold(&names), events }
}

/// A trade at so many seconds as a line.
pub(super) fn trade(symbol: &str, seconds: i64, price: f64) -> String {
    format!(
        r#"{{"kind":"trade","symbol":"{symbol}","source":"s","time":"1970-01-01T00:00:{seconds:02}Z","id":{seconds},"price":{price}}}"#
    )
}

impl Moves {
    fn see(&mut self, symbol: &str, price: f64) -> Option<Alarm> {
        let before = self.last.insert(symbol.to_owned(), price)?;
        let (deviation, tolerance) = ((price - before).abs(), self.tolerance);
        (deviation > tolerance).then_some(Alarm {
            window: 1,
            previous: before,
            average: price,
            deviation,
            tolerance,
            relative: false,
            price,
        })
    }
}

impl Instance for Moves {
    fn describe(&mut self) -> Result<Description, Fault> {
        Ok(Description { gives: Kinds::ALARMS, ..description(Kinds::TRADES) })
    }

    fn restore(&mut self, entries: &[Entry], _: i64) -> Result<(), Fault> {
        let price = |entry: &Entry| f64::from_le_bytes(entry.value.clone().unwrap().try_into().unwrap());
        self.last = entries.iter().map(|entry| (entry.key.clone(), price(entry))).collect();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        let changed = std::mem::take(&mut self.changed);
        let entry = |key: String| Entry {
            value: self.last.get(&key).map(|price| price.to_le_bytes().to_vec()),
            key,
            part: 0,
            version: 1,
            wake_at: None,
            expires_at: None,
        };
        Ok(changed.into_iter().map(entry).collect())
    }

    fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        self.names.extend_from_slice(&input.names);
        let mut emitted = batch::empty();
        for element in batch::elements(&input.events) {
            let Element::Event { group, at } = element else {
                emitted.order.push(MARK);
                continue;
            };
            emitted.order.push(INPUT);
            let group = &input.events.groups[group];
            let Columns::Trades(trades) = &group.columns else { continue };
            let symbol = self.names[group.symbol[at] as usize].clone();
            self.changed.insert(symbol.clone());
            let Some(alarm) = self.see(&symbol, trades.price[at]) else { continue };
            if emitted.groups.is_empty() {
                emitted.groups.push(Group::for_events_like(&group.envelope_at(at), Kind::Alarm));
            }
            emitted.groups[0].push(&group.envelope_at(at), alarm.into());
            emitted.order.push(0);
        }
        let (names, fates, rules, rejects) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Output { names, fates, rules, rejects, emitted })
    }

    fn decode(&mut self, _: &Frames) -> Result<Decoded, Fault> {
        Err(Fault::Breach("a stage".to_owned()))
    }

    fn write(&mut self, _: &Input) -> Result<Written, Fault> {
        Err(Fault::Breach("a stage".to_owned()))
    }

    fn set_call_time_max(&mut self, _: Duration) {}
}
