//! A Spin manifest, version 2: read, checked against itself and against the files that it names.
//!
//! It refuses what it does not know, also where Spin would know it: a test must not pass because a line was ignored.

mod dependency;
mod outbound;
mod raw;
mod route;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

pub(crate) use dependency::DependencyName;
pub(crate) use outbound::{AllowedHost, internal_component};
pub use route::Route;
pub(crate) use template::Template;

/// The only version there is.
const MANIFEST_VERSION: u32 = 2;

/// What a Spin application consists of. Everything in it refers to something that is there.
#[derive(Debug)]
pub struct Manifest {
    name: String,
    variables: BTreeMap<String, Variable>,
    triggers: Vec<Trigger>,
    components: BTreeMap<String, Component>,
}

/// A variable of the application.
#[derive(Debug)]
enum Variable {
    Default(String),
    Required,
}

/// Which component answers what.
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    /// `None` for a private one: other components reach it, nobody else.
    pub(crate) route: Option<Route>,
    pub(crate) component: String,
}

/// One component, with what it is granted.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) source: PathBuf,
    pub(crate) variables: BTreeMap<String, Template>,
    pub(crate) key_value_labels: BTreeSet<String>,
    pub(crate) outbound_hosts: Vec<Template>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A component that gives another one what it imports.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: DependencyName,
    pub(crate) path: PathBuf,
    /// The export to take, when it is not named as the import.
    pub(crate) export: Option<String>,
}

impl Manifest {
    /// Reads a manifest. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read, has a key or a value that is not known here, or refers to something that is not there: a
    /// file, a variable, a component. The message names the place, the value and what would be right.
    pub fn load(path: &Path) -> Result<Self> {
        let place = || format!("reading the manifest {}", path.display());
        let text = fs::read_to_string(path).with_context(place)?;
        let raw: raw::Manifest = toml::from_str(&text).with_context(place)?;
        Self::resolve(raw, path.parent().unwrap_or(Path::new("."))).with_context(place)
    }

    /// The application's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The components' names, in order.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.components.keys().map(String::as_str)
    }

    /// The public routes and the components that answer them, in the manifest's order.
    pub fn routes(&self) -> impl Iterator<Item = (&Route, &str)> {
        self.triggers.iter().filter_map(|trigger| Some((trigger.route.as_ref()?, trigger.component.as_str())))
    }

    pub(crate) fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    /// Names each component that a trigger names: Spin runs no other.
    pub(crate) fn triggered(&self) -> impl Iterator<Item = (&str, &Component)> {
        let named: BTreeSet<&str> = self.triggers.iter().map(|trigger| trigger.component.as_str()).collect();
        self.components.iter().map(|(id, component)| (id.as_str(), component)).filter(move |(id, _)| named.contains(id))
    }

    /// Gives each variable of the application its value.
    ///
    /// # Errors
    /// When a required variable has none, or a value is given to a variable that is not declared.
    pub(crate) fn values(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        if let Some(unknown) = given.keys().find(|name| !self.variables.contains_key(*name)) {
            bail!("a value was given for the variable `{unknown}`: not declared, expected {}", self.declared());
        }
        let value = |(name, variable): (&String, &Variable)| {
            let value = match (given.get(name), variable) {
                (Some(value), _) | (None, Variable::Default(value)) => value.clone(),
                (None, Variable::Required) => {
                    bail!("[variables] {name}: it is required and was given no value; give it one, or a `default`")
                }
            };
            Ok((name.clone(), value))
        };
        self.variables.iter().map(value).collect()
    }

    fn declared(&self) -> String {
        names(self.variables.keys(), "no variable: [variables] is empty")
    }

    fn resolve(raw: raw::Manifest, folder: &Path) -> Result<Self> {
        let version = raw.spin_manifest_version;
        ensure!(version == MANIFEST_VERSION, "spin_manifest_version: found {version}, expected {MANIFEST_VERSION}");
        let variables = resolve_each(raw.variables, "variables", |_, variable| Variable::resolve(&variable))?;
        let components = resolve_each(raw.component, "component", |_, raw| Component::resolve(raw, folder))?;
        let triggers = resolve_triggers(raw.trigger.http, &components)?;
        let manifest = Self { name: raw.application.name, variables, triggers, components };
        manifest.check_templates()?;
        Ok(manifest)
    }

    fn check_templates(&self) -> Result<()> {
        for (id, component) in &self.components {
            let variables = component.variables.iter().map(|(name, template)| (format!("variables.{name}"), template));
            let hosts = component.outbound_hosts.iter().map(|host| ("allowed_outbound_hosts".to_owned(), host));
            for (place, template) in variables.chain(hosts) {
                if let Some(unknown) = template.names().find(|name| !self.variables.contains_key(*name)) {
                    let declared = self.declared();
                    bail!("[component.{id}] {place}: the variable `{unknown}` is not declared, expected {declared}");
                }
            }
        }
        Ok(())
    }
}

