//! Which component runs as which stage in a replay, with which settings: the one that was named, the one that ran, or the
//! pipeline file's.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::value::RawValue;

use super::raw::{Place, RawInput};
use crate::{
    contract::Description,
    error::{Context as _, Error, Kind, Result},
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

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "component {}", path.display()),
            Self::Digest(digest) => write!(f, "component {digest}"),
        }
    }
}

/// Whether a name could be how a digest begins, were it longer.
fn is_short_digest(name: &Path) -> bool {
    let digest = name.to_str().map(|name| name.strip_prefix("sha256:").unwrap_or(name));
    digest
        .is_some_and(|digest| digest.len() < DIGEST_LETTERS_MIN && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
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
    /// Whether the pipeline file has other settings for this stage.
    pub settings_differ: bool,
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
    pub(super) folder: Option<&'a Path>,
    pub(super) store: &'a SqliteStore,
    /// Whether what ran gets the pipeline file's settings instead of its own.
    pub(super) uses_file_settings: bool,
}

/// A stage that became another one.
#[derive(Debug)]
pub(super) struct Change {
    /// From where on.
    pub(super) place: Place,
    /// Which one it is of all.
    pub(super) number: usize,
    /// Position of the stage.
    pub(super) stage_index: usize,
    /// What it became.
    pub(super) ran: Ran,
    /// It had stood by since it was what the stage was last, and goes on with its own state.
    pub(super) comes_back: bool,
    /// What the stage was before stands by, until it comes back by the change of this number.
    pub(super) stands_by_until: Option<usize>,
}

impl Versions<'_> {
    /// The components that are given; for the other stages the one that ran last, if it is kept, and otherwise the pipeline
    /// file's. What ran has the settings that it ran with, also when it is given by its digest; all else has the pipeline
    /// file's.
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
            let mut as_stage = ran.iter().rev().filter(|ran| ran.stage == spec.name);
            let (component, taken, own) = match given.get(&spec.name) {
                Some(choice @ Choice::File(_)) => (self.given(choice)?, Taken::Given, None),
                Some(choice @ Choice::Digest(_)) => {
                    let component = self.given(choice)?;
                    let own = as_stage.find(|ran| *ran.digest == *component.digest);
                    (component, Taken::Given, own)
                }
                None => match as_stage.next() {
                    None => (self.of_file(spec)?, Taken::PipelineFile, None),
                    Some(last) => {
                        let (component, taken) = self.kept_or_file(spec, &last.digest)?;
                        (component, taken, (taken == Taken::Kept).then_some(last))
                    }
                },
            };
            let own = own.filter(|_| !self.uses_file_settings);
            let settings = own.map_or(&spec.settings, |ran| &ran.settings);
            let digest = Arc::clone(&component.digest);
            let put = cast.put(self.pipeline, index, component, taken, settings);
            match given.get(&spec.name) {
                Some(choice) => put.doing(|| format!("run {choice} as stage {}, sha256:{digest}", spec.name))?,
                None => put?,
            }
        }
        Ok(cast)
    }

    /// What ran at the very beginning, and what became of it later, in order; with what cannot be told, for people.
    pub(super) fn history(&self, raw: &RawInput) -> Result<(Cast, Vec<Change>, Vec<String>)> {
        let mut notes = Vec::new();
        let mut cast = Cast { stages: Vec::new(), descriptions: Vec::new(), used: Vec::new() };
        let mut changes = Vec::new();
        for (number, ran) in self.store.ran()?.into_iter().enumerate() {
            let Some(stage_index) = self.position(&ran.stage) else {
                notes.push(format!("stage {} ran then and is not in the pipeline file: it is left out", ran.stage));
                continue;
            };
            let place = raw.place_behind(ran.journal_sequence, &ran.inputs);
            let comes_back = ran.has_own_state != Some(false);
            changes.push(Change { place, number, stage_index, ran, comes_back, stands_by_until: None });
        }
        pair_up(&mut changes);
        for (index, spec) in self.pipeline.stages.iter().enumerate() {
            match changes.iter().position(|change| change.stage_index == index) {
                Some(first) => {
                    let first = changes.remove(first);
                    notes.extend(self.apply(&mut cast, &first)?);
                }
                None => {
                    cast.put(self.pipeline, index, self.of_file(spec)?, Taken::PipelineFile, &spec.settings)?;
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
        if *component.digest == *ran.digest {
            cast.put(self.pipeline, *stage_index, component, taken, &ran.settings)?;
            return Ok(None);
        }
        let (stage, expected, used) = (&ran.stage, &ran.digest, Arc::clone(&component.digest));
        let mut note = format!(
            "stage {stage}: sha256:{expected} ran then and is not kept; the pipeline file's, sha256:{used}, is used"
        );
        // Settings of one component need not be settings of another.
        if cast.put(self.pipeline, *stage_index, component.clone(), taken, &ran.settings).is_err() {
            cast.put(self.pipeline, *stage_index, component, taken, &spec.settings)?;
            note.push_str(", with the pipeline file's settings");
        }
        Ok(Some(note))
    }

    fn position(&self, stage: &str) -> Option<usize> {
        self.pipeline.stages.iter().position(|known| known.name == stage)
    }

    fn given(&self, choice: &Choice) -> Result<Component> {
        match choice {
            Choice::File(path) if is_short_digest(path) && !path.exists() => Err(Error::not_found(format!(
                "find component {}: there is no such file, and of a digest {DIGEST_LETTERS_MIN} letters are needed",
                path.display()
            ))),
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

    /// Lets a stage be what it is in another cast.
    pub(super) fn copy(&mut self, other: &Self, index: usize) {
        let (Some(stage), Some(description), Some(used)) =
            (other.stages.get(index), other.descriptions.get(index), other.used.get(index))
        else {
            return;
        };
        replace(&mut self.stages, index, stage.clone());
        replace(&mut self.descriptions, index, description.clone());
        replace(&mut self.used, index, used.clone());
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
        let settings_differ = settings != spec.settings;
        let description = match settings_differ {
            // What is wrong is wrong in the pipeline file.
            false => blueprint::describe(&stage, pipeline, index)?,
            true => stage.instantiate().and_then(|mut instance| instance.describe()).map_err(|fault| {
                let doing = format!("start stage {} with the settings that it ran with", spec.name);
                Error::caused(Kind::Invalid, doing, fault)
            })?,
        };
        let not_json = |error| Error::caused(Kind::Corrupt, "read the settings of a stage", error);
        let settings = RawValue::from_string(settings.to_owned()).map_err(not_json)?;
        let used =
            Used { stage: spec.name.clone(), component: stage.digest().to_owned(), taken, settings, settings_differ };
        replace(&mut self.stages, index, stage);
        replace(&mut self.descriptions, index, description);
        replace(&mut self.used, index, used);
        Ok(())
    }
}

/// Finds out since when each version that came back had stood by.
fn pair_up(changes: &mut [Change]) {
    for at in 0..changes.len() {
        let (before, rest) = changes.split_at_mut(at);
        let Some(back) = rest.first_mut().filter(|change| change.comes_back) else { continue };
        let mut of_stage = before.iter_mut().rev().filter(|change| change.stage_index == back.stage_index);
        // What stood by was there until the change that came behind it.
        let mut next: Option<&mut Change> = None;
        back.comes_back = false;
        for earlier in &mut of_stage {
            if earlier.ran.digest == back.ran.digest && earlier.ran.settings == back.ran.settings {
                if let Some(left) = next {
                    left.stands_by_until = Some(back.number);
                    back.comes_back = true;
                }
                break;
            }
            next = Some(earlier);
        }
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
    fn what_came_back_stood_by_since_it_was_live_last() {
        let change = |number: usize, stage_index, digest: &str, has_own_state: Option<bool>| Change {
            place: Place::START,
            number,
            stage_index,
            ran: Ran {
                stage: String::new(),
                digest: digest.to_owned(),
                settings: "{}".to_owned(),
                has_own_state,
                journal_sequence: 0,
                inputs: Vec::new(),
            },
            comes_back: has_own_state != Some(false),
            stands_by_until: None,
        };
        let paired = |mut changes: Vec<Change>| {
            pair_up(&mut changes);
            let of = |change: Change| (change.comes_back, change.stands_by_until);
            changes.into_iter().map(of).collect::<Vec<_>>()
        };
        // Live, swapped twice, back; another stage between.
        let one = |number, digest, own| change(number, 1, digest, Some(own));
        let back = vec![
            one(0, "a", false),
            one(1, "b", false),
            change(2, 0, "a", Some(false)),
            one(3, "c", false),
            one(4, "a", true),
        ];
        assert_eq!(paired(back), [(false, None), (false, Some(4)), (false, None), (false, None), (true, None)]);
        // Begun with again after a restart, swapped again, back.
        let again =
            vec![one(0, "a", false), one(1, "b", false), one(2, "a", false), one(3, "b", false), one(4, "a", true)];
        assert_eq!(paired(again), [(false, None), (false, None), (false, None), (false, Some(4)), (true, None)]);
        // Where it was not noted it is taken to have stood by, unless it is new.
        let unknown = ["a", "b", "a"].into_iter().enumerate().map(|(at, digest)| change(at, 1, digest, None));
        assert_eq!(paired(unknown.collect()), [(false, None), (false, Some(2)), (true, None)]);
    }

    #[test]
    fn what_looks_like_a_digest_is_one() {
        let digest = |text: &str| Choice::Digest(text.to_owned());
        assert_eq!(Choice::parse("0123abcd"), digest("0123abcd"));
        assert_eq!(Choice::parse("sha256:0123ABCD"), digest("0123abcd"));
        for file in ["0123abc", "alarm.wasm", "./0123abcd", "sha256:xyz", &"a".repeat(65)] {
            assert_eq!(Choice::parse(file), Choice::File(file.into()), "{file}");
        }
        assert!(is_short_digest("feb".as_ref()) && is_short_digest("sha256:0123".as_ref()));
        assert!(!is_short_digest("alarm.wasm".as_ref()) && !is_short_digest("0123abcd".as_ref()));
    }
}
