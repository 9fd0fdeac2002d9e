//! Why a message is not done.

use tapeline_runtime::Fault;
use tapeline_state::StateError;

use crate::{components::ComponentError, delivery::Nowhere, message::Unreadable, sink::SinkError};

/// Why a message is not done. It comes again.
#[derive(Debug, thiserror::Error)]
pub enum Undone {
    /// It is none of ours.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It is not of a FIFO queue.
    #[error("the message has no number: the queue is no FIFO queue")]
    Unnumbered,
    /// One before it is missing.
    #[error("message {found} of {producer} came, where {expected} is due: what is between is lost")]
    Gap {
        /// Who gave it out.
        producer: String,
        /// The number that it has.
        found: u128,
        /// The number that it should have.
        expected: u128,
    },
    /// The pipeline was deployed in another way than before.
    #[error(
        "the state is that of {stored}, and the function is {deployed}: stages that share a function, and partitions, must not change while there is data"
    )]
    Layout {
        /// What was committed.
        stored: String,
        /// What it is now.
        deployed: String,
    },
    /// There is nowhere to put what came of it.
    #[error(transparent)]
    Nowhere(#[from] Nowhere),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A component.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// A service.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The stage itself cannot work, whatever it is given.
    #[error("stage {stage}: {fault}")]
    Stage {
        /// Its name.
        stage: String,
        /// Why.
        fault: Fault,
    },
    /// There is no time left in this call.
    #[error("there is no time left in this call; what is done of it is committed")]
    NoTime,
}
