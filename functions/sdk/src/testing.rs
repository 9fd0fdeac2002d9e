//! Native tests of a stage: feed events, advance the watermark, look at what comes out.
//!
//! Events go in and come out as the JSON lines of [`Line`], one call of the stage for each [`Harness::feed`]. The
//! harness is a host in miniature: it names symbols, merges what goes on with what is emitted, and counts fates.

use std::collections::BTreeMap;

use tapeline_events::{Entry as LineEntry, Line, Name};

use crate::{
    Decoder, DecoderRunner, Events, Names, Runner, SettingError, Stage, StateError, Tables,
    bindings::{
        events::{Batch, Group, Input},
        fetcher::exports::tapeline::pipeline::decode::{Decoded, Frames},
        stage::exports::tapeline::pipeline::process::Output as Answer,
        state::Entry,
        writer::exports::tapeline::pipeline::write::Written,
    },
    events_out::{Groups, INPUT, MARK},
    names::COINED,
};

/// A stage under test.
pub struct Harness<S: Stage> {
    runner: Runner<S>,
    settings: String,
    numbering: Numbering,
    state: BTreeMap<(String, u64), Entry>,
    watermark: i64,
    out: Vec<String>,
    rejected: Vec<String>,
    counts: BTreeMap<String, u64>,
    written: Vec<Written>,
}

impl<S: Stage> Harness<S> {
    /// Makes the stage from its settings, a JSON object.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: &str) -> Result<Self, SettingError> {
        Ok(Self {
            runner: Runner::new(settings)?,
            settings: settings.to_owned(),
            numbering: Numbering::default(),
            state: BTreeMap::new(),
            watermark: i64::MIN,
            out: Vec::new(),
            rejected: Vec::new(),
            counts: BTreeMap::new(),
            written: Vec::new(),
        })
    }

    /// Saves the state, throws the stage away, and makes it anew from what was saved.
    ///
    /// # Errors
    /// When the stage does not take back what it saved.
    pub fn restart(&mut self) -> Result<(), StateError> {
        self.checkpoint();
        let corrupt = |error: SettingError| StateError::Corrupt(error.expected);
        self.runner = Runner::new(&self.settings).map_err(corrupt)?;
        self.numbering.told = 0;
        self.numbering.coined.clear();
        self.runner.restore(self.state.values().cloned().collect(), self.watermark)
    }

    /// Saves the state; gives what was written: (key, part, bytes), no bytes for a deletion.
    pub fn checkpoint(&mut self) -> Vec<(String, u64, usize)> {
        let changed = self.runner.checkpoint();
        let sizes = changed.iter().map(|e| (e.key.clone(), e.part, e.value.as_ref().map_or(0, Vec::len))).collect();
        for entry in changed {
            let key = (entry.key.clone(), entry.part);
            if entry.value.is_some() {
                self.state.insert(key, entry);
            } else {
                self.state.remove(&key);
            }
        }
        sizes
    }

    /// Deletes the saved entries that a host may delete, because the watermark has passed their `expires_at`.
    pub fn expire(&mut self) {
        let watermark = self.watermark;
        self.state.retain(|_, entry| entry.expires_at.is_none_or(|at| at > watermark));
    }

    /// What is saved at present: key and part.
    pub fn saved(&self) -> Vec<(String, u64)> {
        self.state.keys().cloned().collect()
    }

    /// What came out so far, as JSON lines; empties the list.
    pub fn out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out)
    }

    /// Reasons of the rejects so far; empties the list.
    pub fn rejected(&mut self) -> Vec<String> {
        std::mem::take(&mut self.rejected)
    }

    /// Rows and appends so far; empties the list.
    pub fn written(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.written)
    }

    /// How many events had the fate `forward`, `replaced`, `duplicate`, `late` or `reject`.
    pub fn count(&self, fate: &str) -> u64 {
        self.counts.get(fate).copied().unwrap_or(0)
    }

    /// How many events a rule dropped.
    pub fn dropped(&self, rule: &str) -> u64 {
        self.count(&format!("dropped by {rule}"))
    }

    fn input(&mut self, lines: &str) -> Input {
        let (mut groups, mut order, mut marks) = (Groups::default(), Vec::new(), Vec::new());
        for text in lines.lines().filter(|line| !line.trim().is_empty()) {
            let line = Line::parse(text.as_bytes()).expect("a test feeds event lines");
            match line.entry(&mut |text| self.numbering.names.intern(text)).expect("a test feeds event lines") {
                LineEntry::Event(envelope, row) => order.push(groups.push(&envelope, row)),
                LineEntry::Watermark(time) => {
                    self.watermark = if time == i64::MAX { self.watermark } else { self.watermark.max(time) };
                    marks.push(time);
                    order.push(MARK);
                }
            }
        }
        let events = Batch { groups: groups.raw(), order, marks };
        Input { names: self.numbering.untold(), events }
    }

    fn tally(&mut self, input: &Input, fates: &[u8], rules: &[String]) {
        for position in 0..input.events.groups.iter().map(Group::len).sum() {
            let fate = match fates.get(position).copied().unwrap_or(0) {
                0 => "forward".to_owned(),
                1 => "replaced".to_owned(),
                2 => "duplicate".to_owned(),
                3 => "late".to_owned(),
                4 => "reject".to_owned(),
                rule => format!("dropped by {}", rules[usize::from(rule) - 16]),
            };
            *self.counts.entry(fate).or_default() += 1;
        }
    }
}

