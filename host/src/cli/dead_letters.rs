//! `tapeline dead-letters`: the records that could not be used, and sending them through the pipeline again.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use tapeline_events::{Unit, format_time};

use super::{
    DataFolder,
    exit::Exit,
    output::{self, visible},
    rows::Format,
};
use crate::{
    error::{Error, Kind, Result},
    store::{Aside, DeadLetter, SqliteStore, Store, Value},
};

/// Letters that are in memory at once. One has up to 768 KiB, most a few hundred bytes.
const PAGE_LETTERS: u64 = 100;
/// Characters of a reason in a table, so that a line of it fits a wide terminal. Other formats have all of it.
const REASON_CHARS_MAX: usize = 80;
const COLUMNS: [&str; 8] = ["id", "aside", "stage", "symbol", "time", "redriven", "reason", "origin"];

/// List, show and redrive the records that could not be used
#[derive(Args)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    List(List),
    Show(Show),
    Redrive(Redrive),
}

/// Write one line for each dead letter
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline dead-letters list
  tapeline dead-letters list --stage fetch --format json")]
struct List {
    #[command(flatten)]
    data: DataFolder,
    /// Only those that this stage refused
    #[arg(long)]
    stage: Option<String>,
    /// How to write them [default: table on a terminal, csv otherwise]
    #[arg(long)]
    format: Option<Format>,
}

/// Write all that is known of a dead letter, and the record itself
#[derive(Args)]
#[command(after_help = "\
Examples:
  tapeline dead-letters show 17
  tapeline dead-letters show 17 --format json | jq -r .payload")]
