//! What the tests of Tapeline on AWS share: a local AWS.

pub mod local_aws;
