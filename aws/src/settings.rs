//! What a function is told, by its environment: the contract with `infra/cdk/src/environment.ts`.

use std::time::Duration;

use serde::Deserialize;
use tapeline_invoke::WatermarkSettings;
use tapeline_runtime::Limits;

/// What a function is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its stages, in the order of the data; one at least.
    pub stages: Vec<StageSettings>,
    /// Parts into which symbols are divided; 1 at least.
    pub partitions: u32,
    /// Of the first function alone.
    pub entrance: Option<Entrance>,
    /// The table of the state.
    pub state_table: String,
    /// The table of dead letters.
    pub dead_letters_table: String,
    /// The table of the ledger.
    pub ledger_table: String,
    /// The bucket of components that were pushed.
    pub components_bucket: String,
    /// The queue that feeds it.
    pub in_queue: String,
    /// The queue that feeds the next function; none behind the last.
    pub out_queue: Option<String>,
    /// The table of rows; of the last function.
    pub rows_table: Option<String>,
    /// After so long a row may go.
    pub rows_expire: Option<Duration>,
    /// The bucket of files, and of what entered; of the first and the last function.
    pub objects_bucket: Option<String>,
    /// Whom alarms are told; of the last function.
    pub alarms_topic: Option<String>,
    /// The secret with the token that callers over HTTP show; none where others have let them in.
    pub token_secret: Option<String>,
}

/// A stage of a function.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// Its name in the pipeline.
    pub name: String,
    /// The component of the package.
    pub component: String,
    /// What the component is told, a JSON object.
    pub settings: String,
    /// What it may use.
    pub limits: Limits,
}

/// How events enter a pipeline.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// How to read what does not say how.
    pub format: String,
    /// How the watermark follows them.
    pub watermark: WatermarkSettings,
    /// After so long without an event the watermark follows the clock, ns.
    pub idle: i64,
}

/// A variable that is missing, or is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {variable}: {message}")]
pub struct SettingsError {
    /// Its name.
    pub variable: &'static str,
    /// What is wrong with it.
    pub message: String,
}

const PIPELINE: &str = "TAPELINE_PIPELINE";
const STAGES: &str = "TAPELINE_STAGES";
const WATERMARK: &str = "TAPELINE_WATERMARK";
const FORMAT: &str = "TAPELINE_FORMAT";
const PARTITIONS: &str = "TAPELINE_PARTITIONS";
const ROWS_EXPIRE: &str = "TAPELINE_ROWS_EXPIRE";

/// As in the pipeline file, `partitions` has an upper limit.
const PARTITIONS_MAX: u32 = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStage {
    name: String,
    component: String,
    settings: serde_json::Map<String, serde_json::Value>,
    memory_mib: usize,
    time_per_batch: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWatermark {
    delay: String,
    every: String,
    max_future: String,
    #[serde(default = "idle")]
    idle: String,
}

/// As in the pipeline file.
fn idle() -> String {
    "5s".to_owned()
}

impl Settings {
    /// Reads them; `lookup` gives the value of a variable.
    ///
    /// # Errors
    /// Names the variable that is missing, or is not what it should be.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let given = |variable: &'static str| lookup(variable).filter(|value| !value.is_empty());
        let required = |variable: &'static str| given(variable).ok_or_else(|| unfit(variable, "is not set"));
        let entrance = match (given(WATERMARK), given(FORMAT)) {
            (None, None) => None,
            _ => Some(Entrance::read(&required(WATERMARK)?, required(FORMAT)?)?),
        };
        let partitions = required(PARTITIONS)?;
        let number = partitions.parse().ok().filter(|number| (1..=PARTITIONS_MAX).contains(number));
        let rows_expire = given(ROWS_EXPIRE).map(|text| duration(ROWS_EXPIRE, &text)).transpose()?;
        Ok(Self {
            pipeline: required(PIPELINE)?,
            stages: stages(&required(STAGES)?)?,
            partitions: number
                .ok_or_else(|| unfit(PARTITIONS, format!("{partitions:?} instead of 1 to {PARTITIONS_MAX}")))?,
            entrance,
            state_table: required("TAPELINE_STATE_TABLE")?,
            dead_letters_table: required("TAPELINE_DEAD_LETTERS_TABLE")?,
            ledger_table: required("TAPELINE_LEDGER_TABLE")?,
            components_bucket: required("TAPELINE_COMPONENTS_BUCKET")?,
            in_queue: required("TAPELINE_IN_QUEUE_URL")?,
            out_queue: given("TAPELINE_OUT_QUEUE_URL"),
            rows_table: given("TAPELINE_ROWS_TABLE"),
            rows_expire,
            objects_bucket: given("TAPELINE_OBJECTS_BUCKET"),
            alarms_topic: given("TAPELINE_ALARMS_TOPIC_ARN"),
            token_secret: given("TAPELINE_ADMIN_TOKEN_SECRET_ARN"),
        })
    }

    /// What the function is called where its parts are stored: its first stage.
    pub fn name(&self) -> &str {
        self.stages.first().map_or("", |stage| &stage.name)
    }

    /// The names of its stages, as `infra/cdk` calls the function: `dedup+enrich`.
    pub fn stage_names(&self) -> String {
        let names: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
        names.join("+")
    }
}