impl Variable {
    fn resolve(raw: &raw::Variable) -> Result<Self> {
        match (&raw.default, raw.required) {
            (Some(value), false) => Ok(Self::Default(value.clone())),
            (None, true) => Ok(Self::Required),
            (Some(_), true) => bail!("both a default and required, expected one of them"),
            (None, false) => bail!("neither a default nor required, expected one of them"),
        }
    }
}

impl Component {
    fn resolve(raw: raw::Component, folder: &Path) -> Result<Self> {
        let dependency = |(name, dependency): (String, raw::Dependency)| {
            let place = || format!("dependencies.\"{name}\"");
            let name = name.parse().with_context(place)?;
            let path = file(folder, &dependency.path).with_context(place)?;
            Ok(Dependency { name, path, export: dependency.export })
        };
        let hosts = raw.allowed_outbound_hosts.iter().map(|host| host.parse().context("allowed_outbound_hosts"));
        Ok(Self {
            source: file(folder, &raw.source).context("source")?,
            variables: resolve_each(raw.variables, "variables", |_, text| text.parse())?,
            key_value_labels: raw.key_value_stores.into_iter().collect(),
            outbound_hosts: hosts.collect::<Result<_>>()?,
            dependencies: raw.dependencies.into_iter().map(dependency).collect::<Result<_>>()?,
        })
    }
}

fn resolve_triggers(raw: Vec<raw::HttpTrigger>, components: &BTreeMap<String, Component>) -> Result<Vec<Trigger>> {
    let mut triggers: Vec<Trigger> = Vec::new();
    for raw::HttpTrigger { route, component, .. } in raw {
        let place = format!("[[trigger.http]] of the component `{component}`");
        if !components.contains_key(&component) {
            bail!("{place}: there is no [component.{component}], expected {}", names(components.keys(), "one"));
        }
        let route = match route {
            raw::Route::Path(path) => Some(path.parse::<Route>().context(place.clone())?),
            raw::Route::Private { private: true } => None,
            raw::Route::Private { private: false } => bail!("{place}: route: found private = false, expected true"),
        };
        let twin = triggers.iter().find(|trigger| route.is_some() && trigger.route == route);
        if let (Some(twin), Some(route)) = (twin, &route) {
            bail!("{place}: the route {route} is that of the component `{}` already, expected another", twin.component);
        }
        triggers.push(Trigger { route, component });
    }
    Ok(triggers)
}

fn resolve_each<Raw, T>(
    raw: BTreeMap<String, Raw>,
    table: &str,
    resolve: impl Fn(&str, Raw) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let each = |(name, raw): (String, Raw)| {
        let value = check_name(&name).and_then(|()| resolve(&name, raw));
        let value = value.with_context(|| format!("[{table}.{name}]"))?;
        Ok((name, value))
    };
    raw.into_iter().map(each).collect()
}

/// Components are named in kebab case, variables in snake case; what both have in common is enough here.
fn check_name(name: &str) -> Result<()> {
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let begin = name.starts_with(|c: char| c.is_ascii_alphabetic());
    ensure!(begin && rest, "the name `{name}`: expected a letter, then letters, digits, `-` or `_`");
    Ok(())
}

