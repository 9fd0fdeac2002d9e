//! `tapeline invoke`: calls one stage by itself, with nothing stored.

use std::{
    io::{Read, Write as _},
    path::PathBuf,
};

use clap::Args;

use super::{Globals, exit::Exit, output};
use crate::{
    error::{Context as _, Error, Kind, Result},
    pipeline::{
        InvokeError, InvokeOptions, Invoker, WasmStage,
        spec::{Pipeline, find_component},
    },
    runtime::{Fault, Limits},
    store::Counts,
};

/// What is read from standard input, which is in memory as a whole: some hundred thousand events. `run` has no limit.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Call one stage with the events on standard input, and write what it answers
#[derive(Args)]
#[command(after_help = "\
Reads JSON lines or a JSON array (for fetch: frames, one a line) and writes JSON lines: what goes on, then a line of
kind `reject` for each record that is late or dead. Nothing is stored. What became of the records is on standard error.

Examples:
  tapeline invoke dedup < events.ndjson
  tapeline simulate --trades 10 | tapeline invoke fetch --format binance
  tapeline invoke aggregate --settings '{\"windows\": [\"5m\"]}' < trades.ndjson
  tapeline invoke alarm --pipeline pipelines/bitcoin-trades.toml --component my-alarm.wasm < averages.ndjson")]
pub(super) struct Invoke {
    /// Name of the stage: in the pipeline file, or of a component
    stage: String,
    /// Take settings, limits and component of the stage from this pipeline file
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Settings, a JSON object [default: {}]
    #[arg(long, value_name = "JSON", conflicts_with = "pipeline")]
    settings: Option<String>,
    /// How to read the frames of a fetch stage, such as binance, finnhub or events [default: the pipeline's, or events]
    #[arg(long)]
    format: Option<String>,
    /// The component [default: as the pipeline file says, or the one with the stage's name]
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
}

/// All that a stage is made from.
struct Recipe {
    component: PathBuf,
    settings: String,
    limits: Limits,
    format: Option<String>,
}

impl Invoke {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let pipeline = self.pipeline.as_deref().map(Pipeline::load).transpose()?;
        let recipe = match &pipeline {
            Some(pipeline) => self.recipe_of(pipeline, globals)?,
            None => self.recipe(globals)?,
        };
        let component = globals.engine()?.load(&recipe.component)?;
        let stage = WasmStage::new(&self.stage, component, &recipe.settings, recipe.limits);
        let input = read_input(std::io::stdin().lock())?;
        let options = InvokeOptions { format: recipe.format, ..InvokeOptions::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let invoked = runtime.block_on(Invoker::new(stage).invoke(&input, &options));
        let invoked = invoked.map_err(|error| self.describe(error, pipeline.as_ref()))?;
        let mut out = output::lock();
        out.write_all(&invoked.lines)?;
        out.flush()?;
        eprintln!("{}", counts_text(&invoked.counts));
        Ok(Exit::Fine)
    }

    fn recipe_of(&self, pipeline: &Pipeline, globals: &Globals) -> Result<Recipe> {
        let Some(stage) = pipeline.stages.iter().find(|stage| stage.name == self.stage) else {
            let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
            let message = format!("find stage {:?} in {}: there are {}", self.stage, pipeline.name, names.join(", "));
            return Err(Error::not_found(message));
        };
        let component = match &self.component {
            Some(path) => path.clone(),
            None => pipeline.resolve_component(stage, globals.components_folder())?,
        };
        let format = self.format.clone().unwrap_or_else(|| pipeline.format.clone());
        Ok(Recipe { component, settings: stage.settings.clone(), limits: stage.limits, format: Some(format) })
    }

    fn recipe(&self, globals: &Globals) -> Result<Recipe> {
        let settings = self.settings.clone().unwrap_or_else(|| "{}".to_owned());
        if let Err(error) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&settings) {
            return Err(Error::caused(Kind::Invalid, "read --settings as a JSON object", error));
        }
        let component = match &self.component {
            Some(path) => path.clone(),
            // In the same places as for a pipeline, as seen from the present folder.
            None => {
                find_component(&self.stage, &self.stage, globals.components_folder(), "target/components".as_ref())?
            }
        };
        Ok(Recipe { component, settings, limits: Limits::default(), format: self.format.clone() })
    }

    fn describe(&self, error: InvokeError, pipeline: Option<&Pipeline>) -> Error {
        let kind = match &error {
            InvokeError::Fault(Fault::Settings(wrong)) => {
                let index = |pipeline: &Pipeline| pipeline.stages.iter().position(|stage| stage.name == self.stage);
                if let Some((pipeline, index)) = pipeline.and_then(|pipeline| Some((pipeline, index(pipeline)?))) {
                    return pipeline.setting_error(index, &wrong.key, &wrong.value, &wrong.expected);
                }
                Kind::Invalid
            }
            InvokeError::BadBody { .. } | InvokeError::BadSession(_) => Kind::Invalid,
            InvokeError::Fault(_) => Kind::Internal,
            InvokeError::TooMany(_) | InvokeError::Busy => Kind::Unavailable,
        };
        Error::caused(kind, format!("invoke {}", self.stage), error)
    }
}

fn read_input(input: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).doing(|| "read standard input".to_owned())?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        let message = format!("read standard input: more than {INPUT_BYTES_MAX} bytes; tapeline run has no limit");
        return Err(Error::invalid(message));
    }
    Ok(bytes)
}

fn counts_text(counts: &Counts) -> String {
    let Counts { entered, out, duplicate, late, dead, derived, .. } = counts;
    let mut text =
        format!("in {entered}, out {out}, duplicate {duplicate}, late {late}, dead {dead}, derived {derived}");
    for (rule, count) in &counts.dropped {
        text.push_str(&format!(", dropped by {rule} {count}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_name_the_rules() {
        let dropped = [("depth".to_owned(), 2)].into();
        let counts = Counts { entered: 3, out: 1, dropped, ..Counts::default() };
        assert_eq!(counts_text(&counts), "in 3, out 1, duplicate 0, late 0, dead 0, derived 0, dropped by depth 2");
    }

    #[test]
    fn input_has_a_limit() {
        assert_eq!(read_input(&b"abc"[..]).unwrap(), b"abc");
        assert_eq!(read_input(std::io::repeat(b' ')).unwrap_err().kind(), Kind::Invalid);
    }
}
