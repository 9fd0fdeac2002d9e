//! Which component runs as which stage in a replay: the one that was named, the one that ran, or the pipeline file's.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::value::RawValue;

use super::raw::{Place, RawInput};
use crate::{
    contract::Description,
    error::{Error, Result},
    pipeline::{
        WasmStage, blueprint,
        spec::{Pipeline, Stage},
    },
    runtime::{Component, Engine},
    segment::Blueprint,
    store::{Ran, SqliteStore, Store as _},
};

/// Fewest letters of a digest: so few of them tell any two components of a pipeline apart.
const DIGEST_LETTERS_MIN: usize = 8;
/// Letters of a whole digest.
const DIGEST_LETTERS: usize = 64;

/// A component that somebody named for a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A file.
    File(PathBuf),
    /// One that the data folder keeps, by how its digest begins.
    Digest(String),
}

impl Choice {
    /// Reads what stands on a command line: 8 to 64 hexadecimal digits, with `sha256:` in front or not, are a digest, all
    /// else is a file.
    pub fn parse(text: &str) -> Self {
        let digest = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        let is_digest = (DIGEST_LETTERS_MIN..=DIGEST_LETTERS).contains(&digest.len())
            && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digest { Self::Digest(digest) } else { Self::File(text.into()) }
    }
}

/// Where a component was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// It was named.
    Given,
    /// The data folder keeps it.
    Kept,
    /// It is the one that the pipeline file names.
    PipelineFile,
}

impl Taken {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Given => "as given",
            Self::Kept => "kept in the data folder",
            Self::PipelineFile => "of the pipeline file",
        }
    }
}

/// What ran as a stage.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Used {
    /// The stage.
    pub stage: String,
    /// SHA-256 of its component, in hex.
    pub component: String,
    /// Where that was taken from.
    pub taken: Taken,
    /// Its settings, a JSON object.
    pub settings: Box<RawValue>,
}

/// The stages of a replay: what each is made of, and what it says of itself.
#[derive(Clone)]
pub(super) struct Cast {
    pub(super) stages: Vec<WasmStage>,
    pub(super) descriptions: Vec<Description>,
    pub(super) used: Vec<Used>,
}

/// Where components are looked for.
pub(super) struct Versions<'a> {
    pub(super) engine: &'a Engine,
    pub(super) pipeline: &'a Pipeline,
    pub(super) folder: Option<&'a std::path::Path>,
    pub(super) store: &'a SqliteStore,
}

/// A stage that became another one.
pub(super) struct Change {
    /// From where on.
    pub(super) place: Place,
    stage_index: usize,
    ran: Ran,
}

