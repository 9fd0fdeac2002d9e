//! A finite job: reads files, or standard input, to their end.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    Chain, Observer, Rollout, Unobserved, Worker, commit_settings,
    journal::JournalReader,
    spec::Pipeline,
    watermark_settings,
    worker::{Committed, Step},
};
use crate::{
    bus::nats::{Broker, NatsState},
    connector::{Chunk, LINE_BYTES_MAX, Recording, digest_file},
    contract::{END, Frames},
    error::{Error, Kind, Result},
    metrics::Metrics,
    segment::{NoTap, Origin, Segment, Tapped, Work},
    store::{Counts, InputFile, JournalRecord, SqliteStore, StateStore, Store as _},
};

/// Lines that are read at once. Columns of so many events stay in the processor's second cache.
const CHUNK_LINES_MAX: usize = 4_096;
/// Bytes that are read at once.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Where records of standard input say that they are from.
const STDIN: &str = "standard input, byte";
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// What a job reads.
#[derive(Clone, Debug)]
pub enum JobInput {
    /// A file.
    File(PathBuf),
    /// Standard input. It is stored with the commits, since it cannot be read again.
    Stdin,
}

/// A finite job of a pipeline on a data folder.
pub struct Job {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Which versions of its stages run.
    pub rollout: Rollout,
    /// The data folder's store.
    pub store: SqliteStore,
    /// What is read, in order.
    pub inputs: Vec<JobInput>,
    /// How it is read.
    pub format: String,
}

/// What a job did. Adds up over all processes that worked on it only in the ledger; this is the present one's part.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Summary {
    /// Records that the first stage found.
    pub events_in: u64,
    /// Events that were written.
    pub events_out: u64,
    /// Seen before.
    pub duplicates: u64,
    /// Came after their time was over.
    pub late: u64,
    /// Left out on purpose, by rule.
    pub dropped: std::collections::BTreeMap<String, u64>,
    /// In the dead letters.
    pub dead: u64,
    /// Rows written, by table.
    pub rows: std::collections::BTreeMap<String, u64>,
    /// Objects written to.
    pub objects: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Records of the first stage in a second.
    pub events_per_second: f64,
}

/// Tells how far a job is: compressed bytes read, of how many, and events so far.
pub type ProgressFn = Box<dyn FnMut(u64, u64, u64)>;

/// Sums over commits, and the position of the last stage in the ledger.
#[derive(Clone)]
struct Totals(Arc<Mutex<(Summary, std::collections::BTreeSet<String>)>>, u32);

impl Observer for Totals {
    fn committed(&mut self, commit: &Committed, _: Vec<Tapped>) {
        let (summary, objects) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, counts) in &commit.ledger {
            add(summary, key.stage_index == 0, counts);
            if key.stage_index == self.1 {
                summary.events_out += counts.out;
            }
        }
        for (table, count) in &commit.rows {
            *summary.rows.entry(table.clone()).or_default() += count;
        }
        objects.extend(commit.objects.iter().cloned());
        summary.objects = objects.len() as u64;
    }
}

/// Whether a data folder can be that of a pipeline in one process.
///
/// # Errors
/// `Conflict` when it holds the tables of a chain.
pub(super) fn check_not_chained(store: &SqliteStore) -> Result<()> {
    if store.progress()?.read.is_empty() {
        return Ok(());
    }
    let message = "run in one process: the data folder holds the tables of a pipeline that is chained; give --nats, or another --data";
    Err(Error::new(Kind::Conflict, message))
}

/// Whether a data folder can hold the tables of a chain.
///
/// # Errors
/// `Conflict` when it is that of a pipeline in one process.
pub(super) fn check_chained(store: &SqliteStore) -> Result<()> {
    let progress = store.progress()?;
    if progress.read.is_empty() && (progress.journal_sequence > 0 || !progress.inputs.is_empty()) {
        let message = "run as a chain: the data folder is that of a pipeline in one process; leave --nats out, or give another --data";
        return Err(Error::new(Kind::Conflict, message));
    }
    Ok(())
}

/// Whether the tables have not seen more of a chain than there is.
///
/// # Errors
/// `Conflict` when the broker knows nothing of a chain whose tables these are: it would number its messages from 1 again,
/// and they would count as seen.
pub(super) fn check_same_chain<S: StateStore>(source: &Worker<S>, tables: &SqliteStore) -> Result<()> {
    if !source.progress().journal.is_empty() || tables.progress()?.read.is_empty() {
        return Ok(());
    }
    let message = "go on with this chain: the data folder holds its tables, and the broker has lost what it stored of it; give another --data";
    Err(Error::new(Kind::Conflict, message))
}

