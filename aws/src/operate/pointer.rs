//! What a stage is pointed to: an object whose text is a digest, with who moved it, why, and from where.
//!
//! It is moved only from where it was seen, so that of two who move it at once one is told.

use std::{collections::HashMap, fmt};

use aws_sdk_s3::{
    operation::get_object::{GetObjectError, GetObjectOutput},
    primitives::DateTimeFormat,
};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Account, OperateError, Stack};
use crate::components::{DEPLOYED, POINTER_BYTES_MAX, is_digest, pointer_key};

/// What is noted with a pointer.
const BY: &str = "tapeline-by";
const WHY: &str = "tapeline-why";
const BEFORE: &str = "tapeline-before";
/// Letters of a note: S3 takes 2 KB of all, and a letter may become nine.
const NOTE_CHARS_MAX: usize = 80;

/// What a pointer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pointed {
    /// The component that the stack was deployed with.
    Deployed,
    /// The component of this digest.
    To(String),
    /// It is no digest: functions go on with what they ran before.
    Unreadable,
}

impl Pointed {
    fn read(text: &str) -> Self {
        match text.trim() {
            DEPLOYED => Self::Deployed,
            digest if is_digest(digest) => Self::To(digest.to_owned()),
            _ => Self::Unreadable,
        }
    }

    /// As it is written, and shown to programs.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Deployed => DEPLOYED,
            Self::To(digest) => digest,
            Self::Unreadable => "unreadable",
        }
    }
}

/// For people: the first letters of the digest, which tell it from any other.
impl fmt::Display for Pointed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deployed => "what was deployed",
            Self::To(digest) => digest.get(..12).unwrap_or(digest),
            Self::Unreadable => "what is no digest",
        })
    }
}

/// Who moves a pointer, and why.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Who.
    pub by: String,
    /// Why; may be empty.
    pub why: String,
}

/// The pointer of a stage, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The stage.
    pub stage: String,
    /// What it says.
    pub to: Pointed,
    /// Since when, RFC 3339; `None` when it was never moved.
    pub since: Option<String>,
    /// Who moved it there; empty when it was done by other means.
    pub by: String,
    /// Why.
    pub why: String,
    /// Where it was before; `None` when that was not noted.
    pub before: Option<Pointed>,
    /// Which object was read; `None` when there was none.
    seen: Option<String>,
}

impl Pointer {
    /// Reads the pointer of a stage.
    ///
    /// # Errors
    /// When the bucket does not answer.
    pub async fn read(account: &Account, stack: &Stack, stage: &str) -> Result<Self, OperateError> {
        let doing = || format!("read the pointer of stage {stage} in bucket {}", stack.components_bucket);
        let asked = account.s3.get_object().bucket(&stack.components_bucket).key(pointer_key(stage)).send().await;
        match asked {
            Ok(object) => {
                let noted = Self::noted(stage, &object);
                // Whatever else is there need not be read to the end.
                if object.content_length.is_some_and(|bytes| bytes > POINTER_BYTES_MAX) {
                    return Ok(Self { to: Pointed::Unreadable, ..noted });
                }
                let text =
                    object.body.collect().await.map_err(|error| OperateError::service(doing(), error.to_string()))?;
                Ok(Self { to: Pointed::read(&String::from_utf8_lossy(&text.into_bytes())), ..noted })
            }
            Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => Ok(Self::none(stage)),
            Err(error) => Err(OperateError::refused(doing(), &error)),
        }
    }

    fn none(stage: &str) -> Self {
        let (by, why) = (String::new(), String::new());
        Self { stage: stage.to_owned(), to: Pointed::Deployed, since: None, by, why, before: None, seen: None }
    }

    /// What is known without the text.
    fn noted(stage: &str, object: &GetObjectOutput) -> Self {
        let note = |name: &str| {
            let encoded = object.metadata().and_then(|notes| notes.get(name)).map(String::as_str).unwrap_or_default();
            percent_decode_str(encoded).decode_utf8_lossy().into_owned()
        };
        let before = Some(note(BEFORE)).filter(|before| !before.is_empty());
        Self {
            since: object.last_modified().and_then(|time| time.fmt(DateTimeFormat::DateTime).ok()),
            by: note(BY),
            why: note(WHY),
            before: before.map(|before| Pointed::read(&before)),
            seen: object.e_tag().map(str::to_owned),
            ..Self::none(stage)
        }
    }

    /// Moves it, if nobody has moved it since it was read.
    ///
    /// # Errors
    /// `Conflict` when somebody has.
    pub async fn turn(
        &self,
        account: &Account,
        stack: &Stack,
        to: &Pointed,
        change: &Change,
    ) -> Result<(), OperateError> {
        let (stage, bucket) = (&self.stage, &stack.components_bucket);
        let put = account.s3.put_object().bucket(bucket).key(pointer_key(stage)).content_type("text/plain");
        let put = put.body(format!("{}\n", to.as_str()).into_bytes().into()).set_metadata(Some(self.notes(change)));
        let put = match &self.seen {
            Some(seen) => put.if_match(seen),
            None => put.if_none_match("*"),
        };
        let Err(error) = put.send().await else { return Ok(()) };
        // 409: while somebody else was writing.
        let status = error.raw_response().map(|response| response.status().as_u16());
        if !matches!(status, Some(404 | 409 | 412)) {
            return Err(OperateError::refused(format!("move the pointer of stage {stage} in bucket {bucket}"), &error));
        }
        let now = Self::read(account, stack, stage).await?;
        // An answer may have been lost, and what was asked again was refused.
        if now.to == *to {
            return Ok(());
        }
        let by = if now.by.is_empty() { String::new() } else { format!(" by {}", now.by) };
        Err(OperateError::Conflict(format!(
            "move stage {stage} from {} to {to}: meanwhile it was moved to {}{by}; look whether it is still to be moved, and do \
             it again",
            self.to, now.to
        )))
    }

    fn notes(&self, change: &Change) -> HashMap<String, String> {
        let encoded = |text: &str| {
            let short: String = text.chars().filter(|letter| !letter.is_control()).take(NOTE_CHARS_MAX).collect();
            utf8_percent_encode(&short, NON_ALPHANUMERIC).to_string()
        };
        let notes = [(BY, change.by.as_str()), (WHY, &change.why), (BEFORE, self.to.as_str())];
        notes
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), encoded(text)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_leads_to_a_digest_or_to_what_was_deployed() {
        let digest = "0f".repeat(32);
        assert_eq!(Pointed::read(&format!("{digest}\n")), Pointed::To(digest.clone()));
        assert_eq!(Pointed::read("deployed\n"), Pointed::Deployed);
        for wrong in ["", "0f", "latest", &digest.to_uppercase()] {
            assert_eq!(Pointed::read(wrong), Pointed::Unreadable, "{wrong}");
        }
        for pointed in [Pointed::Deployed, Pointed::To(digest)] {
            assert_eq!(Pointed::read(pointed.as_str()), pointed);
        }
    }

    #[test]
    fn notes_fit_into_headers() {
        let change = Change { by: "Zoë\r\nx-amz-acl: public-read".to_owned(), why: "€".repeat(1_000) };
        let notes = Pointer::none("alarm").notes(&change);
        assert_eq!(notes[BEFORE], DEPLOYED);
        assert!(notes.values().all(|note| note.bytes().all(|byte| byte.is_ascii_graphic())), "{notes:?}");
        assert!(notes.iter().map(|(name, note)| name.len() + note.len()).sum::<usize>() < 2_048, "{notes:?}");
    }
}
