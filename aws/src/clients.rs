//! The services of AWS, by AWS' own clients.

use std::time::Duration;

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_dynamodb::config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_types::SdkConfig;

/// Tries of a request that was throttled, or had no answer: together some seconds, which outlast what is short.
const TRIES_MAX: u32 = 8;
/// The wait before the second try; doubled before each further one.
const BACKOFF: Duration = Duration::from_millis(25);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Time of one try.
const TRY_TIME_MAX: Duration = Duration::from_secs(8);

/// Where the services are, and how to show who asks.
pub struct Place {
    /// The region, such as `eu-central-1`.
    pub region: String,
    /// Who asks.
    pub credentials: Credentials,
    /// One place for all services instead of AWS' own: a local AWS.
    pub endpoint: Option<String>,
}

/// A variable that Lambda sets is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {0} is not set, which AWS Lambda does")]
pub struct NotInLambda(&'static str);

impl Place {
    /// What Lambda tells a function. Its credentials are good for as long as its instance lives.
    ///
    /// # Errors
    /// Names a variable that is not there.
    pub fn of_function(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, NotInLambda> {
        let required = |variable: &'static str| lookup(variable).ok_or(NotInLambda(variable));
        let (id, secret) = (required("AWS_ACCESS_KEY_ID")?, required("AWS_SECRET_ACCESS_KEY")?);
        let token = lookup("AWS_SESSION_TOKEN").filter(|token| !token.is_empty());
        Ok(Self {
            region: required("AWS_REGION")?,
            credentials: Credentials::new(id, secret, token, None, "the environment of a function"),
            endpoint: lookup("AWS_ENDPOINT_URL").filter(|url| !url.is_empty()),
        })
    }
}

/// The clients.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Tables.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Files and components.
    pub s3: aws_sdk_s3::Client,
    /// Hops.
    pub sqs: aws_sdk_sqs::Client,
    /// Alarms.
    pub sns: aws_sdk_sns::Client,
    /// The token.
    pub secrets: aws_sdk_secretsmanager::Client,
}

impl Clients {
    /// Clients of the services at a place. Nothing is asked yet.
    pub fn new(place: Place) -> Self {
        let is_local = place.endpoint.is_some();
        let builder = Builder::new();
        // A local AWS may speak plain HTTP; and then the roots of all certificates need not be read.
        let http = match place.endpoint.as_deref() {
            Some(url) if url.starts_with("http://") => builder.build_http(),
            _ => builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https(),
        };
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(place.region))
            .credentials_provider(SharedCredentialsProvider::new(place.credentials))
            .http_client(http)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES_MAX).with_initial_backoff(BACKOFF))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIME_MAX)
                    .operation_attempt_timeout(TRY_TIME_MAX)
                    .build(),
            );
        config.set_endpoint_url(place.endpoint);
        let config = config.build();
        // The names of buckets are no names of hosts on a local AWS.
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(is_local).build();
        Self {
            dynamodb: aws_sdk_dynamodb::Client::new(&config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            sqs: aws_sdk_sqs::Client::new(&config),
            sns: aws_sdk_sns::Client::new(&config),
            secrets: aws_sdk_secretsmanager::Client::new(&config),
        }
    }
}
