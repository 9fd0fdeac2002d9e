//! The trait that an author implements.

use serde::de::DeserializeOwned;
use tapeline_events::Kind;

use crate::{
    Event, Name, SettingError, State, bindings,
    bindings::events::{Batch, Input},
    names::Names,
};

/// A set of event kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// All kinds.
    pub const ALL: Self = Self((1 << Kind::ALL.len()) - 1);

    /// These kinds.
    pub const fn of(kinds: &[Kind]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < kinds.len() {
            bits |= kinds[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Whether the kind is among them.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl From<Kinds> for bindings::events::Kinds {
    fn from(kinds: Kinds) -> Self {
        Self::from_bits_retain(kinds.0 as _)
    }
}

/// What becomes of an event. The host counts it; nothing disappears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on unchanged. For a writer: it was written.
    Forward,
    /// It goes on as what was emitted for it.
    Replaced,
    /// It was seen before.
    Duplicate,
    /// It came after its time was over; the host keeps it aside.
    Late,
    /// It is left out by a rule of this name.
    Drop(&'static str),
    /// It cannot be used: to the dead letters, with the reason.
    Reject(String),
}

/// Where a stage puts its results: [`Events`](crate::Events) for most, [`Tables`](crate::Tables) for a writer.
pub trait Output: Default {
    /// What a call gives back.
    type Answer;

    #[doc(hidden)]
    fn begin(&mut self, names: &Names);
    #[doc(hidden)]
    fn at(&mut self, element: usize, events: &Batch);
    #[doc(hidden)]
    fn finish(&mut self, names: &mut Names, input: &Input, fates: Fates) -> Self::Answer;
}

/// Fates of the events of a call, as the contract codes them.
#[doc(hidden)]
#[derive(Default)]
pub struct Fates {
    pub(crate) codes: Vec<u8>,
    pub(crate) rules: Vec<&'static str>,
    pub(crate) rejects: Vec<bindings::events::Reject>,
}

/// Code of the first rule in `process.output.fates`.
const RULE_FIRST: u8 = 16;

impl Fates {
    /// Notes the fate of the event at `position`; all before it have theirs.
    #[inline]
    pub(crate) fn push(&mut self, position: usize, fate: Fate) {
        if fate == Fate::Forward && self.codes.is_empty() {
            return;
        }
        if self.codes.is_empty() {
            self.codes.resize(position, 0);
        }
        let code = match fate {
            Fate::Forward => 0,
            Fate::Replaced => 1,
            Fate::Duplicate => 2,
            Fate::Late => 3,
            Fate::Reject(reason) => {
                self.rejects.push(bindings::events::Reject { position: position as u32, reason });
                4
            }
            Fate::Drop(rule) => self.rule(rule),
        };
        self.codes.push(code);
    }

    fn rule(&mut self, rule: &'static str) -> u8 {
        let index = self.rules.iter().position(|known| *known == rule).unwrap_or_else(|| {
            self.rules.push(rule);
            self.rules.len() - 1
        });
        u8::try_from(index + usize::from(RULE_FIRST)).unwrap_or(u8::MAX)
    }

    pub(crate) fn rules(&self) -> Vec<String> {
        self.rules.iter().map(ToString::to_string).collect()
    }
}

/// A stage: events in, events or rows out, nothing but its settings, state and input to depend on.
///
/// The SDK calls `on_event` for each event in order, with the state of its key. How a host cuts the events into
/// batches MUST NOT show in the results; it does not unless a stage keeps something outside of its states.
pub trait Stage: Sized + 'static {
    /// One word, lower case.
    const NAME: &'static str;
    /// The stage's version, semver; most often `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// What the settings look like. `deny_unknown_fields` makes a misspelt key an error.
    type Settings: DeserializeOwned;
    /// What is kept for each key; `()` for a stage without state.
    type State: State;
    /// [`Events`](crate::Events) or [`Tables`](crate::Tables).
    type Out: Output;

    /// Makes the stage.
    ///
    /// # Errors
    /// When a setting has the right type but cannot be used.
    fn new(settings: Self::Settings) -> Result<Self, SettingError>;

    /// The kinds that it wants to see; the host passes others by it.
    fn takes(&self) -> Kinds;

    /// The kinds that it may emit.
    fn gives(&self) -> Kinds {
        Kinds::NONE
    }

    /// What the event's state belongs to. The default is its symbol.
    fn key(&self, event: &Event<'_>) -> Name {
        event.symbol()
    }

    /// Takes one event.
    fn on_event(&mut self, event: Event<'_>, state: &mut Self::State, out: &mut Self::Out) -> Fate;

    /// Called when the watermark has reached the state's [`State::wake_at`], until that lies ahead again.
    /// Keys that are due at one mark are called in the order of (time due, key).
    fn on_wake(&mut self, wake: Wake<'_>, state: &mut Self::State, out: &mut Self::Out) {
        let _ = (wake, state, out);
    }

    /// Called at every watermark, before timers. For a stage that must compare events with the watermark.
    fn on_watermark(&mut self, watermark: i64) {
        let _ = watermark;
    }
}

/// Why a stage is woken.
#[derive(Clone, Copy)]
pub struct Wake<'a> {
    /// What the state belongs to.
    pub key: Name,
    /// The watermark, ns since the epoch.
    pub watermark: i64,
    pub(crate) names: &'a Names,
}

impl<'a> Wake<'a> {
    /// The names of this instance.
    pub fn names(&self) -> &'a Names {
        self.names
    }

    /// The text of a name of this instance.
    pub fn text(&self, name: Name) -> &'a str {
        self.names.text(name)
    }
}
