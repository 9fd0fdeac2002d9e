//! Whether a component can take a place: it is of the world that is wanted there, and starts with the settings of the stage.

use tapeline_invoke::Role;
use tapeline_runtime::{Component, Engine, WasmInstance, unseal};

use super::{OperateError, Stack};
use crate::settings::StageSettings;

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Its name.
    pub(super) name: String,
    /// Its own version.
    pub(super) version: String,
}

/// Checks compiled code as it is stored for a stage of a stack. It is run here, as functions do, within the limits of the
/// stage.
///
/// # Errors
/// `Wrong` with what was found and what would be right.
pub(super) async fn check(
    stack: &Stack,
    stage: &StageSettings,
    digest: &str,
    stored: &[u8],
) -> Result<Described, OperateError> {
    let doing = format!("put component {} in the place of stage {}", digest.get(..12).unwrap_or(digest), stage.name);
    let unfit = |reason: String| OperateError::wrong(format!("{doing}: {reason}"));
    let engine = Engine::new().map_err(|error| OperateError::service("make the engine", error.to_string()))?;
    let compiled = unseal(engine.engine(), stored).ok_or_else(|| {
        unfit("its file is damaged, or was compiled by another version of Tapeline than this program is of".to_owned())
    })?;
    let component = engine.fit(&compiled, digest.into(), stored.len() as u64).map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        unfit(format!("{error}{}", source.unwrap_or_default()))
    })?;
    check_role(stack, &stage.name, &component).map_err(unfit)?;
    let instance = WasmInstance::new(&component, &stage.limits, &stage.settings).await;
    let mut instance =
        instance.map_err(|fault| unfit(format!("it does not start with the stage's settings: {fault}")))?;
    let described = instance.describe_async().await;
    let described = described.map_err(|fault| unfit(format!("it does not say what it is: {fault}")))?;
    Ok(Described { name: described.name, version: described.version })
}

fn check_role(stack: &Stack, stage: &str, component: &Component) -> Result<(), String> {
    let (wanted, place) = if stack.stages().next() == Some(stage) {
        (Role::Fetcher, "the first stage is")
    } else if stack.stages().next_back() == Some(stage) {
        (Role::Writer, "the last stage is")
    } else {
        (Role::Stage, "stages between the first and the last are")
    };
    match component.role() {
        role if role == wanted => Ok(()),
        role => Err(format!("it is of world {role}, and {place} of world {wanted}")),
    }
}
