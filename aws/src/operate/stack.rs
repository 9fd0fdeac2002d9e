//! A pipeline's functions: where their parts are, and what their stages were told.

use serde_json::Value;

use super::{Account, OperateError, outputs::Outputs};
use crate::settings::{StageSettings, stages as read_stages};

/// What a function is told of its stages; see `settings.rs`.
const STAGES_VARIABLE: &str = "TAPELINE_STAGES";

/// A stack that was deployed with functions.
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
    /// `Wrong` when there is none, it is none of a pipeline, or has no functions.
    pub async fn find(account: &Account, name: &str) -> Result<Self, OperateError> {
        Self::of(&Outputs::find(account, name).await?)
    }

    fn of(outputs: &Outputs) -> Result<Self, OperateError> {
        let name = &outputs.stack;
        if !outputs.has_functions() {
            return Err(OperateError::wrong(format!(
                "find the functions of stack {name}: it has none, only what hosts work on that run the stages; of these \
                 ask the hosts, without --aws"
            )));
        }
        let segment = |stages: Vec<String>| {
            let dead_letter_queue = outputs.text(&format!("DeadLetterQueue{}", pascal(&stages.join("+"))))?;
            Ok(Segment { stages, dead_letter_queue })
        };
        let segments: Vec<Vec<String>> = outputs.json("Segments")?;
        Ok(Self {
            name: name.clone(),
            pipeline: outputs.text("PipelineName")?,
            partitions: outputs.json("Partitions")?,
            architecture: outputs.text("Architecture")?,
            engines: outputs.text("Engines")?,
            components_bucket: outputs.text("ComponentsBucket")?,
            state_table: outputs.text("StateTable")?,
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
    use std::{collections::BTreeMap, time::Duration};

    use super::*;

    fn outputs() -> BTreeMap<String, String> {
        [
            ("PipelineName", "p"),
            ("Partitions", "3"),
            ("Architecture", "x86_64"),
            ("Engines", "0123456789abcdef"),
            ("ComponentsBucket", "components"),
            ("StateTable", "state"),
            ("Segments", r#"[["fetch"],["a-b","enrich"],["write"]]"#),
            ("DeadLetterQueueFetch", "https://fetch"),
            ("DeadLetterQueueABEnrich", "https://middle"),
            ("DeadLetterQueueWrite", "https://write"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn of(outputs: BTreeMap<String, String>) -> Result<Stack, OperateError> {
        Stack::of(&Outputs::new("s", outputs))
    }

    #[test]
    fn a_stack_is_what_its_outputs_say() {
        let stack = of(outputs()).unwrap();
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
            let error = of(outputs).unwrap_err().to_string();
            assert!(error.contains(&format!("it has no output {key};")), "{error}");
        }
        for (key, value) in [("Partitions", "many"), ("Segments", "fetch")] {
            let mut outputs = outputs();
            outputs.insert(key.to_owned(), value.to_owned());
            let error = of(outputs).unwrap_err().to_string();
            assert!(error.contains(&format!("its output {key} is {value:?}")), "{error}");
        }
    }

    #[test]
    fn a_stack_without_functions_is_told_from_one_that_is_of_no_pipeline() {
        let alone = [("Functions", "false"), ("PipelineName", "p"), ("Segments", "[]")];
        let error = of(alone.map(|(key, value)| (key.to_owned(), value.to_owned())).into()).unwrap_err();
        assert!(matches!(&error, OperateError::Wrong(_)), "{error:?}");
        assert!(error.to_string().starts_with("find the functions of stack s: it has none, "), "{error}");
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
