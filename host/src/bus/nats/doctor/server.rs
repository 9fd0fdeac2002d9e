//! What the server's own configuration decides.

use async_nats::ServerInfo;
use semver::Version;
use serde_json::Value;

use super::{Examination, Finding, Verdict};
use crate::bus::nats::DEAD_LETTERS_BYTES_MAX;

/// The first version with atomic batches (ADR-50).
pub const VERSION_MIN: Version = Version::new(2, 12, 0);
/// What a message of ours may take with its headers; the usual setting of servers is 1 MiB.
pub const MAX_PAYLOAD_MIN: usize = 1_000_000;
/// A clock that is further off is noticed.
const SKEW_WARNING_NS: i64 = 1_000_000_000;
/// A clock that is further off makes the usual `max_future` refuse events.
const SKEW_WRONG_NS: i64 = 10_000_000_000;
/// What is written to the disk so soon counts as written.
const SYNC_SHORT_NS: u64 = 1_000_000_000;

/// What every chain needs.
pub(super) fn basics(info: &ServerInfo) -> Vec<Finding> {
    let known = Version::parse(&info.version);
    let version = match known {
        Ok(version) if version >= VERSION_MIN => Finding::ok("version", info.version.clone()),
        _ => Finding::bad(
            Verdict::Wrong,
            "version",
            info.version.clone(),
            "outputs, state and position could not be stored together: after a crash events would be missing or twice",
            &format!("install nats-server {VERSION_MIN} or later"),
        ),
    };
    let jetstream = if info.jetstream {
        Finding::ok("jetstream", "on")
    } else {
        let loss = "nothing is stored: whatever is under way when a process ends";
        Finding::bad(Verdict::Wrong, "jetstream", "off", loss, "start nats-server with --jetstream and --store_dir")
    };
    let bytes = format!("{} bytes", info.max_payload);
    let payload = if info.max_payload >= MAX_PAYLOAD_MIN {
        Finding::ok("max_payload", bytes)
    } else {
        let loss = "a message with a large record is refused, and its partition stands still";
        let remedy = "set max_payload to 1MB, the default, or more";
        Finding::bad(Verdict::Wrong, "max_payload", bytes, loss, remedy)
    };
    vec![version, jetstream, payload]
}

/// Servers that share JetStream's work; `None` when it is a cluster and only its monitoring can tell.
pub(super) fn server_count(info: &ServerInfo, varz: Option<&Value>) -> Option<usize> {
    if info.cluster.is_none() {
        return Some(1);
    }
    let size = varz?.pointer("/jetstream/meta/cluster_size").and_then(Value::as_u64)?;
    usize::try_from(size).ok()
}

pub(super) fn cluster(servers: Option<usize>, replicas: Option<usize>) -> Finding {
    let copies = replicas.map_or_else(String::new, |replicas| format!(", {replicas} copies of each stream"));
    let Some(servers) = servers else {
        let loss = "each stream, with the disk of its server, if nats.replicas is 1";
        let remedy = "give --monitor http://HOST:8222 (nats-server --http_port 8222)";
        let found = format!("a cluster, of how many servers only its monitoring tells{copies}");
        return Finding::bad(Verdict::Unknown, "replicas", found, loss, remedy);
    };
    let found = format!("{servers} server{}{copies}", if servers == 1 { "" } else { "s" });
    let bad = |verdict, loss: &str, remedy: &str| Finding::bad(verdict, "replicas", found.clone(), loss, remedy);
    match (servers, replicas.unwrap_or(1)) {
        (servers, replicas) if replicas > servers => bad(
            Verdict::Wrong,
            "streams cannot be made; nothing flows",
            "add servers to the cluster, or lower nats.replicas in the pipeline file",
        ),
        (2, 2..) => bad(
            Verdict::Warning,
            "two servers have no majority without each other: nothing flows when either is away",
            "add a third server",
        ),
        (3.., 1) => bad(
            Verdict::Wrong,
            "each stream is on one server of the cluster: with its disk, what is under way and all state of stages",
            "set nats.replicas = 3 in the pipeline file",
        ),
        (_, 1) => bad(
            Verdict::Warning,
            "with this server's disk, what is under way and all state of stages; while it is away nothing flows",
            "for more than one machine to fail over to: a cluster of three servers, and nats.replicas = 3",
        ),
        _ => Finding::ok("replicas", found),
    }
}

