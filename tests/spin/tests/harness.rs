//! The stand-in for Spin keeps what it promises: a small component asks it for everything.

#![expect(clippy::unwrap_used, reason = "what fails here is the test that called it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tapeline_spin_tests::{DEFAULT_LABEL, Failure, KeyValue, Manifest, Reuse, SpinApp, SpinServer};

/// Two components of the probe, one with everything and one with nothing.
static APP: LazyLock<SpinApp> = LazyLock::new(|| {
    SpinApp::compile(
        manifest(&format!(
            r#"
[variables]
level = {{ default = "one" }}
key = {{ required = true, secret = true }}
port = {{ default = "1" }}

[[trigger.http]]
route = "/probe/..."
component = "probe"
[[trigger.http]]
route = "/probe/exact"
component = "plain"
[[trigger.http]]
route = {{ private = true }}
component = "plain"

[component.probe]
source = "{probe}"
variables = {{ both = "{{{{ level }}}} and {{{{ key }}}}", plain = "as it is" }}
key_value_stores = ["default"]
allowed_outbound_hosts = ["http://plain.spin.internal", "http://gone.spin.internal", "http://127.0.0.1:{{{{ port }}}}"]
[component.probe.dependencies]
"tapeline:pipeline/process@0.1.0" = {{ path = "{dedup}" }}

[component.plain]
source = "{probe}"
allowed_outbound_hosts = ["http://*.spin.internal"]
[component.plain.dependencies]
"tapeline:pipeline/process@0.1.0" = {{ path = "{enrich}" }}

[component.unused]
source = "{dedup}"
"#,
            probe = component("test/spin-probe").display(),
            dedup = component("dedup").display(),
            enrich = component("enrich").display(),
        ))
        .unwrap(),
    )
    .unwrap()
});

/// Where the components are: two folders above the test that is running.
fn component(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().find(|folder| folder.join("components").is_dir());
    let path = target.unwrap_or(&test).join("components").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: `cargo xtask build` makes it", path.display());
    path
}

fn manifest(text: &str) -> Result<Manifest> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spin.toml");
    fs::write(&path, format!("spin_manifest_version = 2\n[application]\nname = \"app\"\n{text}")).unwrap();
    Manifest::load(&path)
}

/// A manifest with one component; `{probe}` and the stages' names in braces are files.
fn single(component_lines: &str) -> Result<Manifest> {
    let mut text = format!("[[trigger.http]]\nroute = \"/\"\ncomponent = \"x\"\n[component.x]\n{component_lines}");
    for (name, file) in
        [("{probe}", "test/spin-probe"), ("{dedup}", "dedup"), ("{enrich}", "enrich"), ("{write}", "write")]
    {
        text = text.replace(name, &component(file).display().to_string());
    }
    manifest(&text)
}

