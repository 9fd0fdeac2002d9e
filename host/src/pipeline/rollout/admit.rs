//! Looks at a component before anything of a pipeline's runs on it: what it is, whom it is by, what it wants, and whether
//! it takes the state that there is.

use super::{Push, Rollout, WasmStage, now_ns, signature};
use crate::{
    contract::{Description, KindSet, Kinds},
    error::{Error, Kind, Result},
    registry::{Origin, Version},
    runtime::{COMPONENT_BYTES_MAX, Fault, Limits},
    segment::Blueprint as _,
};

/// Interfaces of a component that are noted.
const IMPORTS_MAX: usize = 100;
/// Letters of what a component says of itself that are kept.
const NAME_CHARS_MAX: usize = 100;

/// What a component was found to be.
pub(super) struct Admitted {
    /// Without a number yet.
    pub(super) version: Version,
    /// What it wants beyond what the live version has.
    pub(super) wants: Vec<String>,
    /// What else differs.
    pub(super) notes: Vec<String>,
}

impl Rollout {
    /// Looks at what was uploaded.
    ///
    /// # Errors
    /// `Invalid` with what was found and what was expected.
    pub(super) fn admit(&self, stage: &str, bytes: &[u8], push: &Push) -> Result<Admitted> {
        let index = self.check_stage(stage)?;
        if bytes.len() as u64 > COMPONENT_BYTES_MAX {
            let found = bytes.len();
            return Err(Error::invalid(format!("take the component: {found} bytes, at most {COMPONENT_BYTES_MAX}")));
        }
        let signed_by = signature::check(&self.0.pipeline.swap.trusted_keys, bytes, push.signature.as_deref())?;
        let component = self.0.engine.prepare_foreign(bytes, &self.0.pipeline.swap.compile)?;
        let live = self.live_of(stage);
        let live = live.ok_or_else(|| Error::new(Kind::Unavailable, format!("find what is live of stage {stage}")))?;
        if component.world_name() != live.component().world_name() {
            return Err(Error::invalid(format!(
                "put the component in the place of stage {stage}: it is of world {}, instead of {}",
                component.world_name(),
                live.component().world_name()
            )));
        }
        let mut version = Version {
            number: 0,
            digest: component.digest.to_string(),
            bytes: bytes.len() as u64,
            origin: Origin::Upload,
            name: String::new(),
            semver: String::new(),
            state_version: 0,
            imports: component.imports.iter().take(IMPORTS_MAX).map(|import| short(import.clone())).collect(),
            settings: push.settings.clone(),
            memory_mib: push.memory_mib,
            batch_ms: push.batch_ms,
            by: push.by.clone(),
            why: push.why.clone(),
            at: now_ns(),
            signature: push.signature.clone(),
            signed_by,
            is_allowed: false,
        };
        let candidate = self.stage_of(index, component, &version);
        let description = describe(&candidate)?;
        let notes = describe(&live).map(|live| kind_differences(&live, &description)).unwrap_or_default();
        version.name = short(description.name);
        version.semver = short(description.version);
        version.state_version = description.state_version;
        self.try_on_state(&candidate)?;
        let wants = wants(&live, &candidate);
        Ok(Admitted { version, wants, notes })
    }

    /// Gives a version a copy of each state that the stage has.
    ///
    /// # Errors
    /// `Invalid` when it does not take one.
    pub(super) fn try_on_state(&self, candidate: &WasmStage) -> Result<()> {
        let stage = candidate.name();
        for (entries, watermark) in (self.0.states)(stage)? {
            let newest = entries.iter().map(|entry| entry.version).max().unwrap_or(0);
            let tried = candidate.instantiate().and_then(|mut instance| {
                instance.restore(&entries, watermark)?;
                // What it would write must be what it can say.
                instance.checkpoint().map(drop)
            });
            tried.map_err(|fault| {
                let place = format!(
                    "give the component a copy of the state of stage {stage}: {} entries, of version {newest} at most",
                    entries.len()
                );
                Error::caused(Kind::Invalid, place, fault)
            })?;
        }
        Ok(())
    }
}

fn short(text: String) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(NAME_CHARS_MAX).collect()
}

fn describe(candidate: &WasmStage) -> Result<Description> {
    let described = candidate.instantiate().and_then(|mut instance| instance.describe());
    described.map_err(|fault: Fault| Error::caused(Kind::Invalid, "start the component with its settings", fault))
}

/// What a version wants beyond what another one has, for people.
fn wants(live: &WasmStage, candidate: &WasmStage) -> Vec<String> {
    let mut wants = Vec::new();
    let (has, asks): (Limits, Limits) = (live.limits(), candidate.limits());
    if asks.memory_bytes_max > has.memory_bytes_max {
        let (has, asks) = (has.memory_bytes_max >> 20, asks.memory_bytes_max >> 20);
        wants.push(format!("memory: {asks} MiB instead of {has} MiB"));
    }
    if asks.call_time_max > has.call_time_max {
        let text = |time| humantime::format_duration(time).to_string();
        wants.push(format!("time per batch: {} instead of {}", text(asks.call_time_max), text(has.call_time_max)));
    }
    let known = &live.component().imports;
    let new = candidate.component().imports.iter().filter(|import| !known.contains(import));
    // Answered with constants, whatever they are; what would reach further is refused before.
    let reaching = new.filter(|import| !import.starts_with("wasi:") && !import.starts_with("tapeline:pipeline/"));
    wants.extend(reaching.map(|import| format!("import {import}")));
    wants.extend(setting_differences(live.settings(), candidate.settings()));
    wants
}

/// What a version is otherwise than another one, for people: it may be meant, or be the wrong file.
fn kind_differences(live: &Description, candidate: &Description) -> Vec<String> {
    let kinds = |kinds: Kinds| {
        let names: Vec<&str> = KindSet::from(kinds).iter().map(|kind| kind.as_str()).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let differences = [
        ("calls itself", live.name.clone(), candidate.name.clone()),
        ("takes", kinds(live.takes), kinds(candidate.takes)),
        ("gives", kinds(live.gives), kinds(candidate.gives)),
    ];
    let differences = differences.into_iter().filter(|(_, has, is)| has != is);
    differences.map(|(what, has, is)| short(format!("it {what} {is}; the live version {what} {has}"))).collect()
}

fn setting_differences(has: &str, asks: &str) -> Vec<String> {
    let read = |text| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).unwrap_or_default();
    let (has, asks) = (read(has), read(asks));
    let none = serde_json::Value::Null;
    let differs = |key: &&String| has.get(*key).unwrap_or(&none) != asks.get(*key).unwrap_or(&none);
    let mut keys: Vec<&String> = has.keys().chain(asks.keys()).filter(differs).collect();
    keys.sort_unstable();
    keys.dedup();
    let text = |value: Option<&serde_json::Value>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    keys.into_iter()
        .map(|key| format!("setting {key}: {} instead of {}", text(asks.get(key)), text(has.get(key))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_told() {
        let told = setting_differences(r#"{"a":1,"b":[2],"c":3}"#, r#"{"a":1,"b":[2,3],"d":"x"}"#);
        assert_eq!(
            told,
            ["setting b: [2,3] instead of [2]", "setting c: none instead of 3", "setting d: \"x\" instead of none"]
        );
        assert!(setting_differences("{\"a\": 1}", "{\"a\":1}").is_empty());
    }
}
