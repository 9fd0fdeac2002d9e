//! Compiled components: those of the function's package, and those that were pushed since.
//!
//! | where | what |
//! | --- | --- |
//! | package `components/engines` | what the compiler said of the engines that can run its code |
//! | package `components/<name>/<digest>-<engines>.cwasm` | a component, compiled: a new process maps it, and reads what it needs |
//! | bucket `<digest>-<engines>.cwasm` | one that was pushed, with a digest in front |
//! | bucket `stages/<stage>/current` | the digest of what the stage is to run, or "deployed": the package's component, as if there were no pointer |
//!
//! Whoever can write to the bucket decides what runs, so that no function can. `operate` writes there.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_s3::{
    Client,
    error::{DisplayErrorContext, SdkError},
    operation::get_object::GetObjectError,
};
use tapeline_runtime::{COMPILED, Component, Engine, compiled_name, open, unseal};

/// A pointer is not read again for so long.
const POINTER_AGE_MAX: Duration = Duration::from_secs(1);
/// Compiled components that are kept: two versions of each stage of a fused function.
const KEPT_MAX: usize = 16;
/// Bytes of a pointer: a digest and a line's end.
pub(crate) const POINTER_BYTES_MAX: i64 = 128;
/// What a pointer says that leads to the component of the package.
pub(crate) const DEPLOYED: &str = "deployed";

/// Why there is no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentError {
    /// It is not there, or is damaged, or fits no world, or fits another engine.
    #[error("{0}")]
    Unfit(String),
    /// S3 does not answer.
    #[error("S3: {0}")]
    Unavailable(String),
}

/// The components of a function.
pub struct Components {
    engine: Engine,
    /// What the compiler of the package said of engines.
    engines: String,
    package: PathBuf,
    bucket: String,
    client: Client,
    pointers: Mutex<BTreeMap<String, Pointer>>,
    loaded: Mutex<BTreeMap<String, Component>>,
}

/// What a stage is to run, as it was read last.
struct Pointer {
    etag: Option<String>,
    to: Pointed,
    read: Instant,
}

/// What a pointer says.
#[derive(Clone)]
enum Pointed {
    /// There is none, or it says so: what it was deployed with.
    Nowhere,
    /// A digest.
    To(Arc<str>),
    /// It is no digest.
    Unreadable,
}

impl Components {
    /// Those of a package, a folder, and of a bucket.
    ///
    /// # Errors
    /// When the package is none, or this machine runs no compiled code.
    pub fn open(package: &Path, client: Client, bucket: String) -> Result<Self, ComponentError> {
        let engine = Engine::new().map_err(|error| ComponentError::Unfit(error.to_string()))?;
        let package = package.join("components");
        let path = package.join("engines");
        let engines = fs::read_to_string(&path)
            .map_err(|error| ComponentError::Unfit(format!("read {}: {error}", path.display())))?;
        let (pointers, loaded) = (Mutex::default(), Mutex::default());
        Ok(Self { engine, engines: engines.trim().to_owned(), package, bucket, client, pointers, loaded })
    }

    /// The digest of what a stage is to run; `None` when what says it is no digest. When the bucket does not answer, it is
    /// what it was last.
    ///
    /// # Errors
    /// When there is none, or nothing is known of a stage yet and the bucket does not answer.
    pub async fn wanted(&self, stage: &str, component: &str) -> Result<Option<Arc<str>>, ComponentError> {
        let known = self.pointers().remove(stage);
        let pointer = match known {
            Some(known) if known.read.elapsed() < POINTER_AGE_MAX => known,
            known => self.read_pointer(stage, known).await?,
        };
        let to = pointer.to.clone();
        self.pointers().insert(stage.to_owned(), pointer);
        match to {
            Pointed::Nowhere => self.packaged_digest(component).map(Some),
            Pointed::To(digest) => Ok(Some(digest)),
            Pointed::Unreadable => Ok(None),
        }
    }