fn values(given: &[(&str, &str)]) -> BTreeMap<String, String> {
    let key = ("key", "two");
    given.iter().chain([&key]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn start(store: &KeyValue, reuse: Reuse) -> SpinServer {
    APP.start(&values(&[]), store, reuse).unwrap()
}

fn post(server: &SpinServer, path: &str, body: &str) -> (u16, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    let agent: ureq::Agent = config.build().into();
    let mut answer = agent.post(server.url(path)).send(body).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

fn get(server: &SpinServer, path: &str) -> (u16, String) {
    post(server, path, "")
}

fn found(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

fn refused(text: &str) -> (u16, String) {
    (422, text.to_owned())
}

#[test]
fn variables_are_those_of_the_manifest() {
    let server = start(&KeyValue::new(), Reuse::SPIN);
    assert_eq!(get(&server, "/probe/variable/both"), found("one and two"));
    assert_eq!(get(&server, "/probe/variable/plain"), found("as it is"));
    // A variable of the application is not one of the component.
    let (status, text) = get(&server, "/probe/variable/level");
    assert_eq!((status, text.starts_with("Error::Undefined") || text.contains("level")), (422, true), "{text}");

    let other = APP.start(&values(&[("level", "three")]), &KeyValue::new(), Reuse::SPIN).unwrap();
    assert_eq!(get(&other, "/probe/variable/both"), found("three and two"));
    let missing = APP.start(&BTreeMap::new(), &KeyValue::new(), Reuse::SPIN).err().unwrap().to_string();
    assert!(missing.contains("[variables] key"), "{missing}");
}

#[test]
fn requests_go_where_the_manifest_sends_them() {
    let server = start(&KeyValue::new(), Reuse::SPIN);
    assert_eq!(get(&server, "/elsewhere"), (404, String::new()));
    assert_eq!(get(&server, "/probes"), (404, String::new()));
    assert_eq!(get(&server, "/probe/a/b/c"), (404, "the probe knows nothing of /a/b/c".to_owned()));
    assert_eq!(get(&server, "/probe/exact"), (404, "the probe knows nothing of /exact".to_owned()));
    assert_eq!((server.instances("plain"), server.instances("probe")), (Some(1), Some(1)));
    assert_eq!(server.instances("unused"), None);
}

#[test]
fn a_component_is_told_how_a_request_came() {
    let server = start(&KeyValue::new(), Reuse::SPIN);
    assert_eq!(get(&server, "/probe/header/spin-path-info"), found("/header/spin-path-info"));
    assert_eq!(get(&server, "/probe/header/spin-component-route"), found("/probe"));
    assert_eq!(get(&server, "/probe/header/spin-raw-component-route"), found("/probe/..."));
    let full = server.url("/probe/header/spin-full-url?a=b");
    assert_eq!(get(&server, "/probe/header/spin-full-url?a=b"), found(&full));
    assert_eq!(get(&server, "/probe/uri?a=b"), found(&server.url("/probe/uri?a=b")));
}

#[test]
fn a_large_body_arrives() {
    let server = start(&KeyValue::new(), Reuse::SPIN);
    let body = "x".repeat(20_000_000);
    assert_eq!(post(&server, "/probe/length", &body), found("20000000"));
}

#[test]
fn values_outlive_the_server() {
    let store = KeyValue::new();
    let server = start(&store, Reuse::SPIN);
    assert_eq!(get(&server, "/probe/key/get/default/k"), found("absent"));
    assert_eq!(post(&server, "/probe/key/set/default/k", "value"), found("set"));
    assert_eq!(get(&server, "/probe/key/exists/default/k"), found("true"));
    drop(server);

    let server = start(&store, Reuse::SPIN);
    assert_eq!(get(&server, "/probe/key/get/default/k"), found("value"));
    assert_eq!(post(&server, "/probe/key/set/default/j", ""), found("set"));
    assert_eq!(get(&server, "/probe/key/keys/default/all"), found("j k"));
    assert_eq!(get(&server, "/probe/key/delete/default/k"), found("deleted"));
    assert_eq!(get(&server, "/probe/key/delete/default/k"), found("deleted"));
    assert_eq!(store.entries(DEFAULT_LABEL), [("j".to_owned(), vec![])]);
    assert_eq!((store.reads(), store.writes()), (3, 4));
}

#[test]
fn batches_leave_out_what_is_absent() {
    let server = start(&KeyValue::new(), Reuse::SPIN);
    assert_eq!(post(&server, "/probe/key/set-many/default/b,a", "1"), found("set"));
    assert_eq!(get(&server, "/probe/key/many/default/c,b,a"), found("a=1 b=1"));
    assert_eq!(post(&server, "/probe/key/increment/default/n", "5"), found("5"));
    assert_eq!(post(&server, "/probe/key/increment/default/n", "-7"), found("-2"));
}

#[test]
fn a_store_that_is_not_granted_is_not_opened() {
    let server = start(&KeyValue::with_labels([DEFAULT_LABEL, "other"]), Reuse::SPIN);
    assert_eq!(get(&server, "/probe/key/get/other/k"), refused("\"Error::AccessDenied\""));
    assert_eq!(get(&server, "/probe/key/many/other/k").0, 422);
    let unknown = APP.start(&values(&[]), &KeyValue::with_labels(["other"]), Reuse::SPIN).err().unwrap();
    assert!(format!("{unknown:#}").contains("no store is set up for the label `default`"), "{unknown:#}");
}

#[test]
fn stores_that_are_never_closed_run_out_in_an_instance_that_is_kept() {
    let server = start(&KeyValue::new(), Reuse::kept_for(1000));
    for _ in 0..256 {
        assert_eq!(get(&server, "/probe/key/leak/default/k"), found("leaked"));
    }
    assert_eq!(get(&server, "/probe/key/leak/default/k").0, 422);
    assert_eq!(get(&server, "/probe/key/get/default/k").0, 422);
}

#[test]
fn a_swap_goes_by_what_was_read() {
    let store = KeyValue::new();
    let server = start(&store, Reuse::SPIN);
    assert_eq!(post(&server, "/probe/key/swap-blind/default/k", "one"), found("swapped"));
    assert_eq!(post(&server, "/probe/key/swap/default/k", "two"), found("swapped"));
    let lost = (409, "lost, then swapped".to_owned());
    assert_eq!(post(&server, "/probe/key/swap-late/default/k", "three"), lost);
    assert_eq!(store.peek(DEFAULT_LABEL, "k"), Some(b"three".to_vec()));
    // Three of the swaps, and the one of somebody else.
    assert_eq!(store.writes(), 4);
    // Whoever has not looked expects nothing, and what expects nothing is no comparison in Spin's own back end.
    assert_eq!(post(&server, "/probe/key/swap-blind/default/k", "four"), found("swapped"));
}

#[test]
fn swaps_of_many_at_once_lose_none() {
    let store = KeyValue::new();
    let server = start(&store, Reuse::SPIN);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(post(&server, "/probe/key/increment/default/n", "1").0, 200);
                }
            });
        }
    });
    assert_eq!(store.peek(DEFAULT_LABEL, "n"), Some(80_i64.to_le_bytes().to_vec()));
}

