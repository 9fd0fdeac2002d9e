//! Tapeline on AWS: the back ends of its functions, which hosts may use as well.

mod dynamo;

pub use dynamo::{DynamoBucket, KEY, NUMBER, VALUE};
