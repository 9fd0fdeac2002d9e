//! Where the files of components are.

use std::path::{Path, PathBuf};

use super::{ComponentRef, Pipeline, Stage};
use crate::error::{Error, Result};

impl Pipeline {
    /// Finds the file of a stage's component.
    ///
    /// A path counts from the folder of the pipeline file. A name is looked up in `components_folder`, and nowhere else
    /// if that is given, so that no other version is taken by mistake. Otherwise in `components` beside the program,
    /// beside the program's folder, and in `../target/components` from the pipeline file.
    ///
    /// # Errors
    /// `NotFound` when it is in none of these places; all of them are named.
    pub fn resolve_component(&self, stage: &Stage, components_folder: Option<&Path>) -> Result<PathBuf> {
        match &stage.component {
            ComponentRef::Path(path) => take_first(&stage.name, vec![self.folder().join(path)]),
            ComponentRef::Name(name) => {
                find_component(&stage.name, name, components_folder, &self.folder().join("../target/components"))
            }
        }
    }

    fn folder(&self) -> &Path {
        self.path().parent().unwrap_or(Path::new(""))
    }
}

/// Finds a component by its name: in `folder` and nowhere else if that is given; otherwise in `components` beside the
/// program, beside the program's folder, and in `built`.
///
/// # Errors
/// `NotFound` when it is in none of these places; all of them are named.
pub(crate) fn find_component(stage: &str, name: &str, folder: Option<&Path>, built: &Path) -> Result<PathBuf> {
    let program = std::env::current_exe().ok();
    let above = |levels| Some(program.as_deref()?.ancestors().nth(levels)?.join("components"));
    let folders = match folder {
        Some(folder) => vec![folder.to_owned()],
        None => [above(1), above(2), Some(built.to_owned())].into_iter().flatten().collect(),
    };
    take_first(stage, folders.iter().map(|folder| folder.join(format!("{name}.wasm"))).collect())
}

fn take_first(stage: &str, places: Vec<PathBuf>) -> Result<PathBuf> {
    let missing = || {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let places = places.join(", ");
        Error::not_found(format!(
            "find the component of stage {stage}: not at {places}; `cargo xtask build` makes the components"
        ))
    };
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const TEXT: &str = "name = 'x'\n[[stages]]\nname = 'fetch'\n[[stages]]\nname = 'write'\ncomponent = 'own/w.wasm'\n";

    #[test]
    fn components_are_found_by_name_and_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let pipeline = Pipeline::parse(&folder.path().join("pipelines/x.toml"), TEXT).unwrap();
        let [fetch, write] = &pipeline.stages[..] else { panic!("two stages") };

        let built = file("target/components/fetch.wasm");
        file("pipelines/own/w.wasm");
        let found = pipeline.resolve_component(fetch, None).unwrap();
        assert_eq!(found.canonicalize().unwrap(), built.canonicalize().unwrap());
        let found = pipeline.resolve_component(write, Some(Path::new("/nowhere"))).unwrap();
        assert_eq!(found, folder.path().join("pipelines/own/w.wasm"));

        let given = file("given/fetch.wasm");
        assert_eq!(pipeline.resolve_component(fetch, given.parent()).unwrap(), given);
    }

    #[test]
    fn what_is_missing_is_named_with_all_places() {
        let pipeline = Pipeline::parse(Path::new("pipelines/x.toml"), TEXT).unwrap();
        let error = pipeline.resolve_component(&pipeline.stages[0], Some(Path::new("/nowhere"))).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(
            error.to_string(),
            "find the component of stage fetch: not at /nowhere/fetch.wasm; `cargo xtask build` makes the components"
        );
        let error = pipeline.resolve_component(&pipeline.stages[0], None).unwrap_err().to_string();
        assert_eq!(error.matches("fetch.wasm").count(), 3, "{error}");
        assert!(error.contains("pipelines/../target/components/fetch.wasm"), "{error}");
    }
}