/// Whether there is room for the streams.
pub(super) fn storage(account: &Value, examination: &Examination) -> Finding {
    let number = |at: &str| account.pointer(at).and_then(Value::as_i64);
    let (limit, reserved) = (number("/limits/max_storage").unwrap_or(-1), number("/reserved_storage").unwrap_or(0));
    let in_use = number("/storage").unwrap_or(0);
    let found = match limit {
        limit if limit < 0 => format!("{in_use} bytes in use, no limit for the account"),
        limit => format!("{in_use} bytes in use, {reserved} of {limit} reserved"),
    };
    let needed = examination.streams.as_ref().map_or(0, |(hops, settings)| {
        let copies = i64::try_from(settings.replicas).unwrap_or(1);
        (settings.bytes_max.saturating_mul(hops.len() as i64) + DEAD_LETTERS_BYTES_MAX).saturating_mul(copies)
    });
    if limit >= 0 && limit < needed {
        let loss = "streams cannot be made, or not all of them; nothing flows";
        let remedy = format!("give the account {needed} bytes of storage, or lower nats.stream_mib");
        return Finding::bad(Verdict::Wrong, "storage", found, loss, &remedy);
    }
    Finding::ok("storage", found)
}

/// How soon what the server has confirmed is on its disk.
pub(super) fn sync(varz: Option<&Value>, servers: Option<usize>) -> Finding {
    const REMEDY: &str = "set jetstream { sync_interval: always } in the server's configuration";
    let config = varz.and_then(|varz| varz.pointer("/jetstream/config"));
    if config.and_then(|config| config.get("sync_always")).and_then(Value::as_bool) == Some(true) {
        return Finding::ok("sync_interval", "always");
    }
    let interval = config.and_then(|config| config.get("sync_interval")).and_then(Value::as_u64);
    let Some(interval) = interval else {
        return Finding::bad(
            Verdict::Unknown,
            "sync_interval",
            "only the server's monitoring tells",
            "with power, commits of up to two minutes if it is the default",
            "give --monitor http://HOST:8222 (nats-server --http_port 8222)",
        );
    };
    let found = format!("{} ms", interval / 1_000_000);
    if interval <= SYNC_SHORT_NS {
        return Finding::ok("sync_interval", found);
    }
    let loss = "commits of that time, when the machine (not only the server) stops without warning";
    if servers.is_some_and(|servers| servers >= 3) {
        let loss = format!("{loss}, on most servers at once");
        return Finding::bad(Verdict::Warning, "sync_interval", found, &loss, REMEDY);
    }
    Finding::bad(Verdict::Wrong, "sync_interval", found, loss, REMEDY)
}

