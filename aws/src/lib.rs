//! Tapeline on AWS: stages as Lambda functions, chained by SQS FIFO queues, with state and rows in DynamoDB and files in
//! S3. The program `bootstrap` is this library and nothing else; it has no compiler. What people do with a pipeline from their
//! own machines is in [`operate`].

mod cached;
mod chain;
mod clients;
mod components;
mod delivery;
mod dynamo;
mod function;
mod layout;
pub mod message;
mod metrics;
pub mod operate;
mod outbox;
mod position;
mod settings;
pub mod shared;
pub mod sink;
mod stage;
mod trigger;
mod work;

pub use clients::{Clients, NotInLambda, Place};
pub use components::{ComponentError, Components};
pub use delivery::Nowhere;
pub use dynamo::{DynamoBucket, KEY, NUMBER, PACKED, VALUE};
pub use function::{Done, Function, Received, Undone};
pub use position::{PROBATION, Partial, Position, Runs};
pub use settings::{Entrance, Settings, SettingsError, StageSettings};
pub use trigger::serve;
