//! A pipeline's stack: where its parts are, and what its stages were told.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Account, OperateError};
use crate::settings::{StageSettings, stages as read_stages};

/// What a function is told of its stages; see `settings.rs`.
const STAGES_VARIABLE: &str = "TAPELINE_STAGES";

/// A stack that was deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Its name, such as `tapeline-bitcoin-trades`.
    pub name: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Parts into which symbols are divided.
    pub partitions: u32,
    /// What its functions run on: `x86_64` or `arm64`.
    pub architecture: String,
    /// Which engines run in them, as the compiler of their package says.
    pub engines: String,
    /// The bucket of components.
    pub components_bucket: String,
    /// The table of the state.
    pub state_table: String,
    /// The table of the ledger.
    pub ledger_table: String,
    /// The table of rows.
    pub rows_table: String,
    /// Its functions, in the order of the data.
    pub segments: Vec<Segment>,
}

/// A function of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The names of its stages, in the order of the data.
    pub stages: Vec<String>,
    /// The address of the queue of what it could not take.
    pub dead_letter_queue: String,
}

impl Segment {
    /// Its name: those of its stages.
    pub fn name(&self) -> String {
        self.stages.join("+")
    }
}

impl Stack {
    /// Finds a stack by its name.
    ///
    /// # Errors
    /// `Wrong` when there is none, or it is none of a pipeline.
    pub async fn find(account: &Account, name: &str) -> Result<Self, OperateError> {
        let region = &account.region;
        let doing = || format!("find stack {name} in {region}");
        let described = account.stacks.describe_stacks().stack_name(name).send().await.map_err(|error| match error
            .as_service_error()
            .and_then(|error| error.meta().message())
        {
            Some(said) if said.contains("does not exist") => OperateError::wrong(format!(
                "find stack {name} in {region}: there is none of the name; the CDK calls the one of a pipeline \
                     tapeline-PIPELINE, and AWS_REGION says where to look"
            )),
            _ => OperateError::refused(doing(), &error),
        })?;
        let stack = described.stacks.unwrap_or_default().into_iter().next();
        let outputs = stack.and_then(|stack| stack.outputs).unwrap_or_default();
        let pairs = outputs.into_iter().filter_map(|output| Some((output.output_key?, output.output_value?)));
        Self::of_outputs(name, &pairs.collect())
    }

    /// The stack that has these outputs.
    ///
    /// # Errors
    /// `Wrong` when one is missing, or is not what it should be.
    pub fn of_outputs(name: &str, outputs: &BTreeMap<String, String>) -> Result<Self, OperateError> {
        let unfit = |what: String| {
            OperateError::wrong(format!(
                "use stack {name}: {what}; it is of no pipeline, or was deployed by another version of Tapeline"
            ))
        };
        let output = |key: &str| outputs.get(key).cloned().ok_or_else(|| unfit(format!("it has no output {key}")));
        let json = output("Segments")?;
        let segments: Vec<Vec<String>> =
            serde_json::from_str(&json).map_err(|error| unfit(format!("its output Segments is {json:?}: {error}")))?;
        let segment = |stages: Vec<String>| {
            let dead_letter_queue = output(&format!("DeadLetterQueue{}", pascal(&stages.join("+"))))?;
            Ok(Segment { stages, dead_letter_queue })
        };
        let partitions = output("Partitions")?;
        Ok(Self {
            name: name.to_owned(),
            pipeline: output("PipelineName")?,
            partitions: partitions
                .parse()
                .map_err(|_| unfit(format!("its output Partitions is {partitions:?} instead of a number")))?,
            architecture: output("Architecture")?,
            engines: output("Engines")?,
            components_bucket: output("ComponentsBucket")?,
            state_table: output("StateTable")?,
            ledger_table: output("LedgerTable")?,
            rows_table: output("RowsTable")?,
            segments: segments.into_iter().map(segment).collect::<Result<_, OperateError>>()?,
        })
    }

    /// The names of all stages, in the order of the data.
    pub fn stages(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.segments.iter().flat_map(|segment| &segment.stages).map(String::as_str)
    }

    /// The function of a stage.
    ///
    /// # Errors
    /// `Wrong` when no stage has the name; says which there are.
    pub fn segment_of(&self, stage: &str) -> Result<&Segment, OperateError> {
        let found = self.segments.iter().find(|segment| segment.stages.iter().any(|name| name == stage));
        found.ok_or_else(|| {
            let known = self.stages().collect::<Vec<_>>().join(", ");
            OperateError::wrong(format!("find stage {stage} in stack {}: its stages are {known}", self.name))
        })
    }

