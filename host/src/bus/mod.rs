//! What carries events from one segment of a pipeline to the next, when they are not in one worker.
//!
//! [`Message`] is what travels; [`nats`] is the one backend. Knows nothing of stages.
//!
//! One stream a hop holds both what the segment before gives out and that segment's own state and position, so that a
//! commit is one atomic batch into one stream: outputs, state and position are stored together or not at all. The batch
//! is refused when the position is not the one that the worker has read or written last, so of two workers that both
//! believe to own a partition one at most can commit, and nothing of the other is ever seen.

mod message;
pub mod nats;
mod trace;
mod wire;

pub use message::{Entrance, Message};
pub use trace::{TRACEPARENT, TraceContext};
pub use wire::NotAMessage;
