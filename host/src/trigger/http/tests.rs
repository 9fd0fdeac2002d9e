//! The routes without a pipeline: problems, limits, and the description. With one: `tests/tests/http.rs`.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use serde_json::Value;
use tower::ServiceExt;

use super::{Api, ApiParts, Appending, BODY_BYTES_MAX, Intake, Readiness, openapi::DOCUMENT, problem::What, router};
use crate::{
    error::{Error, Kind},
    metrics::Metrics,
    pipeline::{Hub, IngestError},
    segment::Tapped,
    store::JournalRecord,
};

/// Keeps what it is given, or answers with an error.
#[derive(Default)]
struct FakeIntake {
    records: Arc<Mutex<Vec<JournalRecord>>>,
    error: Mutex<Option<IngestError>>,
}

impl Intake for FakeIntake {
    fn append(&self, records: Vec<JournalRecord>) -> Appending<'_> {
        Box::pin(async move {
            if let Some(error) = self.error.lock().unwrap().take() {
                return Err(error);
            }
            let mut all = self.records.lock().unwrap();
            all.extend(records);
            Ok(all.len() as u64)
        })
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that it is this problem, told completely.
    fn is_problem(&self, what: What, path: &str) {
        let document = self.json();
        assert_eq!(document["type"], what.uri(), "{document}");
        assert_eq!(document["status"], self.status.as_u16());
        assert_eq!(document["instance"], path);
        assert!(document["title"].is_string() && document["detail"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
    }
}

fn api_with(intake: FakeIntake, not_ready: Option<&str>) -> Arc<Api> {
    let not_ready = not_ready.map(str::to_owned);
    let stages = ["fetch", "dedup", "write"].map(str::to_owned).to_vec();
    Arc::new(Api::new(ApiParts {
        pipeline: "p".to_owned(),
        invokers: Vec::new(),
        intake: Box::new(intake),
        hub: Hub::new("p", stages),
        folder: Path::new("/nonexistent/tapeline").to_owned(),
        stack: None,
        metrics: Metrics::new(),
        readiness: Box::new(move || Readiness { not_ready: not_ready.clone(), waiting: 3 }),
        rollout: None,
        admin: None,
    }))
}

fn api() -> Arc<Api> {
    api_with(FakeIntake::default(), None)
}

async fn send(api: &Arc<Api>, request: Request<Body>) -> Answer {
    let answer = router(Arc::clone(api)).oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let api = api();
    send(&api, get("/nothing/here?x=1")).await.is_problem(What::UnknownRoute, "/nothing/here");
    let answer = send(&api, post("/healthz", "")).await;
    answer.is_problem(What::WrongMethod, "/healthz");
    assert_eq!(answer.headers[header::ALLOW], "GET,HEAD");
    send(&api, post("/stages/odd/invoke", "")).await.is_problem(What::UnknownStage, "/stages/odd/invoke");
    send(&api, post("/pipelines/q/events", "x")).await.is_problem(What::UnknownPipeline, "/pipelines/q/events");
    send(&api, get("/subjects/odd")).await.is_problem(What::UnknownSubject, "/subjects/odd");
    send(&api, get("/tables/bars")).await.is_problem(What::UnknownTable, "/tables/bars");
    send(&api, get("/ledger")).await.is_problem(What::Unavailable, "/ledger");
}

#[tokio::test]
async fn parameters_are_checked() {
    let api = api();
    for path in [
        "/tables/bars?from=yesterday",
        "/tables/bars?limit=0",
        "/tables/bars?limit=100001",
        "/tables/bars?limit=x",
        "/tables/bars?format=xml",
        "/tables/bars?fron=2024-08-08T00:00:00Z",
        "/dead-letters?limit=1001",
        "/ledger?by=moon",
    ] {
        let answer = send(&api, get(path)).await;
        answer.is_problem(What::BadParameter, path.split('?').next().unwrap());
    }
    for path in ["/pipelines/p/events?format=tapeline-cursor", "/pipelines/p/events?formad=x"] {
        send(&api, post(path, "x")).await.is_problem(What::BadParameter, "/pipelines/p/events");
    }
}

#[tokio::test]
async fn records_are_taken_once_they_are_stored() {
    let intake = FakeIntake::default();
    let records = Arc::clone(&intake.records);
    let api = api_with(intake, None);
    let answer = send(&api, post("/pipelines/p/events?format=binance", "{\"a\":1}\n\n{\"b\":2}\n")).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, serde_json::json!({"accepted": 2, "last": 2})));
    let records = records.lock().unwrap();
    assert_eq!(records[1].bytes, b"{\"b\":2}");
    assert_eq!((records[0].format.as_str(), &records[0].stage), ("binance", &None));
    assert!(records[0].received.is_some());
}

