//! Shows to those who watch on this host what stages give out, wherever they run.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use super::Chain;
use crate::{
    batch::{self, Element},
    bus::{
        Message,
        nats::{Follower, Hop},
    },
    error::Result,
    names::Names,
    pipeline::Hub,
    segment::{Tap as _, Tapped},
};

/// How often it is looked whether anybody watches.
const LOOK: Duration = Duration::from_millis(250);
/// Messages of a hop before the others are looked at.
const MESSAGES_AT_ONCE: usize = 64;

impl Chain {
    /// Lets a hub show what passes the hops, as long as the chain runs. A stage in the middle of a segment gives out
    /// nothing that passes one.
    pub fn show_in(&self, hub: &Hub) -> JoinHandle<()> {
        let hops: Vec<Hop> = self.hops();
        let (chain, hub) = (self.clone(), hub.clone());
        thread::spawn(move || {
            let mut followers: Vec<Option<Follower>> = hops.iter().map(|_| None).collect();
            while !chain.is_stopping() {
                let mut is_watched = false;
                for (hop, follower) in hops.iter().zip(&mut followers) {
                    if !hub.is_watched(&hop.stage) {
                        *follower = None;
                        continue;
                    }
                    is_watched = true;
                    if follower.is_none() {
                        *follower = chain.broker.follow(&hop.all()).ok();
                    }
                    if let Some(follower) = follower {
                        show(follower, hop, &hub);
                    }
                }
                if !is_watched {
                    thread::sleep(LOOK);
                }
            }
        })
    }
}

/// Shows what has passed a hop meanwhile.
fn show(follower: &mut Follower, hop: &Hop, hub: &Hub) {
    let mut patience = LOOK / 10;
    for _ in 0..MESSAGES_AT_ONCE {
        let Some(followed) = follower.next(patience) else { return };
        // A message that cannot be read is the reader's to report.
        let lines = event_lines(&followed.message).unwrap_or_default();
        hub.publish(vec![Tapped { stage: hop.stage.clone(), lines }]);
        patience = Duration::ZERO;
    }
}

/// The events of a message as lines.
///
/// # Errors
/// `Corrupt` when there are names that it does not have.
pub fn event_lines(message: &Message) -> Result<Vec<String>> {
    let mut names = Names::default();
    let batch = message.unpack(&mut names)?;
    let line = |element: Element| match element {
        Element::Event { group, at } => Some(batch::to_line(batch.groups.get(group)?, at, &names)),
        Element::Mark(_) => None,
    };
    Ok(batch::elements(&batch).filter_map(line).collect())
}
