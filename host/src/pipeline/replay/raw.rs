//! The raw input of a data folder, from its very beginning, in the order in which it was read.

use std::{path::Path, sync::mpsc};

use tapeline_events::{Entry, Line, Name};

use super::window::Window;
use crate::{
    connector::{Recording, digest_file},
    contract::END,
    error::{Error, Kind, Result},
    pipeline::{
        job::{self, Read},
        journal::{self, CURSOR_FORMAT, WATERMARK_FORMAT},
    },
    segment::{Origin, Work},
    store::{InputFile, JournalEntry, SqliteStore, StateStore as _, Store as _},
};

/// Where a piece of raw input begins: a journal record `(number, 0, 0)`, or byte `offset` of the file that was read as
/// number `n` (from 1) behind journal record `number`: `(number, n, offset)`. In the order in which it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64, usize, u64);

impl Place {
    /// Before everything.
    pub(super) const START: Self = Self(0, 0, 0);
    /// Behind everything.
    const END: Self = Self(u64::MAX, usize::MAX, u64::MAX);
}

/// Raw input that is given to the first stage at once.
pub(super) struct Piece {
    /// Where it begins.
    pub(super) place: Place,
    /// What is to be done.
    pub(super) work: Work,
}

/// All raw input of a data folder: its journal up to the record that was the last when this was made, and every file
/// that was ever read.
pub(super) struct RawInput {
    store: SqliteStore,
    /// With the number of the last journal record before each.
    files: Vec<(InputFile, u64)>,
    journal_end: u64,
    window: Window,
}

impl RawInput {
    /// The raw input of a store. Records that enter behind the first stage, and watermarks, are left out when they are
    /// outside of the window.
    ///
    /// # Errors
    /// `NotFound` when a file is not where it was or nothing was ever read; `Conflict` when a file is another one now.
    pub(super) fn of(store: SqliteStore, window: Window) -> Result<Self> {
        let (files, journal_end) = (store.inputs_ever()?, store.journal_end()?);
        for (file, _) in &files {
            check_file(file)?;
        }
        if files.is_empty() && journal_end == 0 {
            let why = match store.progress()?.read.is_empty() {
                true => "nothing was read into this data folder yet",
                false => {
                    "it holds the tables of a chain, which notes only what came into its journal, and that is empty"
                }
            };
            return Err(Error::not_found(format!("find raw input: {why}")));
        }
        Ok(Self { store, files, journal_end, window })
    }

    /// Number of the last journal record.
    pub(super) const fn journal_end(&self) -> u64 {
        self.journal_end
    }

    /// The files, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = &InputFile> {
        self.files.iter().map(|(file, _)| file)
    }

    /// Where input goes on that begins behind a journal record and behind what was read of files.
    pub(super) fn place_behind(&self, journal_sequence: u64, inputs: &[InputFile]) -> Place {
        let of_file = |input: &InputFile| {
            let is_it = |(file, _): &&(InputFile, u64)| file.digest == input.digest && file.format == input.format;
            let at = self.files.iter().position(|known| is_it(&known))?;
            let offset = if input.is_done { u64::MAX } else { input.offset };
            (offset > 0).then(|| Place(self.files.get(at).map_or(0, |(_, behind)| *behind), at + 1, offset))
        };
        // One byte behind the record, so that the record itself stands before it.
        let of_journal = if journal_sequence == 0 { Place::START } else { Place(journal_sequence, 0, 1) };
        inputs.iter().filter_map(of_file).fold(of_journal, Ord::max)
    }

    /// All pieces in order. No piece of the journal goes over one of `cuts`, which are in order.
    pub(super) fn pieces<'a>(&'a self, cuts: &'a [Place]) -> Pieces<'a> {
        Pieces { raw: self, cuts, journal: Vec::new().into_iter(), read: 0, next_file: 0, open: None, has_ended: false }
    }

    /// Where a file with this digest is.
    pub(super) fn file_of(&self, digest: &str) -> Option<&InputFile> {
        self.files().find(|file| file.digest == digest)
    }
}

