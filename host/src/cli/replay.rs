//! `tapeline replay`: stored raw input once more, into an output of its own, and a digest of that.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};
use indicatif::HumanCount;

use super::{DataFolder, Globals, SettingsArgs, WindowArgs, exit::Exit, output};
use crate::{
    error::{Error, Kind, Result},
    pipeline::replay::{Choice, Replayed, Used},
};

/// Send stored raw input through a pipeline once more, into an output of its own
#[derive(Args)]
#[command(after_help = "\
The data folder is only read, and a pipeline may run on it. All that was ever read into it is read again: its journal, and
files, which must still be where they were. A stage runs the component that is named with --stage, otherwise the one that
ran last if the data folder keeps it, otherwise the one of the pipeline file. What ran, whether it is named by its digest or
not, has the settings that it ran with; a file that is named, and the pipeline file's component, have the pipeline file's.

With --from, stages begin there without state: averages begin empty, so that there may be more alarms just behind it than
there were.

The digest is a SHA-256 over all rows and objects: the same window, components and settings give the same digest
anywhere. Events outside of the window are left out behind the first stage, by the rule outside-window.

Examples:
  tapeline replay pipelines/bitcoin-trades.toml --data ./btc
  tapeline replay pipelines/bitcoin-trades.toml --data ./btc --from 2024-08-08 --to 2024-08-09T12:00:00Z --format json
  tapeline replay pipelines/bitcoin-trades.toml --data ./btc --stage alarm=my-alarm.wasm --out ./tried
  tapeline replay pipelines/bitcoin-trades.toml --data ./btc --stage alarm=3f2a9c01")]
pub(super) struct Replay {
    /// The pipeline file
    pipeline: PathBuf,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Run this component as a stage: a file, or 8 or more letters of the digest of one that the data folder keeps.
    /// May be given several times
    #[arg(long = "stage", value_name = "NAME=FILE|DIGEST", value_parser = parse_choice)]
    stages: Vec<(String, Choice)>,
    /// Folder for the output; new, or empty [default: a temporary one, which is removed]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How to write what was done
    #[arg(long, default_value = "text")]
    format: ReportFormat,
}

/// How a report is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// For people
    Text,
    /// An object
    Json,
}

impl Replay {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let given = choices(self.stages)?;
        let window = self.window.window()?;
        let recorded = self.settings.apply(globals.recorded(&self.pipeline, self.data)?);
        let replayed = recorded.replay(&given, window, self.out.as_deref())?;
        let text = match self.format {
            ReportFormat::Text => report(&replayed),
            ReportFormat::Json => as_json(&replayed)?,
        };
        let mut out = output::lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(Exit::Fine)
    }
}

fn parse_choice(text: &str) -> Result<(String, Choice), String> {
    match text.split_once('=') {
        Some((stage, component)) if !stage.is_empty() && !component.is_empty() => {
            Ok((stage.to_owned(), Choice::parse(component)))
        }
        _ => Err("expected NAME=FILE or NAME=DIGEST, such as alarm=my-alarm.wasm".to_owned()),
    }
}

fn choices(given: Vec<(String, Choice)>) -> Result<BTreeMap<String, Choice>> {
    let mut choices = BTreeMap::new();
    for (stage, choice) in given {
        if choices.insert(stage.clone(), choice).is_some() {
            return Err(Error::invalid(format!("replace stage {stage} twice")));
        }
    }
    Ok(choices)
}

/// A report as an object.
pub(super) fn as_json(report: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| Error::caused(Kind::Internal, "write the report as JSON", error))?;
    Ok(text + "\n")
}

/// What ran, a line for each stage.
pub(super) fn stage_lines(stages: &[Used]) -> String {
    let width = stages.iter().map(|used| used.stage.len()).max().unwrap_or_default();
    let mut text = String::new();
    for used in stages {
        let (stage, component, taken) = (&used.stage, &used.component, used.taken.as_str());
        let settings = output::visible(used.settings.get());
        // Writing to a text does not fail.
        let differ = if used.settings_differ { ", not the pipeline file's" } else { "" };
        let _ = writeln!(text, "  {stage:<width$} sha256:{component}, {taken}, settings {settings}{differ}");
    }
    text
}

fn report(replayed: &Replayed) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<8} {value}");
    };
    line("digest", format!("sha256:{}", replayed.output.digest));
    line("in", HumanCount(replayed.records_in).to_string());
    if !replayed.window.is_everything() {
        line("window", replayed.window.to_string());
        line("outside", HumanCount(replayed.outside_window).to_string());
    }
    line("dead", HumanCount(replayed.dead).to_string());
    for (table, count) in &replayed.output.rows {
        line("rows", format!("{} in {table}", HumanCount(*count)));
    }
    line("objects", HumanCount(replayed.output.objects).to_string());
    if replayed.journal_records > 0 {
        line("read", format!("journal records 1 to {}", HumanCount(replayed.journal_records)));
    }
    for file in &replayed.files {
        line("read", format!("{}, sha256:{}", output::visible(&file.path), file.digest));
    }
    text + "stages\n" + &stage_lines(&replayed.stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_replaced_by_a_file_or_a_digest_once() {
        assert_eq!(parse_choice("alarm=a=b.wasm"), Ok(("alarm".to_owned(), Choice::File("a=b.wasm".into()))));
        assert_eq!(parse_choice("alarm=0123abcd").unwrap().1, Choice::Digest("0123abcd".to_owned()));
        for wrong in ["alarm", "alarm=", "=a.wasm"] {
            assert!(parse_choice(wrong).unwrap_err().contains("alarm=my-alarm.wasm"), "{wrong}");
        }
        let twice = ["a=x.wasm", "a=y.wasm"].map(|text| parse_choice(text).unwrap());
        assert_eq!(choices(twice.to_vec()).unwrap_err().kind(), Kind::Invalid);
    }
}
