//! A local AWS, with settings of AWS' clients for it.

use std::ops::Deref;

use anyhow::Result;
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_dynamodb::config::BehaviorVersion;
use aws_types::{SdkConfig, region::Region};
use tapeline_harness::local_aws;
pub use tapeline_harness::local_aws::{ACCOUNT, REGION};

/// A server of its own; see there.
pub struct LocalAws(local_aws::LocalAws);

impl Deref for LocalAws {
    type Target = local_aws::LocalAws;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl LocalAws {
    /// Whether it is installed.
    pub fn is_there() -> bool {
        local_aws::LocalAws::is_there()
    }

    /// Starts one on a free port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        local_aws::LocalAws::start().map(Self)
    }

    /// Settings of a client of any service.
    pub fn sdk(&self) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(self.endpoint())
            .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys("test", "test", None)))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build()
    }

    /// Settings of a client of DynamoDB.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Config {
        aws_sdk_dynamodb::Config::from(&self.sdk())
    }

    /// Settings of a client of S3: names of buckets are no names of this machine.
    pub fn s3(&self) -> aws_sdk_s3::Config {
        aws_sdk_s3::config::Builder::from(&self.sdk()).force_path_style(true).build()
    }
}