/// Whether a file is still what was read.
fn check_file(file: &InputFile) -> Result<()> {
    let (path, expected) = (&file.path, &file.digest);
    if !Path::new(path).exists() {
        let message = format!(
            "replay file {path}: it is not there any more; put the one with sha256:{expected} back in its place"
        );
        return Err(Error::not_found(message));
    }
    let found = digest_file(path.as_ref())?;
    if found == *expected {
        return Ok(());
    }
    let message = format!(
        "replay file {path}: it is not the one that was read; put that back, which has sha256:{expected}; found sha256:{found}"
    );
    Err(Error::new(Kind::Conflict, message))
}

/// Goes through raw input once.
pub(super) struct Pieces<'a> {
    raw: &'a RawInput,
    cuts: &'a [Place],
    /// Records that have been read and not been given out.
    journal: std::vec::IntoIter<JournalEntry>,
    /// The last record that has been read.
    read: u64,
    next_file: usize,
    open: Option<OpenFile<'a>>,
    has_ended: bool,
}

/// A file that is being read.
struct OpenFile<'a> {
    input: &'a InputFile,
    behind: u64,
    number: usize,
    offset: u64,
    chunks: mpsc::IntoIter<Read>,
    /// What is left of the last chunk.
    rest: Option<Piece>,
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        if self.has_ended {
            return None;
        }
        let next = self.advance().transpose();
        self.has_ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Pieces<'_> {
    fn advance(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(open) = &mut self.open {
                match open.next_piece()? {
                    Some(piece) => return Ok(Some(piece)),
                    None => self.open = None,
                }
            }
            let behind = self.raw.files.get(self.next_file).map(|(_, behind)| *behind);
            let until = behind.unwrap_or(u64::MAX).min(self.raw.journal_end);
            if let Some(piece) = self.journal_piece(until)? {
                return Ok(Some(piece));
            }
            let Some((input, behind)) = self.raw.files.get(self.next_file) else { return Ok(None) };
            self.next_file += 1;
            self.open = Some(OpenFile::new(input, *behind, self.next_file)?);
        }
    }

    /// The next records of the journal, none of them behind `until`.
    fn journal_piece(&mut self, until: u64) -> Result<Option<Piece>> {
        loop {
            if self.journal.as_slice().is_empty() {
                if self.read >= until {
                    return Ok(None);
                }
                let page = self.raw.store.read_journal(self.read, journal::RECORDS_MAX, journal::BYTES_MAX)?;
                self.read = page.last().map_or(until, |entry| entry.sequence);
                self.journal = page.into_iter();
                continue;
            }
            let Some(first) = self.journal.as_slice().first().cloned() else { continue };
            if first.sequence > until {
                return Ok(None);
            }
            let place = Place(first.sequence, 0, 0);
            let cut = self.cuts.iter().find(|cut| **cut > place).unwrap_or(&Place::END);
            let belongs = |entry: &JournalEntry| {
                entry.sequence <= until
                    && Place(entry.sequence, 0, 0) < *cut
                    && (entry.sequence == first.sequence || journal::is_alike(entry, &first))
            };
            let count = self.journal.as_slice().iter().take_while(|entry| belongs(entry)).count();
            let mut run: Vec<JournalEntry> = self.journal.by_ref().take(count).collect();
            run.retain(|entry| is_wanted(entry, self.raw.window));
            if !run.is_empty() {
                return Ok(Some(Piece { place, work: journal::raw_work(&run) }));
            }
        }
    }
}

/// Whether a record of the journal is part of a window. What the first stage decodes shows its times only there.
fn is_wanted(entry: &JournalEntry, window: Window) -> bool {
    let record = &entry.record;
    let text = || std::str::from_utf8(&record.bytes).unwrap_or_default();
    match (record.format.as_str(), &record.stage) {
        // Where a source was is of no use to anybody who reads what it sent.
        (CURSOR_FORMAT, _) => false,
        _ if window.is_everything() => true,
        (WATERMARK_FORMAT, _) => text().parse().is_ok_and(|mark| window.holds(mark)),
        (_, Some(_)) => line_time(&record.bytes).is_none_or(|time| window.holds(time)),
        (_, None) => true,
    }
}

