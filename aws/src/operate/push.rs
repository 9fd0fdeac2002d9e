//! Brings a compiled component into the bucket of a stack, and points a stage to it.

use std::{fs, path::Path};

use aws_sdk_s3::primitives::ByteStream;
use tapeline_runtime::{COMPILED, compiled_name, seal};

use super::{Account, Change, OperateError, Pointed, Pointer, Stack, fit};
use crate::components::is_digest;

/// Bytes of compiled code. A component of 64 MiB, the largest there may be, has some three times as much.
const COMPILED_BYTES_MAX: u64 = 512 << 20;
/// What compiled code begins with.
const ELF: &[u8] = b"\x7fELF";

/// A component that was compiled for functions, by `tapeline compile`.
#[derive(Clone, Debug)]
pub struct CompiledFile {
    digest: String,
    engines: String,
    architecture: String,
    bytes: Vec<u8>,
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What the stage was pointed to.
    pub from: Pointed,
    /// What it is pointed to.
    pub to: Pointed,
    /// The component's name and version, in its own words.
    pub component: String,
    /// Whether the bucket did not have it before.
    pub is_new: bool,
}

impl CompiledFile {
    /// Reads one; `architecture` is what it was compiled for.
    ///
    /// # Errors
    /// `Wrong` when it cannot be read, or is not called as compiled components are.
    pub fn read(path: &Path, architecture: &str) -> Result<Self, OperateError> {
        let shown = path.display();
        let (digest, engines) = path.file_name().and_then(|name| parse_name(name.to_str()?)).ok_or_else(|| {
            OperateError::wrong(format!(
                "take {shown} for a compiled component: its name is not DIGEST-ENGINES.{COMPILED}, as `tapeline compile` \
                 calls it"
            ))
        })?;
        let unread = |error: std::io::Error| OperateError::wrong(format!("read {shown}: {error}"));
        let bytes = fs::metadata(path).map_err(unread)?.len();
        if bytes > COMPILED_BYTES_MAX {
            return Err(OperateError::wrong(format!(
                "read {shown}: it has {bytes} bytes, at most {COMPILED_BYTES_MAX}"
            )));
        }
        let bytes = fs::read(path).map_err(unread)?;
        // One of a package has no digest in front, since nobody else can write there.
        let bytes = if bytes.starts_with(ELF) { [&seal(&bytes), bytes.as_slice()].concat() } else { bytes };
        Ok(Self { digest, engines, architecture: architecture.to_owned(), bytes })
    }

    /// Whether functions of a stack can run it.
    fn check_for(&self, stack: &Stack) -> Result<(), OperateError> {
        let Self { architecture, engines, .. } = self;
        if *architecture != stack.architecture {
            return Err(OperateError::wrong(format!(
                "push to stack {}: the component was compiled for {architecture}, and the functions run on {wanted}; push \
                 from a machine with {wanted}",
                stack.name,
                wanted = stack.architecture
            )));
        }
        if *engines != stack.engines {
            return Err(OperateError::wrong(format!(
                "push to stack {}: the component was compiled for engines {engines}, and the functions have {}; push with \
                 the version of Tapeline that the stack was deployed with, or deploy the stack with this one",
                stack.name, stack.engines
            )));
        }
        Ok(())
    }
}

fn parse_name(name: &str) -> Option<(String, String)> {
    let (digest, engines) = name.strip_suffix(COMPILED)?.strip_suffix('.')?.split_once('-')?;
    let is_hex = !engines.is_empty() && engines.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_digest(digest) && is_hex).then(|| (digest.to_owned(), engines.to_owned()))
}

/// Checks a component, uploads it, and then points a stage to it.
///
/// # Errors
/// `Wrong` when it does not fit; `Conflict` when somebody else has pointed the stage elsewhere meanwhile. The stage is
/// pointed then where it was.
pub async fn push(
    account: &Account,
    stack: &Stack,
    stage: &str,
    compiled: CompiledFile,
    change: &Change,
) -> Result<Pushed, OperateError> {
    stack.segment_of(stage)?;
    compiled.check_for(stack)?;
    let pointer = Pointer::read(account, stack, stage).await?;
    let settings = stack.settings_of(account, stage).await?;
    let described = fit::check(stack, &settings, &compiled.digest, &compiled.bytes).await?;
    let to = Pointed::To(compiled.digest.clone());
    let is_new = upload(account, stack, compiled).await?;
    // It is the last: nobody finds it before what it points to.
    if pointer.to != to {
        pointer.turn(account, stack, &to, change).await?;
    }
    Ok(Pushed { from: pointer.to, to, component: format!("{} {}", described.name, described.version), is_new })
}

/// Uploads it unless it is there; whether it was not.
async fn upload(account: &Account, stack: &Stack, compiled: CompiledFile) -> Result<bool, OperateError> {
    let key = compiled_name(&compiled.digest, &compiled.engines);
    let put = account.s3.put_object().bucket(&stack.components_bucket).key(&key).if_none_match("*");
    match put.body(ByteStream::from(compiled.bytes)).send().await {
        Ok(_) => Ok(true),
        Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 412) => Ok(false),
        Err(error) => Err(OperateError::refused(format!("upload {key} to bucket {}", stack.components_bucket), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_digest_and_engines() {
        let digest = "0f".repeat(32);
        assert_eq!(parse_name(&format!("{digest}-00ff.cwasm")), Some((digest.clone(), "00ff".to_owned())));
        for wrong in ["my-alarm.wasm", "0f-00ff.cwasm", &format!("{digest}.cwasm"), &format!("{digest}-.cwasm")] {
            assert_eq!(parse_name(wrong), None, "{wrong}");
        }
        assert_eq!(parse_name(&format!("{digest}-../../x.cwasm")), None);
        let error = CompiledFile::read(Path::new("/nowhere/my-alarm.wasm"), "x86_64").unwrap_err().to_string();
        assert!(error.contains("its name is not DIGEST-ENGINES.cwasm"), "{error}");
    }
}
