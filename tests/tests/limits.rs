//! What happens at limits that no ordinary input comes near.

use std::time::Duration;

use anyhow::{Result, ensure};
use tapeline::{
    contract::Frames,
    pipeline::{CommitSettings, Committed, Observer, Step, Worker, spec::Pipeline, watermark_settings},
    segment::{NoTap, Origin, Segment, Tapped, Work},
};
use tapeline_tests::{bench::chain, memory_store::MemoryStore, program};

struct Silent;

impl Observer for Silent {
    fn committed(&mut self, _: &Committed, _: Vec<Tapped>) {}
}

/// Dead letters carry what was refused. However rarely the settings commit, they do not gather without end.
#[test]
fn what_waits_for_a_commit_is_bounded() -> Result<()> {
    const FRAME_BYTES: usize = 1 << 20;
    const WAITING_BYTES_MAX: usize = 33 << 20;
    let pipeline = Pipeline::load(&program::bitcoin_pipeline())?;
    let store = MemoryStore::default();
    let segment =
        Segment::new(chain::native_stages(&pipeline), watermark_settings(&pipeline), Box::new(NoTap), &store)?;
    let never = CommitSettings { every: Duration::from_secs(3_600), records_max: usize::MAX };
    let mut worker = Worker::new(segment, store, never, Box::new(Silent))?;
    for given in 1..=100_usize {
        let frames = Frames {
            names: Vec::new(),
            format: "binance".to_owned(),
            received: vec![0],
            ends: vec![FRAME_BYTES as u32],
            bytes: vec![b'x'; FRAME_BYTES],
        };
        worker.take(Work::Frames { frames, origin: Origin::default() }, Step::Journal(given as u64))?;
        let waiting = (given - worker.store().dead.len()) * FRAME_BYTES;
        ensure!(waiting <= WAITING_BYTES_MAX, "{waiting} bytes wait for a commit");
    }
    worker.commit()?;
    ensure!(worker.store().dead.len() == 100, "{} dead letters", worker.store().dead.len());
    Ok(())
}
