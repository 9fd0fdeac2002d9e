//! What the application says of itself, and what it refuses.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use anyhow::{Context, Result, anyhow, ensure};
use tapeline_invoke::admit::{RECORDS_MAX, SESSIONS_MAX};
use tapeline_spin_tests::{KeyValue, Manifest, Reuse, SpinApp, SpinServer};
use tapeline_tests::conformance::pipeline_settings;
use ureq::http::Request;

/// The token that applications here are started with.
pub(crate) const TOKEN: &str = "a-token-for-these-tests";
/// More than a body may have; whoever sends it is told before all of it has come.
const VAST: usize = 50 << 20;

static APP: LazyLock<Result<SpinApp>> = LazyLock::new(|| SpinApp::compile(Manifest::load(&root().join("spin.toml"))?));

/// An answer, as far as tests look at it.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
    /// `tapeline-...` headers, without that.
    pub(crate) counts: BTreeMap<String, u64>,
}

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The application, composed and compiled once.
pub(crate) fn app() -> Result<&'static SpinApp> {
    APP.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// Starts the application, with the token or without.
pub(crate) fn start(store: &KeyValue, reuse: Reuse) -> Result<SpinServer> {
    app()?.start(&BTreeMap::from([("admin_token".to_owned(), TOKEN.to_owned())]), store, reuse)
}

/// Asks for something.
pub(crate) fn ask(url: &str, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answered> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).max_idle_connections(0);
    let agent: ureq::Agent = config.build().into();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = agent.run(request.body(body)?).with_context(|| format!("ask {url}"))?;
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text("content-type").to_owned();
    let counts = answer.headers().iter().filter_map(|(name, value)| {
        Some((name.as_str().strip_prefix("tapeline-")?.to_owned(), value.to_str().ok()?.parse().ok()?))
    });
    let (status, counts) = (answer.status().as_u16(), counts.collect());
    Ok(Answered {
        status,
        content_type,
        counts,
        body: answer.body_mut().with_config().limit(1 << 30).read_to_string()?,
    })
}

pub(crate) fn settings_are_those_of_the_main_job() -> Result<()> {
    let manifest: toml::Table = toml::from_str(&fs::read_to_string(root().join("spin.toml"))?)?;
    for (stage, settings) in pipeline_settings()? {
        let default = manifest["variables"][format!("{stage}_settings").as_str()]["default"].as_str();
        let found: serde_json::Value = serde_json::from_str(default.context("a text")?)?;
        let wanted = serde_json::to_value(&settings)?;
        ensure!(found == wanted, "{stage} has {found} in spin.toml, {wanted} in pipelines/bitcoin-trades.toml");
    }
    let pipeline: toml::Table = toml::from_str(&fs::read_to_string(root().join("pipelines/bitcoin-trades.toml"))?)?;
    for key in ["delay", "every", "max_future"] {
        let found = &manifest["variables"][format!("watermark_{key}").as_str()]["default"];
        ensure!(*found == pipeline["watermark"][key], "watermark.{key} is {found}");
    }
    let stages = pipeline["stages"].as_array().context("stages")?;
    let stages: Vec<&str> = stages.iter().filter_map(|stage| stage["name"].as_str()).collect();
    ensure!(manifest["component"]["pipeline"]["variables"]["stages"].as_str() == Some(&stages.join(",")), "the stages");
    ensure!(manifest["component"]["pipeline"]["variables"]["pipeline"] == pipeline["name"], "the name");
    Ok(())
}

/// Stages are reached at their invocation and nowhere else: what only the pipeline may ask of them has no route.
pub(crate) fn every_component_has_one_route() -> Result<()> {
    let manifest = Manifest::load(&root().join("spin.toml"))?;
    let routes: BTreeMap<&str, String> =
        manifest.routes().map(|(route, component)| (component, route.to_string())).collect();
    ensure!(routes.len() == manifest.components().count() && routes.len() == manifest.routes().count(), "{routes:?}");
    for (component, route) in routes {
        let wanted = if component == "pipeline" { "/...".to_owned() } else { format!("/stages/{component}/invoke") };
        ensure!(route == wanted, "{component} is reached at {route}");
    }
    let server = start(&KeyValue::new(), Reuse::SPIN)?;
    for path in ["/pass", "/stages/dedup/pass", "/stages/dedup/invoke/pass"] {
        let answer = ask(&server.url(path), "POST", &[], b"x")?;
        ensure!(answer.status == 404 && answer.body.contains("unknown-route"), "{path}: {}", answer.body);
    }
    Ok(())
}

