//! A market, and what one process makes of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tapeline_aws_tests::stored::{self, Tables};
use tapeline_tests::program;

/// A recording of raw frames.
pub(crate) struct Market {
    path: PathBuf,
    text: String,
}

/// What is left besides rows.
pub(crate) struct Rest {
    /// By path.
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    /// Their number.
    pub(crate) dead_letters: usize,
}

impl Market {
    /// So many trades of some symbols, and a minute of market later of others.
    pub(crate) fn new(folder: &Path, parts: &[(u64, &str)]) -> Result<Self> {
        let mut frames = Vec::new();
        for (minute, (trades, symbols)) in parts.iter().enumerate() {
            let (trades, start) = (trades.to_string(), format!("2024-08-08T00:{minute:02}:00Z"));
            let arguments = ["simulate", "--rate", "200", "--trades", &trades, "--symbols", symbols, "--start", &start];
            let lines = program::output(&arguments)?;
            // Without the receive times in front: functions have a clock of their own.
            let frame = |line: &str| line.split_once(' ').map_or(line, |(_, frame)| frame).to_owned();
            frames.extend(lines.lines().map(frame));
        }
        let (path, text) = (folder.join("market.txt"), frames.join("\n"));
        fs::write(&path, &text)?;
        Ok(Self { path, text })
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }

    /// What a pipeline stores of it in one process.
    pub(crate) fn embedded(&self, pipeline: &Path, data: &Path, tables: &[&str]) -> Result<(Tables, Rest)> {
        let run = program::run(pipeline, &[&self.path], data)?;
        ensure!(run.code == 0 || run.code == 3, "exit code {}: {}", run.code, run.errors);
        let folder = data.to_str().context("a temporary folder has a name")?;
        let letters = program::output(&["dead-letters", "list", "--data", folder, "--format", "csv"])?;
        let objects = if data.join("objects").exists() { program::objects(data)? } else { BTreeMap::new() };
        let rest = Rest { objects, dead_letters: letters.lines().count().saturating_sub(1) };
        Ok((stored::embedded_tables(data, tables)?, rest))
    }
}
