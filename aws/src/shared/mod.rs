//! The store that hosts of a pipeline share when they are not functions: of each partition the state and the position of the
//! last segment, and what it writes. Several hosts work on partitions of their own; whoever takes one over finds it here.
//!
//! A commit is the one of functions: entries, position and the outbox by one conditional write of the head,
//! then what is in the outbox goes to its places. It is done when both have happened. The position is the host's own, in
//! bytes that nobody here reads.

mod partition;
mod serve;

use std::sync::Arc;

use tapeline_state::Scope;

use crate::{
    cached::Cached,
    delivery::Delivery,
    dynamo::DynamoBucket,
    layout::{layout, limits},
    operate::SharedStores,
};

pub use partition::Partition;
pub use serve::serve;

use partition::Kept;

/// The places of a stack that hosts share, for one segment.
pub struct Shared {
    state: Cached<DynamoBucket>,
    delivery: Delivery,
    pipeline: String,
    /// The stages of the segment.
    stages: Vec<String>,
    partitions: u32,
}

impl Shared {
    /// The places of a stack, for a segment of these stages, of so many partitions. They are there.
    pub fn new(
        stores: &SharedStores,
        (dynamodb, s3): (aws_sdk_dynamodb::Client, aws_sdk_s3::Client),
        stages: Vec<String>,
        partitions: u32,
    ) -> Arc<Self> {
        let state = DynamoBucket::new(dynamodb.clone(), stores.state_table.clone());
        Arc::new(Self {
            state: Cached::new(state),
            delivery: Delivery::of_writer(stores, dynamodb, s3),
            pipeline: stores.pipeline.clone(),
            stages,
            partitions,
        })
    }

    /// A partition, of which nothing is known yet.
    pub fn partition(self: &Arc<Self>, number: u32) -> Partition {
        Partition::new(Arc::clone(self), number)
    }

    /// Not that of a function, which keeps another position.
    fn scope(&self, partition: u32) -> Scope<'_, Cached<DynamoBucket>, Kept> {
        // Whatever the stages are called: there is one last segment, and its layout says which they are.
        let name = format!("tapeline/host/{}/partition-{partition}", self.pipeline);
        Scope::named(&self.state, &name).with_limits(limits(self.stages.len()))
    }

    /// The stages of the segment, and the partitions of the pipeline.
    fn layout(&self) -> String {
        layout(&self.stages.join("+"), self.partitions)
    }
}
