//! Objects: files that only grow, such as a day's CSV. How long each one is, is kept by the store.
//!
//! [`Objects`] is the contract; [`FolderObjects`] keeps them in a folder. Knows nothing of what is in them, and does
//! not decide what is committed.

mod folder;

use std::fmt;

pub use folder::FolderObjects;

use crate::error::{Error, Result};

/// Where an object is: relative, `/` between segments, none of them empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Checks a path.
    ///
    /// # Errors
    /// `Invalid` when it could lead out of where objects are kept, or cannot be a path on every system.
    pub fn parse(path: &str) -> Result<Self> {
        match tapeline_invoke::check_object_path(path) {
            Err(fault) => Err(Error::invalid(format!("the path of object {path:?} {fault}"))),
            Ok(()) => Ok(Self(path.to_owned())),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is to stand in an object from some byte on.
#[derive(Debug)]
pub struct Tail<'a> {
    /// The object.
    pub path: ObjectPath,
    /// How many of its bytes are committed; 0 when there is no such object.
    pub at: u64,
    /// What comes behind them, one part after the other.
    pub parts: Vec<&'a [u8]>,
}

impl Tail<'_> {
    /// How long the object is with it.
    pub fn end(&self) -> u64 {
        self.at + self.parts.iter().map(|part| part.len() as u64).sum::<u64>()
    }
}

/// Where objects are kept. One caller at a time writes them, and remembers how many bytes of each one count.
pub trait Objects: Send {
    /// Puts each tail in its place, durably. What an object had from there on is replaced: it was never committed.
    ///
    /// # Errors
    /// `Corrupt` when an object is shorter than its committed part; `Invalid` when the path of one object is a folder of
    /// another. Some tails may be in place then, as a whole or in part; [`Objects::cut`] takes them away.
    fn append(&mut self, tails: &[Tail<'_>]) -> Result<()>;

    /// Cuts an object off behind its first `length` bytes, durably; with 0 it is removed. One that is not there, or not
    /// so long, stays as it is. May be repeated.
    ///
    /// # Errors
    /// When the object cannot be changed.
    fn cut(&mut self, path: &ObjectPath, length: u64) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_inside_are_taken() {
        for path in ["a", "trades/date=2024-08-08/symbol=BINANCE%3ABTCUSDT/trades.csv", "a/..b/c", "ü"] {
            assert_eq!(ObjectPath::parse(path).unwrap().as_str(), path);
        }
        let long = [&"x".repeat(256), "/a"].concat();
        let longer = "x/".repeat(600);
        for path in ["", "/a", "a/", "a//b", ".", "a/../b", "..", "a\\b", "a\nb", "a\0", &long, &longer] {
            assert!(ObjectPath::parse(path).is_err(), "{path:?}");
        }
    }
}
