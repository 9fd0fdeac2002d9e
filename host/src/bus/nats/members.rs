//! Which hosts work on a pipeline, and which partitions are for which of them.
//!
//! Each host announces itself to the others; all of them divide the partitions among those that they hear of by the same
//! rule. Two hosts that differ in what they hear may both believe that a partition is theirs, or neither, for as long as
//! they differ: the broker lets one of them read, and commits are fenced, so that this costs time and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_64;

use super::{Broker, unavailable};
use crate::error::Result;

/// How often a host announces itself.
const ANNOUNCE: Duration = Duration::from_millis(500);
/// A host that has not been heard for so long is gone; also oneself, when the broker does not carry announcements.
const ALIVE: Duration = Duration::from_secs(2);

/// A host's view of all hosts. It leaves when this is dropped.
pub struct Members {
    broker: Broker,
    subject: String,
    host: String,
    mine: Arc<Mutex<BTreeSet<(String, u32)>>>,
    task: JoinHandle<()>,
}

/// What a host says of itself.
#[derive(Serialize, Deserialize)]
struct Announcement {
    host: String,
    /// Stages that it can run; none when it leaves.
    stages: Vec<String>,
}

struct View {
    host: String,
    partitions: u32,
    hosts: BTreeMap<String, (Vec<String>, Instant)>,
    mine: Arc<Mutex<BTreeSet<(String, u32)>>>,
}

impl Members {
    /// Joins the hosts of a pipeline, to run these stages.
    ///
    /// # Errors
    /// `Unavailable` when the broker does not let it.
    pub fn join(broker: &Broker, pipeline: &str, stages: Vec<String>, partitions: u32) -> Result<Self> {
        let subject = format!("{pipeline}.hosts");
        let client = broker.client();
        let host = client.new_inbox();
        let mine = Arc::default();
        let mut view = View { host: host.clone(), partitions, hosts: BTreeMap::new(), mine: Arc::clone(&mine) };
        view.hear(Announcement { host: host.clone(), stages: stages.clone() });
        let announcements = broker.wait(client.subscribe(subject.clone()));
        let mut announcements = announcements.map_err(|error| unavailable(format!("subscribe to {subject}"), error))?;
        let to = subject.clone();
        let task = broker.spawn(async move {
            let own = Announcement { host: view.host.clone(), stages };
            let mut beat = tokio::time::interval(ANNOUNCE);
            loop {
                let is_news = tokio::select! {
                    _ = beat.tick() => {
                        view.forget_silent();
                        true
                    }
                    heard = announcements.next() => match heard {
                        Some(heard) => serde_json::from_slice(&heard.payload).is_ok_and(|heard| view.hear(heard)),
                        None => return,
                    },
                };
                // Whoever is new learns of this host at once.
                if is_news {
                    announce(&client, &to, &own).await;
                }
            }
        });
        Ok(Self { broker: broker.clone(), subject, host, mine, task })
    }

    /// Whether a partition of a stage is for this host.
    pub fn is_mine(&self, stage: &str, partition: u32) -> bool {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner).contains(&(stage.to_owned(), partition))
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.task.abort();
        let leaving = Announcement { host: self.host.clone(), stages: Vec::new() };
        self.broker.say(async {
            announce(&self.broker.client(), &self.subject, &leaving).await;
            let _ = self.broker.client().flush().await;
        });
    }
}

async fn announce(client: &async_nats::Client, subject: &str, announcement: &Announcement) {
    // Whoever is not heard is gone, as long as that lasts.
    if let Ok(text) = serde_json::to_vec(announcement) {
        let _ = client.publish(subject.to_owned(), text.into()).await;
    }
}

