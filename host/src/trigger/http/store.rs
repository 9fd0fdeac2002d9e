//! Reading what a pipeline has stored, beside the one that writes it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    Api,
    admit::{Parameters, limit},
    problem::{Problem, What},
};
use crate::{
    error::Result,
    store::{Counts, DeadLetter, LedgerKey, SqliteStore, Store},
};

/// Readers at a time: the disk serves no more of them any faster, and each has an answer in memory.
const READERS_MAX: usize = 4;
/// How long a question waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Dead letters of an answer when the client does not say.
const DEAD_LETTERS: u64 = 100;
/// Dead letters of an answer. One may have a megabyte, though hardly any does.
const DEAD_LETTERS_MAX: u64 = 1_000;

/// Reads a data folder on threads that may wait.
pub(super) struct Reader {
    folder: Arc<Path>,
    /// The stack on AWS that has the tables instead, if it is so.
    stack: Option<String>,
    turns: Semaphore,
}

impl Reader {
    pub(super) fn new(folder: PathBuf, stack: Option<String>) -> Self {
        Self { folder: folder.into(), stack, turns: Semaphore::new(READERS_MAX) }
    }

    /// Waits for one's turn to ask.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let busy = || Problem::new(What::Busy, "too many other questions are being answered");
        timeout(WAIT_MAX, self.turns.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())
    }

    /// Asks the store; `missing` is the problem when it does not have what was asked for.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        missing: What,
        question: impl FnOnce(&SqliteStore) -> Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        if let Some(stack) = &self.stack {
            return Err(Problem::new(What::UnknownRoute, on_aws(stack)));
        }
        let turn = self.turn().await?;
        let folder = Arc::clone(&self.folder);
        let answer = spawn_blocking(move || question(&SqliteStore::open_reader(&folder)?)).await;
        drop(turn);
        let failed = |_| Problem::new(What::Internal, "the question could not be answered");
        answer.map_err(failed)?.map_err(|error| Problem::of(&error, missing))
    }
}

/// Where to ask instead.
fn on_aws(stack: &str) -> String {
    format!(
        "the tables of this pipeline are in stack {stack} on AWS, which any host may write to: \
         `tapeline query TABLE --aws {stack}` and `tapeline ledger --aws {stack}` read them"
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LedgerQuestion {
    by: Option<By>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Stage,
}

/// A line of the ledger.
#[derive(Serialize)]
pub(super) struct LedgerLine {
    stage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(rename = "in")]
    entered: u64,
    out: u64,
    duplicate: u64,
    late: u64,
    dropped: BTreeMap<String, u64>,
    dead: u64,
    derived: u64,
}

pub(super) async fn ledger(
    State(api): State<Arc<Api>>,
    Parameters(LedgerQuestion { by }): Parameters<LedgerQuestion>,
) -> Result<Json<Vec<LedgerLine>>, Problem> {
    let ledger = api.reader.ask(What::Unavailable, |store| store.ledger()).await?;
    Ok(Json(match by {
        Some(By::Stage) => by_stage(ledger),
        None => ledger.into_iter().map(|(key, counts)| line(key, counts)).collect(),
    }))
}

fn by_stage(ledger: Vec<(LedgerKey, Counts)>) -> Vec<LedgerLine> {
    let mut stages: BTreeMap<(u32, String), Counts> = BTreeMap::new();
    for (key, counts) in ledger {
        stages.entry((key.stage_index, key.stage)).or_default().add(&counts);
    }
    let key = |(stage_index, stage)| LedgerKey { stage_index, stage, symbol: String::new(), day: None };
    stages.into_iter().map(|(stage, counts)| line(key(stage), counts)).collect()
}

fn line(key: LedgerKey, counts: Counts) -> LedgerLine {
    LedgerLine {
        stage: key.stage,
        symbol: Some(key.symbol).filter(|symbol| !symbol.is_empty()),
        day: key.day.map(|day| day.to_string()),
        entered: counts.entered,
        out: counts.out,
        duplicate: counts.duplicate,
        late: counts.late,
        dropped: counts.dropped,
        dead: counts.dead,
        derived: counts.derived,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLettersQuestion {
    from: Option<u64>,
    limit: Option<u64>,
}

pub(super) async fn dead_letters(
    State(api): State<Arc<Api>>,
    Parameters(question): Parameters<DeadLettersQuestion>,
) -> Result<Json<Vec<DeadLetter>>, Problem> {
    let limit = limit(question.limit, DEAD_LETTERS, DEAD_LETTERS_MAX)?;
    let from = question.from.unwrap_or(0);
    let letters = api.reader.ask(What::Unavailable, move |store| store.dead_letters(from, limit)).await?;
    Ok(Json(letters))
}