/// The time of a JSON line; `None` when it is none, which the stage that it enters will say.
fn line_time(bytes: &[u8]) -> Option<i64> {
    let line = Line::parse(bytes).ok()?;
    match line.entry(&mut |_| Name(Name::NONE)).ok()? {
        Entry::Watermark(time) => Some(time),
        Entry::Event(envelope, _) => Some(envelope.time),
    }
}

impl<'a> OpenFile<'a> {
    fn new(input: &'a InputFile, behind: u64, number: usize) -> Result<Self> {
        let chunks = job::read_ahead(Recording::open(input.path.as_ref())?);
        Ok(Self { input, behind, number, offset: 0, chunks, rest: None })
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        if let Some(piece) = self.rest.take() {
            return Ok(Some(piece));
        }
        let place = Place(self.behind, self.number, self.offset);
        let source = format!("sha256:{}", self.input.digest);
        let format = self.input.format.clone();
        match self.chunks.next() {
            None => Ok(None),
            Some(Read::Chunk(mut chunk, _)) => {
                self.offset = chunk.offset_end;
                let too_long = job::too_long_of(&mut chunk, &format, &source);
                let piece = Piece { place, work: job::frames_of(chunk, &format, &source) };
                match too_long {
                    None => Ok(Some(piece)),
                    Some(work) => {
                        self.rest = Some(piece);
                        Ok(Some(Piece { place, work }))
                    }
                }
            }
            // The same damage as then: what it is in the file, so that it is the same for everybody.
            Some(Read::Failed(error)) if error.kind() == Kind::Corrupt => {
                let records = vec![(Vec::new(), job::error_text(&error))];
                let origin = Origin { source, positions: vec![self.offset] };
                Ok(Some(Piece { place, work: Work::Unreadable { format, records, origin } }))
            }
            Some(Read::Failed(error)) => Err(error),
        }
    }
}

