//! Compiled code as it is stored: by the digest of its component and by everything that the compiler depends on, with a
//! digest of its own in front.
//!
//! Compiled code runs without any further check, so nobody else may write where it is stored.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

const DIGEST_BYTES: usize = 32;

/// The name of a component's file, by its digest and by what the compiler says of the engines that can run it.
pub fn compiled_name(digest: &str, engines: &str) -> String {
    format!("{digest}-{engines}.{COMPILED}")
}

/// How the names of compiled code end.
pub const COMPILED: &str = "cwasm";

/// What is put in front of compiled code when it is stored.
pub fn seal(compiled: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::digest(compiled).into()
}

/// The component in what was stored; `None` when it is damaged, or was compiled for another engine.
pub fn unseal(engine: &wasmtime::Engine, stored: &[u8]) -> Option<Component> {
    deserialize(engine, unsealed(stored)?).ok()
}

/// The compiled code in what was stored; `None` when it is damaged.
pub fn unsealed(stored: &[u8]) -> Option<&[u8]> {
    let (digest, compiled) = stored.split_at_checked(DIGEST_BYTES)?;
    (seal(compiled) == digest).then_some(compiled)
}

/// The component in a file of compiled code that has no digest in front, and that nobody can write to who could not replace
/// this program, too. Of the file is read what is needed, when it is.
///
/// # Errors
/// When it cannot be read, or was compiled for another engine.
#[expect(unsafe_code, reason = "compiled code of our own compiler, beside this program")]
pub fn open(engine: &wasmtime::Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file comes from `precompile_component` of an engine of ours, and stays as it is; the engine refuses code of
    // another version or configuration.
    unsafe { Component::deserialize_file(engine, path) }
}

/// The component in compiled code that comes from a compiler of ours.
///
/// # Errors
/// When it was compiled for another engine.
#[expect(unsafe_code, reason = "compiled code of our own compiler, from memory or checked by digest")]
pub fn deserialize(engine: &wasmtime::Engine, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes come from `precompile_component` of an engine of ours or from a place where only it writes, and
    // their digest was checked; the engine refuses code of another version or configuration.
    unsafe { Component::deserialize(engine, compiled) }
}
