//! The token of who may call over HTTP, where the API does not check who calls.

use std::time::{Duration, Instant};

use tapeline_invoke::{AdminToken, problem::What};

use super::{Served, http::Problem};

/// After so long a token is read again, so that another one is taken without a deployment.
const AGE_MAX: Duration = Duration::from_secs(300);

/// A token that was read.
pub(super) struct Known {
    token: AdminToken,
    read: Instant,
}

impl Served {
    /// Lets those through who show the token; all where the API lets nobody else through.
    pub(super) async fn check_token(&mut self, authorization: Option<&str>) -> Result<(), Problem> {
        let Some(secret) = self.function.settings.token_secret.clone() else { return Ok(()) };
        if self.token.as_ref().is_none_or(|known| known.read.elapsed() > AGE_MAX) {
            self.token = Some(Known { token: self.read_token(&secret).await?, read: Instant::now() });
        }
        let refused = |what| {
            Problem::new(What::Unauthorized, format!("{what}; send `Authorization: Bearer <token of the stack>`"))
        };
        self.token.as_ref().map_or(Ok(()), |known| known.token.check(authorization)).map_err(refused)
    }

    async fn read_token(&self, secret: &str) -> Result<AdminToken, Problem> {
        let asked = self.function.clients.secrets.get_secret_value().secret_id(secret).send().await;
        let away = |_| Problem::new(What::Unavailable, "the token of the stack cannot be read");
        let text = asked.map_err(away)?.secret_string.unwrap_or_default();
        let unfit = |found| Problem::new(What::AdminOff, format!("the token of the stack {found}"));
        AdminToken::new(&text).map_err(unfit)
    }
}