/// The end of all input.
pub(super) fn end() -> Piece {
    Piece { place: Place::END, work: Work::Mark(END) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::store::{Commit, JournalRecord, Progress};

    const SECOND: i64 = 1_000_000_000;

    /// A data folder with something of everything: record 1, file a, records 2 to 6, file b, record 7.
    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(TempDir::new().unwrap());
            let mut store = SqliteStore::open(&folder.0.path().join("data")).unwrap();
            store.append_journal(&[record("events", None, "one")]).unwrap();
            folder.read(&mut store, 1, "a", "a1\na2\n");
            let line = |second: i64| {
                format!(
                    r#"{{"kind":"trade","symbol":"X","source":"s","time":"1970-01-01T00:00:0{second}Z","id":1,"price":1}}"#
                )
            };
            let records = [
                record(CURSOR_FORMAT, None, "{}"),
                record(WATERMARK_FORMAT, None, &SECOND.to_string()),
                record("events", Some("alarm"), &line(1)),
                record("events", Some("alarm"), &line(2)),
            ];
            store.append_journal(&records).unwrap();
            // What came by standard input is in the journal, and was processed before.
            let progress = Progress { journal_sequence: 5, ..Progress::default() };
            let stdin = Commit { journal: vec![record("events", None, "six")], progress, ..Commit::default() };
            store.commit(stdin).unwrap();
            folder.read(&mut store, 6, "b", "b1\n");
            store.append_journal(&[record("events", None, "seven")]).unwrap();
            folder
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn read(&self, store: &mut SqliteStore, journal_sequence: u64, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
            let inputs = vec![self.input(name, 3, true)];
            let progress = Progress { journal_sequence, inputs, ..Progress::default() };
            store.commit(Commit { progress, ..Commit::default() }).unwrap();
        }

        fn input(&self, name: &str, offset: u64, is_done: bool) -> InputFile {
            let path = self.path(name);
            let digest = digest_file(&path).unwrap();
            InputFile { digest, path: path.display().to_string(), format: "events".to_owned(), offset, is_done }
        }

        fn raw(&self, window: Window) -> Result<RawInput> {
            RawInput::of(SqliteStore::open_reader(&self.path("data")).unwrap(), window)
        }
    }

    fn record(format: &str, stage: Option<&str>, text: &str) -> JournalRecord {
        let (format, stage) = (format.to_owned(), stage.map(str::to_owned));
        JournalRecord { format, stage, received: None, bytes: text.into() }
    }

    /// What each piece holds, in short.
    fn pieces(raw: &RawInput, cuts: &[Place]) -> Vec<String> {
        let text = |piece: Result<Piece>| match piece.unwrap().work {
            Work::Frames { frames, .. } => String::from_utf8(frames.bytes).unwrap(),
            Work::Lines { enters, bytes, .. } => {
                format!("{} lines at {enters}", bytes.split(|byte| *byte == b'\n').count())
            }
            Work::Mark(mark) => format!("mark {}", mark / SECOND),
            other => format!("{other:?}"),
        };
        raw.pieces(cuts).map(text).collect()
    }

    #[test]
    fn everything_comes_in_the_order_in_which_it_was_read() {
        let folder = Folder::new();
        let raw = folder.raw(Window::default()).unwrap();
        assert_eq!(pieces(&raw, &[]), ["one", "a1a2", "mark 1", "2 lines at alarm", "six", "b1", "seven"]);
        assert_eq!((raw.journal_end(), raw.files().count()), (7, 2));
    }

    #[test]
    fn a_window_leaves_out_what_enters_later_and_watermarks() {
        let folder = Folder::new();
        let of = |from: Option<i64>, to: Option<i64>| pieces(&folder.raw(Window { from, to }).unwrap(), &[]);
        assert_eq!(of(Some(2 * SECOND), None), ["one", "a1a2", "1 lines at alarm", "six", "b1", "seven"]);
        assert_eq!(of(None, Some(SECOND)), ["one", "a1a2", "six", "b1", "seven"]);
    }

    #[test]
    fn places_are_in_the_order_of_reading_and_records_are_cut_at_them() {
        let folder = Folder::new();
        let raw = folder.raw(Window::default()).unwrap();
        let behind_four = raw.place_behind(4, &[]);
        let places = [
            Place::START,
            Place(1, 0, 0),
            raw.place_behind(1, &[folder.input("a", 0, false)]),
            raw.place_behind(1, &[folder.input("a", 2, false)]),
            raw.place_behind(1, &[folder.input("a", 3, true)]),
            Place(2, 0, 0),
            behind_four,
            raw.place_behind(6, &[folder.input("b", 1, false)]),
            Place(7, 0, 0),
        ];
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        let cut = pieces(&raw, &[behind_four]);
        assert_eq!(cut, ["one", "a1a2", "mark 1", "1 lines at alarm", "1 lines at alarm", "six", "b1", "seven"]);
    }

    #[test]
    fn a_file_that_is_not_as_it_was_is_named() {
        let folder = Folder::new();
        let (expected, path) = (folder.input("a", 0, false).digest, folder.path("a").display().to_string());
        fs::write(folder.path("a"), "other\n").unwrap();
        let other = folder.raw(Window::default()).map(drop).unwrap_err();
        let found = folder.input("a", 0, false).digest;
        assert_eq!(other.kind(), Kind::Conflict);
        assert!([&path, &expected, &found].iter().all(|word| other.to_string().contains(*word)), "{other}");
        fs::remove_file(folder.path("a")).unwrap();
        let gone = folder.raw(Window::default()).map(drop).unwrap_err();
        assert!(
            gone.kind() == Kind::NotFound && gone.to_string().contains(&path) && gone.to_string().contains(&expected)
        );
    }

    #[test]
    fn where_nothing_was_read_there_is_nothing_to_replay() {
        let folder = TempDir::new().unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        let error = RawInput::of(SqliteStore::open_reader(folder.path()).unwrap(), Window::default()).map(drop);
        assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    }
}