impl Entrance {
    fn read(watermark: &str, format: String) -> Result<Self, SettingsError> {
        let raw: RawWatermark = serde_json::from_str(watermark).map_err(|error| unfit(WATERMARK, error.to_string()))?;
        let watermark = WatermarkSettings {
            delay: nanoseconds(&raw.delay)?,
            every: nanoseconds(&raw.every)?,
            max_future: nanoseconds(&raw.max_future)?,
        };
        Ok(Self { format, watermark, idle: nanoseconds(&raw.idle)? })
    }
}

/// Reads what a function is told of its stages.
///
/// # Errors
/// Says what is wrong.
pub(crate) fn stages(text: &str) -> Result<Vec<StageSettings>, SettingsError> {
    let raw: Vec<RawStage> = serde_json::from_str(text).map_err(|error| unfit(STAGES, error.to_string()))?;
    if raw.is_empty() {
        return Err(unfit(STAGES, "there is no stage"));
    }
    let stage = |stage: RawStage| {
        let limits = Limits {
            memory_bytes_max: stage.memory_mib << 20,
            call_time_max: duration(STAGES, &stage.time_per_batch)?,
            ..Limits::default()
        };
        let settings = serde_json::Value::Object(stage.settings).to_string();
        Ok(StageSettings { name: stage.name, component: stage.component, settings, limits })
    };
    raw.into_iter().map(stage).collect()
}

fn nanoseconds(text: &str) -> Result<i64, SettingsError> {
    let duration = duration(WATERMARK, text)?;
    i64::try_from(duration.as_nanos()).map_err(|_| unfit(WATERMARK, format!("{text:?} is too long")))
}

fn duration(variable: &'static str, text: &str) -> Result<Duration, SettingsError> {
    humantime::parse_duration(text)
        .map_err(|_| unfit(variable, format!("{text:?} instead of a duration such as \"5s\"")))
}

fn unfit(variable: &'static str, message: impl Into<String>) -> SettingsError {
    SettingsError { variable, message: message.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn environment() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            (PIPELINE, "p"),
            (
                STAGES,
                r#"[{"name":"d","component":"dedup","settings":{"keep":"1h"},"memory_mib":64,"time_per_batch":"2s"}]"#,
            ),
            (PARTITIONS, "3"),
            ("TAPELINE_STATE_TABLE", "state"),
            ("TAPELINE_DEAD_LETTERS_TABLE", "dead"),
            ("TAPELINE_LEDGER_TABLE", "ledger"),
            ("TAPELINE_COMPONENTS_BUCKET", "components"),
            ("TAPELINE_IN_QUEUE_URL", "https://in"),
        ])
    }

    fn read(changes: &[(&'static str, &'static str)]) -> Result<Settings, String> {
        let mut environment = environment();
        environment.extend(changes.iter().copied());
        Settings::read(|name| environment.get(name).map(ToString::to_string)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_environment_is_read() {
        let settings = read(&[]).unwrap();
        assert_eq!((settings.name(), settings.partitions, settings.out_queue.as_deref()), ("d", 3, None));
        assert!(settings.entrance.is_none());
        let stage = &settings.stages[0];
        assert_eq!((stage.component.as_str(), stage.settings.as_str()), ("dedup", r#"{"keep":"1h"}"#));
        assert_eq!((stage.limits.memory_bytes_max, stage.limits.call_time_max), (64 << 20, Duration::from_secs(2)));
        let first = [(WATERMARK, r#"{"delay":"2s","every":"1s","max_future":"10s"}"#), (FORMAT, "binance")];
        let entrance = read(&first).unwrap().entrance.unwrap();
        assert_eq!((entrance.watermark.delay, entrance.idle), (2_000_000_000, 5_000_000_000));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (variable, value, says) in [
            (PIPELINE, "", "TAPELINE_PIPELINE: is not set"),
            (PARTITIONS, "0", "TAPELINE_PARTITIONS: \"0\" instead of 1 to 256"),
            (STAGES, "[]", "TAPELINE_STAGES: there is no stage"),
            (STAGES, "[{}]", "TAPELINE_STAGES: missing field `name`"),
            (ROWS_EXPIRE, "soon", "TAPELINE_ROWS_EXPIRE: \"soon\" instead of a duration"),
            (FORMAT, "binance", "TAPELINE_WATERMARK: is not set"),
        ] {
            let error = read(&[(variable, value)]).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