#[test]
fn a_write_fails_as_the_test_says() {
    let store = KeyValue::new();
    let server = start(&store, Reuse::SPIN);
    store.fail_after(1, Failure::Error);
    assert_eq!(post(&server, "/probe/key/set/default/a", "1"), found("set"));
    let (status, text) = post(&server, "/probe/key/set/default/b", "1");
    assert_eq!((status, text.contains("lets no more writes through")), (422, true), "{text}");
    store.fail_after(1, Failure::Kill);
    assert_eq!(post(&server, "/probe/key/set-many/default/c,d", "1"), (500, String::new()));
    store.heal();
    assert_eq!(post(&server, "/probe/key/set/default/e", "1"), found("set"));
    let keys: Vec<String> = store.entries(DEFAULT_LABEL).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "c", "e"]);
    assert_eq!(server.instances("probe"), Some(2));
}

#[test]
fn a_trap_ends_the_instance_and_no_other() {
    let server = start(&KeyValue::new(), Reuse::kept_for(100));
    assert_eq!(get(&server, "/probe/calls"), found("1"));
    assert_eq!(get(&server, "/probe/calls"), found("2"));
    assert_eq!(get(&server, "/probe/trap"), (500, String::new()));
    assert_eq!(get(&server, "/probe/calls"), found("1"));
    assert_eq!(server.instances("probe"), Some(2));
}

#[test]
fn instances_are_kept_as_long_as_the_test_says() {
    let calls = |reuse| {
        let server = start(&KeyValue::new(), reuse);
        let calls: Vec<String> = (0..5).map(|_| get(&server, "/probe/calls").1).collect();
        (calls.join(" "), server.instances("probe"))
    };
    assert_eq!(calls(Reuse::FRESH), ("1 1 1 1 1".to_owned(), Some(5)));
    assert_eq!(calls(Reuse::kept_for(3)), ("1 2 3 1 2".to_owned(), Some(2)));
    assert_eq!(calls(Reuse::SPIN), ("1 2 3 4 5".to_owned(), Some(1)));
}

#[test]
fn only_an_instance_that_is_shared_is_entered_while_it_waits() {
    let inside = |reuse| {
        let server = start(&KeyValue::new(), reuse);
        assert_eq!(get(&server, "/probe/calls"), found("1"));
        let most = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (status, text) = get(&server, "/probe/inside/500");
                    assert_eq!(status, 200, "{text}");
                    let mut most = most.lock().unwrap();
                    *most = text.parse::<u32>().unwrap().max(*most);
                });
            }
        });
        most.into_inner().unwrap()
    };
    // How many of the four meet in one instance is a matter of when they come.
    assert!(inside(Reuse::SPIN) > 1);
    assert_eq!(inside(Reuse::kept_for(100)), 1);
}

#[test]
fn a_stage_is_a_dependency() {
    let server = start(&KeyValue::new(), Reuse::kept_for(2));
    assert_eq!(get(&server, "/probe/stage"), found("dedup 0.1.0"));
    assert_eq!(get(&server, "/probe/ask/nothing").0, 404);
    assert_eq!(post(&server, "/probe/ask", "http://plain.spin.internal/stage"), found("200 enrich 0.1.0"));
}

