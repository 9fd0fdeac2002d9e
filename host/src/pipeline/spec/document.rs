//! The text of a TOML file, and where in it a key is: what errors name.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use crate::error::{Context, Error, Result};

/// Names of ten thousand instruments, which enrich can be given, take half a megabyte.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What an error shows of a line or value; more would hide what is said about it.
const SHOWN_CHARS_MAX: usize = 80;

/// What serde expects in its own words, and in those of a file.
const TYPE_WORDS: [(&str, &str); 3] = [
    ("expected u64", "expected a whole number >= 0"),
    ("expected f64", "expected a number"),
    ("expected a map", "expected a table"),
];

/// A TOML file.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    text: String,
}

impl Document {
    pub(super) fn load(path: &Path) -> Result<Self> {
        let place = || format!("read pipeline {}", path.display());
        let size = std::fs::metadata(path).doing(place)?.len();
        if size > FILE_BYTES_MAX {
            return Err(Error::invalid(format!("{}: {size} bytes, at most {FILE_BYTES_MAX}", path.display())));
        }
        Self::new(path, std::fs::read(path).doing(place)?)
    }

    pub(super) fn new(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            Error::invalid(format!("{}:{}: bytes that are not UTF-8", path.display(), count_lines(valid)))
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Reads the text into a type.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let root = DeTable::parse(&self.text).map_err(|error| self.syntax_error(&error))?;
        T::deserialize(toml::de::Deserializer::from(root)).map_err(|error| self.type_error(&error))
    }

    /// An error about a key such as `stages[3].settings.windows[1]`. Where there is no such key it is about as much
    /// of it as there is.
    pub(super) fn wrong(&self, key: &str, what: &str) -> Error {
        let span = self.root().map_or(0..0, |root| find(&root, key));
        self.error(span.start, &format!("{}: {what}", self.shown_key(key)))
    }

    /// [`Document::wrong`] with the key's value as it is written, and what would be right.
    pub(super) fn unfit(&self, key: &str, expected: &str) -> Error {
        let span = self.root().map_or(0..0, |root| find(&root, key));
        let value = self.text.get(span).map_or_else(String::new, shorten);
        self.wrong(key, &format!("{value} instead of {expected}"))
    }

    fn syntax_error(&self, error: &toml::de::Error) -> Error {
        let at = error.span().map_or(0, |span| span.start.min(self.text.len()));
        let start = self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
        let line = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        self.error(at, &format!("`{}`: {}", shorten(line.trim()), error.message()))
    }

    fn type_error(&self, error: &toml::de::Error) -> Error {
        let span = error.span().unwrap_or(0..0);
        let key = self.root().map_or_else(String::new, |root| key_at(&root, &span));
        let what = TYPE_WORDS.iter().fold(error.message().to_owned(), |what, (from, to)| what.replace(from, to));
        match self.shown_key(&key).as_str() {
            "" => self.error(span.start, &what),
            key => self.error(span.start, &format!("{key}: {what}")),
        }
    }

    fn error(&self, at: usize, what: &str) -> Error {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        Error::invalid(format!("{}:{}: {what}", self.path.display(), count_lines(before)))
    }

    fn root(&self) -> Option<DeValue<'_>> {
        DeTable::parse(&self.text).ok().map(|root| DeValue::Table(root.into_inner()))
    }

    /// The key as people read it: with the stage's name in the place of its number.
    fn shown_key(&self, key: &str) -> String {
        let with_name = || {
            let (number, rest) = key.strip_prefix("stages[")?.split_once(']')?;
            let root = self.root()?;
            let name = root.get("stages")?.get_ref().get(number.parse::<usize>().ok()?)?.get_ref().get("name")?;
            Some(format!("stages.{}{rest}", name.get_ref().as_str()?))
        };
        with_name().unwrap_or_else(|| key.to_owned())
    }
}

/// Where the value of a key is, or of the part of it that there is.
fn find(root: &DeValue<'_>, key: &str) -> Range<usize> {
    let (mut value, mut rest, mut span) = (root, key, 0..0);
    while let Some((child, behind)) = step(value, rest.trim_start_matches('.')) {
        (value, rest, span) = (child.get_ref(), behind, child.span());
    }
    span
}

/// One step along a key. Names may hold dots and brackets themselves, so that the longest one that fits is taken.
fn step<'a, 'k>(value: &'a DeValue<'a>, key: &'k str) -> Option<(&'a Spanned<DeValue<'a>>, &'k str)> {
    match value {
        DeValue::Table(table) => {
            let behind = |name: &Spanned<DeString<'_>>| {
                let behind = key.strip_prefix(name.get_ref().as_ref())?;
                (behind.is_empty() || behind.starts_with(['.', '['])).then_some(behind)
            };
            let fitting = table.iter().filter_map(|(name, child)| behind(name).map(|behind| (child, behind)));
            fitting.min_by_key(|(_, behind)| behind.len())
        }
        DeValue::Array(items) => {
            let (number, behind) = key.strip_prefix('[')?.split_once(']')?;
            items.get(number.parse::<usize>().ok()?).map(|item| (item, behind))
        }
        _ => None,
    }
}

/// The key whose name or value is at a place: the closest one.
fn key_at(root: &DeValue<'_>, place: &Range<usize>) -> String {
    let mut best = (usize::MAX, String::new());
    visit(root, "", &mut |span, key| {
        let has_place = span.start <= place.start && place.end <= span.end;
        if has_place && span.len() < best.0 {
            best = (span.len(), key.to_owned());
        }
    });
    best.1
}

fn visit(value: &DeValue<'_>, key: &str, see: &mut impl FnMut(Range<usize>, &str)) {
    match value {
        DeValue::Table(table) => {
            for (name, child) in table {
                let dot = if key.is_empty() { "" } else { "." };
                let key = format!("{key}{dot}{}", name.get_ref());
                see(name.span(), &key);
                see(child.span(), &key);
                visit(child.get_ref(), &key, see);
            }
        }
        DeValue::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let key = format!("{key}[{at}]");
                see(item.span(), &key);
                visit(item.get_ref(), &key, see);
            }
        }
        _ => {}
    }
}

/// Number of the line behind `before`.
fn count_lines(before: &[u8]) -> usize {
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
