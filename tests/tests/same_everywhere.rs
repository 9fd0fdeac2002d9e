//! Stages give the same natively and as components, from one run to the next, and however the input is cut.

use std::time::Duration;

use anyhow::{Result, ensure};
use tapeline::{
    contract::{END, Frames},
    pipeline::{CommitSettings, Committed, Observer, Step, Worker, spec::Pipeline, watermark_settings},
    segment::{Blueprint, NoTap, Origin, Segment, Tapped, Work},
    store::Commit,
};
use tapeline_tests::{bench::chain, memory_store::MemoryStore, program};

struct Silent;

impl Observer for Silent {
    fn committed(&mut self, _: &Committed, _: Vec<Tapped>) {}
}

/// What was written: rows and appends in order, as text, put together over all commits.
fn written(commits: &[Commit]) -> (Vec<String>, std::collections::BTreeMap<String, Vec<u8>>) {
    let mut rows = Vec::new();
    let mut objects = std::collections::BTreeMap::new();
    for commit in commits {
        for group in &commit.rows {
            let count = group.columns.first().map_or(0, |column| tapeline_invoke::cell_count(&column.cells));
            for at in 0..count {
                let cells: Vec<String> = group.columns.iter().map(|column| cell(&column.cells, at)).collect();
                rows.push(format!("{} {}", group.table, cells.join(",")));
            }
        }
        for append in &commit.appends {
            let object: &mut Vec<u8> = objects.entry(append.path.clone()).or_default();
            object.extend_from_slice(&append.bytes);
        }
    }
    // Tables take rows independently of each other; within one, the order of the rows counts.
    rows.sort_by(|a, b| a.split(' ').next().cmp(&b.split(' ').next()));
    (rows, objects)
}

fn cell(cells: &tapeline::contract::Cells, at: usize) -> String {
    use tapeline::contract::Cells;
    match cells {
        Cells::Texts(cells) => tapeline_events::TextColumn::text(cells, at).to_owned(),
        Cells::Integers(cells) => cells[at].to_string(),
        Cells::Numbers(cells) => format!("{:x}", cells[at].to_bits()),
        Cells::Times((cells, unit)) => format!("{} {unit:?}", cells[at]),
        Cells::Booleans(cells) => cells[at].to_string(),
    }
}

fn run(
    stages: Vec<Box<dyn Blueprint>>,
    pipeline: &Pipeline,
    chunks: &[Frames],
    records_max: usize,
) -> Result<MemoryStore> {
    let store = MemoryStore::keeping();
    let segment = Segment::new(stages, watermark_settings(pipeline), Box::new(NoTap), &store)?;
    let commit = CommitSettings { every: Duration::from_secs(3_600), records_max };
    let mut worker = Worker::new(segment, store, commit, Box::new(Silent))?;
    for (number, frames) in (1..).zip(chunks) {
        worker.take(Work::Frames { frames: frames.clone(), origin: Origin::default() }, Step::Journal(number))?;
    }
    worker.take(Work::Mark(END), Step::None)?;
    worker.commit()?;
    Ok(worker.into_store())
}

/// The same frames in pieces of this many.
fn recut(chunks: &[Frames], size: usize) -> Vec<Frames> {
    let mut pieces: Vec<Frames> = Vec::new();
    for chunk in chunks {
        let mut start = 0;
        for (at, end) in chunk.ends.iter().enumerate() {
            if pieces.last().is_none_or(|piece| piece.ends.len() == size) {
                pieces.push(Frames {
                    names: vec![],
                    format: chunk.format.clone(),
                    received: vec![],
                    ends: vec![],
                    bytes: vec![],
                });
            }
            if let Some(piece) = pieces.last_mut() {
                piece.bytes.extend_from_slice(&chunk.bytes[start..*end as usize]);
                piece.ends.push(piece.bytes.len() as u32);
                piece.received.push(chunk.received[at]);
            }
            start = *end as usize;
        }
    }
    pieces
}

#[test]
fn native_compiled_again_and_cut_otherwise() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let market = folder.path().join("market.txt");
    chain::write_market(&market, 20_000)?;
    let chunks = chain::read_market(&market)?;
    let pipeline = Pipeline::load(&program::bitcoin_pipeline())?;
    let native = run(chain::native_stages(&pipeline), &pipeline, &chunks, 20_000)?;
    let (rows, objects) = written(native.written.as_deref().unwrap_or_default());
    ensure!(rows.len() > 20_000 && !objects.is_empty(), "{} rows", rows.len());
    for (name, chunks, records_max) in [
        ("compiled", chunks.clone(), 20_000),
        ("again", chunks.clone(), 20_000),
        ("cut otherwise", recut(&chunks, 613), 700),
    ] {
        let wasm = run(chain::wasm_stages(&pipeline)?, &pipeline, &chunks, records_max)?;
        let (found_rows, found_objects) = written(wasm.written.as_deref().unwrap_or_default());
        ensure!(found_objects == objects, "{name}: the objects differ");
        let first = found_rows.iter().zip(&rows).find(|(found, expected)| found != expected);
        ensure!(found_rows.len() == rows.len() && first.is_none(), "{name}: {first:?}");
        ensure!(wasm.ledger == native.ledger, "{name}: the ledgers differ");
    }
    Ok(())
}
