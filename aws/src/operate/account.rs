//! The services of an account, for whoever is at a terminal: credentials and region as AWS' other tools find them.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::provider::ProvideCredentials as _;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

use super::{OperateError, error::chain};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Time of one try of a request for data, and of all of its tries.
const TRY_TIME_MAX: Duration = Duration::from_secs(10);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(40);
/// Tries of a request that was throttled, or had no answer.
const TRIES_MAX: u32 = 5;
/// One place for all services instead of AWS' own.
const ENDPOINT_VARIABLE: &str = "AWS_ENDPOINT_URL";

/// The services of an account in a region.
#[derive(Clone, Debug)]
pub struct Account {
    /// Such as `eu-central-1`.
    pub region: String,
    pub(super) stacks: aws_sdk_cloudformation::Client,
    pub(super) s3: aws_sdk_s3::Client,
    pub(super) sqs: aws_sdk_sqs::Client,
    pub(super) dynamodb: aws_sdk_dynamodb::Client,
}

impl Account {
    /// The account of the environment, or of the profile that it names: `AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL` and
    /// the others.
    ///
    /// # Errors
    /// `Wrong` when there is no region or there are no credentials.
    pub async fn of_environment() -> Result<Self, OperateError> {
        // A local AWS may speak plain HTTP; and then the roots of all certificates need not be read.
        let http = match std::env::var(ENDPOINT_VARIABLE) {
            Ok(url) if url.starts_with("http://") => Builder::new().build_http(),
            _ => Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https(),
        };
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES_MAX))
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIME_MAX).build())
            .load()
            .await;
        check_credentials(&config).await?;
        Self::of(&config)
    }

    /// The account of a configuration.
    ///
    /// # Errors
    /// `Wrong` when it has no region.
    pub fn of(config: &SdkConfig) -> Result<Self, OperateError> {
        let region = config.region().map(ToString::to_string).ok_or_else(|| {
            OperateError::wrong(
                "find the region of the stack: set AWS_REGION, or AWS_PROFILE to a profile that has one",
            )
        })?;
        // The names of buckets are no names of hosts on a local AWS.
        let is_local = config.endpoint_url().is_some();
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(is_local).build();
        Ok(Self {
            region,
            stacks: aws_sdk_cloudformation::Client::new(config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            sqs: aws_sdk_sqs::Client::new(config),
            dynamodb: aws_sdk_dynamodb::Client::new(config),
        })
    }

    /// What keeps the data, with limits of time: for whoever works on and on, and does something else meanwhile.
    pub fn stores(&self) -> (aws_sdk_dynamodb::Client, aws_sdk_s3::Client) {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIME_MAX)
            .operation_attempt_timeout(TRY_TIME_MAX)
            .operation_timeout(REQUEST_TIME_MAX)
            .build();
        let dynamodb = self.dynamodb.config().to_builder().timeout_config(timeouts.clone()).build();
        let s3 = self.s3.config().to_builder().timeout_config(timeouts).build();
        (aws_sdk_dynamodb::Client::from_conf(dynamodb), aws_sdk_s3::Client::from_conf(s3))
    }
}

/// Asks for them before a service does, which would tell it as a failure of its own.
async fn check_credentials(config: &SdkConfig) -> Result<(), OperateError> {
    let Some(provider) = config.credentials_provider() else { return Err(no_credentials("nobody knows any")) };
    let found = provider.provide_credentials().await;
    found.map(drop).map_err(|error| no_credentials(&chain(&error)))
}

fn no_credentials(reason: &str) -> OperateError {
    OperateError::wrong(format!(
        "find credentials of an AWS account: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile of \
         ~/.aws/config (`aws configure` makes one): {reason}"
    ))
}
