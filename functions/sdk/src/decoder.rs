//! A fetch stage: frames in, events out.

use serde::de::DeserializeOwned;
use tapeline_events::{Day, Envelope, Name, Row};

use crate::{
    Kinds, Names, SettingError,
    bindings::{
        events::Batch,
        fetcher::exports::tapeline::pipeline::decode::{Decoded as Answer, Dropped, Frames, Reject},
        state::Description,
    },
    events_out::Groups,
    settings,
};

/// One message as the vendor sent it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The message.
    pub bytes: &'a [u8],
    /// When it was received, ns since the epoch, by the receiver's clock.
    pub received: Option<i64>,
}

/// Decodes frames. Each by itself: what a frame gives MUST NOT depend on earlier ones.
pub trait Decoder: Sized + 'static {
    /// One word, lower case.
    const NAME: &'static str;
    /// The stage's version, semver.
    const VERSION: &'static str;
    /// What the settings look like.
    type Settings: DeserializeOwned;

    /// Makes the stage.
    ///
    /// # Errors
    /// When a setting has the right type but cannot be used.
    fn new(settings: Self::Settings) -> Result<Self, SettingError>;

    /// The kinds that it may emit.
    fn gives(&self) -> Kinds;

    /// Decodes one frame.
    fn decode(&mut self, format: &str, frame: Frame<'_>, out: &mut Decoded);
}

/// How much of a frame a reject is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// All of it.
    Whole,
    /// One record in it.
    Record(&'a str),
}

/// Takes what the frames of a call hold. Every record of a frame is emitted, dropped or rejected.
#[derive(Default)]
pub struct Decoded {
    names: Names,
    groups: Groups,
    order: Vec<u8>,
    frame: u32,
    records: u32,
    dropped: Vec<Drop>,
    rejects: Vec<Reject>,
}

struct Drop {
    rule: &'static str,
    symbol: Option<Name>,
    day: Option<Day>,
    count: u64,
}

impl Decoded {
    /// The name of a text, new if need be.
    pub fn intern(&mut self, text: &str) -> Name {
        self.names.intern(text)
    }

    /// Emits an event. One that needs more groups than a batch can have is refused: sources come from outside, and
    /// whatever comes from there must not stop the stage.
    #[inline]
    pub fn emit<'a>(&mut self, envelope: &Envelope<'_>, row: impl Into<Row<'a>>) {
        match self.groups.try_push(envelope, row.into()) {
            Some(group) => {
                self.order.push(group);
                self.records += 1;
            }
            None => self.reject(
                Part::Whole,
                Some(envelope.symbol),
                "more than 253 kinds, sources, units and forms of id in one call",
            ),
        }
    }

    /// Leaves a record out by a rule of this name.
    pub fn drop(&mut self, rule: &'static str, symbol: Option<Name>, day: Option<Day>) {
        self.records += 1;
        let alike = |drop: &&mut Drop| drop.rule == rule && drop.symbol == symbol && drop.day == day;
        match self.dropped.iter_mut().rev().find(alike) {
            Some(drop) => drop.count += 1,
            None => self.dropped.push(Drop { rule, symbol, day, count: 1 }),
        }
    }

    /// Refuses a record, or the whole frame.
    pub fn reject(&mut self, part: Part<'_>, symbol: Option<Name>, reason: impl Into<String>) {
        self.records += 1;
        let symbol = symbol.map(|name| self.names.number(name));
        let part = match part {
            Part::Whole => None,
            Part::Record(text) => Some(text.to_owned()),
        };
        self.rejects.push(Reject { frame: self.frame, symbol, reason: reason.into(), part });
    }

    fn finish(&mut self, records: Vec<u32>) -> Answer {
        let groups = self.groups.take(&mut self.names);
        let order = std::mem::take(&mut self.order);
        let dropped = std::mem::take(&mut self.dropped);
        let dropped = dropped.into_iter().map(|drop| Dropped {
            rule: drop.rule.to_owned(),
            symbol: drop.symbol.map(|name| self.names.number(name)),
            day: drop.day.map(|day| day.0),
            count: drop.count,
        });
        Answer {
            records,
            dropped: dropped.collect(),
            rejects: std::mem::take(&mut self.rejects),
            events: Batch { order: if groups.len() > 1 { order } else { Vec::new() }, groups, marks: Vec::new() },
            names: self.names.take_coined(),
        }
    }
}

/// A decoder with its names: what the exported functions of a component call, and native tests as well.
pub struct DecoderRunner<D: Decoder> {
    decoder: D,
    out: Decoded,
}

impl<D: Decoder> DecoderRunner<D> {
    /// Makes the decoder from its settings, a JSON object.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: &str) -> Result<Self, SettingError> {
        Ok(Self { decoder: settings::parse(settings, D::new)?, out: Decoded::default() })
    }

    /// As `describe` of the contract.
    pub fn describe(&self) -> Description {
        Description {
            name: D::NAME.to_owned(),
            version: D::VERSION.to_owned(),
            takes: Kinds::NONE.into(),
            gives: self.decoder.gives().into(),
            state_version: 0,
        }
    }

    /// As `decode.decode`.
    pub fn decode(&mut self, frames: Frames) -> Answer {
        self.out.names.tell(frames.names);
        self.out.groups.clear();
        let mut start = 0;
        let mut records = Vec::with_capacity(frames.ends.len());
        for (at, end) in frames.ends.iter().enumerate() {
            let bytes = &frames.bytes[start..*end as usize];
            start = *end as usize;
            let received = frames.received.get(at).copied().filter(|received| *received != i64::MIN);
            self.out.frame = at as u32;
            self.out.records = 0;
            self.decoder.decode(&frames.format, Frame { bytes, received }, &mut self.out);
            if self.out.records == 0 {
                self.out.drop("empty", None, received.map(Day::of));
            }
            records.push(self.out.records);
        }
        self.out.finish(records)
    }
}
