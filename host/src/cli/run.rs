//! `tapeline run`: a finite job, with its progress on a terminal and a summary at the end.

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::{DataFolder, Globals, chained::Chained, exit::Exit, output};
use crate::{
    error::{Error, Kind, Result},
    metrics::Metrics,
    pipeline::{Job, JobInput, Rollout, Summary, Tables, spec::Pipeline},
    store::SqliteStore,
};

/// Run a pipeline over files, to their end
#[derive(Args)]
#[command(after_help = "\
A job that was interrupted goes on where it was when it is run again in the same way; one that is finished does nothing
then. Without --input it processes what waits in the journal. The exit code is 3 when there are new dead letters.

Examples:
  tapeline run pipelines/bitcoin-trades.toml --input btc.ndjson.zst --data ./btc
  tapeline run pipelines/bitcoin-trades.toml --input monday.ndjson --input tuesday.ndjson --summary json
  tapeline run pipelines/bitcoin-trades.toml --input btc.ndjson --nats nats://127.0.0.1:4222
  zcat recording.gz | tapeline run pipelines/stock-alarm.toml --input - --format finnhub")]
pub(super) struct Run {
    /// The pipeline file
    pipeline: PathBuf,
    /// A file to read, compressed or not; - is standard input. May be given several times
    #[arg(long = "input", value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// How to read the files, such as binance, finnhub or events [default: the pipeline's]
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    chained: Chained,
    /// How to write the summary
    #[arg(long, default_value = "text")]
    summary: SummaryFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    /// For people
    Text,
    /// An object
    Json,
}

impl Run {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let pipeline = Pipeline::load(&self.pipeline)?;
        let inputs = job_inputs(&self.inputs)?;
        let engine = globals.engine()?;
        let components = globals.load_components(&engine, &pipeline)?;
        let store = SqliteStore::open(&self.data.path)?;
        let format = self.format.unwrap_or_else(|| pipeline.format.clone());
        let bar = progress_bar();
        if !self.chained.has_ends(&pipeline, false)? {
            return Err(Error::invalid(
                "run without the ends of the chain: the first and the last stage read and store",
            ));
        }
        let (folder, metrics) = (&self.data.path, Metrics::new());
        let connected = self.chained.connect(folder)?;
        let rollout = match &connected {
            None => Rollout::embedded(&engine, &pipeline, components, folder, &metrics)?,
            Some((broker, _)) => {
                Rollout::chained(&engine, &pipeline, components, broker, Tables::Here(folder.clone()), &metrics)?
            }
        };
        let job = Job { pipeline, rollout, store, inputs, format };
        let summary = match connected {
            None => job.run(report_to(&bar)),
            Some((broker, _server)) => job.run_chained(broker, &self.chained.stages, report_to(&bar)),
        };
        bar.finish_and_clear();
        let summary = summary?;
        let mut out = output::lock();
        match self.summary {
            SummaryFormat::Text => out.write_all(summary_text(&summary, &self.data.path).as_bytes())?,
            SummaryFormat::Json => {
                let text = serde_json::to_string_pretty(&summary)
                    .map_err(|error| Error::caused(Kind::Internal, "write the summary as JSON", error))?;
                writeln!(out, "{text}")?;
            }
        }
        out.flush()?;
        Ok(if summary.dead == 0 { Exit::Fine } else { Exit::DeadLetters })
    }
}

fn job_inputs(paths: &[PathBuf]) -> Result<Vec<JobInput>> {
    let is_stdin = |path: &&PathBuf| path.as_path() == Path::new("-");
    if paths.iter().filter(is_stdin).count() > 1 {
        return Err(Error::invalid("read standard input twice"));
    }
    for path in paths.iter().filter(|path| !is_stdin(path)) {
        if path.is_dir() {
            return Err(Error::invalid(format!("read {}: it is a folder", path.display())));
        }
    }
    let input = |path: &PathBuf| if is_stdin(&path) { JobInput::Stdin } else { JobInput::File(path.clone()) };
    Ok(paths.iter().map(input).collect())
}

/// A bar on standard error; nothing is drawn when that is no terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0).with_message("0");
    let template = "{wide_bar} {bytes} of {total_bytes}, {msg} events, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn report_to(bar: &ProgressBar) -> Box<dyn FnMut(u64, u64, u64)> {
    let bar = bar.clone();
    Box::new(move |read, total, events| {
        // The size of standard input is not known; it grows with what is read.
        bar.set_length(total.max(read));
        bar.set_position(read);
        bar.set_message(HumanCount(events).to_string());
    })
}

fn summary_text(summary: &Summary, data: &Path) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name:<11} {value}");
    };
    line("in", HumanCount(summary.events_in).to_string());
    line("out", HumanCount(summary.events_out).to_string());
    line("duplicates", HumanCount(summary.duplicates).to_string());
    line("late", HumanCount(summary.late).to_string());
    for (rule, count) in &summary.dropped {
        line("dropped", format!("{} by rule {rule}", HumanCount(*count)));
    }
    line("dead", HumanCount(summary.dead).to_string());
    for (table, count) in &summary.rows {
        line("rows", format!("{} into {table}", HumanCount(*count)));
    }
    line("objects", HumanCount(summary.objects).to_string());
    line("took", format!("{:.2} s, {} events/s", summary.seconds, HumanCount(summary.events_per_second as u64)));
    if summary.dead > 0 {
        let _ = writeln!(text, "\nsee the dead letters with: tapeline dead-letters list --data {}", data.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_to_do_about_dead_letters() {
        let mut summary =
            Summary { events_in: 1_234_567, seconds: 2.0, events_per_second: 617_283.5, ..Summary::default() };
        let text = summary_text(&summary, Path::new("d"));
        assert!(text.contains("1,234,567") && text.contains("2.00 s, 617,283 events/s"), "{text}");
        assert!(!text.contains("dead-letters"), "{text}");
        summary.dead = 1;
        assert!(summary_text(&summary, Path::new("d")).contains("tapeline dead-letters list --data d"));
    }

    #[test]
    fn standard_input_is_read_once() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let inputs = job_inputs(&paths(&["-", "a"])).unwrap();
        assert!(matches!(inputs[..], [JobInput::Stdin, JobInput::File(_)]));
        assert_eq!(job_inputs(&paths(&["-", "-"])).unwrap_err().kind(), Kind::Invalid);
    }
}