fn add(summary: &mut Summary, is_first: bool, counts: &Counts) {
    if is_first {
        summary.events_in += counts.entered;
    }
    summary.duplicates += counts.duplicate;
    summary.late += counts.late;
    summary.dead += counts.dead;
    for (rule, count) in &counts.dropped {
        *summary.dropped.entry(rule.clone()).or_default() += count;
    }
}

impl Job {
    /// Reads everything to its end, lets the watermark pass it, and says what came of it.
    ///
    /// A job that was killed goes on where it was when it is run again with the same inputs.
    ///
    /// # Errors
    /// `Conflict` when the data folder holds an unfinished job of other inputs; otherwise when an input, the store or
    /// a stage fails as a whole. Records that cannot be used are no error: they are dead letters.
    pub fn run(self, mut on_progress: ProgressFn) -> Result<Summary> {
        let started = Instant::now();
        let totals = Totals::of(&self.pipeline);
        let inputs = self.inputs_behind(self.store.progress()?.inputs)?;
        check_not_chained(&self.store)?;
        let reader = self.store.second()?;
        let watermark = watermark_settings(&self.pipeline);
        let make = |stages| Segment::new(stages, watermark, Box::new(NoTap), &self.store);
        let segment = self.rollout.segment(0..self.pipeline.stages.len(), make)?;
        let commit = commit_settings(&self.pipeline);
        let mut worker = Worker::new(segment, self.store, commit, Box::new(totals.clone()))?;
        worker.set_inputs(inputs);
        JournalReader::new(reader, worker.progress().journal_sequence).read_all(&mut worker)?;
        let mut take_stdin = |worker: &mut Worker<SqliteStore>, chunk: Chunk| {
            let step = Step::Stored(journal_records(&chunk, &self.format));
            take_chunk(worker, chunk, &self.format, STDIN, step)
        };
        let report = |read, total| on_progress(read, total, totals.events());
        read_all(&mut worker, &self.inputs, &mut take_stdin, report)?;
        worker.take(Work::Mark(END), Step::None)?;
        worker.commit()?;
        Ok(totals.summary(started.elapsed()))
    }

    /// As [`Self::run`], with the segments chained by a broker. The first and the last one run here, those of `stages`
    /// between them as well (all when none is named); other hosts may run them too.
    ///
    /// # Errors
    /// As [`Self::run`]; `Unavailable` when the broker cannot be reached at the start.
    pub fn run_chained(self, broker: Broker, stages: &[String], mut on_progress: ProgressFn) -> Result<Summary> {
        let started = Instant::now();
        let totals = Totals::of(&self.pipeline);
        let chain = Chain::new(self.pipeline.clone(), self.rollout.clone(), broker, None, Metrics::new())?;
        check_chained(&self.store)?;
        let mut worker = chain.source(Box::new(Unobserved))?;
        check_same_chain(&worker, &self.store)?;
        worker.set_journal(self.store.identity()?)?;
        worker.set_inputs(self.inputs_behind(worker.progress().inputs.clone())?);
        let Self { store, inputs, format, .. } = self;
        let (mut beside, reader) = (store.second()?, store.second()?);
        let mut journal = JournalReader::new(reader, worker.progress().journal_sequence);
        let (writer, workers) = (chain.write(store, Box::new(totals.clone()))?, chain.start(stages)?);
        let done = journal.read_all(&mut worker);
        // It cannot be read again: in the journal first, as if it had come by HTTP.
        let mut take_stdin = |worker: &mut Worker<NatsState>, mut chunk: Chunk| {
            take_too_long(worker, &mut chunk, &format, STDIN)?;
            worker.commit()?;
            beside.append_journal(&journal_records(&chunk, &format))?;
            journal.read_all(worker)
        };
        let report = |read, total| on_progress(read, total, totals.events());
        let done = done
            .and_then(|()| read_all(&mut worker, &inputs, &mut take_stdin, report))
            .and_then(|()| worker.take(Work::Mark(END), Step::End))
            .and_then(|()| worker.commit())
            .and_then(|()| chain.wait_for_end(worker.progress().ends));
        workers.stop()?;
        writer.stop()?;
        done.map(|()| totals.summary(started.elapsed()))
    }

