//! Whether the streams and consumers of a pipeline are as a chain makes them.

use serde_json::{Value, json};

use super::{Finding, Hop, Verdict};

/// What a stream must have, what would be lost otherwise, and how to set it.
const STREAM: [(&str, &str, &str, &str); 9] = [
    ("storage", "\"file\"", "all that is under way and all state when the server ends", REMAKE),
    ("discard", "\"new\"", "the oldest events that are under way, and state, when the stream is full", RESTART),
    ("retention", "\"workqueue\"", "room: what was read stays, until the stream is full and nothing flows", REMAKE),
    ("max_age", "0", "events and state that are older", RESTART),
    ("max_msgs", "-1", "events or state beyond that number", RESTART),
    ("max_msgs_per_subject", "-1", "events or state beyond that number", RESTART),
    ("max_msg_size", "-1", "time: larger messages are refused, and their partition stands still", RESTART),
    ("allow_atomic", "true", "time: every commit is refused", RESTART),
    ("allow_rollup_hdrs", "true", "time: every commit is refused", RESTART),
];
/// What a consumer must have.
const CONSUMER: [(&str, &str, &str, &str); 3] = [
    ("ack_policy", "\"explicit\"", "what a host that ends has read and not finished", REMAKE_CONSUMER),
    ("max_deliver", "-1", "what has been delivered that often, to hosts that ended", RESTART),
    (
        "priority_policy",
        "\"pinned_client\"",
        "time: two hosts work on one partition, one of them in vain",
        REMAKE_CONSUMER,
    ),
];
/// How to set right what can be changed.
const RESTART: &str = "start the chain again: `tapeline up` and `run` set it right; find out who changes it";
/// How to set right what a broker does not let change.
const REMAKE: &str =
    "let the chain finish what is under way, remove its streams and its data folder, and start it again";
const REMAKE_CONSUMER: &str =
    "remove the consumer (`nats consumer rm`) and start the chain again: it goes on where it was";

/// Looks at a stream and its consumers as the broker's API describes them.
pub(super) fn check(hop: &Hop, stream: &Value, consumers: &Value, replicas: Option<usize>) -> Vec<Finding> {
    let name = format!("stream {}", hop.stream());
    if stream.get("error").is_some() {
        return vec![Finding::ok(name, "not there yet; made when the chain starts")];
    }
    let mut findings = Vec::new();
    let window = stream.pointer("/config/duplicate_window").and_then(Value::as_u64).unwrap_or(0) / 1_000_000_000;
    compare(&name, stream.pointer("/config"), &STREAM, &mut findings);
    let copies = stream.pointer("/config/num_replicas").and_then(Value::as_u64).unwrap_or(1);
    if let Some(wanted) = replicas.filter(|wanted| *wanted as u64 != copies) {
        let found = format!("{copies} copies, {wanted} in the pipeline file");
        let loss = "what is under way and all state, with that many servers";
        findings.push(Finding::bad(Verdict::Wrong, name.clone(), found, loss, RESTART));
    }
    let away = stream.pointer("/cluster/replicas").and_then(Value::as_array).map_or(0, |replicas| {
        let is_behind = |replica: &&Value| replica.get("current") != Some(&json!(true));
        replicas.iter().filter(is_behind).count()
    });
    if away > 0 {
        let found = format!("{away} of {copies} copies are away or behind");
        let loss = "nothing now; if more servers go, nothing flows until they are back";
        findings.push(Finding::bad(Verdict::Warning, name.clone(), found, loss, "start the servers that are away"));
    }
    for consumer in consumers.get("consumers").and_then(Value::as_array).into_iter().flatten() {
        let consumer_name = consumer.get("name").and_then(Value::as_str).unwrap_or_default();
        compare(&format!("consumer {consumer_name}"), consumer.get("config"), &CONSUMER, &mut findings);
    }
    if findings.is_empty() {
        let found = format!("{copies} copies; dedup window {window} s, which nothing relies on");
        findings.push(Finding::ok(name, found));
    }
    findings
}

fn compare(name: &str, config: Option<&Value>, wanted: &[(&str, &str, &str, &str)], findings: &mut Vec<Finding>) {
    for (key, value, loss, remedy) in wanted {
        // The API leaves out what is zero.
        let found = config.and_then(|config| config.get(key)).map_or_else(|| "0".to_owned(), Value::to_string);
        if found != *value {
            let found = format!("{key} is {found}, not {value}");
            findings.push(Finding::bad(Verdict::Wrong, name, found, loss, remedy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(change: &str, value: Value) -> Value {
        let mut config = json!({
            "storage": "file", "discard": "new", "retention": "workqueue", "max_age": 0, "max_msgs": -1,
            "max_msgs_per_subject": -1, "max_msg_size": -1, "allow_atomic": true, "allow_rollup_hdrs": true, "num_replicas": 1, "duplicate_window": 120_000_000_000_u64
        });
        config[change] = value;
        json!({"config": config})
    }

    fn consumers(change: &str, value: Value) -> Value {
        let mut config = json!({"ack_policy": "explicit", "max_deliver": -1, "priority_policy": "pinned_client"});
        config[change] = value;
        json!({"consumers": [{"name": "dedup-0", "config": config}]})
    }

    fn found(stream: &Value, consumers: &Value, replicas: usize) -> Vec<(Verdict, String)> {
        let hop = Hop { pipeline: "p".to_owned(), stage: "fetch".to_owned() };
        check(&hop, stream, consumers, Some(replicas)).into_iter().map(|f| (f.verdict, f.found)).collect()
    }

    #[test]
    fn what_a_chain_makes_is_right() {
        let right = (stream("num_replicas", json!(1)), consumers("max_deliver", json!(-1)));
        let findings = found(&right.0, &right.1, 1);
        assert!(matches!(findings[..], [(Verdict::Ok, _)]), "{findings:?}");
        assert!(matches!(found(&json!({"error": {"code": 404}}), &json!({}), 1)[..], [(Verdict::Ok, _)]));
    }

    #[test]
    fn what_somebody_has_changed_is_wrong() {
        let none = json!({});
        for (key, value) in [
            ("storage", json!("memory")),
            ("discard", json!("old")),
            ("retention", json!("limits")),
            ("max_age", json!(1_000)),
            ("max_msgs", json!(10)),
            ("allow_atomic", json!(null)),
            ("allow_rollup_hdrs", json!(false)),
            ("max_msg_size", json!(1_000)),
        ] {
            let findings = found(&stream(key, value), &none, 1);
            assert!(matches!(&findings[..], [(Verdict::Wrong, text)] if text.contains(key)), "{key}: {findings:?}");
        }
        for (key, value) in
            [("ack_policy", json!("none")), ("max_deliver", json!(3)), ("priority_policy", json!("none"))]
        {
            let findings = found(&stream("max_msgs", json!(-1)), &consumers(key, value), 1);
            assert!(matches!(&findings[..], [(Verdict::Wrong, text)] if text.contains(key)), "{key}: {findings:?}");
        }
        assert!(matches!(found(&stream("max_msgs", json!(-1)), &none, 3)[..], [(Verdict::Wrong, _)]));
    }

    #[test]
    fn a_copy_that_is_away_is_a_warning() {
        let mut stream = stream("num_replicas", json!(3));
        stream["cluster"] = json!({"leader": "a", "replicas": [{"current": true}, {"offline": true}]});
        assert!(matches!(found(&stream, &json!({}), 3)[..], [(Verdict::Warning, _)]));
    }
}
