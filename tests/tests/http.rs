//! The HTTP interface of a live pipeline, as a client sees it: every route, over a socket.

#![allow(clippy::panic, clippy::unwrap_used, reason = "it is all a test")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tapeline::{
    metrics::Metrics,
    pipeline::{Components, Invoker, Live, LiveOptions, Rollout, spec::Pipeline},
    runtime::{CompiledCache, Engine},
    store::SqliteStore,
    trigger::http::{Admin, AdminToken, Api, ApiParts, Readiness, serve},
};
use tapeline_invoke::admit::{RECORDS_MAX, SESSIONS_MAX};
use tapeline_tests::program;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

/// What shows that one may keep sessions.
const TOKEN: &str = "a-token-of-this-test-alone";

/// How long a pipeline may take to work off what a test sends; it takes some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A live pipeline behind a socket.
struct Server {
    base: String,
    client: ureq::Agent,
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    _live: Arc<Live>,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn lines(&self) -> Vec<Value> {
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn count(&self, name: &str) -> u64 {
        self.headers[format!("tapeline-{name}").as_str()].to_str().unwrap().parse().unwrap()
    }

    fn balances(&self) -> bool {
        let fates = ["out", "duplicate", "late", "dropped", "dead"];
        self.count("in") == fates.iter().map(|fate| self.count(fate)).sum::<u64>()
    }

    fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        self.json()["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned()
    }
}

impl Server {
    fn start(stages: &str) -> Self {
        let text = format!("name = \"p\"\n[watermark]\nidle = \"100ms\"\n[commit]\nevery = \"20ms\"\n{stages}");
        let pipeline = Pipeline::parse(Path::new("/p.toml"), &text).unwrap();
        let engine = Engine::new(CompiledCache::of_user()).unwrap();
        let components = Components::load(&engine, &pipeline, Some(&program::components())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let store = SqliteStore::open(folder.path()).unwrap();
        let rollout = Rollout::embedded(&engine, &pipeline, components, folder.path(), &metrics).unwrap();
        let invokers = rollout.live().into_iter().map(|stage| Invoker::of_live(rollout.clone(), stage)).collect();
        let live = Live::start(LiveOptions {
            pipeline,
            rollout: rollout.clone(),
            data: folder.path().to_owned(),
            store,
            observer: Box::new(metrics.clone()),
            with_source: false,
            chain: None,
        });
        let live = Arc::new(live.unwrap());
        let api = Arc::new(Api::new(ApiParts {
            pipeline: "p".to_owned(),
            invokers,
            admin: Some(Admin { token: AdminToken::new(TOKEN).unwrap(), rollout: rollout.clone() }),
            rollout: Some(rollout),
            intake: Box::new(live.ingest()),
            hub: live.hub(),
            folder: folder.path().to_owned(),
            stack: None,
            metrics,
            readiness: Box::new({
                let live = Arc::clone(&live);
                move || Readiness {
                    not_ready: (!live.is_ready()).then(|| "catching up".to_owned()),
                    waiting: live.waiting(),
                }
            }),
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let served = runtime.spawn(serve(listener, api, shutdown));
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        let server = Self { base, client: config.build().into(), runtime, stop, served, _live: live, _folder: folder };
        server.wait_for("the pipeline to be ready", |server| server.get("/readyz").status == 200);
        server
    }

    fn chain() -> Self {
        Self::start(
            "[[stages]]\nname = \"fetch\"\n[[stages]]\nname = \"dedup\"\n[[stages]]\nname = \"aggregate\"\n\
             [stages.settings]\nbars = [\"1m\"]\n[[stages]]\nname = \"write\"\n",
        )
    }

    fn get(&self, path: &str) -> Answer {
        answer(self.client.get(format!("{}{path}", self.base)).call().unwrap())
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base));
        answer(request.header("authorization", format!("Bearer {TOKEN}")).send(body).unwrap())
    }

    /// Rows in the table of trades, which is not there before the first one.
    fn rows(&self) -> usize {
        let answer = self.get("/tables/trades?format=ndjson");
        if answer.status == 200 { answer.lines().len() } else { 0 }
    }

    fn wait_for(&self, what: &str, mut is_done: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !is_done(self) {
            assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server, which must not take long whoever is connected.
    fn stop(self) {
        let started = Instant::now();
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.served).unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

fn answer(mut answer: ureq::http::Response<ureq::Body>) -> Answer {
    Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        text: answer.body_mut().with_config().limit(64 << 20).read_to_string().unwrap(),
    }
}

/// A trade of one second and id.
fn trade(id: u64) -> String {
    let (minute, second) = (id / 60, id % 60);
    format!(
        r#"{{"kind":"trade","symbol":"X","time":"2024-08-08T12:{minute:02}:{second:02}Z","source":"s","id":{id},"price":{}}}"#,
        100 + id
    )
}

fn lines(ids: &[u64]) -> String {
    ids.iter().map(|id| trade(*id) + "\n").collect()
}

#[test]
fn a_stage_is_called_without_leaving_anything_behind() {
    let server = Server::chain();
    let first = server.post("/stages/dedup/invoke", &lines(&[1, 2, 1]));
    assert_eq!((first.status, first.count("in"), first.count("out"), first.count("duplicate")), (200, 3, 2, 1));
    assert!(first.balances());
    assert_eq!(first.text, lines(&[1, 2]));
    let again = server.post("/stages/dedup/invoke", &lines(&[1, 2, 1]));
    assert_eq!(again.text, first.text);
    let array = format!("[{}, {},\n {}]", trade(1), trade(2), trade(1));
    assert_eq!(server.post("/stages/dedup/invoke", &array).text, first.text);
    let quote = r#"{"kind":"quote","symbol":"X","time":"2024-08-08T12:00:00Z","source":"s","bid":1,"ask":2}"#;
    let mixed = server.post("/stages/aggregate/invoke", &format!("{quote}\n"));
    assert_eq!((mixed.text.as_str(), mixed.count("out")), (format!("{quote}\n").as_str(), 1));
    assert_eq!(server.post("/stages/dedup/invoke", "").text, "");
}

#[test]
fn a_watermark_reaches_only_the_call_that_it_is_in() {
    let server = Server::chain();
    let mark = r#"{"kind":"watermark","time":"2024-08-08T12:30:00Z"}"#;
    let closed = server.post("/stages/aggregate/invoke", &format!("{}{mark}\n{}", lines(&[1]), lines(&[2])));
    let bars: Vec<Value> = closed.lines().into_iter().filter(|line| line["kind"] == "bar").collect();
    assert!(bars.iter().any(|bar| bar["final"] == true), "{}", closed.text);
    assert_eq!((closed.count("late"), closed.balances()), (1, true));
    let late = closed.lines().pop().unwrap();
    assert_eq!((&late["kind"], &late["fate"], &late["event"]["id"]), (&json!("reject"), &json!("late"), &json!(2)));
    let next = server.post("/stages/aggregate/invoke", &lines(&[2]));
    assert_eq!(next.count("late"), 0, "{}", next.text);
}

#[test]
fn a_session_keeps_the_state_of_a_stage() {
    let server = Server::chain();
    let call =
        |session: &str, ids: &[u64]| server.post(&format!("/stages/dedup/invoke?session={session}"), &lines(ids));
    assert_eq!(call("a", &[1, 2]).count("out"), 2);
    assert_eq!(call("b", &[1]).count("out"), 1);
    assert_eq!((call("a", &[1, 2, 3]).text, call("a", &[4]).text), (lines(&[3]), lines(&[4])));
    // A body that cannot be read changes nothing.
    let bad = server.post("/stages/dedup/invoke?session=b", &format!("{}{{}}\n", lines(&[2])));
    assert_eq!((bad.status, bad.problem().as_str()), (400, "bad-body"));
    assert!(bad.json()["detail"].as_str().unwrap().starts_with("line 2: "), "{}", bad.text);
    assert_eq!(call("b", &[1, 2]).text, lines(&[2]));
    for number in 2..SESSIONS_MAX {
        assert_eq!(call(&format!("n{number}"), &[1]).status, 200);
    }
    let full = call("one-more", &[1]);
    assert_eq!((full.status, full.problem().as_str()), (429, "too-many-sessions"));
    assert_eq!(call("", &[1]).problem(), "bad-parameter");
}

/// Instances serve one call after the other: what one has left in them is nothing to a session.
#[test]
fn a_session_takes_nothing_of_other_calls() {
    let server = Server::chain();
    let average = r#"{"kind":"average","symbol":"X","time":"2024-08-08T12:00:01Z","source":"s","id":1,"price":1,"window":"5m","count":1,"average":1}"#;
    for round in 0..8 {
        let in_session = |body: &str| server.post(&format!("/stages/dedup/invoke?session={round}"), body);
        assert_eq!(server.post("/stages/dedup/invoke", &lines(&[1, 2])).count("out"), 2);
        // dedup does not take it, and is asked for its changes all the same.
        assert_eq!(in_session(average).status, 200);
        assert_eq!(in_session(&lines(&[1, 2])).count("duplicate"), 0, "round {round}");
        assert_eq!(in_session(&lines(&[1, 2])).count("duplicate"), 2, "round {round}");
    }
}

#[test]
fn a_stage_is_called_with_so_many_records_at_most() {
    let server = Server::chain();
    let many = server.post("/stages/fetch/invoke?format=binance", &"x\n".repeat(RECORDS_MAX + 1));
    assert_eq!((many.status, many.problem().as_str()), (400, "bad-body"));
    let all = server.post("/stages/fetch/invoke?format=binance", &"x\n".repeat(RECORDS_MAX));
    assert_eq!((all.status, all.count("dead")), (200, RECORDS_MAX as u64));
}

#[test]
fn frames_go_in_and_rows_come_out() {
    let server = Server::chain();
    let frame = r#"{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":7,"p":"61837.63","q":"0.02","T":1723161255342,"m":true,"M":true}"#;
    let body = format!("1723161255400000000 {frame}\nnot a frame\n");
    let decoded = server.post("/stages/fetch/invoke?format=binance", &body);
    assert_eq!((decoded.count("in"), decoded.count("out"), decoded.count("dead")), (2, 1, 1), "{}", decoded.text);
    let found = decoded.lines();
    assert_eq!(
        (&found[0]["price"], &found[0]["received"]),
        (&json!(61837.63), &json!("2024-08-08T23:54:15.400000000Z"))
    );
    assert_eq!((&found[1]["kind"], &found[1]["record"]), (&json!("reject"), &json!("not a frame")));
    let written = server.post("/stages/write/invoke", &lines(&[1]));
    let found = written.lines();
    assert_eq!((&found[0]["table"], &found[0]["row"]["id"]), (&json!("trades"), &json!(1)));
    let append = found.iter().find(|line| line["kind"] == "append").unwrap();
    assert!(append["path"].as_str().unwrap().starts_with("trades/"), "{append}");
    assert!(append["text"].as_str().unwrap().ends_with('\n'), "{append}");
}

#[test]
fn events_are_stored_processed_and_read_back() {
    let server = Server::chain();
    let watched = server.client.get(format!("{}/subjects/p.dedup.0", server.base)).call().unwrap();
    let sent = server.post("/pipelines/p/events", &(lines(&[1, 2, 2, 90]) + "{\"kind\":\"nonsense\"}\n"));
    assert_eq!((sent.status, sent.json()), (202, json!({"accepted": 5, "last": 5})));
    let array = format!("[{}]", trade(91));
    assert_eq!(server.post("/pipelines/p/events", &array).json()["last"].as_u64().map(|last| last > 5), Some(true));
    server.wait_for("four rows", |server| server.rows() == 4);

    let first = BufReader::new(watched.into_body().into_reader()).lines().next().unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap()["id"], 1);
    assert!(server.get("/tables").json().as_array().unwrap().contains(&json!("trades")));
    let between = "from=2024-08-08T12:00:02Z&to=2024-08-08T12:01:31Z";
    let csv = server.get(&format!("/tables/trades?format=csv&symbol=X&{between}")).text;
    assert_eq!(csv.lines().next(), Some("symbol,time,id,price,size,source"));
    assert_eq!(csv.lines().filter_map(|line| line.split(',').nth(2)).collect::<Vec<_>>(), ["id", "2", "90"]);
    assert_eq!(server.get("/tables/trades?format=csv&symbol=Y").text.lines().count(), 1);
    assert_eq!(server.get("/tables/trades?limit=2").json().as_array().unwrap().len(), 2);
    assert_eq!(server.get("/tables/trades").json().as_array().unwrap().len(), 4);
    assert_eq!(server.get("/tables/nothing").problem(), "unknown-table");

    let letters = server.get("/dead-letters").json();
    assert_eq!((&letters[0]["stage"], &letters[0]["payload"]), (&json!("fetch"), &json!("{\"kind\":\"nonsense\"}")));
    assert_eq!(server.get("/dead-letters?from=2").json(), json!([]));
    let ledger = server.get("/ledger?by=stage").json();
    let dedup = ledger.as_array().unwrap().iter().find(|line| line["stage"] == "dedup").unwrap().clone();
    assert_eq!((&dedup["in"], &dedup["out"], &dedup["duplicate"]), (&json!(5), &json!(4), &json!(1)));
    assert!(server.get("/ledger").json().as_array().unwrap().iter().any(|line| line["day"] == "2024-08-08"));
    let metrics = server.get("/metrics").text;
    assert!(metrics.contains("tapeline_events_duplicate_total{stage=\"dedup\"} 1\n"), "{metrics}");
    assert!(server.get("/readyz").json()["watermark"].is_string());
    server.stop();
}

#[test]
fn a_quiet_pipeline_closes_its_bars_and_goes_on() {
    let server = Server::chain();
    server.post("/pipelines/p/events", &lines(&[1]));
    server.wait_for("the first row", |server| server.rows() == 1);
    let watermark = |server: &Server| server.get("/readyz").json()["watermark"].as_str().map(str::to_owned);
    let before = watermark(&server);
    server.wait_for("the clock to move the watermark", |server| watermark(server) > before);
    server.post("/pipelines/p/events", &lines(&[59]));
    server.wait_for("the second row", |server| server.rows() == 2);
}

#[test]
fn a_server_stops_though_somebody_watches() {
    let server = Server::chain();
    let watched = server.client.get(format!("{}/subjects/trades", server.base)).call().unwrap();
    let reader = thread::spawn(move || BufReader::new(watched.into_body().into_reader()).lines().count());
    assert!(server.get("/").text.contains("<title>Tapeline</title>"));
    assert_eq!(server.get("/healthz").text, "ok\n");
    assert_eq!(server.get("/openapi.json").json()["openapi"], "3.1.0");
    server.stop();
    assert_eq!(reader.join().unwrap(), 0);
}

#[test]
fn a_stage_that_fails_is_well_again_for_the_next_call() {
    let faulty = program::components().join("test/faulty.wasm");
    assert!(faulty.exists(), "{} is missing: `cargo xtask build` makes it", faulty.display());
    for (fault, says) in [("trap", "trapped"), ("loop", "longer than"), ("allocate", "memory")] {
        let server = Server::start(&format!(
            "[[stages]]\nname = \"fetch\"\n[[stages]]\nname = \"odd\"\ncomponent = {faulty:?}\nmemory_mib = 16\n\
             time_per_batch = \"200ms\"\nsettings = {{ fault = \"{fault}\", every = 10, remainder = 5 }}\n\
             [[stages]]\nname = \"write\"\n"
        ));
        let failed = server.post("/stages/odd/invoke?session=s", &lines(&[1, 5]));
        assert_eq!((failed.status, failed.problem().as_str()), (422, "stage-fault"));
        assert!(failed.json()["detail"].as_str().unwrap().contains(says), "{fault}: {}", failed.text);
        assert_eq!(server.post("/stages/odd/invoke?session=s", &lines(&[1, 2])).count("out"), 2);
    }
}