/// How far the server's clock is from ours.
pub(super) fn clock(server: Option<&str>, now_ns: i64) -> Finding {
    let Some((server, _)) = server.and_then(|text| tapeline_events::parse_time(text).ok()) else {
        let remedy = "give the pipeline file, once it has run, or --monitor";
        return Finding::bad(Verdict::Unknown, "clock", "nothing says what time it is there", "", remedy);
    };
    let skew = now_ns.saturating_sub(server);
    let found = format!("{:.3} s ahead of the server's", skew as f64 / 1e9);
    let remedy = "let NTP set the clocks of all machines";
    if skew.saturating_abs() <= SKEW_WARNING_NS {
        return Finding::ok("clock", found);
    }
    if skew.saturating_abs() <= SKEW_WRONG_NS {
        let loss = "nothing; the lag of watermarks is shown wrong by so much";
        return Finding::bad(Verdict::Warning, "clock", found, loss, remedy);
    }
    let loss = "events of hosts whose clocks differ: they are put aside as too far in the future";
    Finding::bad(Verdict::Wrong, "clock", found, loss, remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bus::nats::{Hop, StreamSettings};

    fn info(version: &str, jetstream: bool, max_payload: usize) -> ServerInfo {
        ServerInfo { version: version.to_owned(), jetstream, max_payload, ..ServerInfo::default() }
    }

    fn verdicts(info: &ServerInfo) -> Vec<Verdict> {
        basics(info).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn an_old_or_small_server_is_unfit() {
        use Verdict::{Ok, Wrong};
        assert_eq!(verdicts(&info("2.12.0", true, 1 << 20)), [Ok, Ok, Ok]);
        assert_eq!(verdicts(&info("2.15.1", false, 1 << 20)), [Ok, Wrong, Ok]);
        assert_eq!(verdicts(&info("2.11.9", true, 64 << 10)), [Wrong, Ok, Wrong]);
        assert_eq!(verdicts(&info("2.12.0-RC.1", true, 1 << 20)), [Wrong, Ok, Ok]);
        assert_eq!(verdicts(&info("unknown", true, 1 << 20)), [Wrong, Ok, Ok]);
    }

    #[test]
    fn copies_fit_the_cluster() {
        let of = |servers, replicas| super::cluster(Some(servers), Some(replicas)).verdict;
        assert_eq!(of(1, 1), Verdict::Warning);
        assert_eq!(of(1, 3), Verdict::Wrong);
        assert_eq!(of(3, 1), Verdict::Wrong);
        assert_eq!((of(3, 3), of(5, 3)), (Verdict::Ok, Verdict::Ok));
        assert_eq!(super::cluster(None, Some(3)).verdict, Verdict::Unknown);
        let alone = info("2.15.1", true, 0);
        let clustered = ServerInfo { cluster: Some("c".to_owned()), ..alone.clone() };
        let varz = json!({"jetstream": {"meta": {"cluster_size": 3}}});
        assert_eq!(server_count(&alone, None), Some(1));
        assert_eq!((server_count(&clustered, None), server_count(&clustered, Some(&varz))), (None, Some(3)));
    }

    #[test]
    fn what_is_confirmed_is_on_the_disk() {
        let of = |config: Value, servers| sync(Some(&json!({"jetstream": {"config": config}})), Some(servers)).verdict;
        assert_eq!(of(json!({"sync_interval": 120_000_000_000_u64}), 1), Verdict::Wrong);
        assert_eq!(of(json!({"sync_interval": 120_000_000_000_u64}), 3), Verdict::Warning);
        assert_eq!(of(json!({"sync_interval": 120_000_000_000_u64, "sync_always": true}), 1), Verdict::Ok);
        assert_eq!(of(json!({"sync_interval": 500_000_000}), 1), Verdict::Ok);
        assert_eq!(of(json!({}), 1), Verdict::Unknown);
        assert_eq!(sync(None, Some(1)).verdict, Verdict::Unknown);
    }

    #[test]
    fn clocks_agree() {
        let of = |now: i64| clock(Some("1970-01-01T00:01:40Z"), now * 1_000_000_000).verdict;
        assert_eq!((of(100), of(99), of(97)), (Verdict::Ok, Verdict::Ok, Verdict::Warning));
        assert_eq!((of(120), of(50)), (Verdict::Wrong, Verdict::Wrong));
        assert_eq!(clock(None, 0).verdict, Verdict::Unknown);
    }

    #[test]
    fn there_is_room_for_the_streams() {
        let hop = Hop { pipeline: "p".to_owned(), stage: "s".to_owned() };
        let settings = StreamSettings { partitions: 1, replicas: 1, bytes_max: 100 << 20 };
        let examination = Examination { streams: Some((vec![hop; 5], settings)), varz: None };
        let of = |limit: i64| storage(&json!({"limits": {"max_storage": limit}}), &examination).verdict;
        assert_eq!((of(-1), of(1 << 30), of(500 << 20)), (Verdict::Ok, Verdict::Ok, Verdict::Wrong));
    }
}
