//! What the state of a partition is of, and how large it may be, whoever works on it: a function, or a host of our own.

use tapeline_state::Limits;

/// Bytes of the state of a partition in one segment: a root that names so much is stored in one piece.
const STATE_BYTES_MAX: u64 = 32 << 20;

/// The stages that share a segment, joined by `+`, and the partitions of the pipeline. Neither may change under a state.
pub(crate) fn layout(stages: &str, partitions: u32) -> String {
    format!("{stages}, partitions {partitions}")
}

/// What each of so many stages may keep in a partition.
pub(crate) fn limits(stages: usize) -> Limits {
    Limits { area_bytes: STATE_BYTES_MAX / stages.max(1) as u64, ..Limits::default() }
}