struct Show {
    /// Number of the dead letter
    id: u64,
    #[command(flatten)]
    data: DataFolder,
    /// How to write it
    #[arg(long, default_value = "text")]
    format: ShowFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowFormat {
    /// For people
    Text,
    /// An object
    Json,
}

/// Put dead letters back into the journal, at the stage that refused them
#[derive(Args)]
#[command(after_help = "\
Those that were put back before are left out. --all means those that could not be used; a record that came late, which
would be late again, is only put back by its number.

Examples:
  tapeline dead-letters redrive 17 18
  tapeline dead-letters redrive --all --stage enrich")]
struct Redrive {
    /// Numbers of dead letters
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<u64>,
    /// All that could not be used
    #[arg(long)]
    all: bool,
    /// With --all: only those that this stage refused
    #[arg(long, requires = "all")]
    stage: Option<String>,
    #[command(flatten)]
    data: DataFolder,
}

impl DeadLetters {
    pub(super) fn run(self) -> Result<Exit> {
        match self.task {
            Task::List(task) => task.run(),
            Task::Show(task) => task.run(),
            Task::Redrive(task) => task.run(),
        }
    }
}

impl List {
    fn run(self) -> Result<Exit> {
        let store = SqliteStore::open_reader(&self.data.path)?;
        let mut out = output::lock();
        let format = Format::or_usual(self.format);
        let reason_chars_max = if format == Format::Table { REASON_CHARS_MAX } else { usize::MAX };
        let mut rows = format.writer(&mut out);
        rows.columns(&COLUMNS.map(str::to_owned))?;
        each_letter(&store, self.stage.as_deref(), |letter| rows.row(&line(letter, reason_chars_max)))?;
        rows.finish()?;
        drop(rows);
        out.flush()?;
        Ok(Exit::Fine)
    }
}

impl Show {
    fn run(self) -> Result<Exit> {
        let store = SqliteStore::open_reader(&self.data.path)?;
        let found = store.dead_letters(self.id, 1)?.into_iter().find(|letter| letter.id == self.id);
        let letter = found.ok_or_else(|| Error::not_found(format!("find dead letter {}", self.id)))?;
        let mut out = output::lock();
        match self.format {
            ShowFormat::Text => write_text(&letter, &mut out)?,
            ShowFormat::Json => write_json(&letter, &mut out)?,
        }
        out.flush()?;
        Ok(Exit::Fine)
    }
}

impl Redrive {
    fn run(mut self) -> Result<Exit> {
        let mut store = SqliteStore::open_second(&self.data.path)?;
        if self.all {
            // All numbers first: what a running pipeline refuses again meanwhile is not put back again.
            each_letter(&store, self.stage.as_deref(), |letter| {
                if letter.aside == Aside::Dead && !letter.is_redriven {
                    self.ids.push(letter.id);
                }
                Ok(())
            })?;
        }
        let count = store.redrive(&self.ids)?;
        let data = self.data.path.display();
        let mut out = output::lock();
        writeln!(out, "dead letters put back into the journal: {count}")?;
        if count > 0 {
            writeln!(out, "a pipeline that runs on {data} takes them by itself; otherwise the next run does:")?;
            writeln!(out, "  tapeline run PIPELINE --data {data}")?;
        }
        out.flush()?;
        Ok(Exit::Fine)
    }
}

/// Calls `see` for each letter, in order.
fn each_letter(store: &dyn Store, stage: Option<&str>, mut see: impl FnMut(&DeadLetter) -> Result<()>) -> Result<()> {
    let mut from = 0;
    loop {
        let page = store.dead_letters(from, PAGE_LETTERS)?;
        page.iter().filter(|letter| stage.is_none_or(|stage| letter.stage == stage)).try_for_each(&mut see)?;
        let Some(last) = page.last() else { return Ok(()) };
        from = last.id + 1;
    }
}

fn line(letter: &DeadLetter, reason_chars_max: usize) -> [Value; COLUMNS.len()] {
    let reason = match letter.reason.char_indices().nth(reason_chars_max) {
        Some((end, _)) => format!("{}...", letter.reason.get(..end).unwrap_or_default()),
        None => letter.reason.clone(),
    };
    [
        Value::Integer(i64::try_from(letter.id).unwrap_or(i64::MAX)),
        Value::Text(aside(letter).to_owned()),
        Value::Text(letter.stage.clone()),
        Value::Text(letter.symbol.clone()),
        letter.time.map_or(Value::Null, |time| Value::Text(time_text(time))),
        Value::Boolean(letter.is_redriven),
        Value::Text(reason),
        Value::Text(letter.origin.clone()),
    ]
}

fn write_text(letter: &DeadLetter, out: &mut dyn Write) -> Result<()> {
    let known = |time: Option<i64>| time.map_or_else(|| "not known".to_owned(), time_text);
    let fields = [
        ("id", letter.id.to_string()),
        ("aside", aside(letter).to_owned()),
        ("stage", letter.stage.clone()),
        ("component", letter.component.clone()),
        ("symbol", letter.symbol.clone()),
        ("time", known(letter.time)),
        ("received", known(letter.received)),
        ("reason", letter.reason.clone()),
        ("origin", letter.origin.clone()),
        ("partition", letter.partition.map_or_else(|| "none".to_owned(), |partition| partition.to_string())),
        ("format", letter.format.clone()),
        ("redriven", letter.is_redriven.to_string()),
    ];
    for (name, value) in fields {
        writeln!(out, "{name:<10} {}", visible(&value))?;
    }
    writeln!(out)?;
    if super::is_output_terminal() {
        writeln!(out, "{}", visible(&String::from_utf8_lossy(&letter.payload)))?;
    } else {
        out.write_all(&letter.payload)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn write_json(letter: &DeadLetter, out: &mut dyn Write) -> Result<()> {
    let text = serde_json::to_string_pretty(letter)
        .map_err(|error| Error::caused(Kind::Internal, "write a dead letter as JSON", error))?;
    Ok(writeln!(out, "{text}")?)
}

const fn aside(letter: &DeadLetter) -> &'static str {
    match letter.aside {
        Aside::Dead => "dead",
        Aside::Late => "late",
    }
}

fn time_text(ns: i64) -> String {
    format_time(ns, Unit::Milliseconds)
}
