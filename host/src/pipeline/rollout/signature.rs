//! Whether somebody who is trusted has signed a component: detached Ed25519 signatures of minisign
//! (<https://jedisct1.github.io/minisign/>), which `minisign`, `rsign2` and others make of any file.

use minisign_verify::{PublicKey, Signature};

use crate::error::{Error, Result};

/// The key that has signed these bytes; `None` when no key is asked for.
///
/// # Errors
/// `Invalid` when keys are trusted and none of them has signed exactly this.
pub(super) fn check(trusted: &[String], bytes: &[u8], signature: Option<&str>) -> Result<Option<String>> {
    if trusted.is_empty() {
        return Ok(None);
    }
    let refused = |found: &str| {
        Error::invalid(format!(
            "trust the component: it is {found}, instead of signed by one of the {} keys in swap.trusted_keys; `minisign -Sm FILE` signs",
            trusted.len()
        ))
    };
    let signature = signature.ok_or_else(|| refused("not signed"))?;
    let signature = Signature::decode(signature).map_err(|_| refused("signed by what is no signature of minisign"))?;
    let is_by = |key: &&String| {
        // Signatures that are not over a hash first are of old versions, and take all bytes at once.
        PublicKey::from_base64(key).is_ok_and(|key| key.verify(bytes, &signature, false).is_ok())
    };
    let key = trusted.iter().find(is_by).ok_or_else(|| refused("signed by another key, or for other bytes"))?;
    Ok(Some(key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of minisign's own documentation: the text `test`.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const OTHER_KEY: &str = "RWSjDAJcF3y+E2QOw1vhkfaPFCHoPTwt9YyTm8VFVBNIfxqCRr8t6kg6";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";

    #[test]
    fn only_what_a_trusted_key_has_signed_is_trusted() {
        let trusted = [KEY.to_owned()];
        assert_eq!(check(&trusted, b"test", Some(SIGNATURE)).unwrap().as_deref(), Some(KEY));
        assert_eq!(check(&[], b"anything", None).unwrap(), None);
        for (keys, bytes, signature) in [
            (KEY, &b"test"[..], None),
            (KEY, b"tesu", Some(SIGNATURE)),
            (KEY, b"test", Some("no signature")),
            (OTHER_KEY, b"test", Some(SIGNATURE)),
        ] {
            let refused = check(&[keys.to_owned()], bytes, signature).unwrap_err().to_string();
            assert!(refused.contains("instead of signed by one of the 1 keys"), "{refused}");
        }
    }
}