impl View {
    /// Notes that a host is there, or leaves. Whether it is a new one.
    fn hear(&mut self, heard: Announcement) -> bool {
        let Announcement { host, stages } = heard;
        if stages.is_empty() {
            if self.hosts.remove(&host).is_some() {
                self.divide();
            }
            return false;
        }
        let is_self = host == self.host;
        let known = self.hosts.insert(host, (stages.clone(), Instant::now()));
        if is_self && known.is_none() {
            tracing::info!("this host has a share of the partitions");
        }
        let is_new = known.is_none_or(|(known, _)| known != stages);
        if is_new {
            self.divide();
        }
        is_new
    }

    fn forget_silent(&mut self) {
        let (before, had_self) = (self.hosts.len(), self.hosts.contains_key(&self.host));
        self.hosts.retain(|_, (_, heard)| heard.elapsed() < ALIVE);
        if had_self && !self.hosts.contains_key(&self.host) {
            let reason =
                "the broker does not carry its announcements: it is away, or does not let this host publish them";
            tracing::warn!(reason, "this host has no share of the partitions");
        }
        if self.hosts.len() != before {
            self.divide();
        }
    }

    fn divide(&self) {
        let hosts = self.hosts.iter().map(|(host, (stages, _))| (host.as_str(), stages.as_slice())).collect();
        let divided = divide(&hosts, self.partitions);
        let mine = divided.into_iter().filter(|(_, host)| *host == self.host);
        let mine = mine.map(|((stage, partition), _)| (stage.to_owned(), partition)).collect();
        *self.mine.lock().unwrap_or_else(PoisonError::into_inner) = mine;
    }
}

/// Which host each partition of each stage is for: the one that it has the highest hash with (rendezvous hashing), among
/// those that have not their share of the stage, or of all there is to do. So shares differ by one at most in each stage,
/// and few partitions move when a host comes or goes.
fn divide<'a>(hosts: &BTreeMap<&'a str, &'a [String]>, partitions: u32) -> BTreeMap<(&'a str, u32), &'a str> {
    let stages: BTreeSet<&str> = hosts.values().flat_map(|stages| stages.iter().map(String::as_str)).collect();
    let share_of_all = (stages.len() * partitions as usize).div_ceil(hosts.len().max(1));
    let mut divided = BTreeMap::new();
    let mut loads: BTreeMap<&str, usize> = BTreeMap::new();
    for stage in stages {
        let able: Vec<&str> =
            hosts.iter().filter(|(_, stages)| stages.iter().any(|of| of == stage)).map(|(host, _)| *host).collect();
        let mut shares = Shares::new(partitions as usize, able.len());
        let mut of_stage: BTreeMap<&str, usize> = BTreeMap::new();
        for partition in 0..partitions {
            let rank = |host: &&str| xxh3_64(format!("{host} {stage} {partition}").as_bytes());
            let load = |loads: &BTreeMap<&str, usize>, host: &str| loads.get(host).copied().unwrap_or(0);
            let has_room = |host: &&&str| shares.has_room(load(&of_stage, host));
            let is_idle = |host: &&&str| load(&loads, host) < share_of_all;
            let best = able.iter().filter(has_room).filter(is_idle).max_by_key(|host| rank(host));
            let Some(host) = best.or_else(|| able.iter().filter(has_room).max_by_key(|host| rank(host))) else {
                continue;
            };
            shares.take(load(&of_stage, host));
            *of_stage.entry(host).or_default() += 1;
            *loads.entry(host).or_default() += 1;
            divided.insert((stage, partition), *host);
        }
    }
    divided
}

/// Equal shares, but for the rest of the division, one of which some may have more.
struct Shares {
    each: usize,
    rest: usize,
}

impl Shares {
    fn new(partitions: usize, hosts: usize) -> Self {
        let hosts = hosts.max(1);
        Self { each: partitions / hosts, rest: partitions % hosts }
    }

    const fn has_room(&self, load: usize) -> bool {
        load < self.each || (load == self.each && self.rest > 0)
    }