impl<S: Stage<Out = Events>> Harness<S> {
    /// Feeds event lines, in one call.
    pub fn feed(&mut self, lines: &str) {
        let input = self.input(lines);
        let answer = self.runner.process(input.clone());
        self.tally(&input, &answer.fates, &answer.rules);
        self.rejected.extend(answer.rejects.iter().map(|reject| reject.reason.clone()));
        self.numbering.coin(&answer.names);
        self.merge(&input, &answer);
    }

    /// Advances the watermark, ns since the epoch.
    pub fn advance(&mut self, watermark: i64) {
        let mark = serde_json::to_string(&Line::watermark(watermark)).expect("a mark is a line");
        self.feed(&mark);
    }

    /// What goes on and what was emitted, in the order of `process.output`.
    fn merge(&mut self, input: &Input, answer: &Answer) {
        let events: Vec<_> = elements(&input.events).into_iter().flatten().collect();
        let mut next_emitted = vec![0; answer.emitted.groups.len()];
        let only_input = vec![INPUT; events.len()];
        let mut events = events.into_iter().enumerate();
        let order = if answer.emitted.order.is_empty() { &only_input } else { &answer.emitted.order };
        for code in order {
            let (group, at) = match *code {
                MARK => continue,
                INPUT => match events.next() {
                    Some((position, event)) if answer.fates.get(position).copied().unwrap_or(0) == 0 => event,
                    _ => continue,
                },
                emitted => {
                    let at = &mut next_emitted[usize::from(emitted)];
                    *at += 1;
                    (&answer.emitted.groups[usize::from(emitted)], *at - 1)
                }
            };
            let line = self.numbering.line(group, at);
            self.out.push(line);
        }
    }
}

impl<S: Stage<Out = Tables>> Harness<S> {
    /// Feeds event lines to a writer, in one call.
    pub fn write(&mut self, lines: &str) {
        let input = self.input(lines);
        let written = self.runner.process(input.clone());
        self.tally(&input, &written.fates, &written.rules);
        self.rejected.extend(written.rejects.iter().map(|reject| reject.reason.clone()));
        self.written.push(written);
    }
}

/// A decoder under test.
pub struct DecoderHarness<D: Decoder> {
    runner: DecoderRunner<D>,
    numbering: Numbering,
}

impl<D: Decoder> DecoderHarness<D> {
    /// Makes the decoder from its settings, a JSON object.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: &str) -> Result<Self, SettingError> {
        Ok(Self { runner: DecoderRunner::new(settings)?, numbering: Numbering::default() })
    }

    /// Decodes frames in one call: the events as JSON lines, and all that the decoder said.
    pub fn decode(&mut self, format: &str, frames: &[(Option<i64>, &[u8])]) -> (Vec<String>, Decoded) {
        let mut ends = Vec::new();
        let mut bytes = Vec::new();
        for (_, frame) in frames {
            bytes.extend_from_slice(frame);
            ends.push(bytes.len() as u32);
        }
        let received = frames.iter().map(|(received, _)| received.unwrap_or(i64::MIN)).collect();
        let format = format.to_owned();
        let decoded = self.runner.decode(Frames { names: Vec::new(), format, received, ends, bytes });
        self.numbering.coin(&decoded.names);
        let lines = elements(&decoded.events).into_iter().flatten().map(|(group, at)| self.numbering.line(group, at));
        (lines.collect(), decoded)
    }
}

/// The host's side of names.
#[derive(Default)]
struct Numbering {
    names: Names,
    told: usize,
    /// The names that the stage coined, in its order.
    coined: Vec<Name>,
}

impl Numbering {
    fn untold(&mut self) -> Vec<String> {
        let untold = (self.told..self.names.len()).map(|at| self.names.text(Name(at as u32)).to_owned()).collect();
        self.told = self.names.len();
        untold
    }

    fn coin(&mut self, names: &[String]) {
        for text in names {
            let name = self.names.intern(text);
            self.coined.push(name);
        }
    }

    fn text(&self, number: Name) -> &str {
        let coined = number.0.checked_sub(COINED).and_then(|at| self.coined.get(at as usize));
        self.names.text(coined.copied().unwrap_or(number))
    }

    fn line(&self, group: &Group, at: usize) -> String {
        let line = Line::of(&group.envelope_at(at), &group.columns.row(at), &|name| self.text(name));
        serde_json::to_string(&line).expect("a line is JSON")
    }
}

/// The elements of a batch in order: an event's group and place, `None` for a mark.
fn elements(batch: &Batch) -> Vec<Option<(&Group, usize)>> {
    if batch.order.is_empty() {
        return batch.groups.iter().flat_map(|group| (0..group.len()).map(move |at| Some((group, at)))).collect();
    }
    let mut next = [0; 256];
    let element = |code: &u8| {
        let at = next[usize::from(*code)];
        next[usize::from(*code)] += 1;
        (*code != MARK).then(|| (&batch.groups[usize::from(*code)], at))
    };
    batch.order.iter().map(element).collect()
}