    /// What a stage was told when the stack was deployed.
    ///
    /// # Errors
    /// `Wrong` when the template does not say it.
    pub async fn settings_of(&self, account: &Account, stage: &str) -> Result<StageSettings, OperateError> {
        let doing = || format!("read the template of stack {}", self.name);
        let asked = account.stacks.get_template().stack_name(&self.name).send().await;
        let template = asked.map_err(|error| OperateError::refused(doing(), &error))?.template_body;
        settings_in(&template.unwrap_or_default(), stage)
            .map_err(|reason| OperateError::wrong(format!("{}: {reason}", doing())))
    }
}

fn settings_in(template: &str, stage: &str) -> Result<StageSettings, String> {
    let template: Value = serde_json::from_str(template).map_err(|error| error.to_string())?;
    let resources = template["Resources"].as_object().ok_or("it has no resources")?;
    let functions = resources.values().filter(|resource| resource["Type"] == "AWS::Lambda::Function");
    let told =
        functions.filter_map(|function| function["Properties"]["Environment"]["Variables"][STAGES_VARIABLE].as_str());
    for stages in told {
        let stages = read_stages(stages).map_err(|error| error.to_string())?;
        if let Some(found) = stages.into_iter().find(|found| found.name == stage) {
            return Ok(found);
        }
    }
    Err(format!("no function is told of stage {stage}"))
}

/// As in `infra/cdk/src/pipeline-stack.ts`: the name of an output has letters and digits only.
fn pascal(name: &str) -> String {
    let mut is_first = true;
    let mut pascal = String::with_capacity(name.len());
    for letter in name.chars() {
        let is_kept = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        match (is_kept, is_first) {
            (true, true) => pascal.push(letter.to_ascii_uppercase()),
            (true, false) => pascal.push(letter),
            (false, _) => {}
        }
        is_first = !is_kept;
    }
    pascal
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outputs() -> BTreeMap<String, String> {
        [
            ("PipelineName", "p"),
            ("Partitions", "3"),
            ("Architecture", "x86_64"),
            ("Engines", "0123456789abcdef"),
            ("ComponentsBucket", "components"),
            ("StateTable", "state"),
            ("LedgerTable", "ledger"),
            ("RowsTable", "rows"),
            ("Segments", r#"[["fetch"],["a-b","enrich"],["write"]]"#),
            ("DeadLetterQueueFetch", "https://fetch"),
            ("DeadLetterQueueABEnrich", "https://middle"),
            ("DeadLetterQueueWrite", "https://write"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn a_stack_is_what_its_outputs_say() {
        let stack = Stack::of_outputs("s", &outputs()).unwrap();
        assert_eq!(stack.stages().collect::<Vec<_>>(), ["fetch", "a-b", "enrich", "write"]);
        let segment = stack.segment_of("enrich").unwrap();
        assert_eq!((segment.name().as_str(), segment.dead_letter_queue.as_str()), ("a-b+enrich", "https://middle"));
        assert_eq!((stack.partitions, stack.pipeline.as_str()), (3, "p"));
        let error = stack.segment_of("alarm").unwrap_err().to_string();
        assert_eq!(error, "find stage alarm in stack s: its stages are fetch, a-b, enrich, write");
    }

    #[test]
    fn a_stack_that_is_of_no_pipeline_is_refused_with_what_it_lacks() {
        for key in outputs().keys() {
            let mut outputs = outputs();
            outputs.remove(key);
            let error = Stack::of_outputs("s", &outputs).unwrap_err().to_string();
            assert!(error.contains(&format!("it has no output {key};")), "{error}");
        }
        for (key, value) in [("Partitions", "many"), ("Segments", "fetch")] {
            let mut outputs = outputs();
            outputs.insert(key.to_owned(), value.to_owned());
            let error = Stack::of_outputs("s", &outputs).unwrap_err().to_string();
            assert!(error.contains(&format!("its output {key} is {value:?}")), "{error}");
        }
    }

    #[test]
    fn a_template_says_what_a_stage_was_told() {
        let function = |stages: &str| serde_json::json!({ "Type": "AWS::Lambda::Function", "Properties": { "Environment": { "Variables": { STAGES_VARIABLE: stages } } } });
        let stage = |name: &str| {
            format!(r#"{{"name":"{name}","component":"c","settings":{{"x":1}},"memory_mib":64,"time_per_batch":"2s"}}"#)
        };
        let template = serde_json::json!({ "Resources": {
            "Other": { "Type": "AWS::SQS::Queue", "Properties": {} },
            "Emptying": { "Type": "AWS::Lambda::Function", "Properties": {} },
            "A": function(&format!("[{}]", stage("fetch"))),
            "B": function(&format!("[{},{}]", stage("dedup"), stage("enrich"))),
        }});
        let found = settings_in(&template.to_string(), "enrich").unwrap();
        assert_eq!((found.settings.as_str(), found.limits.call_time_max), (r#"{"x":1}"#, Duration::from_secs(2)));
        assert_eq!(settings_in(&template.to_string(), "alarm").unwrap_err(), "no function is told of stage alarm");
        assert!(settings_in("---", "alarm").is_err());
    }
}
