//! What the tests of Tapeline on AWS share: a local AWS, and a pipeline that is deployed to it.

pub mod alarms;
pub mod components;
pub mod function;
pub mod ledger;
pub mod local_aws;
pub mod message_moves;
pub mod operator;
pub mod stack;
pub mod stored;
