//! Recordings: files of raw frames, one a line, as they were received.
//!
//! A line is `<receive time in ns> <frame>` or a bare frame. Files may be compressed; their first bytes tell how. What is
//! in a frame is not looked at, but a line that is too long is cut, so that no file can fill the memory.

mod compression;
mod lines;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest, Sha256};

use self::lines::{Line, Lines};
use crate::error::{Context, Error, Kind, Result};

/// Longest line. Vendors' frames have some hundred bytes, order book snapshots 100 kB; what is longer is no line of a
/// recording, and a broker would not take it as a message.
pub const LINE_BYTES_MAX: usize = tapeline_invoke::admit::RECORD_BYTES_MAX;
/// What is kept of a line that is too long: enough to see what it is.
const HEAD_BYTES: usize = 200;
/// Frames in a chunk are counted in 32 bits; half of that leaves room for the last line.
const CHUNK_BYTES_MAX: usize = 1 << 31;
/// Bytes that are read from a file at a time: a system call for each costs little, and they stay in the cache.
const READ_BYTES: usize = 128 * 1024;

/// Frames that were read together, laid out as `contract::Frames`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The frames, one behind the other, without receive times and line ends.
    pub bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    pub ends: Vec<u32>,
    /// When each frame was received, ns since the epoch; `i64::MIN` where the line does not say.
    pub received: Vec<i64>,
    /// Where the line of each frame begins, in uncompressed bytes.
    pub offsets: Vec<u64>,
    /// Where the chunk begins in the recording, in uncompressed bytes.
    pub offset_start: u64,
    /// Where it ends: where [`Recording::seek_to`] goes on.
    pub offset_end: u64,
    /// Frames that are only the beginning of a line that is too long.
    pub too_long: Vec<TooLong>,
}

/// A line that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Position among the frames of the chunk; the frame is the first 200 bytes of the line.
    pub frame: u32,
    /// Where the line begins, in uncompressed bytes.
    pub offset: u64,
    /// Its length without the line end.
    pub length: u64,
}

/// A recording that is being read.
pub struct Recording {
    path: String,
    lines: Lines<Box<dyn Read + Send>>,
    bytes_read: Arc<AtomicU64>,
    size: Option<u64>,
    /// Of the last chunk, so that the next one need not grow.
    chunk_bytes: usize,
    failure: Option<Failure>,
}

/// Why a recording cannot be read any further.
#[derive(Clone, Debug)]
struct Failure {
    kind: Kind,
    message: String,
}

impl Recording {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, LINE_BYTES_MAX)
    }

    fn open_with(path: &Path, line_bytes_max: usize) -> Result<Self> {
        let place = || format!("open recording {}", path.display());
        let (input, size): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).doing(place)?;
            let metadata = file.metadata().doing(place)?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let bytes_read = Arc::new(AtomicU64::new(0));
        let input = compression::open(Counted { input, count: Arc::clone(&bytes_read) }).doing(place)?;
        let lines = Lines::new(input, line_bytes_max);
        Ok(Self { path: path.display().to_string(), lines, bytes_read, size, chunk_bytes: 0, failure: None })
    }

    /// The next frames, in order: until there are `lines_max`, or `bytes_max` bytes, which the last one may pass; at
    /// least one. `None` at the end of the recording. Lines of nothing but whitespace are no frames.
    ///
    /// # Errors
    /// `Corrupt` when the file is cut off or damaged; only after all that could be read was given out, the beginning of
    /// a line included. `Unavailable` when it cannot be read. Both again with every further call.
    pub fn next_chunk(&mut self, lines_max: usize, bytes_max: usize) -> Result<Option<Chunk>> {
        let bytes_max = bytes_max.min(CHUNK_BYTES_MAX);
        let mut chunk = Chunk { bytes: Vec::with_capacity(self.chunk_bytes), ..Chunk::default() };
        chunk.offset_start = self.lines.offset();
        while chunk.has_room(lines_max, bytes_max) {
            let offset = self.lines.offset();
            match self.lines.next() {
                Some(Line::Whole(line)) => chunk.add(line, offset),
                Some(Line::Cut { head, length }) => chunk.add_cut(head, offset, length),
                None => break,
            }
        }
        chunk.offset_end = self.lines.offset();
        self.chunk_bytes = chunk.bytes.len();
        if chunk.ends.is_empty() { self.end().map(|()| None) } else { Ok(Some(chunk)) }
    }

    /// Goes on at an offset that an earlier reading of the same file gave as [`Chunk::offset_end`].
    ///
    /// # Errors
    /// `Corrupt` when the recording is shorter; `Invalid` when it has been read further already.
    pub fn seek_to(&mut self, offset: u64) -> Result<()> {
        if offset < self.lines.offset() {
            return Err(Error::invalid(format!("go back to byte {offset} of recording {}", self.path)));
        }
        self.lines.skip_to(offset);
        if self.lines.offset() == offset {
            return Ok(());
        }
        self.end()?;
        let end = self.lines.offset();
        let message = format!("go on at byte {offset} of recording {}: it ends at byte {end}", self.path);
        Err(Error::new(Kind::Corrupt, message))
    }

    /// Bytes of the file, compressed as it is, that have been read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes of the file; none when it is not known, as for standard input.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Whether it has ended well.
    fn end(&mut self) -> Result<()> {
        if let Some(error) = self.lines.take_failure() {
            let offset = self.lines.offset();
            let kind = if compression::is_damage(&error) { Kind::Corrupt } else { Kind::Unavailable };
            let message = format!("read recording {} behind byte {offset}: {error}", self.path);
            self.failure = Some(Failure { kind, message });
        }
        self.failure.clone().map_or(Ok(()), |failure| Err(Error::new(failure.kind, failure.message)))
    }
}

impl Chunk {
    #[inline]
    fn has_room(&self, lines_max: usize, bytes_max: usize) -> bool {
        self.ends.is_empty() || (self.ends.len() < lines_max && self.bytes.len() < bytes_max)
    }

    #[inline]
    fn add(&mut self, line: &[u8], offset: u64) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        self.push(line, offset);
    }

    /// Adds the beginning of a line. It counts even if it is whitespace: what follows it is not looked at.
    fn add_cut(&mut self, head: &[u8], offset: u64, length: u64) {
        self.too_long.push(TooLong { frame: self.ends.len() as u32, offset, length });
        self.push(head.trim_ascii_start(), offset);
    }

    #[inline]
    fn push(&mut self, line: &[u8], offset: u64) {
        self.offsets.push(offset);
        let (received, frame) = tapeline_invoke::body::split_stamp(line);
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len() as u32);
        self.received.push(received);
    }
}

/// SHA-256 of a file as it is stored, in hex.
///
/// # Errors
/// When it cannot be read.
pub fn digest_file(path: &Path) -> Result<String> {
    let place = || format!("read {}", path.display());
    let mut file = File::open(path).doing(place)?;
    let mut digest = Sha256::new();
    let mut block = vec![0; READ_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(length) => digest.update(block.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).doing(place),
        }
    }
    Ok(crate::runtime::hex(&digest.finalize()))
}

/// Counts what is read.
struct Counted<R> {
    input: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