    const fn take(&mut self, load: usize) {
        if load == self.each {
            self.rest -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(hosts: &[(&str, &[&str])], partitions: u32) -> BTreeMap<(String, u32), String> {
        let owned: Vec<(&str, Vec<String>)> =
            hosts.iter().map(|(host, stages)| (*host, stages.iter().map(ToString::to_string).collect())).collect();
        let hosts = owned.iter().map(|(host, stages)| (*host, stages.as_slice())).collect();
        divide(&hosts, partitions)
            .into_iter()
            .map(|((stage, at), host)| ((stage.to_owned(), at), host.to_owned()))
            .collect()
    }

    fn count(divided: &BTreeMap<(String, u32), String>, stage: &str, host: &str) -> usize {
        divided.iter().filter(|((of, _), owner)| of == stage && *owner == host).count()
    }

    #[test]
    fn all_partitions_are_divided_evenly() {
        const STAGES: &[&str] = &["dedup", "enrich"];
        for partitions in [1, 2, 3, 7, 64] {
            for hosts in [&["a"][..], &["a", "b"], &["a", "b", "c"], &["a", "b", "c", "d", "e"]] {
                let able: Vec<(&str, &[&str])> = hosts.iter().map(|host| (*host, STAGES)).collect();
                let divided = shares(&able, partitions);
                assert_eq!(divided.len(), STAGES.len() * partitions as usize);
                for stage in STAGES {
                    let counts = hosts.iter().map(|host| count(&divided, stage, host));
                    let (least, most) = (counts.clone().min(), counts.max());
                    assert!(most <= least.map(|least| least + 1), "{partitions} among {hosts:?}: {least:?} {most:?}");
                }
            }
        }
        let one_each = shares(&[("a", STAGES), ("b", STAGES)], 1);
        assert_ne!(one_each[&("dedup".to_owned(), 0)], one_each[&("enrich".to_owned(), 0)], "both stages on one host");
    }

    #[test]
    fn a_stage_goes_to_those_that_can_run_it() {
        let divided = shares(&[("a", &["dedup"]), ("b", &["dedup", "alarm"])], 4);
        assert_eq!((count(&divided, "alarm", "a"), count(&divided, "alarm", "b")), (0, 4));
        assert_eq!((count(&divided, "dedup", "a"), count(&divided, "dedup", "b")), (2, 2));
        assert!(shares(&[], 4).is_empty());
    }

    #[test]
    fn few_partitions_move_when_a_host_comes() {
        let before = shares(&[("a", &["dedup"]), ("b", &["dedup"]), ("c", &["dedup"])], 60);
        let after = shares(&[("a", &["dedup"]), ("b", &["dedup"]), ("c", &["dedup"]), ("d", &["dedup"])], 60);
        let moved = before.iter().filter(|(key, host)| after[*key] != **host).count();
        assert!((15..=30).contains(&moved), "{moved} of 60 moved");
    }

    #[test]
    fn whoever_is_silent_or_leaves_has_no_share() {
        let mine = Arc::default();
        let mut view = View { host: "a".to_owned(), partitions: 4, hosts: BTreeMap::new(), mine: Arc::clone(&mine) };
        let says = |host: &str, stages: &[&str]| Announcement {
            host: host.to_owned(),
            stages: stages.iter().map(ToString::to_string).collect(),
        };
        let owned = || mine.lock().unwrap().len();
        assert!(view.hear(says("a", &["dedup"])) && owned() == 4);
        assert!(view.hear(says("b", &["dedup"])) && owned() == 2);
        assert!(!view.hear(says("b", &["dedup"])) && owned() == 2);
        assert!(!view.hear(says("b", &[])) && owned() == 4);
        view.hear(says("b", &["dedup"]));
        view.hosts.get_mut("b").unwrap().1 -= ALIVE;
        view.forget_silent();
        assert_eq!(owned(), 4);
        view.hosts.get_mut("a").unwrap().1 -= ALIVE;
        view.forget_silent();
        assert_eq!(owned(), 0, "whoever does not hear itself is cut off");
    }
}
