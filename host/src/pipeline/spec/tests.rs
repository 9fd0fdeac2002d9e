use super::*;

fn parse(text: &str) -> Result<Pipeline> {
    Pipeline::parse(Path::new("pipelines/x.toml"), text)
}

const STAGES: &str = r#"
[[stages]]
name = "fetch"
[[stages]]
name = "write"
"#;

#[test]
fn the_default_of_everything() {
    let pipeline = parse(&format!("name = \"x\"{STAGES}")).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.format.as_str(), pipeline.source), ("x", "events", Source::None));
    let second = 1_000_000_000;
    let idle = Duration::from_secs(5);
    let watermark = Watermark { delay_ns: second, every_ns: second, max_future_ns: 10 * second, idle };
    assert_eq!(pipeline.watermark, watermark);
    assert_eq!(pipeline.commit, CommitRule { every: Duration::from_millis(200), records: 20_000 });
    let fetch = Stage {
        name: "fetch".to_owned(),
        component: ComponentRef::Name("fetch".to_owned()),
        limits: Limits::default(),
        settings: "{}".to_owned(),
    };
    assert_eq!(pipeline.stages[0], fetch);
}

#[test]
fn what_is_written_is_what_is_meant() {
    let pipeline = parse(
        r#"
name = "x"
source = { type = "simulator", symbols = ["A"], rate = 2 }
watermark.delay = "2s"
[[stages]]
name = "first"
component = "fetch"
memory_mib = 64
time_per_batch = "1m 30s"
[[stages]]
name = "write"
component = "../other/write.wasm"
settings = { text = "a", list = [1, 2.5, true], inner = { deep = {} } }
"#,
    )
    .unwrap();
    let simulator = SimulatorSettings { symbols: vec!["A".to_owned()], rate: 2.0, ..SimulatorSettings::default() };
    assert_eq!((pipeline.format.as_str(), pipeline.source), ("binance", Source::Simulator(simulator)));
    assert_eq!(pipeline.watermark.delay_ns, 2_000_000_000);
    let [first, write] = &pipeline.stages[..] else { panic!("two stages") };
    assert_eq!(first.component, ComponentRef::Name("fetch".to_owned()));
    assert_eq!((first.limits.memory_bytes_max, first.limits.call_time_max), (64 << 20, Duration::from_secs(90)));
    assert_eq!(write.component, ComponentRef::Path("../other/write.wasm".into()));
    assert_eq!(write.settings, r#"{"inner":{"deep":{}},"list":[1,2.5,true],"text":"a"}"#);
}

#[test]
fn what_only_aws_is_told_changes_nothing() {
    let plain = parse(&format!("name = \"x\"{STAGES}")).unwrap();
    let told = parse(&format!("name = \"x\"\n[aws]\npartitions = 8\nto_be = [1979-05-27, {{}}]{STAGES}")).unwrap();
    let of =
        |pipeline: Pipeline| format!("{:?}", (pipeline.nats, pipeline.stages, pipeline.watermark, pipeline.commit));
    assert_eq!(told.aws["partitions"].as_integer(), Some(8));
    assert_eq!(of(told), of(plain));
}

/// Bad files and what is said about them, after `pipelines/x.toml:`.
const WRONG: &[(&str, &str)] = &[
    // Text.
    ("name = bitcoin", "1: `name = bitcoin`: string values must be quoted, expected literal string"),
    ("name = \"x\"\n[source", "2: `[source`: unclosed table, expected `]`"),
    ("name = \"x\"\nname = \"y\"", "2: `name = \"y\"`: duplicate key"),
    // Keys.
    ("", "1: missing field `name`"),
    (
        "name = \"x\"\ncolour = 1",
        "2: colour: unknown field `colour`, expected one of `name`, `source`, `watermark`, `commit`, `nats`, `swap`, `aws`, `stages`",
    ),
    (
        "name = \"x\"\n[watermark]\ndelai = \"1s\"",
        "3: watermark.delai: unknown field `delai`, expected one of `delay`, `every`, `max_future`, `idle`",
    ),
    ("name = \"x\"\n[[stages]]\nname = \"a\"\n[[stages]]\nmemory_mib = 1", "4: stages[1]: missing field `name`"),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\nmemory = 1",
        "4: stages.a.memory: unknown field `memory`, expected one of `name`, `component`, `memory_mib`, `time_per_batch`, `settings`",
    ),
    // Types.
    ("name = 1", "1: name: invalid type: integer `1`, expected a string"),
    ("name = \"x\"\naws = 1", "2: aws: invalid type: integer `1`, expected a table"),
    (
        "name = \"x\"\n\n[commit]\nrecords = \"many\"",
        "4: commit.records: invalid type: string \"many\", expected a whole number >= 0",
    ),
    (
        "name = \"x\"\n[commit]\nrecords = -1",
        "3: commit.records: invalid value: integer `-1`, expected a whole number >= 0",
    ),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\nsettings = 1",
        "4: stages.a.settings: invalid type: integer `1`, expected a table",
    ),
    ("name = \"x\"\n[source]\ntype = \"nats\"", "3: source.type: \"nats\" instead of \"none\" or \"simulator\""),
    (
        "name = \"x\"\n[source]\ntype = \"simulator\"\nsymbols = [\"A\",\n 2]",
        "5: source.symbols[1]: invalid type: integer `2`, expected a string",
    ),
    ("name = \"x\"\n[source]\ntype = 5", "3: source.type: invalid type: integer `5`, expected a string"),
    (
        "name = \"x\"\nwatermark = { delay = 5 }",
        "2: watermark.delay: 5 is not a duration such as \"5m\", \"250ms\" or \"1h 30m\"",
    ),
    // Values.
    ("name = \"Bitcoin trades\"", "1: name: \"Bitcoin trades\" instead of 1 to 60 of a-z, 0-9 and -"),
    (
        "name = \"x\"\n[watermark]\ndelay = \"soon\"",
        "3: watermark.delay: \"soon\" is not a duration such as \"5m\", \"250ms\" or \"1h 30m\"",
    ),
    ("name = \"x\"\n[watermark]\nevery = \"0s\"", "3: watermark.every: \"0s\" instead of a duration from 1ns to 366d"),
    ("name = \"x\"\nwatermark.idle = \"2y\"", "2: watermark.idle: \"2y\" instead of a duration from 1ns to 366d"),
    ("name = \"x\"\n[commit]\nrecords = 0", "3: commit.records: 0 instead of 1 to 1000000"),
    ("name = \"x\"\n[source]\nformat = \"CSV\"", "3: source.format: \"CSV\" instead of 1 to 60 of a-z, 0-9 and -"),
    ("name = \"x\"\n[source]\nrate = 5", "3: source.rate: only with source.type = \"simulator\""),
    (
        "name = \"x\"\n[source]\ntype = \"simulator\"\nformat = \"finnhub\"",
        "4: source.format: \"finnhub\" instead of \"binance\", which is what the simulator speaks",
    ),
    (
        "name = \"x\"\n[source]\ntype = \"simulator\"\nsymbols = [\n  \"A\",\n  \"btc\",\n]",
        "6: source.symbols[1]: \"btc\" instead of 1 to 20 of A-Z and 0-9",
    ),
    (
        "name = \"x\"\n[source]\ntype = \"simulator\"\nsymbols = []",
        "4: source.symbols: [] instead of 1 to 1024 symbols",
    ),
    (
        "name = \"x\"\n[source]\ntype = \"simulator\"\nrate = 0",
        "4: source.rate: 0 instead of more than 0, at most 1000000",
    ),
    ("name = \"x\"\n[source]\ntype = \"simulator\"\nnoise = 1.5", "4: source.noise: 1.5 instead of 0 to 0.9"),
    // Stages.
    ("name = \"x\"", "1: stages: 0 stages instead of 2 to 32"),
    ("name = \"x\"\nstages = []", "2: stages: 0 stages instead of 2 to 32"),
    ("name = \"x\"\n[[stages]]\nname = \"a\"", "2: stages: 1 stages instead of 2 to 32"),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\n[[stages]]\nname = \"watermark\"",
        "5: stages.watermark.name: \"watermark\" instead of another name: the ledger calls our own step so",
    ),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\n[[stages]]\nname = \"a\"",
        "5: stages.a.name: \"a\" instead of a name that no other stage has",
    ),
    (
        "name = \"x\"\n[[stages]]\nname = \"a b\"\n[[stages]]\nname = \"a\"",
        "3: stages.a b.name: \"a b\" instead of 1 to 60 of a-z, 0-9 and -",
    ),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\ncomponent = \"dedup.py\"\n[[stages]]\nname = \"b\"",
        "4: stages.a.component: \"dedup.py\" instead of a name such as \"dedup\" or a path that ends in .wasm",
    ),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\nmemory_mib = 5000\n[[stages]]\nname = \"b\"",
        "4: stages.a.memory_mib: 5000 instead of 1 to 4096",
    ),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\ntime_per_batch = \"1ms\"\n[[stages]]\nname = \"b\"",
        "4: stages.a.time_per_batch: \"1ms\" instead of a duration from 10ms to 366d",
    ),
    // Settings that JSON cannot hold.
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\n[stages.settings]\nfrom = [\n1,\n2024-08-08]\n[[stages]]\nname = \"b\"",
        "7: stages.a.settings.from[1]: 2024-08-08 instead of a text: put it in quotes",
    ),
    (
        "name = \"x\"\n[[stages]]\nname = \"a\"\nsettings.deep.level = inf\n[[stages]]\nname = \"b\"",
        "4: stages.a.settings.deep.level: inf instead of a finite number",
    ),
];