pub(crate) fn what_is_asked_wrongly_is_told_so() -> Result<()> {
    let server = start(&KeyValue::new(), Reuse::SPIN)?;
    let vast = vec![b'\n'; VAST];
    let many = "x\n".repeat(RECORDS_MAX + 1).into_bytes();
    let questions: [(&str, &str, &[u8], u16, &str); 13] = [
        ("GET", "/nothing", b"", 404, "unknown-route"),
        ("GET", "/stages", b"", 404, "unknown-route"),
        ("POST", "/stages/nobody/invoke", b"", 404, "unknown-stage"),
        ("POST", "/pipelines/nobody/events", b"{}", 404, "unknown-pipeline"),
        ("GET", "/pipelines/bitcoin-trades/events", b"", 405, "wrong-method"),
        ("POST", "/healthz", b"", 405, "wrong-method"),
        ("POST", "/pipelines/bitcoin-trades/events", b"\n\n", 400, "bad-body"),
        ("POST", "/pipelines/bitcoin-trades/events?formt=events", b"{}", 400, "bad-parameter"),
        ("POST", "/pipelines/bitcoin-trades/events?format=tapeline-x", b"{}", 400, "bad-parameter"),
        ("POST", "/pipelines/bitcoin-trades/events", &vast, 413, "body-too-large"),
        ("POST", "/stages/dedup/invoke", &vast, 413, "body-too-large"),
        ("POST", "/stages/fetch/invoke?format=binance", &many, 400, "bad-body"),
        ("POST", "/pipelines/bitcoin-trades/events?format=binance", &many, 400, "bad-body"),
    ];
    for (method, path, body, status, problem) in questions {
        let headers: &[(&str, &str)] = if body.len() == VAST { &[("expect", "100-continue")] } else { &[] };
        let answer = ask(&server.url(path), method, headers, body)?;
        ensure!(answer.status == status, "{method} {path}: {} {}", answer.status, answer.body);
        ensure!(answer.content_type == "application/problem+json", "{method} {path}: {}", answer.content_type);
        let told: serde_json::Value = serde_json::from_str(&answer.body)?;
        ensure!(told["type"] == format!("/problems/{problem}"), "{method} {path}: {told}");
        ensure!(told["instance"] == path.split('?').next().unwrap_or(path), "{told}");
    }
    let health = ask(&server.url("/healthz"), "GET", &[], b"")?;
    ensure!(health.status == 200 && health.body == "ok\n", "{} {}", health.status, health.body);
    // One line that is no event does not keep the others from getting through.
    let trade = r#"{"kind":"trade","symbol":"X","time":"2024-08-08T12:00:01Z","source":"s","id":1,"price":1.5}"#;
    let body = format!("{trade}\nno event\n");
    let answer = ask(&server.url("/pipelines/bitcoin-trades/events"), "POST", &[], body.as_bytes())?;
    ensure!(answer.status == 200 && answer.counts["in"] == 2 && answer.counts["dead"] == 1, "{:?}", answer.counts);
    ensure!(
        answer.body.contains(r#""kind":"reject","fate":"dead""#) && answer.body.contains("no event"),
        "{}",
        answer.body
    );
    Ok(())
}

pub(crate) fn sessions_need_the_token() -> Result<()> {
    let trade = br#"{"kind":"trade","symbol":"X","time":"2024-08-08T12:00:01Z","source":"s","id":1,"price":1.5}"#;
    let ask_in_session = |server: &SpinServer, headers: &[(&str, &str)]| {
        ask(&server.url("/stages/dedup/invoke?session=a"), "POST", headers, trade)
    };
    let closed = app()?.start(&BTreeMap::new(), &KeyValue::new(), Reuse::SPIN)?;
    let refused = ask_in_session(&closed, &[("authorization", "Bearer ")])?;
    ensure!(refused.status == 403 && refused.body.contains("admin-off"), "{} {}", refused.status, refused.body);
    let short = BTreeMap::from([("admin_token".to_owned(), "short".to_owned())]);
    let short = app()?.start(&short, &KeyValue::new(), Reuse::SPIN)?;
    let refused = ask_in_session(&short, &[("authorization", "Bearer short")])?;
    ensure!(refused.status == 403 && !refused.body.contains("\"short\""), "{} {}", refused.status, refused.body);
    let token = "0123456789abcdef";
    let variables = BTreeMap::from([("admin_token".to_owned(), token.to_owned())]);
    let store = KeyValue::new();
    let open = app()?.start(&variables, &store, Reuse::SPIN)?;
    for header in ["", "Bearer ", "Bearer 0123456789abcdeg", "Basic 0123456789abcdef"] {
        let refused = ask_in_session(&open, &[("authorization", header)])?;
        ensure!(
            refused.status == 401 && !refused.body.contains(token),
            "{header}: {} {}",
            refused.status,
            refused.body
        );
    }
    let shown = format!("Bearer {token}");
    for duplicates in [0, 1] {
        let answer = ask_in_session(&open, &[("authorization", &shown)])?;
        ensure!(answer.status == 200 && answer.counts["duplicate"] == duplicates, "{} {}", answer.status, answer.body);
    }
    // It survives a restart, and nobody stores the token.
    drop(open);
    let again = app()?.start(&variables, &store, Reuse::FRESH)?;
    let answer = ask_in_session(&again, &[("authorization", &shown)])?;
    ensure!(answer.counts["duplicate"] == 1, "{}", answer.body);
    let leaked = store
        .entries("default")
        .iter()
        .any(|(_, value)| value.windows(token.len()).any(|part| part == token.as_bytes()));
    ensure!(!leaked, "the token is in the store");
    Ok(())
}

pub(crate) fn sessions_have_limits() -> Result<()> {
    let server = start(&KeyValue::new(), Reuse::SPIN)?;
    let trade = br#"{"kind":"trade","symbol":"X","time":"2024-08-08T12:00:01Z","source":"s","id":1,"price":1.5}"#;
    let shown = format!("Bearer {TOKEN}");
    let call = |session: usize| {
        let url = server.url(&format!("/stages/dedup/invoke?session=s{session}"));
        ask(&url, "POST", &[("authorization", shown.as_str())], trade)
    };
    for session in 0..SESSIONS_MAX {
        let answer = call(session)?;
        ensure!(answer.status == 200 && answer.counts["duplicate"] == 0, "{} {}", answer.status, answer.body);
    }
    let refused = call(SESSIONS_MAX)?;
    ensure!(refused.status == 429 && refused.body.contains("too-many-sessions"), "{} {}", refused.status, refused.body);
    // Those that are there go on.
    let known = call(0)?;
    ensure!(known.status == 200 && known.counts["duplicate"] == 1, "{} {}", known.status, known.body);
    Ok(())
}
