//! Puts a component and its dependencies together into one, as Spin does and by the crate that Spin does it with.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use wac_graph::types::{ItemKind, Package, SubtypeChecker, Types, WorldId};
use wac_graph::{CompositionGraph, EncodeOptions, NodeId};

use crate::manifest::{Component, Dependency};

/// What a dependency may import: what the language it is written in drags in. Spin denies it everything else.
const HARMLESS: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

/// The version of WASI that they are of.
const HARMLESS_VERSION: &str = "@0.2.";

/// Gives the bytes of a component, with its dependencies inside.
///
/// # Errors
/// When a file is not a component, a dependency is for no import or exports none of it, has another type, imports what
/// it may not have, or two are for one import or out of one package.
pub(crate) fn compose(id: &str, component: &Component) -> Result<Vec<u8>> {
    let source = read(&component.source)?;
    if component.dependencies.is_empty() {
        return Ok(source);
    }
    let mut composer = Composer { graph: CompositionGraph::new() };
    let front = composer.register(id, source)?;
    composer.satisfy(&front, &component.dependencies)?;
    composer.export_all(&front)?;
    composer.graph.encode(EncodeOptions::default()).context("encoding the composition")
}

struct Composer {
    graph: CompositionGraph,
}

/// A component that is part of the composition.
struct Registered {
    world: WorldId,
    instance: NodeId,
}

impl Composer {
    fn register(&mut self, name: &str, bytes: Vec<u8>) -> Result<Registered> {
        let package = Package::from_bytes(name, None, bytes, self.graph.types_mut())?;
        let world = package.ty();
        // A second one with this name is refused here, by the words "has already been registered in the graph".
        let package = self.graph.register_package(package)?;
        Ok(Registered { world, instance: self.graph.instantiate(package) })
    }

    fn satisfy(&mut self, front: &Registered, dependencies: &[Dependency]) -> Result<()> {
        let mut taken = BTreeMap::new();
        for dependency in dependencies {
            let place = || format!("the dependency `{}`, {}", dependency.name, dependency.path.display());
            let imports = self.imports(front.world).map(|(name, _)| name.to_owned());
            let matching: Vec<String> = imports.filter(|import| dependency.name.is_for(import)).collect();
            ensure!(!matching.is_empty(), "{}: the component imports nothing of this name", place());
            let given = self.register(dependency.name.package(), read(&dependency.path)?).with_context(place)?;
            self.check_imports(given.world).with_context(place)?;
            for import in matching {
                if let Some(other) = taken.insert(import.clone(), &dependency.name) {
                    bail!("{}: the import `{import}` is given by `{other}` already", place());
                }
                let export = dependency.export.as_ref().unwrap_or(&import);
                self.connect(front, &import, &given, export).with_context(place)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, front: &Registered, import: &str, given: &Registered, export: &str) -> Result<()> {
        let types = self.graph.types();
        let found = types[given.world].exports.get(export).copied();
        let found = found.with_context(|| format!("it does not export `{export}`"))?;
        let expected = types[front.world].imports.get(import).copied();
        let expected = expected.with_context(|| format!("the component does not import `{import}`"))?;
        let mut seen = HashSet::new();
        let checked = SubtypeChecker::new(&mut seen).is_subtype(found, types, expected, types);
        checked.with_context(|| format!("its export `{export}` is not what is imported as `{import}`"))?;
        let export = self.graph.alias_instance_export(given.instance, export)?;
        Ok(self.graph.set_instantiation_argument(front.instance, import, export)?)
    }

    fn check_imports(&self, world: WorldId) -> Result<()> {
        let denied =
            self.imports(world).find(|(name, kind)| !is_harmless(name) && !has_only_types(self.graph.types(), *kind));
        if let Some((name, _)) = denied {
            bail!(
                "it imports `{name}`, and Spin gives a dependency nothing but WASI {HARMLESS_VERSION}x without a network"
            );
        }
        Ok(())
    }

    fn imports(&self, world: WorldId) -> impl Iterator<Item = (&str, ItemKind)> {
        self.graph.types()[world].imports.iter().map(|(name, kind)| (name.as_str(), *kind))
    }

    fn export_all(&mut self, front: &Registered) -> Result<()> {
        let exports: Vec<String> = self.graph.types()[front.world].exports.keys().cloned().collect();
        for export in exports {
            let alias = self.graph.alias_instance_export(front.instance, &export)?;
            self.graph.export(alias, export)?;
        }
        Ok(())
    }
}

fn is_harmless(import: &str) -> bool {
    HARMLESS.iter().any(|package| import.starts_with(package)) && import.contains(HARMLESS_VERSION)
}

/// An interface that nothing is called of: a stage imports the types of the contract so.
fn has_only_types(types: &Types, import: ItemKind) -> bool {
    match import {
        ItemKind::Type(_) => true,
        ItemKind::Instance(interface) => {
            types[interface].exports.values().all(|export| matches!(export, ItemKind::Type(_)))
        }
        ItemKind::Func(_) | ItemKind::Component(_) | ItemKind::Module(_) | ItemKind::Value(_) => false,
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
