//! Objects as files in a folder.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{ObjectPath, Objects, Tail};
use crate::error::{Context, Error, Kind, Result};

/// Files that are open at a time: they are written first and then flushed, so that the file system can do many at once.
/// Systems allow 256 or more to a process, and sockets need some.
const OPEN_FILES_MAX: usize = 64;

/// Files that are flushed at the same time. A flush is waiting, and file systems do many as one.
const FLUSHES_AT_ONCE: usize = 16;

/// Keeps each object in a file under one folder, made when it is first needed.
pub struct FolderObjects {
    root: PathBuf,
}

impl FolderObjects {
    /// Objects in a folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn place(&self, path: &ObjectPath) -> PathBuf {
        self.root.join(path.as_str())
    }

    /// Writes a tail, and leaves what has to be flushed: the file, and the folders with a new entry.
    fn write(&self, tail: &Tail<'_>, folders: &mut BTreeSet<PathBuf>) -> Result<File> {
        let place = self.place(&tail.path);
        let mut file = match OpenOptions::new().write(true).open(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tail.at == 0 => self.create(&place, folders),
            result => result,
        }
        .map_err(as_error)?;
        let length = file.metadata()?.len();
        if length < tail.at {
            return Err(too_short(tail, length));
        }
        if length > tail.at {
            file.set_len(tail.at)?;
        }
        file.seek(SeekFrom::Start(tail.at))?;
        for part in &tail.parts {
            file.write_all(part)?;
        }
        Ok(file)
    }

    fn create(&self, place: &Path, folders: &mut BTreeSet<PathBuf>) -> io::Result<File> {
        let Some(parent) = place.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
        if parent.is_dir() {
            folders.insert(parent.to_owned());
        } else {
            fs::create_dir_all(parent)?;
            // The folder that holds the root has a new entry too.
            let above = self.root.parent().unwrap_or(&self.root);
            folders.extend(parent.ancestors().take_while(|folder| folder.starts_with(above)).map(Path::to_owned));
        }
        OpenOptions::new().write(true).create(true).truncate(false).open(place)
    }
}

impl Objects for FolderObjects {
    fn append(&mut self, tails: &[Tail<'_>]) -> Result<()> {
        let mut folders = BTreeSet::new();
        for tails in tails.chunks(OPEN_FILES_MAX) {
            let mut files = Vec::with_capacity(tails.len());
            for tail in tails {
                files.push(self.write(tail, &mut folders).doing(|| format!("write object {}", tail.path))?);
            }
            at_once(&files, File::sync_data).doing(|| "flush objects".to_owned())?;
        }
        let folders: Vec<_> = folders.into_iter().collect();
        at_once(&folders, |folder| sync_folder(folder)).doing(|| "flush folders of objects".to_owned())
    }

    fn cut(&mut self, path: &ObjectPath, length: u64) -> Result<()> {
        let place = self.place(path);
        let cut = || match fs::metadata(&place) {
            Ok(found) if found.len() > length && length > 0 => {
                let file = OpenOptions::new().write(true).open(&place)?;
                file.set_len(length)?;
                file.sync_all()
            }
            Ok(_) if length == 0 => {
                fs::remove_file(&place)?;
                place.parent().map_or(Ok(()), sync_folder)
            }
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(error),
            _ => Ok(()),
        };
        cut().doing(|| format!("cut object {path} off at byte {length}"))
    }
}

/// Flushes files, many at the same time.
fn at_once<T: Sync>(files: &[T], flush: fn(&T) -> io::Result<()>) -> io::Result<()> {
    let share = files.len().div_ceil(FLUSHES_AT_ONCE);
    // Few files are flushed before threads are up.
    if share <= 1 {
        return files.iter().try_for_each(flush);
    }
    std::thread::scope(|scope| {
        let flushing = files
            .chunks(share)
            .map(|files| std::thread::Builder::new().spawn_scoped(scope, move || files.iter().try_for_each(flush)));
        let flushing = flushing.collect::<io::Result<Vec<_>>>()?;
        let panicked = |_| Err(io::Error::other("the flushing thread panicked"));
        flushing.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
    })
}

/// A new file is only there for good once its folder is flushed as well.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Folders cannot be flushed here; the system keeps their order itself.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

fn too_short(tail: &Tail<'_>, length: u64) -> Error {
    let (path, at) = (&tail.path, tail.at);
    let message =
        format!("find all of object {path}: it has {length} bytes, and {at} were written; put it back as it was");
    Error::new(Kind::Corrupt, message)
}

/// A file where a folder should be, or the other way round, comes from the paths that were asked for.
fn as_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            Error::caused(Kind::Invalid, "make an object and a folder of one name", error)
        }
        // It was committed, and somebody took it away.
        io::ErrorKind::NotFound => Error::caused(Kind::Corrupt, "find an object that was written; put it back", error),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> ObjectPath {
        ObjectPath::parse(path).unwrap()
    }

    fn append(objects: &mut FolderObjects, tails: &[(&str, u64, &'static str)]) -> Result<()> {
        let tail = |(name, at, text): &(&str, u64, &'static str)| Tail {
            path: path(name),
            at: *at,
            parts: vec![text.as_bytes()],
        };
        objects.append(&tails.iter().map(tail).collect::<Vec<_>>())
    }

    #[test]
    fn what_was_not_committed_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut objects = FolderObjects::new(folder.path().join("objects"));
        append(&mut objects, &[("a/b", 0, "one"), ("c", 0, "two")]).unwrap();
        append(&mut objects, &[("a/b", 3, " and more")]).unwrap();
        append(&mut objects, &[("a/b", 3, "!"), ("c", 0, "2")]).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join("objects").join(name)).unwrap();
        assert_eq!((read("a/b"), read("c")), ("one!".to_owned(), "2".to_owned()));
    }

    #[test]
    fn cutting_may_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let mut objects = FolderObjects::new(folder.path());
        append(&mut objects, &[("a/b", 0, "one")]).unwrap();
        for (length, left) in [(5, Some("one")), (2, Some("on")), (2, Some("on")), (0, None), (0, None)] {
            objects.cut(&path("a/b"), length).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("a/b")).ok().as_deref(), left);
        }
        objects.cut(&path("a/b/c"), 0).unwrap();
    }

    #[test]
    fn lost_and_impossible_objects_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let mut objects = FolderObjects::new(folder.path());
        append(&mut objects, &[("a", 0, "one"), ("f/x", 0, "x")]).unwrap();
        for (name, at, kind) in
            [("a", 9, Kind::Corrupt), ("b", 1, Kind::Corrupt), ("a/b", 0, Kind::Invalid), ("f", 0, Kind::Invalid)]
        {
            assert_eq!(append(&mut objects, &[(name, at, "x")]).unwrap_err().kind(), kind, "{name}");
        }
    }

    #[test]
    fn many_objects_are_written_with_few_files_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut objects = FolderObjects::new(folder.path());
        let names: Vec<_> = (0..3 * OPEN_FILES_MAX).map(|number| format!("{number}")).collect();
        let tails: Vec<_> = names.iter().map(|name| (name.as_str(), 0, "x")).collect();
        append(&mut objects, &tails).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), names.len());
    }
}
