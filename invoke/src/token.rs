//! The token of who may administer: change versions, redrive, call a stage with a session.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Letters of a token, at least: 16 random ones cannot be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;

/// What those show who may administer. Only its digest is kept, and nothing prints it.
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// A token.
    ///
    /// # Errors
    /// Says what it is, when it is shorter than 16 letters (one that is empty or easy to guess is none) or has spaces or
    /// control characters. Never says the token.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() < TOKEN_BYTES_MIN {
            return Err(format!("has {} letters", text.len()));
        }
        if text.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
            return Err("has spaces or control characters in it".to_owned());
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    /// Whether the value of an `Authorization` header shows it. Takes the same time whatever is wrong with it.
    ///
    /// # Errors
    /// Says what is wrong with what was shown.
    pub fn check(&self, authorization: Option<&str>) -> Result<(), &'static str> {
        let shown = authorization.and_then(|value| value.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        // Compared also when there is none.
        let digest: [u8; 32] = Sha256::digest(shown.unwrap_or_default()).into();
        if bool::from(self.0.ct_eq(&digest)) {
            return Ok(());
        }
        Err(if shown.is_some() { "the token is another one" } else { "there is no bearer token" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_whole() {
        let token = AdminToken::new("0123456789abcdef").unwrap();
        assert_eq!(token.check(Some("Bearer 0123456789abcdef")), Ok(()));
        assert_eq!(token.check(Some("bearer  0123456789abcdef ")), Ok(()));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcdef0", "Bearer ", "Bearer 0"] {
            assert_eq!(token.check(Some(wrong)), Err("the token is another one"), "{wrong}");
        }
        for none in [None, Some(""), Some("0123456789abcdef"), Some("Basic 0123456789abcdef")] {
            assert_eq!(token.check(none), Err("there is no bearer token"), "{none:?}");
        }
    }

    #[test]
    fn what_can_be_guessed_is_no_token() {
        for text in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n"] {
            assert!(AdminToken::new(text).is_err(), "{text:?}");
        }
    }
}