#[test]
fn components_ask_each_other_without_a_socket() {
    let server = start(&KeyValue::new(), Reuse::FRESH);
    let asks = |url: &str| post(&server, "/probe/ask", url);
    assert_eq!(asks("http://plain.spin.internal/uri"), found("200 http://plain.spin.internal/uri"));
    assert_eq!(asks("http://plain.spin.internal/nothing"), found("404 the probe knows nothing of /nothing"));
    // What it is not granted, it does not have, whoever asks.
    let (status, text) = asks("http://plain.spin.internal/key/get/default/k");
    assert_eq!((status, text.starts_with("404") || text.starts_with("422")), (200, true), "{text}");
    assert_eq!(asks("http://plain.spin.internal/trap"), found("500 "));
    assert_eq!(asks("http://plain.spin.internal/fail"), found("422 \"the probe was told to\""));
    assert_eq!(asks("http://gone.spin.internal/uri"), refused("ErrorCode::DestinationNotFound"));
    assert_eq!(asks("http://probe.spin.internal/uri"), refused("ErrorCode::HttpRequestDenied"));
}

#[test]
fn requests_leave_only_to_hosts_that_are_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = APP.start(&values(&[("port", &port.to_string())]), &KeyValue::new(), Reuse::SPIN).unwrap();
    let answering = thread::spawn(move || answer_once(listener.accept().unwrap().0));
    assert_eq!(post(&server, "/probe/ask", &format!("http://127.0.0.1:{port}/a?b=c")), found("200 hello"));
    assert!(answering.join().unwrap().starts_with("GET /a?b=c HTTP/1.1\r\n"));
    let denied = refused("ErrorCode::HttpRequestDenied");
    for url in ["http://127.0.0.1:2/", "http://localhost/", &format!("https://127.0.0.1:{port}/")] {
        assert_eq!(post(&server, "/probe/ask", url), denied, "{url}");
    }
}

fn answer_once(mut stream: TcpStream) -> String {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello").unwrap();
    String::from_utf8_lossy(&request[..length]).into_owned()
}

#[test]
fn what_cannot_be_composed_says_why() {
    let refusal = |lines: &str| format!("{:#}", SpinApp::compile(single(lines).unwrap()).err().unwrap());
    let stage = "\"tapeline:pipeline/process@0.1.0\"";

    let missing = refusal("source = \"{probe}\"");
    assert!(missing.contains("[component.x]") && missing.contains("tapeline:pipeline/process"), "{missing}");
    let unmatched = refusal("source = \"{probe}\"\ndependencies = { \"a:b/c@1.0.0\" = { path = \"{dedup}\" } }");
    assert!(unmatched.contains("`a:b/c@1.0.0`") && unmatched.contains("imports nothing of this name"), "{unmatched}");
    let unexported =
        refusal(&format!("source = \"{{probe}}\"\ndependencies = {{ {stage} = {{ path = \"{{write}}\" }} }}"));
    assert!(unexported.contains("it does not export `tapeline:pipeline/process@0.1.0`"), "{unexported}");
    let greedy = refusal(&format!("source = \"{{probe}}\"\ndependencies = {{ {stage} = {{ path = \"{{probe}}\" }} }}"));
    assert!(greedy.contains("Spin gives a dependency nothing but WASI"), "{greedy}");
    let front = refusal("source = \"{dedup}\"");
    assert!(front.contains("wasi:http/handler"), "{front}");
    let twice = refusal(&format!(
        "source = \"{{probe}}\"\n[component.x.dependencies]\n{stage} = {{ path = \"{{dedup}}\" }}\n\
         \"tapeline:pipeline/state@0.1.0\" = {{ path = \"{{enrich}}\" }}"
    ));
    assert!(twice.contains("has already been registered in the graph"), "{twice}");
}

#[test]
fn a_server_that_is_dropped_stops_what_waits() {
    let server = start(&KeyValue::new(), Reuse::SPIN);
    let url = server.url("/probe/inside/600000");
    let waiting = thread::spawn(move || ureq::post(url).send("").is_err());
    while server.instances("probe") == Some(0) {
        thread::yield_now();
    }
    let begun = Instant::now();
    drop(server);
    assert!(waiting.join().unwrap());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