    /// The files of this job, as far as they have been read.
    fn inputs_behind(&self, known: Vec<InputFile>) -> Result<Vec<InputFile>> {
        let files = self.files()?;
        if files.is_empty() || is_same_job(&known, &files) {
            return Ok(known);
        }
        check_finished(&known)?;
        Ok(files)
    }

    fn files(&self) -> Result<Vec<InputFile>> {
        let mut files = Vec::new();
        for input in &self.inputs {
            let JobInput::File(path) = input else { continue };
            files.push(InputFile {
                digest: digest_file(path)?,
                // Whoever replays it may be in another folder.
                path: std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string(),
                format: self.format.clone(),
                offset: 0,
                is_done: false,
            });
        }
        Ok(files)
    }
}

impl Totals {
    fn of(pipeline: &Pipeline) -> Self {
        // The host's own step stands behind the first stage.
        Self(Arc::default(), pipeline.stages.len() as u32)
    }

    fn events(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.events_in
    }

    fn summary(&self, took: Duration) -> Summary {
        let mut summary = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        summary.seconds = took.as_secs_f64();
        summary.events_per_second = summary.events_in as f64 / summary.seconds.max(f64::EPSILON);
        summary
    }
}

fn size_of_input(input: &JobInput) -> u64 {
    match input {
        JobInput::File(path) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
        JobInput::Stdin => 0,
    }
}

fn is_same_job(known: &[InputFile], given: &[InputFile]) -> bool {
    known.len() == given.len() && known.iter().zip(given).all(|(a, b)| a.digest == b.digest && a.format == b.format)
}

fn check_finished(known: &[InputFile]) -> Result<()> {
    match known.iter().find(|input| !input.is_done) {
        None => Ok(()),
        Some(input) => {
            let message = format!(
                "start a job: the data folder holds an unfinished one, which has read {} up to byte {}; run it with the same --input again, or name another --data",
                input.path, input.offset
            );
            Err(Error::new(Kind::Conflict, message))
        }
    }
}

/// What the reading thread hands over.
pub(super) enum Read {
    /// Frames, and how many bytes of the file have been read.
    Chunk(Chunk, u64),
    /// Why the rest cannot be read.
    Failed(Error),
}

/// What is done with a piece of standard input.
type TakeStdin<'a, S> = &'a mut dyn FnMut(&mut Worker<S>, Chunk) -> Result<()>;

/// Gives all inputs to a worker. `report` is told how many bytes of how many have been read.
fn read_all<S: StateStore>(
    worker: &mut Worker<S>,
    inputs: &[JobInput],
    take_stdin: TakeStdin<'_, S>,
    mut report: impl FnMut(u64, u64),
) -> Result<()> {
    let mut file_index = 0;
    let sizes: Vec<u64> = inputs.iter().map(size_of_input).collect();
    let total = sizes.iter().sum();
    let mut before = 0;
    for (input, size) in inputs.iter().zip(&sizes) {
        let mut report = |read: u64| report(before + read, total);
        match input {
            JobInput::File(_) => {
                read_file(worker, file_index, &mut report)?;
                file_index += 1;
            }
            JobInput::Stdin => read_stdin(worker, take_stdin, &mut report)?,
        }
        before += size;
    }
    Ok(())
}

fn read_file<S: StateStore>(worker: &mut Worker<S>, index: usize, report: &mut dyn FnMut(u64)) -> Result<()> {
    let Some(input) = worker.progress().inputs.get(index).cloned() else { return Ok(()) };
    if input.is_done {
        return Ok(());
    }
    let mut recording = Recording::open(input.path.as_ref())?;
    recording.seek_to(input.offset)?;
    let source = format!("sha256:{}", input.digest);
    let mut offset = input.offset;
    for read in read_ahead(recording) {
        match read {
            Read::Chunk(chunk, bytes_read) => {
                offset = chunk.offset_end;
                take_chunk(worker, chunk, &input.format, &source, Step::File { index, offset, is_done: false })?;
                report(bytes_read);
            }
            Read::Failed(error) => {
                let reason = error_text(&error);
                tracing::error!(path = input.path, reason, "the rest of the file cannot be read");
                let origin = Origin { source: source.clone(), positions: vec![offset] };
                let records = vec![(Vec::new(), reason)];
                worker.take(Work::Unreadable { format: input.format.clone(), records, origin }, Step::None)?;
            }
        }
    }
    let nothing = Work::Unreadable { format: input.format, records: Vec::new(), origin: Origin::default() };
    worker.take(nothing, Step::File { index, offset, is_done: true })
}

