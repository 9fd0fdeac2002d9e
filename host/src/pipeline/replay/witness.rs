//! Asks a stage for the same alarm again: one event, and the state that it touched, in a fresh instance.

use std::collections::{BTreeMap, BTreeSet};

use tapeline_events::{Alarm, Line, Row, Unit, format_time};

use super::{
    memory,
    watch::{Lookout, Sighting, watermark_behind},
};
use crate::{
    batch::{self, Element},
    contract::{Batch, Entry, Input},
    error::{Error, Kind, Result},
    names::{Names, Told},
    runtime::{Fault, Instance, hex},
    segment::Blueprint,
};

/// A state entry, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct State {
    /// What it belongs to.
    pub key: String,
    /// Tells the entries of a key apart.
    pub part: u64,
    /// Version of its bytes.
    pub version: u32,
    /// Its bytes, in hex.
    pub bytes: String,
    /// Event time of its timer, RFC 3339.
    pub wake_at: Option<String>,
    /// Event time from which on it may be forgotten, RFC 3339.
    pub expires_at: Option<String>,
}

/// What made an alarm, and what comes of it once more.
pub(super) struct Testimony {
    /// The event, or the watermark, as a JSON line.
    pub(super) event: String,
    /// The entries of the keys that it touched, before it.
    pub(super) state: Vec<State>,
    /// The watermark before it.
    pub(super) watermark: Option<String>,
    /// The alarm as it came out in the replay.
    pub(super) alarm: (String, Alarm),
    /// The alarm as it comes out of a fresh instance; none when it does not.
    pub(super) again: Option<(String, Alarm)>,
}

/// An instance with the names that it knows.
struct Witness {
    instance: Box<dyn Instance>,
    names: Names,
    told: Told,
}

/// Finds the one event that made the alarm, and gives it to a fresh instance with only the state that it touched.
///
/// # Errors
/// When the stage fails, or does not give the alarm for events of which it has given it.
pub(super) fn hear(blueprint: &dyn Blueprint, sighting: &Sighting, lookout: &Lookout) -> Result<Testimony> {
    let failed = |fault: Fault| Error::caused(Kind::Internal, format!("run stage {}", blueprint.name()), fault);
    let key = |entry: &Entry| (entry.key.clone(), entry.part);
    let mut state: BTreeMap<_, _> = sighting.entries.iter().map(|entry| (key(entry), entry.clone())).collect();
    let mut watermark = sighting.watermark;
    let mut witness = Witness::new(blueprint, sighting, &sighting.entries, watermark).map_err(failed)?;
    let count = batch::elements(&sighting.input.events).count();
    for at in 0..count {
        let event = batch::slice(&sighting.input.events, at..at + 1);
        let alarm = witness.ask(event.clone(), lookout).map_err(failed)?;
        let changes = witness.instance.checkpoint().map_err(failed)?;
        let Some(alarm) = alarm else {
            memory::change(&mut state, changes);
            watermark = watermark_behind(watermark, &event);
            continue;
        };
        let touched: BTreeSet<String> = changes.into_iter().map(|entry| entry.key).collect();
        let before: Vec<Entry> = state.into_values().filter(|entry| touched.contains(&entry.key)).collect();
        let mut fresh = Witness::new(blueprint, sighting, &before, watermark).map_err(failed)?;
        let again = fresh.ask(event.clone(), &lookout.loosely()).map_err(failed)?;
        return Ok(Testimony {
            event: line_of(&event, &witness.names),
            state: before.iter().map(shown).collect(),
            watermark: (watermark != i64::MIN).then(|| time(watermark)),
            alarm,
            again,
        });
    }
    let message =
        format!("find the event that made stage {} give the alarm: it depends on how input is cut", blueprint.name());
    Err(Error::new(Kind::Internal, message))
}

impl Witness {
    fn new(blueprint: &dyn Blueprint, sighting: &Sighting, state: &[Entry], watermark: i64) -> Result<Self, Fault> {
        let mut instance = blueprint.instantiate()?;
        instance.describe()?;
        instance.restore(state, watermark)?;
        let mut names = Names::default();
        for text in &sighting.input.names {
            names.intern(text);
        }
        Ok(Self { instance, names, told: Told::default() })
    }