    fn pointers(&self) -> MutexGuard<'_, BTreeMap<String, Pointer>> {
        self.pointers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded(&self) -> MutexGuard<'_, BTreeMap<String, Component>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_pointer(&self, stage: &str, known: Option<Pointer>) -> Result<Pointer, ComponentError> {
        let key = pointer_key(stage);
        let etag = known.as_ref().and_then(|known| known.etag.clone());
        let asked = self.client.get_object().bucket(&self.bucket).key(&key).set_if_none_match(etag).send().await;
        let read = Instant::now();
        match (asked, known) {
            (Ok(object), _) => {
                let etag = object.e_tag.clone();
                let is_small = object.content_length.is_none_or(|bytes| bytes <= POINTER_BYTES_MAX);
                let text = if is_small { body(object).await? } else { Vec::new() };
                let text = String::from_utf8_lossy(&text);
                let digest = text.trim();
                if digest == DEPLOYED {
                    return Ok(Pointer { etag, to: Pointed::Nowhere, read });
                }
                if is_digest(digest) {
                    return Ok(Pointer { etag, to: Pointed::To(digest.into()), read });
                }
                tracing::error!(key, "the pointer is no digest; what ran before goes on");
                Ok(Pointer { etag, to: Pointed::Unreadable, read })
            }
            (Err(error), Some(known)) if is_status(&error, 304) => Ok(Pointer { read, ..known }),
            (Err(error), _) if is_missing(&error) => Ok(Pointer { etag: None, to: Pointed::Nowhere, read }),
            (Err(error), Some(known)) => {
                tracing::warn!(key, error = %DisplayErrorContext(&error), "the pointer cannot be read");
                Ok(Pointer { read, ..known })
            }
            (Err(error), None) => Err(unavailable(&error)),
        }
    }

    /// The component of a digest, made ready.
    ///
    /// # Errors
    /// When there is none that fits this function.
    pub async fn load(&self, digest: &str, component: &str) -> Result<Component, ComponentError> {
        if let Some(loaded) = self.loaded().get(digest) {
            return Ok(loaded.clone());
        }
        let packaged = self.packaged(component).ok().filter(|(found, _)| **found == *digest);
        let (compiled, bytes) = match packaged {
            // AWS has checked what is in the package, as it has this program.
            Some((_, path)) => {
                let unfit = |error: &dyn Display| ComponentError::Unfit(format!("open {}: {error}", path.display()));
                let bytes = fs::metadata(&path).map_err(|error| unfit(&error))?.len();
                // One that `tapeline compile` was told to put there has its digest in front.
                let sealed = || fs::read(&path).ok().and_then(|stored| unseal(self.engine.engine(), &stored));
                let opened = open(self.engine.engine(), &path).or_else(|error| sealed().ok_or(error));
                (opened.map_err(|error| unfit(&error))?, bytes)
            }
            None => {
                let stored = self.fetch(digest).await?;
                let unfit =
                    || ComponentError::Unfit(format!("component {digest} is damaged, or is for another engine"));
                (unseal(self.engine.engine(), &stored).ok_or_else(unfit)?, stored.len() as u64)
            }
        };
        let fit = self.engine.fit(&compiled, digest.into(), bytes);
        let loaded = fit.map_err(|error| ComponentError::Unfit(format!("component {digest}: {error}")))?;
        let mut kept = self.loaded();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(digest.to_owned(), loaded.clone());
        Ok(loaded)
    }

    async fn fetch(&self, digest: &str) -> Result<Vec<u8>, ComponentError> {
        let key = compiled_name(digest, &self.engines);
        match self.client.get_object().bucket(&self.bucket).key(&key).send().await {
            Ok(object) => body(object).await,
            Err(error) if is_missing(&error) => {
                let message = format!(
                    "component {digest} is neither in the package nor in bucket {} as {key}: push it with the version of \
                     tapeline that the stack was deployed with",
                    self.bucket
                );
                Err(ComponentError::Unfit(message))
            }
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The digest of a component of the package.
    ///
    /// # Errors
    /// When there is none.
    pub fn packaged_digest(&self, component: &str) -> Result<Arc<str>, ComponentError> {
        self.packaged(component).map(|(digest, _)| digest)
    }

    /// The digest and file of a component of the package.
    fn packaged(&self, component: &str) -> Result<(Arc<str>, PathBuf), ComponentError> {
        // A component may be given as a path; its file's name is what it is called.
        let name = Path::new(component).file_stem().unwrap_or_default();
        let folder = self.package.join(name);
        let files = fs::read_dir(&folder).map(|files| files.filter_map(Result::ok).map(|file| file.path()));
        let mut files = files.into_iter().flatten();
        let found = files.find_map(|path| {
            let name = path.file_name()?.to_str()?;
            let digest =
                name.strip_suffix(COMPILED)?.strip_suffix('.')?.strip_suffix(&self.engines)?.strip_suffix('-')?;
            Some((digest.into(), path.clone()))
        });
        found.ok_or_else(|| ComponentError::Unfit(format!("there is no compiled component in {}", folder.display())))
    }
}

async fn body(object: aws_sdk_s3::operation::get_object::GetObjectOutput) -> Result<Vec<u8>, ComponentError> {
    let collected = object.body.collect().await;
    collected.map(|bytes| bytes.to_vec()).map_err(|error| ComponentError::Unavailable(error.to_string()))
}

/// Where the pointer of a stage is.
pub(crate) fn pointer_key(stage: &str) -> String {
    format!("stages/{stage}/current")
}

/// Whether a text is the digest of a component.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

type GetError = SdkError<GetObjectError>;

fn is_missing(error: &GetError) -> bool {
    error.as_service_error().is_some_and(GetObjectError::is_no_such_key) || is_status(error, 404)
}

fn is_status(error: &GetError, status: u16) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == status)
}

fn unavailable(error: &GetError) -> ComponentError {
    ComponentError::Unavailable(DisplayErrorContext(error).to_string())
}
