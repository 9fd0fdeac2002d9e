//! Stands in for what ministack lacks of SQS: moving messages out of a dead-letter queue. Everything else is passed on to it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, client::conn::http1::handshake, header::TRANSFER_ENCODING,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::stack::Stack;

/// What SQS gives at once.
const MESSAGES_MAX: i32 = 10;
/// How a request begins the name of what it asks for, in this header.
const TARGET: &str = "x-amz-target";
const SQS: &str = "AmazonSQS.";

/// A way to a local AWS that moves messages. It ends with this.
pub struct MessageMoves {
    /// What is to be asked instead of the local AWS.
    pub endpoint: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

/// How what is begun goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goes {
    /// It is done at once.
    #[default]
    Through,
    /// It is begun, and goes on for as long as somebody looks.
    OnAndOn,
    /// It fails.
    Wrong,
}

/// One that was begun.
struct Task {
    told: Value,
    /// Whether it was left out once: SQS may tell of one only a while after it was begun.
    is_late: bool,
}

struct State {
    port: u16,
    queues: aws_sdk_sqs::Client,
    /// The addresses of dead-letter queue and queue, by the name of the first.
    pairs: BTreeMap<String, [String; 2]>,
    /// What became of them, by queue, in their order.
    tasks: Mutex<BTreeMap<String, Vec<Task>>>,
    goes: Mutex<Goes>,
}

impl MessageMoves {
    /// Opens one to the account of a stack.
    ///
    /// # Errors
    /// When a queue does not say its name.
    pub fn open(stack: &Stack) -> Result<Self> {
        let aws = &stack.account.aws;
        let queues = aws_sdk_sqs::Client::new(&aws.sdk());
        let mut pairs = BTreeMap::new();
        for stage in &stack.stages {
            let pair =
                [stack.output_of("DeadLetterQueue", stage)?, stack.output_of("Queue", stage)?].map(str::to_owned);
            let name = QueueAttributeName::QueueArn;
            let ask = queues.get_queue_attributes().queue_url(&pair[0]).attribute_names(name.clone()).send();
            let attributes = stack.account.runtime.block_on(ask)?.attributes.context("attributes")?;
            pairs.insert(attributes.get(&name).context("the name of a queue")?.clone(), pair);
        }
        let (tasks, goes) = (Mutex::default(), Mutex::default());
        let state = Arc::new(State { port: aws.port(), queues, pairs, tasks, goes });
        let listener = stack.account.runtime.block_on(TcpListener::bind(local(0)))?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let server = stack.account.runtime.spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let state = Arc::clone(&state);
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { answer(request, &state).await.map_err(std::io::Error::other) }
                    });
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(client), service));
                }
            }
        });
        Ok(Self { endpoint, state, server })
    }

    /// Says how what is begun from now on goes on.
    pub fn let_it_go(&self, goes: Goes) {
        *self.state.goes.lock().unwrap_or_else(PoisonError::into_inner) = goes;
    }
}

impl Drop for MessageMoves {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(request: Request<Incoming>, state: &State) -> Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let target = head.headers.get(TARGET).and_then(|name| name.to_str().ok()).and_then(|name| name.strip_prefix(SQS));
    let (status, said) = match target {
        Some("StartMessageMoveTask") => state.start(&source(&body)?).await?,
        Some("ListMessageMoveTasks") => (StatusCode::OK, state.list(&source(&body)?)),
        _ => return pass(Request::from_parts(head, Full::new(body)), state.port).await,
    };
    let answer = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    Ok(answer.body(said.to_string().into())?)
}

fn source(body: &[u8]) -> Result<String> {
    let asked: Value = serde_json::from_slice(body)?;
    Ok(asked["SourceArn"].as_str().context("SourceArn")?.to_owned())
}

async fn pass(request: Request<Full<Bytes>>, port: u16) -> Result<Response<Full<Bytes>>> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(local(port)).await?)).await?;
    tokio::spawn(connection);
    let (mut head, body) = sender.send_request(request).await?.into_parts();
    // It is sent in one piece.
    head.headers.remove(TRANSFER_ENCODING);
    Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
}

impl State {
    async fn start(&self, source: &str) -> Result<(StatusCode, Value)> {
        let (is_running, number) = {
            let tasks = self.tasks();
            let tasks = tasks.get(source).map(Vec::as_slice).unwrap_or_default();
            (tasks.last().is_some_and(|task| task.told["Status"] == "RUNNING"), tasks.len())
        };
        if is_running {
            let said = json!({
                "__type": "com.amazonaws.sqs#UnsupportedOperation",
                "message": "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
            });
            return Ok((StatusCode::BAD_REQUEST, said));
        }
        let (goes, handle) = (*self.goes.lock().unwrap_or_else(PoisonError::into_inner), format!("handle {number}"));
        let mut told = match goes {
            Goes::Through => {
                let moved = self.move_all(source).await?;
                json!({ "Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": moved, "ApproximateNumberOfMessagesToMove": moved })
            }
            Goes::OnAndOn => {
                json!({ "Status": "RUNNING", "TaskHandle": handle, "ApproximateNumberOfMessagesMoved": 0 })
            }
            Goes::Wrong => {
                json!({ "Status": "FAILED", "FailureReason": "AWS.SimpleQueueService.NonExistentQueue", "ApproximateNumberOfMessagesMoved": 0 })
            }
        };
        told["SourceArn"] = source.into();
        told["StartedTimestamp"] = number.into();
        self.tasks().entry(source.to_owned()).or_default().push(Task { told, is_late: false });
        Ok((StatusCode::OK, json!({ "TaskHandle": handle })))
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last ones first.
    fn list(&self, source: &str) -> Value {
        let mut tasks = self.tasks();
        let of_queue = tasks.get_mut(source).map(Vec::as_mut_slice).unwrap_or_default();
        let told = of_queue.iter_mut().rev();
        let told = told.filter_map(|task| std::mem::replace(&mut task.is_late, true).then(|| task.told.clone()));
        json!({ "Results": told.collect::<Vec<_>>() })
    }

    /// Moves what is there, in its order, with its groups.
    async fn move_all(&self, source: &str) -> Result<u64> {
        let [from, to] = self.pairs.get(source).context("a dead-letter queue")?;
        let mut moved = 0;
        loop {
            let ask = self.queues.receive_message().queue_url(from).max_number_of_messages(MESSAGES_MAX);
            let messages = ask.message_system_attribute_names(MessageSystemAttributeName::All).send().await?.messages;
            let messages = messages.unwrap_or_default();
            if messages.is_empty() {
                return Ok(moved);
            }
            for message in messages {
                let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name)).cloned();
                let send = self.queues.send_message().queue_url(to).set_message_body(message.body.clone());
                let send = send.set_message_group_id(attribute(MessageSystemAttributeName::MessageGroupId));
                let id = attribute(MessageSystemAttributeName::MessageDeduplicationId);
                send.set_message_deduplication_id(id).send().await?;
                let delete = self.queues.delete_message().queue_url(from);
                delete.set_receipt_handle(message.receipt_handle).send().await?;
                moved += 1;
            }
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