fn read_stdin<S: StateStore>(
    worker: &mut Worker<S>,
    take: TakeStdin<'_, S>,
    report: &mut dyn FnMut(u64),
) -> Result<()> {
    for read in read_ahead(Recording::open("-".as_ref())?) {
        match read {
            Read::Chunk(chunk, bytes_read) => {
                take(worker, chunk)?;
                report(bytes_read);
            }
            Read::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads on a thread of its own, from where the recording is.
pub(super) fn read_ahead(mut recording: Recording) -> mpsc::IntoIter<Read> {
    let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
    thread::spawn(move || {
        loop {
            let read = match recording.next_chunk(CHUNK_LINES_MAX, CHUNK_BYTES_MAX) {
                Ok(Some(chunk)) => Read::Chunk(chunk, recording.bytes_read()),
                Ok(None) => return,
                Err(error) => {
                    // The receiver is gone when the job has failed, which it reports itself.
                    let _ = sender.send(Read::Failed(error));
                    return;
                }
            };
            if sender.send(read).is_err() {
                return;
            }
        }
    });
    receiver.into_iter()
}

fn take_chunk<S: StateStore>(
    worker: &mut Worker<S>,
    mut chunk: Chunk,
    format: &str,
    source: &str,
    step: Step,
) -> Result<()> {
    take_too_long(worker, &mut chunk, format, source)?;
    worker.take(frames_of(chunk, format, source), step)
}

/// The frames of a chunk as work.
pub(super) fn frames_of(chunk: Chunk, format: &str, source: &str) -> Work {
    let origin = Origin { source: source.to_owned(), positions: chunk.offsets };
    let frames = Frames {
        names: Vec::new(),
        format: format.to_owned(),
        received: chunk.received,
        ends: chunk.ends,
        bytes: chunk.bytes,
    };
    Work::Frames { frames, origin }
}

/// Takes lines that are too long out of a chunk, into the dead letters.
fn take_too_long<S: StateStore>(worker: &mut Worker<S>, chunk: &mut Chunk, format: &str, source: &str) -> Result<()> {
    too_long_of(chunk, format, source).map_or(Ok(()), |work| worker.take(work, Step::None))
}

/// Takes lines that are too long out of a chunk, as work that makes dead letters of them.
pub(super) fn too_long_of(chunk: &mut Chunk, format: &str, source: &str) -> Option<Work> {
    if chunk.too_long.is_empty() {
        return None;
    }
    let (records, positions) = remove_too_long(chunk);
    let origin = Origin { source: source.to_owned(), positions };
    Some(Work::Unreadable { format: format.to_owned(), records, origin })
}

/// Takes the beginnings of lines that are too long out of a chunk: what is kept of each with the reason, and where it
/// is.
fn remove_too_long(chunk: &mut Chunk) -> (Vec<(Vec<u8>, String)>, Vec<u64>) {
    let too_long = std::mem::take(&mut chunk.too_long);
    let whole = std::mem::take(chunk);
    chunk.offset_end = whole.offset_end;
    let mut records = Vec::new();
    let mut start = 0;
    for (at, end) in whole.ends.iter().enumerate() {
        let bytes = &whole.bytes[start..*end as usize];
        start = *end as usize;
        if let Some(line) = too_long.iter().find(|line| line.frame as usize == at) {
            let reason =
                format!("a line of {} bytes; at most {LINE_BYTES_MAX} are read. Its beginning is kept", line.length);
            records.push((bytes.to_vec(), reason));
            continue;
        }
        chunk.bytes.extend_from_slice(bytes);
        chunk.ends.push(chunk.bytes.len() as u32);
        chunk.received.push(whole.received[at]);
        chunk.offsets.push(whole.offsets[at]);
    }
    (records, too_long.iter().map(|line| line.offset).collect())
}

fn journal_records(chunk: &Chunk, format: &str) -> Vec<JournalRecord> {
    let mut start = 0;
    let record = |(at, end): (usize, &u32)| {
        let bytes = chunk.bytes[start..*end as usize].to_vec();
        start = *end as usize;
        let received = chunk.received.get(at).copied().filter(|received| *received != i64::MIN);
        JournalRecord { format: format.to_owned(), stage: None, received, bytes }
    };
    chunk.ends.iter().enumerate().map(record).collect()
}

/// An error with all that caused it, in one line.
pub(super) fn error_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
