//! Where a function, or a host that writes to AWS, puts what its commits give out: the next queue, rows, files, alarms, dead
//! letters, the ledger.

use std::time::Duration;

use tapeline_invoke::Hop;

use crate::{
    chain::Outcome,
    clients::Clients,
    message::Numbered,
    operate::SharedStores,
    outbox::Outbox,
    settings::Settings,
    sink::{DeadLetters, Ledger, Objects, Part, Queue, Rows, SinkError, Topic},
};

/// What a function is not told where to put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function has nowhere to put {0}: it is the last one that has")]
pub struct Nowhere(&'static str);

/// The places of a function.
pub(crate) struct Delivery {
    /// The stages that share the function: who its messages are from.
    producer: String,
    out: Option<Queue>,
    rows: Option<Rows>,
    objects: Option<Objects>,
    topic: Option<Topic>,
    dead_letters: DeadLetters,
    ledger: Ledger,
}

impl Delivery {
    pub(crate) fn new(settings: &Settings, clients: &Clients) -> Self {
        let queue = |url: &String| Queue::new(clients.sqs.clone(), url.clone());
        let rows = |table: &String| Rows::new(clients.dynamodb.clone(), table.clone(), settings.rows_expire);
        let objects = |bucket: &String| Objects::new(clients.s3.clone(), bucket.clone());
        let topic = |arn: &String| Topic::new(clients.sns.clone(), arn.clone(), &settings.pipeline);
        Self {
            producer: settings.stage_names(),
            out: settings.out_queue.as_ref().map(queue),
            rows: settings.rows_table.as_ref().map(rows),
            objects: settings.objects_bucket.as_ref().map(objects),
            topic: settings.alarms_topic.as_ref().map(topic),
            dead_letters: DeadLetters::new(clients.dynamodb.clone(), settings.dead_letters_table.clone()),
            ledger: Ledger::new(clients.dynamodb.clone(), settings.ledger_table.clone()),
        }
    }

    /// The places of a segment at the end of a pipeline, of a host.
    pub(crate) fn of_writer(stores: &SharedStores, dynamodb: aws_sdk_dynamodb::Client, s3: aws_sdk_s3::Client) -> Self {
        let expire = stores.rows_expire.map(Duration::from_secs);
        Self {
            producer: String::new(),
            out: None,
            rows: Some(Rows::new(dynamodb.clone(), stores.rows_table.clone(), expire)),
            objects: Some(Objects::new(s3, stores.objects_bucket.clone())),
            topic: None,
            dead_letters: DeadLetters::new(dynamodb.clone(), stores.dead_letters_table.clone()),
            ledger: Ledger::new(dynamodb, stores.ledger_table.clone()),
        }
    }

    /// Stores a record as it came, before it is parsed.
    ///
    /// # Errors
    /// When it is not stored.
    pub(crate) async fn store_raw(
        &self,
        stage: &str,
        number: u128,
        body: &[u8],
        (format, received): (&str, i64),
    ) -> Result<(), SinkError> {
        match &self.objects {
            Some(objects) => objects.put_raw(stage, number, body, (format, received)).await,
            None => Ok(()),
        }
    }

    /// Whether the function has a place for all that came of work. It is asked before that is committed: then nothing could
    /// be done about it.
    ///
    /// # Errors
    /// Says what has none.
    pub(crate) fn check(&self, Outcome { rows, appends, alarms, .. }: &Outcome) -> Result<(), Nowhere> {
        let has = |is_there: bool, what| if is_there { Ok(()) } else { Err(Nowhere(what)) };
        has(self.rows.is_some() || rows.is_empty(), "rows")?;
        has(self.objects.is_some() || appends.is_empty(), "appends to files")?;
        has(self.topic.is_some() || alarms.is_empty(), "alarms")
    }

    /// Whether events go on. The last stage of all lets nothing through but marks.
    pub(crate) const fn goes_on(&self) -> bool {
        self.out.is_some()
    }

    /// Sends and writes what a commit of a partition gave out. What has been sent before is sent in the same words, under the
    /// same numbers and names, so that it is known; but for alarms, which are told once more.
    ///
    /// # Errors
    /// When a service has not taken something. Then all of it is to be delivered once more.
    pub(crate) async fn deliver(&self, partition: u32, outbox: Outbox) -> Result<(), SinkError> {
        let Outbox { step, out, rows, appends, alarms, aside, ledger } = outbox;
        let part = Part { partition, step };
        let sent = async {
            let Some(queue) = &self.out else { return Ok(()) };
            let message = |to: u32, (number, hop): (u64, Hop)| {
                let body = Numbered { producer: self.producer.clone(), number, hop }.encode();
                (format!("{}-{to}-{number}", digest_of(&self.producer)), body)
            };
            let groups = out
                .into_iter()
                .map(|(to, hops)| (to.to_string(), hops.into_iter().map(|hop| message(to, hop)).collect::<Vec<_>>()));
            queue.send(groups.collect()).await
        };
        let written = async {
            let Some(table) = &self.rows else { return Ok(()) };
            table.put(&rows, part).await
        };
        let appended = async {
            let Some(objects) = &self.objects else { return Ok(()) };
            objects.put(&appends, part).await
        };
        let (kept, counted) = (self.dead_letters.put(&aside, part), self.ledger.add(&ledger, part));
        futures_util::try_join!(sent, written, appended, kept, counted)?;
        // The last: it would be told once more each time that one of the others fails.
        match &self.topic {
            Some(topic) => topic.tell(&alarms).await,
            None => Ok(()),
        }
    }

    /// As [`Self::deliver`], if anything is left to be delivered.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn deliver_left(&self, partition: u32, outbox: Option<Outbox>) -> Result<(), SinkError> {
        match outbox {
            Some(outbox) => self.deliver(partition, outbox).await,
            None => Ok(()),
        }
    }
}

/// SQS takes few letters for what it knows a message by.
fn digest_of(producer: &str) -> String {
    tapeline_runtime::digest(producer.as_bytes()).chars().take(16).collect()
}
