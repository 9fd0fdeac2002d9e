//! Settings: from JSON to a stage's own type, with errors that name the place.

use serde::de::DeserializeOwned;

/// A setting that cannot be used: which, what was found, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// Path of the setting: `windows[1]`.
    pub key: String,
    /// What was found, as JSON.
    pub value: String,
    /// What would be right, for people.
    pub expected: String,
}

impl SettingError {
    /// An error at a key; what was found is looked up by the SDK.
    pub fn new(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { key: key.into(), value: String::new(), expected: expected.into() }
    }

    fn with_value(mut self, settings: &str) -> Self {
        if self.value.is_empty() {
            self.value = value_at(settings, &self.key).unwrap_or_else(|| "nothing".to_owned());
        }
        self
    }
}

pub(crate) fn parse<T: DeserializeOwned, S>(
    settings: &str,
    new: impl FnOnce(T) -> Result<S, SettingError>,
) -> Result<S, SettingError> {
    let deserializer = &mut serde_json::Deserializer::from_str(settings);
    let parsed = serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let key = error.path().to_string();
        let inner = error.into_inner().to_string();
        let expected = inner.split(" at line ").next().unwrap_or(&inner).to_owned();
        SettingError { key, value: String::new(), expected }
    });
    parsed.and_then(new).map_err(|error| error.with_value(settings))
}

fn value_at(settings: &str, key: &str) -> Option<String> {
    let root: serde_json::Value = serde_json::from_str(settings).ok()?;
    let pointer = format!("/{}", key.replace(['.', '['], "/").replace(']', ""));
    let found = if key == "." { Some(&root) } else { root.pointer(&pointer) };
    found.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        windows: Vec<u32>,
    }

    #[test]
    fn an_error_names_key_value_and_what_would_be_right() {
        let read = |text: &str| parse(text, |settings: Settings| Ok(settings.windows)).unwrap_err();
        let error = read(r#"{"windows": [1, "x"]}"#);
        assert_eq!((error.key.as_str(), error.value.as_str()), ("windows[1]", "\"x\""));
        assert!(error.expected.contains("expected u32"), "{error:?}");
        let error = read(r#"{"windows": [], "colour": 2}"#);
        assert_eq!((error.key.as_str(), error.value.as_str()), ("colour", "2"));
        let refused =
            parse(r#"{"windows": [0]}"#, |_: Settings| Err::<(), _>(SettingError::new("windows[0]", "above 0")));
        assert_eq!(refused.unwrap_err().value, "0");
    }
}
