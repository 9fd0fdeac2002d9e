//! Text with variables of the application in it: `https://{{ host }}/{{ path }}`.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

/// A text with places for values.
#[derive(Debug)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Variable(String),
}

impl Template {
    /// Names the variables in it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Variable(name) => Some(name.as_str()),
        })
    }

    /// Puts the values in. A variable without one leaves nothing; the manifest was checked for that.
    pub(crate) fn fill(&self, values: &BTreeMap<String, String>) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable(name) => values.get(name).cloned().unwrap_or_default(),
        };
        self.0.iter().map(text).collect()
    }
}

impl FromStr for Template {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let Some((name, behind)) = behind.split_once("}}") else {
                bail!("found `{text}`, expected a `}}}}` for each `{{{{`");
            };
            let name = name.trim();
            ensure!(
                !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
                "found the variable `{name}` in `{text}`, expected lower case letters, digits and `_`"
            );
            parts.extend([Part::Text(before.to_owned()), Part::Variable(name.to_owned())]);
            rest = behind;
        }
        ensure!(!rest.contains("}}"), "found `{text}`, expected a `{{{{` for each `}}}}`");
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_they_are_named() {
        let template: Template = "a {{ b }}{{c}} d".parse().unwrap();
        assert_eq!(template.names().collect::<Vec<_>>(), ["b", "c"]);
        let values = [("b", "1"), ("c", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(template.fill(&BTreeMap::from(values)), "a 12 d");
        assert_eq!("plain {\"json\": 1}".parse::<Template>().unwrap().fill(&BTreeMap::new()), "plain {\"json\": 1}");
    }

    #[test]
    fn a_brace_without_its_other_is_refused() {
        for wrong in ["{{ a", "a }}", "{{ }}", "{{ A }}", "{{ a b }}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }
}
