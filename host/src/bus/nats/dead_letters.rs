//! The stream of dead letters: a copy of what the tables' store keeps, for those who watch over a pipeline.

use async_nats::{
    HeaderMap,
    jetstream::stream::{self, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy},
};

use super::{ANSWER_TIME_MAX, Broker, unavailable};
use crate::{
    error::{Error, Kind, Result},
    store::DeadLetter,
};

/// Bytes of the stream. The oldest letters make room for new ones: the store has all of them.
pub(super) const BYTES_MAX: i64 = 64 << 20;
/// Bytes of a letter's record that are in the message. As JSON text they take six times as much at most.
const PAYLOAD_BYTES_MAX: usize = 128 << 10;
/// Characters of a reason in a header.
const REASON_CHARS_MAX: usize = 200;
/// Header: number of the letter in its store.
const LETTER: &str = "Tapeline-Letter";
/// Header: identity of the store.
const STORE: &str = "Tapeline-Store";

/// Where the dead letters of a pipeline are given out: `<pipeline>.dead-letters`, in order, each once. A message is the
/// letter as JSON; its stage, the digest of its component and its reason are headers as well.
pub struct DeadLetterStream {
    broker: Broker,
    subject: String,
    store: String,
    last: u64,
}

impl DeadLetterStream {
    /// Name of the stream; none of a stage's has two `_` more than its pipeline's.
    pub fn name(pipeline: &str) -> String {
        format!("tapeline_{pipeline}_dead_letters")
    }

    /// Makes the stream for the dead letters of a store, or goes on with it.
    ///
    /// # Errors
    /// When the broker refuses it.
    pub fn open(broker: &Broker, pipeline: &str, store: String, replicas: usize) -> Result<Self> {
        let subject = format!("{pipeline}.dead-letters");
        let name = Self::name(pipeline);
        let config = stream::Config {
            name: name.clone(),
            subjects: vec![subject.clone()],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            storage: stream::StorageType::File,
            max_bytes: BYTES_MAX,
            num_replicas: replicas,
            allow_direct: true,
            ..stream::Config::default()
        };
        let failed = |error| unavailable(format!("make the stream {name}"), error);
        let last = broker.wait(async {
            broker.jetstream.create_or_update_stream(config).await?;
            let stream = broker.jetstream.get_stream(&name).await?;
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(async_nats::Error::from(error)),
            }
        });
        let header = |headers: &HeaderMap, name: &str| headers.get(name).map(ToString::to_string).unwrap_or_default();
        let last = last.map_err(failed)?.filter(|message| header(&message.headers, STORE) == store);
        let last = last.and_then(|message| header(&message.headers, LETTER).parse().ok()).unwrap_or(0);
        Ok(Self { broker: broker.clone(), subject, store, last })
    }

    /// Number of the last letter that was given out.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Gives out the letters behind the last one, in order.
    ///
    /// # Errors
    /// `Unavailable` when the broker does not say that it has stored them all. To open the stream anew tells which.
    pub fn give_out(&mut self, letters: &[DeadLetter]) -> Result<()> {
        let messages: Vec<_> = letters.iter().map(|letter| self.message(letter)).collect::<Result<_>>()?;
        let jetstream = &self.broker.jetstream;
        let stored = self.broker.wait(async {
            tokio::time::timeout(ANSWER_TIME_MAX, async {
                let mut answers = Vec::with_capacity(messages.len());
                for (headers, text) in messages {
                    answers.push(jetstream.publish_with_headers(self.subject.clone(), headers, text.into()).await?);
                }
                for answer in answers {
                    answer.await?;
                }
                Ok::<_, async_nats::Error>(())
            })
            .await
        });
        let failed = |error| unavailable(format!("give out dead letters behind {}", self.last), error);
        match stored {
            Ok(Ok(())) => {
                self.last = letters.last().map_or(self.last, |letter| letter.id);
                Ok(())
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(late) => Err(failed(late.into())),
        }
    }

    fn message(&self, letter: &DeadLetter) -> Result<(HeaderMap, Vec<u8>)> {
        let mut cut = letter.clone();
        if cut.payload.len() > PAYLOAD_BYTES_MAX {
            let bytes = cut.payload.len();
            cut.payload.truncate(PAYLOAD_BYTES_MAX);
            cut.reason = format!("{}; the beginning of its {bytes} bytes is here", cut.reason);
        }
        let text = serde_json::to_vec(&cut)
            .map_err(|error| Error::caused(Kind::Internal, "write a dead letter as JSON", error))?;
        let mut headers = HeaderMap::new();
        headers.insert(LETTER, letter.id.to_string());
        headers.insert(STORE, self.store.as_str());
        headers.insert("Tapeline-Stage", header_text(&letter.stage).as_str());
        headers.insert("Tapeline-Component", header_text(&letter.component).as_str());
        headers.insert("Tapeline-Reason", header_text(&letter.reason).as_str());
        Ok((headers, text))
    }
}

/// What a header can hold of a text.
fn header_text(text: &str) -> String {
    let visible = |character: char| if character.is_ascii_graphic() { character } else { ' ' };
    text.chars().take(REASON_CHARS_MAX).map(visible).collect()
}
