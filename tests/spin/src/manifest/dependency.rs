//! The name of a dependency: which imports of a component it is for.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use semver::Version;

/// `tapeline:pipeline/process@0.1.0`. Without an interface it is for all of the package, without a version for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DependencyName {
    package: String,
    interface: Option<String>,
    version: Option<Version>,
}

impl DependencyName {
    /// The package, without a version: what Spin registers a dependency as.
    pub(crate) fn package(&self) -> &str {
        &self.package
    }

    /// Tells whether the dependency is for an import.
    pub(crate) fn is_for(&self, import: &str) -> bool {
        let Ok(import) = import.parse::<Self>() else { return false };
        let interface = self.interface.is_none() || self.interface == import.interface;
        let version = self.version.is_none() || self.version == import.version;
        self.package == import.package && interface && version
    }
}

impl FromStr for DependencyName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, version) = match text.split_once('@') {
            Some((path, version)) => {
                let parsed = Version::parse(version);
                (path, Some(parsed.with_context(|| format!("found the version `{version}`, expected one as 0.1.0"))?))
            }
            None => (text, None),
        };
        let (package, interface) = match path.split_once('/') {
            Some((package, interface)) => (package, Some(interface.to_owned())),
            None => (path, None),
        };
        ensure!(package.contains(':'), "found `{text}`, expected `namespace:package/interface@version`");
        Ok(Self { package: package.to_owned(), interface, version })
    }
}

impl fmt::Display for DependencyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.package)?;
        self.interface.iter().try_for_each(|interface| write!(f, "/{interface}"))?;
        self.version.iter().try_for_each(|version| write!(f, "@{version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_for_the_imports_that_it_does_not_rule_out() {
        let is_for = |name: &str, import: &str| name.parse::<DependencyName>().unwrap().is_for(import);
        assert!(is_for("a:b/c@0.1.0", "a:b/c@0.1.0"));
        assert!(is_for("a:b/c", "a:b/c@0.1.0"));
        assert!(is_for("a:b", "a:b/c@0.1.0"));
        assert!(is_for("a:b@0.1.0", "a:b/c@0.1.0"));
        assert!(!is_for("a:b/c@0.1.0", "a:b/c@0.2.0"));
        assert!(!is_for("a:b/c@0.1.0", "a:b/c"));
        assert!(!is_for("a:b/c", "a:b/d"));
        assert!(!is_for("a:b", "a:d/c"));
        assert!(!is_for("a:b", "plain"));
    }

    #[test]
    fn a_name_is_printed_as_it_was_written() {
        for text in ["a:b/c@0.1.0", "a:b/c", "a:b@0.1.0", "a:b"] {
            assert_eq!(text.parse::<DependencyName>().unwrap().to_string(), text);
        }
        assert!("plain".parse::<DependencyName>().is_err());
        assert!("a:b@x".parse::<DependencyName>().is_err());
    }
}