#[test]
fn an_error_names_file_line_key_value_and_what_would_be_right() {
    for (text, expected) in WRONG {
        let error = parse(text).map(|pipeline| pipeline.name).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Invalid);
        assert_eq!(error.to_string(), format!("pipelines/x.toml:{expected}"), "in\n{text}");
    }
}

#[test]
fn too_many_stages_and_bytes_that_are_no_text() {
    let stages: String = (0..33).map(|at| format!("[[stages]]\nname = \"s{at}\"\n")).collect();
    let error = parse(&format!("name = \"x\"\n{stages}")).unwrap_err().to_string();
    assert_eq!(error, "pipelines/x.toml:2: stages: 33 stages instead of 2 to 32");
    let error = Document::new(Path::new("x.toml"), b"name = \"x\"\n# \xff".to_vec()).unwrap_err().to_string();
    assert_eq!(error, "x.toml:2: bytes that are not UTF-8");
}

#[test]
fn an_error_of_a_component_names_the_line_of_its_setting() {
    let pipeline = parse(
        r#"name = "x"
[[stages]]
name = "fetch"
[[stages]]
name = "aggregate"
[stages.settings]
windows = [
  "5m",
  "x",
]
[stages.settings.names."BINANCE:A.B"]
venue = "a:b"
[[stages]]
name = "write"
"#,
    )
    .unwrap();
    for (stage, key, expected) in [
        (1, "windows[1]", "9: stages.aggregate.settings.windows[1]: FOUND instead of RIGHT"),
        (1, "names.BINANCE:A.B.venue", "12: stages.aggregate.settings.names.BINANCE:A.B.venue: FOUND instead of RIGHT"),
        (1, "windows[7]", "7: stages.aggregate.settings.windows[7]: FOUND instead of RIGHT"),
        (1, "lateness", "6: stages.aggregate.settings.lateness: FOUND instead of RIGHT"),
        (1, ".", "6: stages.aggregate.settings: FOUND instead of RIGHT"),
        (1, "", "6: stages.aggregate.settings: FOUND instead of RIGHT"),
        (0, "wrong", "2: stages.fetch.settings.wrong: FOUND instead of RIGHT"),
    ] {
        let error = pipeline.setting_error(stage, key, "FOUND", "RIGHT");
        assert_eq!(error.to_string(), format!("pipelines/x.toml:{expected}"));
    }
}

#[test]
fn a_file_that_is_not_there() {
    let error = Pipeline::load(Path::new("/nowhere/x.toml")).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (crate::error::Kind::NotFound, "read pipeline /nowhere/x.toml")
    );
}

#[test]
fn the_pipelines_that_come_with_it_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        let pipeline = Pipeline::load(&file).unwrap();
        assert_eq!(file.file_stem().unwrap().to_str(), Some(pipeline.name.as_str()));
    }
}