fn file(folder: &Path, path: &str) -> Result<PathBuf> {
    let found = folder.join(path);
    ensure!(found.is_file(), "{} is not a file, expected a component; `cargo xtask build` makes ours", found.display());
    Ok(found)
}

fn names<'a>(names: impl Iterator<Item = &'a String>, none: &str) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { none.to_owned() } else { format!("one of {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Manifest> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.wasm"), "").unwrap();
        let path = folder.path().join("spin.toml");
        fs::write(&path, format!("spin_manifest_version = 2\n[application]\nname = \"app\"\n{text}")).unwrap();
        Manifest::load(&path)
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", load(text).unwrap_err())
    }

    #[test]
    fn a_manifest_is_what_it_says() {
        let manifest = load(
            r#"
            [variables]
            level = { default = "one" }
            key = { required = true, secret = true }
            [[trigger.http]]
            route = "/a/..."
            component = "a"
            [[trigger.http]]
            route = { private = true }
            component = "b"
            [component.a]
            source = "a.wasm"
            variables = { both = "{{ level }} and {{key}}" }
            key_value_stores = ["default"]
            allowed_outbound_hosts = ["http://b.spin.internal"]
            dependencies = { "tapeline:pipeline/process@0.1.0" = { path = "a.wasm" } }
            [component.a.build]
            command = "cargo build"
            [component.b]
            source = "a.wasm"
            [component.c]
            source = "a.wasm"
            "#,
        )
        .unwrap();
        assert_eq!((manifest.name(), manifest.components().collect()), ("app", vec!["a", "b", "c"]));
        assert_eq!(manifest.triggered().map(|(id, _)| id).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(manifest.routes().map(|(route, id)| format!("{route} {id}")).collect::<Vec<_>>(), ["/a/... a"]);

        let values = manifest.values(&BTreeMap::from([("key".to_owned(), "two".to_owned())])).unwrap();
        assert_eq!(manifest.components["a"].variables["both"].fill(&values), "one and two");
        let missing = manifest.values(&BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(missing, "[variables] key: it is required and was given no value; give it one, or a `default`");
        let unknown = manifest.values(&BTreeMap::from([("kye".to_owned(), String::new())])).unwrap_err().to_string();
        assert!(unknown.ends_with("`kye`: not declared, expected one of key, level"), "{unknown}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = refusal("[component.x]\nsource = \"b.wasm\"");
        assert!(missing.contains("[component.x]: source: ") && missing.contains("b.wasm is not a file"), "{missing}");
        let missing =
            refusal("[component.x]\nsource = \"a.wasm\"\ndependencies = { \"a:b/c@1.0.0\" = { path = \"d\" } }");
        assert!(missing.contains("dependencies.\"a:b/c@1.0.0\"") && missing.contains("d is not a file"), "{missing}");
        let variable = refusal("[component.x]\nsource = \"a.wasm\"\nvariables = { y = \"{{ z }}\" }");
        assert!(variable.contains("[component.x] variables.y: the variable `z` is not declared"), "{variable}");
        let component = refusal("[[trigger.http]]\nroute = \"/\"\ncomponent = \"x\"");
        assert!(component.contains("there is no [component.x]"), "{component}");
    }

    #[test]
    fn two_triggers_with_one_route_are_refused() {
        let trigger = |route: &str| format!("[[trigger.http]]\nroute = {route}\ncomponent = \"x\"\n");
        let component = "[component.x]\nsource = \"a.wasm\"\n";
        let twice = refusal(&format!("{}{}{component}", trigger("\"/a\""), trigger("\"/a/\"")));
        assert!(twice.contains("the route /a is that of the component `x` already"), "{twice}");
        let private = trigger("{ private = true }");
        assert!(load(&format!("{private}{private}{}{}{component}", trigger("\"/a\""), trigger("\"/a/...\""))).is_ok());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let unknown = refusal("[component.x]\nsource = \"a.wasm\"\nfiles = [\"b\"]");
        assert!(unknown.contains("unknown field `files`"), "{unknown}");
        let variable = refusal("[variables]\nx = {}");
        assert!(variable.contains("[variables.x]: neither a default nor required"), "{variable}");
    }
}