#[tokio::test]
async fn records_that_are_not_taken_are_a_problem() {
    for (error, what, may_retry) in [
        (IngestError::Full { waiting: 7 }, What::PipelineFull, true),
        (IngestError::Stopped, What::PipelineStopped, true),
        (IngestError::Elsewhere, What::UnknownRoute, false),
        (IngestError::Store(Error::new(Kind::Unavailable, "write")), What::Unavailable, true),
        (IngestError::Store(Error::new(Kind::Corrupt, "write")), What::Internal, false),
    ] {
        let api = api_with(FakeIntake { error: Mutex::new(Some(error)), ..FakeIntake::default() }, None);
        let answer = send(&api, post("/pipelines/p/events", "x")).await;
        answer.is_problem(what, "/pipelines/p/events");
        assert_eq!(answer.headers.contains_key(header::RETRY_AFTER), may_retry);
    }
    send(&api(), post("/pipelines/p/events", "\n")).await.is_problem(What::BadBody, "/pipelines/p/events");
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let api = api();
    let body = "{\"a\":1}\n".repeat(BODY_BYTES_MAX / 8);
    // Fewer records than a request may have, at the limit of bytes.
    let lines = |length: usize| format!("{}\n", "x".repeat(length - 1));
    let at_limit = lines(1 << 19).repeat(BODY_BYTES_MAX >> 19);
    assert_eq!(at_limit.len(), BODY_BYTES_MAX);
    assert_eq!(send(&api, post("/pipelines/p/events", at_limit.clone())).await.status, StatusCode::ACCEPTED);
    let above = send(&api, post("/pipelines/p/events", at_limit.clone() + "x")).await;
    above.is_problem(What::BodyTooLarge, "/pipelines/p/events");
    // The same when the length is not announced.
    let chunks = |text: String| {
        let chunks = [Ok::<_, std::io::Error>(text), Ok("x".to_owned())];
        Body::from_stream(tokio_stream::iter(chunks))
    };
    let above = send(&api, post("/pipelines/p/events", chunks(at_limit))).await;
    above.is_problem(What::BodyTooLarge, "/pipelines/p/events");
    let too_many = send(&api, post("/pipelines/p/events", body)).await;
    too_many.is_problem(What::BadBody, "/pipelines/p/events");
}

#[tokio::test]
async fn content_that_is_no_text_is_refused() {
    let api = api();
    let request = |name, value| Request::post("/pipelines/p/events").header(name, value).body(Body::from("x")).unwrap();
    for (name, value) in [(header::CONTENT_TYPE, "multipart/form-data; boundary=x"), (header::CONTENT_ENCODING, "gzip")]
    {
        send(&api, request(name, value)).await.is_problem(What::WrongContent, "/pipelines/p/events");
    }
    for value in ["application/x-ndjson", "Application/JSON; charset=utf-8", "application/x-www-form-urlencoded"] {
        assert_eq!(send(&api, request(header::CONTENT_TYPE, value)).await.status, StatusCode::ACCEPTED, "{value}");
    }
}

