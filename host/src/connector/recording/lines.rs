//! Lines of a stream, through one buffer that never grows.

use std::{
    io::{self, Read},
    ops::Range,
};

use memchr::memchr;

use super::{HEAD_BYTES, READ_BYTES};

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It is longer than a line may be: its beginning, and how long it is.
    Cut { head: &'a [u8], length: u64 },
}

/// What comes next in the buffer.
enum Found {
    /// A line of this length.
    Whole(usize),
    /// More than a line may have.
    TooLong,
    Nothing,
}

/// Lines, and at which byte of the stream each begins.
pub(super) struct Lines<R> {
    input: R,
    /// As large as the longest line and a block behind it.
    buffer: Vec<u8>,
    /// Of the buffer: what has been read and not given out.
    unread: Range<usize>,
    /// Where `unread` begins in the stream.
    offset: u64,
    /// The beginning of the last line that was too long.
    head: Vec<u8>,
    line_bytes_max: usize,
    has_ended: bool,
    failure: Option<io::Error>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R, line_bytes_max: usize) -> Self {
        Self {
            input,
            buffer: vec![0; line_bytes_max + 1 + READ_BYTES],
            unread: 0..0,
            offset: 0,
            head: Vec::new(),
            line_bytes_max,
            has_ended: false,
            failure: None,
        }
    }

    /// Where the next line begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Why the stream has ended, if it has ended badly; once.
    pub(super) const fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// The next line; none at the end, good or bad.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Line<'_>> {
        match self.find() {
            Found::Whole(length) => Some(Line::Whole(self.give(length))),
            Found::TooLong => Some(self.give_cut()),
            Found::Nothing => None,
        }
    }

    /// Skips to a place in the stream, or to its end if that comes first.
    pub(super) fn skip_to(&mut self, offset: u64) {
        while self.offset < offset {
            let wanted = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
            self.drop_front(wanted.min(self.unread.len()));
            if self.unread.is_empty() && self.offset < offset && !self.fill() {
                return;
            }
        }
    }

    #[inline]
    fn find(&mut self) -> Found {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.unread.clone()];
            if let Some(at) = memchr(b'\n', &unread[searched..]) {
                let length = searched + at;
                return if length > self.line_bytes_max { Found::TooLong } else { Found::Whole(length) };
            }
            searched = unread.len();
            if searched > self.line_bytes_max {
                return Found::TooLong;
            }
            if !self.fill() {
                return if searched == 0 { Found::Nothing } else { Found::Whole(searched) };
            }
        }
    }

    #[inline]
    fn give(&mut self, length: usize) -> &[u8] {
        let start = self.unread.start;
        self.drop_front((length + 1).min(self.unread.len()));
        &self.buffer[start..start + length]
    }

    fn give_cut(&mut self) -> Line<'_> {
        let offset = self.offset;
        let kept = self.unread.len().min(HEAD_BYTES).min(self.line_bytes_max);
        self.head.clear();
        self.head.extend_from_slice(&self.buffer[self.unread.start..self.unread.start + kept]);
        let has_end = self.drop_line();
        Line::Cut { head: &self.head, length: self.offset - offset - u64::from(has_end) }
    }

    /// Drops the rest of a line, and tells whether it had an end.
    fn drop_line(&mut self) -> bool {
        loop {
            if let Some(at) = memchr(b'\n', &self.buffer[self.unread.clone()]) {
                self.drop_front(at + 1);
                return true;
            }
            self.drop_front(self.unread.len());
            if !self.fill() {
                return false;
            }
        }
    }

    #[inline]
    fn drop_front(&mut self, length: usize) {
        self.unread.start += length;
        self.offset += length as u64;
    }

    /// Reads a block behind what is unread, which is at most a line and a byte. False at the end of the stream.
    fn fill(&mut self) -> bool {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        while !self.has_ended {
            let end = self.unread.end;
            match self.input.read(&mut self.buffer[end..end + READ_BYTES]) {
                Ok(0) => self.has_ended = true,
                Ok(length) => {
                    self.unread.end += length;
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.has_ended = true;
                    self.failure = Some(error);
                }
            }
        }
        false
    }
}