impl Versions<'_> {
    /// The components that are given; for the other stages the one that ran last, if it is kept, and otherwise the pipeline
    /// file's. Settings are the pipeline file's.
    ///
    /// # Errors
    /// `Invalid` for a stage that the pipeline does not have, and for a component that does not take the settings;
    /// `NotFound` for a component that is not there.
    pub(super) fn choose(&self, given: &BTreeMap<String, Choice>) -> Result<Cast> {
        if let Some(unknown) = given.keys().find(|name| self.position(name).is_none()) {
            let stages: Vec<&str> = self.pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
            let message = format!("replace stage {unknown:?}: the pipeline has {}", stages.join(", "));
            return Err(Error::invalid(message));
        }
        let ran = self.store.ran()?;
        let mut cast = Cast { stages: Vec::new(), descriptions: Vec::new(), used: Vec::new() };
        for (index, spec) in self.pipeline.stages.iter().enumerate() {
            let last = ran.iter().rev().find(|ran| ran.stage == spec.name);
            let (component, taken) = match (given.get(&spec.name), last) {
                (Some(choice), _) => (self.given(choice)?, Taken::Given),
                (None, Some(last)) => self.kept_or_file(spec, &last.digest)?,
                (None, None) => (self.of_file(spec)?, Taken::PipelineFile),
            };
            cast.put(self.pipeline, index, component, taken, &spec.settings)?;
        }
        Ok(cast)
    }

    /// What ran at the very beginning, and what became of it later, in order; with what cannot be told, for people.
    pub(super) fn history(&self, raw: &RawInput) -> Result<(Cast, Vec<Change>, Vec<String>)> {
        let mut notes = Vec::new();
        let mut cast = self.choose(&BTreeMap::new())?;
        let mut changes = Vec::new();
        for ran in self.store.ran()? {
            let Some(stage_index) = self.position(&ran.stage) else {
                notes.push(format!("stage {} ran then and is not in the pipeline file: it is left out", ran.stage));
                continue;
            };
            let place = raw.place_behind(ran.journal_sequence, &ran.inputs);
            changes.push(Change { place, stage_index, ran });
        }
        for (index, spec) in self.pipeline.stages.iter().enumerate() {
            match changes.iter().position(|change| change.stage_index == index) {
                Some(first) => {
                    let first = changes.remove(first);
                    notes.extend(self.apply(&mut cast, &first)?);
                }
                None => {
                    notes.push(format!("what ran as stage {} is not known: the pipeline file's is used", spec.name));
                }
            }
        }
        changes.sort_by_key(|change| change.place);
        Ok((cast, changes, notes))
    }

    /// Lets a stage be what it became; gives a note when that component is not there any more.
    pub(super) fn apply(&self, cast: &mut Cast, change: &Change) -> Result<Option<String>> {
        let Change { stage_index, ran, .. } = change;
        let Some(spec) = self.pipeline.stages.get(*stage_index) else { return Ok(None) };
        let (component, taken) = self.kept_or_file(spec, &ran.digest)?;
        let note = (*component.digest != *ran.digest).then(|| {
            let (stage, expected, used) = (&ran.stage, &ran.digest, &component.digest);
            format!(
                "stage {stage}: sha256:{expected} ran then and is not kept; the pipeline file's, sha256:{used}, is used"
            )
        });
        cast.put(self.pipeline, *stage_index, component, taken, &ran.settings)?;
        Ok(note)
    }

    fn position(&self, stage: &str) -> Option<usize> {
        self.pipeline.stages.iter().position(|known| known.name == stage)
    }

    fn given(&self, choice: &Choice) -> Result<Component> {
        match choice {
            Choice::File(path) => self.engine.load(path),
            Choice::Digest(beginning) => {
                let digest = self.store.find_component(beginning)?;
                let missing = || Error::not_found(format!("find component sha256:{digest}: it was there just now"));
                self.engine.prepare(&self.store.kept_component(&digest)?.ok_or_else(missing)?)
            }
        }
    }

    fn kept_or_file(&self, spec: &Stage, digest: &str) -> Result<(Component, Taken)> {
        match self.store.kept_component(digest)? {
            Some(bytes) => Ok((self.engine.prepare(&bytes)?, Taken::Kept)),
            None => Ok((self.of_file(spec)?, Taken::PipelineFile)),
        }
    }

    fn of_file(&self, spec: &Stage) -> Result<Component> {
        self.engine.load(&self.pipeline.resolve_component(spec, self.folder)?)
    }
}

impl Cast {
    /// What a worker makes the stages from.
    pub(super) fn blueprints(&self) -> Vec<Box<dyn Blueprint>> {
        self.stages.iter().map(|stage| Box::new(stage.clone()) as Box<dyn Blueprint>).collect()
    }

    /// Puts a component in the place of a stage, which is the next one or one that is there.
    fn put(
        &mut self,
        pipeline: &Pipeline,
        index: usize,
        component: Component,
        taken: Taken,
        settings: &str,
    ) -> Result<()> {
        let Some(spec) = pipeline.stages.get(index) else { return Ok(()) };
        let stage = WasmStage::new(&spec.name, component, settings, spec.limits);
        let description = blueprint::describe(&stage, pipeline, index)?;
        let not_json = |error| Error::caused(crate::error::Kind::Corrupt, "read the settings of a stage", error);
        let settings = RawValue::from_string(settings.to_owned()).map_err(not_json)?;
        let used = Used { stage: spec.name.clone(), component: stage.digest().to_owned(), taken, settings };
        replace(&mut self.stages, index, stage);
        replace(&mut self.descriptions, index, description);
        replace(&mut self.used, index, used);
        Ok(())
    }
}

fn replace<T>(all: &mut Vec<T>, index: usize, value: T) {
    match all.get_mut(index) {
        Some(place) => *place = value,
        None => all.push(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_digest_is_one() {
        let digest = |text: &str| Choice::Digest(text.to_owned());
        assert_eq!(Choice::parse("0123abcd"), digest("0123abcd"));
        assert_eq!(Choice::parse("sha256:0123ABCD"), digest("0123abcd"));
        for file in ["0123abc", "alarm.wasm", "./0123abcd", "sha256:xyz", &"a".repeat(65)] {
            assert_eq!(Choice::parse(file), Choice::File(file.into()), "{file}");
        }
    }
}
