//! What the tests and the bench of Tapeline on AWS share: a local AWS, a pipeline that is deployed to it, and what stands for
//! AWS Lambda.

pub mod alarms;
pub mod assembly;
pub mod bench;
pub mod components;
pub mod function;
pub mod lambda;
pub mod ledger;
pub mod local_aws;
pub mod message_moves;
pub mod operator;
pub mod stack;
pub mod stored;
