//! `tapeline check`: whether a pipeline could run, and what it is made of.

use std::{io::Write, path::PathBuf};

use clap::Args;
use tapeline_events::Span;

use super::{Globals, exit::Exit, output};
use crate::{
    contract::{Description, KindSet, Kinds},
    error::Result,
    pipeline::{
        Components,
        spec::{Pipeline, Stage},
    },
    segment::{Blueprint as _, check_chain},
};

/// Check a pipeline file and its components without running them on anything
#[derive(Args)]
#[command(after_help = "\
Writes what each stage is made of. The exit code is 2 when something is wrong.

Examples:
  tapeline check pipelines/bitcoin-trades.toml")]
pub(super) struct Check {
    /// The pipeline file
    pipeline: PathBuf,
}

impl Check {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let pipeline = Pipeline::load(&self.pipeline)?;
        let components = globals.load_components(&globals.engine()?, &pipeline)?;
        check_chain(&components.blueprints())?;
        let mut out = output::lock();
        writeln!(out, "pipeline {} reads format {}", pipeline.name, pipeline.format)?;
        for (at, stage) in pipeline.stages.iter().enumerate() {
            let path = pipeline.resolve_component(stage, globals.components_folder())?;
            write_stage(&mut out, stage, &path, &components, at)?;
        }
        out.flush()?;
        Ok(Exit::Fine)
    }
}

fn write_stage(
    out: &mut dyn Write,
    stage: &Stage,
    path: &std::path::Path,
    components: &Components,
    at: usize,
) -> Result<()> {
    let (Some(made), Some(said)) = (components.stages.get(at), components.descriptions.get(at)) else { return Ok(()) };
    writeln!(out, "\n{}", stage.name)?;
    let call_time_max = u64::try_from(stage.limits.call_time_max.as_nanos()).unwrap_or(u64::MAX);
    let fields = [
        ("component", path.display().to_string()),
        ("digest", format!("sha256:{}", made.digest())),
        ("world", made.role().to_string()),
        ("version", format!("{} {}", said.name, said.version)),
        ("takes", kinds(said.takes)),
        ("gives", kinds(said.gives)),
        ("state", state(said)),
        (
            "limits",
            format!("{} MiB of memory, {} for a batch", stage.limits.memory_bytes_max >> 20, Span(call_time_max)),
        ),
    ];
    for (name, value) in fields {
        writeln!(out, "  {name:<10} {}", output::visible(&value))?;
    }
    Ok(())
}

fn kinds(kinds: Kinds) -> String {
    let names: Vec<&str> = KindSet::from(kinds).iter().map(|kind| kind.as_str()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn state(said: &Description) -> String {
    match said.state_version {
        0 => "none".to_owned(),
        version => format!("version {version}"),
    }
}