#[tokio::test]
async fn a_pipeline_says_whether_it_is_ready() {
    let ready = send(&api(), get("/readyz")).await;
    assert_eq!((ready.status, &ready.json()["waiting"]), (StatusCode::OK, &3.into()));
    let catching_up = api_with(FakeIntake::default(), Some("catching up"));
    let answer = send(&catching_up, get("/readyz")).await;
    answer.is_problem(What::NotReady, "/readyz");
    assert_eq!(answer.json()["detail"], "catching up");
    assert_eq!(send(&catching_up, get("/healthz")).await.status, StatusCode::OK);
    let metrics = send(&catching_up, get("/metrics")).await;
    assert!(String::from_utf8(metrics.body).unwrap().contains("tapeline_journal_waiting_records 3\n"));
}

#[tokio::test]
async fn a_subject_is_watched_until_the_server_stops() {
    let api = api();
    let answer = router(Arc::clone(&api)).oneshot(get("/subjects/trades")).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let lines = ["{\"kind\":\"trade\",\"n\":1}", "{\"kind\":\"quote\"}", "{\"kind\":\"trade\",\"n\":2}"];
    let lines = lines.map(str::to_owned).to_vec();
    api.hub.publish(vec![Tapped { stage: "dedup".to_owned(), lines }]);
    let mut chunks = answer.into_body().into_data_stream();
    let chunk = futures_util::StreamExt::next(&mut chunks).await.unwrap().unwrap();
    assert_eq!(chunk, "{\"kind\":\"trade\",\"n\":1}\n{\"kind\":\"trade\",\"n\":2}\n");
    api.stop();
    assert!(futures_util::StreamExt::next(&mut chunks).await.is_none());
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_missed() {
    let api = api();
    let answer = router(Arc::clone(&api)).oneshot(get("/subjects/dedup")).await.unwrap();
    let lines = (0..10_000).map(|number| format!("{{\"n\":{number}}}")).collect();
    api.hub.publish(vec![Tapped { stage: "dedup".to_owned(), lines }]);
    let mut chunks = answer.into_body().into_data_stream();
    let chunk = futures_util::StreamExt::next(&mut chunks).await.unwrap().unwrap();
    let text = String::from_utf8(chunk.to_vec()).unwrap();
    let mut lines = text.lines();
    let skipped: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(skipped["kind"], "skipped");
    assert_eq!(lines.next().unwrap(), format!("{{\"n\":{}}}", skipped["count"]));
}

fn operations() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            operations.push((method.to_uppercase(), path.clone()));
        }
    }
    operations
}

#[tokio::test]
async fn what_is_described_is_there() {
    let api = api();
    for (method, path) in operations() {
        let path = path
            .replace("{stage}", "dedup")
            .replace("{name}", "p")
            .replace("{table}", "t")
            .replace("{subject}", "dedup");
        let request = Request::builder().method(method.as_str()).uri(&path).body(Body::empty()).unwrap();
        let answer = router(Arc::clone(&api)).oneshot(request).await.unwrap();
        assert_ne!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        if answer.status() == StatusCode::NOT_FOUND {
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let document: Value = serde_json::from_slice(&body).unwrap();
            assert_ne!(document["type"], What::UnknownRoute.uri(), "{method} {path}");
        }
    }
}

#[test]
fn what_is_there_is_described() {
    let operations = operations();
    let source = include_str!("mod.rs");
    let routes: Vec<&str> = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")).collect();
    assert_eq!(routes.len(), operations.len());
    for route in routes {
        let (path, handler) = route.split_once("\", ").unwrap();
        let method = handler.split('(').next().unwrap().to_uppercase();
        assert!(operations.contains(&(method.clone(), path.to_owned())), "{method} {path}");
    }
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let described = &document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
    let problems: Vec<String> = What::ALL.iter().map(|what| what.uri()).collect();
    assert_eq!(described, &serde_json::json!(problems));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let page = send(&api(), get("/")).await;
    assert!(page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
    let text = String::from_utf8(page.body).unwrap();
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    assert!(!text.contains("innerHTML"));
}
