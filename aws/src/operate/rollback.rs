//! Points a stage to what it ran before.

use tapeline_runtime::{COMPILED, compiled_name};

use super::{Account, Change, OperateError, Pointed, Pointer, Stack, fit};
use crate::components::{DEPLOYED, is_digest};

/// Names of components that a few letters may stand for, at most, in an error.
const SHOWN_MAX: usize = 5;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// What it was pointed to before.
    Before,
    /// What the stack was deployed with.
    Deployed,
    /// A component that was pushed, by the first letters of its digest.
    Digest(String),
}

impl To {
    /// Reads what follows `--to`.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text {
            DEPLOYED => Ok(Self::Deployed),
            digest if !digest.is_empty() && digest.len() <= 64 && is_hex(digest) => Ok(Self::Digest(digest.to_owned())),
            _ => Err(format!("the first letters of a digest, or \"{DEPLOYED}\"")),
        }
    }
}

/// Points a stage elsewhere, without bringing anything in; gives where it was and where it is.
///
/// # Errors
/// `Wrong` when there is nothing to go to; `Conflict` when somebody else has pointed the stage elsewhere meanwhile.
pub async fn rollback(
    account: &Account,
    stack: &Stack,
    stage: &str,
    to: &To,
    change: &Change,
) -> Result<(Pointed, Pointed), OperateError> {
    stack.segment_of(stage)?;
    let pointer = Pointer::read(account, stack, stage).await?;
    let to = match to {
        To::Before => before(account, stack, &pointer).await?,
        To::Deployed => Pointed::Deployed,
        To::Digest(letters) => {
            let digest = found(account, stack, letters).await?;
            check(account, stack, stage, &digest).await?;
            Pointed::To(digest)
        }
    };
    if pointer.to != to {
        pointer.turn(account, stack, &to, change).await?;
    }
    Ok((pointer.to, to))
}

/// Where it was, which is not tried again: it must be quick, and has run.
async fn before(account: &Account, stack: &Stack, pointer: &Pointer) -> Result<Pointed, OperateError> {
    let doing = format!("take stage {} back", pointer.stage);
    match &pointer.before {
        Some(Pointed::To(digest)) => {
            let there = found(account, stack, digest).await;
            there.map(Pointed::To).map_err(|error| OperateError::wrong(format!("{doing}: {error}")))
        }
        Some(Pointed::Deployed) => Ok(Pointed::Deployed),
        None if pointer.since.is_none() => {
            Err(OperateError::wrong(format!("{doing}: it runs what was deployed, and was never pointed elsewhere")))
        }
        Some(Pointed::Unreadable) | None => Err(OperateError::wrong(format!(
            "{doing}: nobody has noted where it was before; say it with --to DIGEST, or --to {DEPLOYED}"
        ))),
    }
}

/// The one component that was pushed, for the engines of the stack, whose digest begins so.
async fn found(account: &Account, stack: &Stack, letters: &str) -> Result<String, OperateError> {
    let bucket = &stack.components_bucket;
    let ending = format!("-{}.{COMPILED}", stack.engines);
    let mut digests = Vec::new();
    let mut pages = account.s3.list_objects_v2().bucket(bucket).prefix(letters).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page =
            page.map_err(|error| OperateError::refused(format!("list the components of bucket {bucket}"), &error))?;
        let keys = page.contents().iter().filter_map(|object| object.key());
        digests.extend(
            keys.filter_map(|key| key.strip_suffix(&ending)).filter(|digest| is_digest(digest)).map(str::to_owned),
        );
    }
    match &mut digests[..] {
        [digest] => Ok(std::mem::take(digest)),
        [] => Err(OperateError::wrong(format!(
            "find component {letters} in bucket {bucket}: none was pushed whose digest begins so, for engines {}; push it",
            stack.engines
        ))),
        many => {
            let shown =
                many.iter().take(SHOWN_MAX).map(|digest| digest.get(..16).unwrap_or(digest)).collect::<Vec<_>>();
            Err(OperateError::wrong(format!(
                "find component {letters} in bucket {bucket}: {} begin so, such as {}; give more letters",
                many.len(),
                shown.join(", ")
            )))
        }
    }
}

/// Whether a component that was pushed, perhaps to another stage, fits this one.
async fn check(account: &Account, stack: &Stack, stage: &str, digest: &str) -> Result<(), OperateError> {
    let key = compiled_name(digest, &stack.engines);
    let doing = || format!("read {key} in bucket {}", stack.components_bucket);
    let asked = account.s3.get_object().bucket(&stack.components_bucket).key(&key).send().await;
    let object = asked.map_err(|error| OperateError::refused(doing(), &error))?;
    let stored = object.body.collect().await.map_err(|error| OperateError::service(doing(), error.to_string()))?;
    let settings = stack.settings_of(account, stage).await?;
    fit::check(stack, &settings, digest, &stored.into_bytes()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_is_a_digest_or_what_was_deployed() {
        assert_eq!(To::parse("deployed"), Ok(To::Deployed));
        assert_eq!(To::parse("0f3"), Ok(To::Digest("0f3".to_owned())));
        for wrong in ["", "latest", "0F", "../x", &"0".repeat(65)] {
            assert!(To::parse(wrong).unwrap_err().contains("\"deployed\""), "{wrong}");
        }
    }
}