    /// The alarm that an event makes, if it does.
    fn ask(&mut self, event: Batch, lookout: &Lookout) -> Result<Option<(String, Alarm)>, Fault> {
        let breach = |breach: batch::Breach| Fault::Breach(breach.to_string());
        let input = Input { names: self.told.untold(&self.names), events: event };
        let mut output = self.instance.process(&input)?;
        batch::check_answer(&input.events, &output).map_err(breach)?;
        self.told.coin(&output.names, &mut self.names);
        self.told.resolve_batch(&mut output.emitted).map_err(breach)?;
        let text = |number| self.names.text(tapeline_events::Name(number));
        let Some((group, at)) = lookout.is_among(&output.emitted, text) else { return Ok(None) };
        let group = &output.emitted.groups[group];
        match group.columns.row(at) {
            Row::Alarm(alarm) => Ok(Some((batch::to_line(group, at, &self.names), alarm))),
            _ => Ok(None),
        }
    }
}

/// The one element of a batch as text.
fn line_of(batch: &Batch, names: &Names) -> String {
    match batch::elements(batch).next() {
        Some(Element::Event { group, at }) => batch::to_line(&batch.groups[group], at, names),
        Some(Element::Mark(at)) => {
            let mark = batch.marks.get(at).copied().unwrap_or_default();
            serde_json::to_string(&Line::watermark(mark)).unwrap_or_default()
        }
        None => String::new(),
    }
}

fn shown(entry: &Entry) -> State {
    State {
        key: entry.key.clone(),
        part: entry.part,
        version: entry.version,
        bytes: hex(entry.value.as_deref().unwrap_or_default()),
        wake_at: entry.wake_at.map(time),
        expires_at: entry.expires_at.map(time),
    }
}

fn time(ns: i64) -> String {
    format_time(ns, Unit::Nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::replay::{
        testing::{MovesBlueprint, input, trade},
        watch::{Values, Wanted},
    };

    const SECOND: i64 = 1_000_000_000;

    fn wanted(trade_id: &str) -> Wanted {
        Wanted { symbol: "A".to_owned(), window: 1, time: 4 * SECOND, trade_id: Some(trade_id.to_owned()) }
    }

    fn lines() -> [String; 5] {
        [trade("A", 1, 1.0), trade("B", 2, 5.0), trade("A", 3, 2.0), trade("A", 4, 4.0), trade("A", 5, 9.0)]
    }

    #[test]
    fn the_event_and_the_state_before_it_are_found() {
        let lookout = Lookout::new(wanted("4"), None).closely();
        let blueprint = MovesBlueprint(0.5);
        let mut watching = lookout.watch("moves", blueprint.instantiate().unwrap());
        watching.restore(&[], 7).unwrap();
        let [first, rest @ ..] = lines();
        let whole = input(&[&[first.clone()][..], &rest].concat());
        // Names are told once; the second call has the same numbers.
        let mut second = whole.clone();
        second.names.clear();
        second.events = batch::slice(&whole.events, 1..5);
        let first = Input { names: whole.names.clone(), events: batch::slice(&whole.events, 0..1) };
        watching.process(&first).unwrap();
        assert!(!lookout.has_seen());
        watching.process(&second).unwrap();
        let said = hear(&blueprint, &lookout.seen().unwrap(), &lookout).unwrap();
        assert_eq!(
            said.event,
            lines()[3].replace(
                r#""source":"s","time":"1970-01-01T00:00:04Z","#,
                r#""time":"1970-01-01T00:00:04Z","source":"s","#
            )
        );
        let [state] = &said.state[..] else { panic!("{:?}", said.state) };
        assert_eq!((state.key.as_str(), state.bytes.as_str()), ("A", hex(&2_f64.to_le_bytes()).as_str()));
        assert_eq!(said.again, Some(said.alarm));
        assert_eq!(said.watermark.as_deref(), Some("1970-01-01T00:00:00.000000007Z"));
        // Its worker is told all changes, those that were looked at included.
        assert_eq!(watching.checkpoint().unwrap().len(), 2);
    }

    #[test]
    fn an_alarm_of_another_trade_or_with_other_values_is_another_one() {
        let seen = |wanted: Wanted, values: &[(&str, f64)]| {
            let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            let lookout = Lookout::new(wanted, Some(Values(values)));
            let mut watching = lookout.watch("moves", MovesBlueprint(0.5).instantiate().unwrap());
            watching.process(&input(&lines())).unwrap();
            lookout.has_seen()
        };
        assert!(seen(wanted("4"), &[("previous", 2.0), ("deviation", 2.0), ("tolerance", 0.5)]));
        assert!(!seen(wanted("4"), &[("previous", 2.5)]));
        assert!(!seen(wanted("5"), &[]));
        assert!(!seen(Wanted { window: 2, ..wanted("4") }, &[]));
        assert!(!seen(Wanted { symbol: "B".to_owned(), ..wanted("4") }, &[]));
        assert!(seen(Wanted { trade_id: None, ..wanted("4") }, &[]));
    }
}
