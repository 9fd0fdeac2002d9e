//! What `wit/` means in Rust, for whoever calls a stage: generated, plus rows over the generated columns.

#[cfg(target_family = "wasm")]
mod guest;
#[cfg(not(target_family = "wasm"))]
mod host;

#[cfg(target_family = "wasm")]
use guest::generated;
#[cfg(target_family = "wasm")]
pub use guest::*;
#[cfg(not(target_family = "wasm"))]
use host::stage_world::tapeline::pipeline::events as generated;
#[cfg(not(target_family = "wasm"))]
pub use host::*;

mod glue {
    use super::generated::*;

    tapeline_events::column_glue!();
}

/// The next mark, in the order of a batch or an output.
pub const MARK: u8 = 254;
/// The next event of the input, in the order of an output.
pub const INPUT: u8 = 255;
/// Groups that a batch can have.
pub const GROUPS_MAX: usize = 253;
/// First number of the names that a stage coins.
pub const COINED: u32 = 0x8000_0000;
/// The receive time of a frame that has none.
pub const NOT_RECEIVED: i64 = i64::MIN;
/// The mark that says that nothing comes any more.
pub const END: i64 = i64::MAX;

/// Whether a mark says that nothing comes any more.
pub const fn is_end(mark: i64) -> bool {
    mark == END
}

impl Default for Batch {
    fn default() -> Self {
        crate::batch::empty()
    }
}

/// What became of an event, as `process.output.fates` codes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It goes on, unchanged or as what was emitted for it.
    Out,
    /// It was seen before.
    Duplicate,
    /// It came after its time was over.
    Late,
    /// It is in the dead letters.
    Dead,
    /// A rule of this number left it out.
    Dropped(u8),
}

impl Fate {
    /// Code of an event that goes on unchanged.
    pub const FORWARD: u8 = 0;
    /// Code of an event that goes on as what was emitted for it.
    pub const REPLACED: u8 = 1;
    /// Code of a late event.
    pub const LATE: u8 = 3;
    /// Code of a rejected event.
    pub const REJECT: u8 = 4;
    /// Code of the first rule.
    const RULE_FIRST: u8 = 16;

    /// Reads a code; `None` for one that the contract does not know.
    pub fn from_code(code: u8, rules: usize) -> Option<Self> {
        match code {
            Self::FORWARD | Self::REPLACED => Some(Self::Out),
            2 => Some(Self::Duplicate),
            Self::LATE => Some(Self::Late),
            Self::REJECT => Some(Self::Dead),
            rule => {
                let rule = rule.checked_sub(Self::RULE_FIRST)?;
                (usize::from(rule) < rules).then_some(Self::Dropped(rule))
            }
        }
    }
}

/// The flags of the kinds, in their order.
const KIND_FLAGS: [Kinds; 12] = [
    Kinds::TRADES,
    Kinds::QUOTES,
    Kinds::BARS,
    Kinds::OPTION_QUOTES,
    Kinds::DIVIDENDS,
    Kinds::SPLITS,
    Kinds::RATES,
    Kinds::AVERAGES,
    Kinds::ALARMS,
    Kinds::PREDICTIONS,
    Kinds::GAPS,
    Kinds::NOTICES,
];

impl From<Kinds> for KindSet {
    fn from(kinds: Kinds) -> Self {
        let flags = KIND_FLAGS.iter().enumerate().filter(|(_, flag)| kinds & **flag == **flag);
        Self(flags.map(|(at, _)| 1 << at).sum())
    }
}

// The generator derives serde for all types but those of flags.
impl serde::Serialize for Kinds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(KindSet::from(*self).0)
    }
}

impl<'de> serde::Deserialize<'de> for Kinds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = <u32 as serde::Deserialize>::deserialize(deserializer)?;
        let flags = KIND_FLAGS.into_iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
        Ok(flags.fold(Self::empty(), |kinds, (_, flag)| kinds | flag))
    }
}

/// A set of event kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KindSet(u32);

impl KindSet {
    /// Whether the kind is among them.
    pub const fn has(self, kind: tapeline_events::Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// The kinds, in order.
    pub fn iter(self) -> impl Iterator<Item = tapeline_events::Kind> {
        tapeline_events::Kind::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }
}
