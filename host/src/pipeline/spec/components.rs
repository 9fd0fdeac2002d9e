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
        let places = match (&stage.component, components_folder) {
            (ComponentRef::Path(path), _) => vec![self.folder().join(path)],
            (ComponentRef::Name(name), Some(folder)) => vec![folder.join(file_name(name))],
            (ComponentRef::Name(name), None) => self.usual_places(name),
        };
        places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| missing(stage, &places))
    }

    fn usual_places(&self, name: &str) -> Vec<PathBuf> {
        let program = std::env::current_exe().ok();
        let beside = program.as_deref().and_then(Path::parent).map(|folder| folder.join("components"));
        let above = program.as_deref().and_then(|file| file.parent()?.parent()).map(|folder| folder.join("components"));
        let built = self.folder().join("../target/components");
        [beside, above, Some(built)].into_iter().flatten().map(|folder| folder.join(file_name(name))).collect()
    }

    fn folder(&self) -> &Path {
        self.path().parent().unwrap_or(Path::new(""))
    }
}

fn file_name(name: &str) -> String {
    format!("{name}.wasm")
}

fn missing(stage: &Stage, places: &[PathBuf]) -> Error {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let places = places.join(", ");
    Error::not_found(format!(
        "find the component of stage {}: not at {places}; `cargo xtask build` makes the components",
        stage.name
    ))
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
