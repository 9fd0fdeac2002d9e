//! Drops what was sent before: a trade or a quote goes on once, however often a vendor, a reconnect or a replay brings it.
//!
//! **Input**: trades and quotes. **Output**: the same, unchanged, without the repeated ones.
//!
//! Two events are the same when symbol, source, kind and what the policy looks at are the same: the vendor's id
//! ([`Policy::Id`]), the event time ([`Policy::Time`]) or all fields ([`Policy::Value`]). An event is remembered until the
//! watermark has passed its time by `keep`, and for up to `keep / 8` more. One that comes with a time further back could
//! no longer be told from a repeated one, so it is late, whatever is still in memory.
//!
//! **State**: per symbol, an append-only log of what was seen, in parts of 1,024 ids, each of which expires by itself;
//! see [`Seen`]. **Settings**: [`Settings`]. **Failures**: under policy `id`, an event without id is rejected.
//!
//! Text ids and values are kept as 128-bit hashes (XXH3). Among `n` of them the odds that any two collide, so that a new
//! event is taken for a repeated one, are `n^2 / 2^129`: for a billion in one `keep` about `10^-21`. XXH3 does not
//! withstand somebody who makes ids in order to collide; vendors are trusted not to.

mod blocks;
mod chunk;
mod dedup;
mod seen;
mod settings;

pub use dedup::Dedup;
pub use seen::Seen;
pub use settings::{Policy, Settings};

tapeline_sdk::export_stage!(Dedup);
