//! `[nats]`: how a pipeline is cut into segments and partitions.

use std::ops::Range;

use super::{Nats, Stage, document::Document, raw::RawNats};
use crate::error::Result;

/// More hosts than anybody runs for one pipeline.
const PARTITIONS_MAX: u32 = 256;
/// What a cluster of NATS servers can have.
const REPLICAS: [usize; 3] = [1, 3, 5];
const STREAM_MIB: std::ops::RangeInclusive<u64> = 16..=16 * 1_024 * 1_024;

pub(super) fn resolve(document: &Document, raw: &RawNats, stages: &[Stage]) -> Result<Nats> {
    if !(1..=PARTITIONS_MAX).contains(&raw.partitions) {
        return Err(document.unfit("nats.partitions", &format!("1 to {PARTITIONS_MAX}")));
    }
    if !REPLICAS.contains(&raw.replicas) {
        return Err(document.unfit("nats.replicas", "1, 3 or 5"));
    }
    if !STREAM_MIB.contains(&raw.stream_mib) {
        return Err(document.unfit("nats.stream_mib", "16 to 16777216"));
    }
    Ok(Nats {
        partitions: raw.partitions,
        replicas: raw.replicas,
        stream_bytes_max: raw.stream_mib << 20,
        segments: segments(document, &raw.fuse, stages)?,
    })
}

/// Each stage by itself, but for those that are fused. The first and the last are never fused with others: what goes in
/// is divided by symbol behind the first, and what comes out is stored where the last one is.
fn segments(document: &Document, fuse: &[Vec<String>], stages: &[Stage]) -> Result<Vec<Range<usize>>> {
    let mut begins = vec![true; stages.len() + 1];
    for (at, names) in fuse.iter().enumerate() {
        let key = format!("nats.fuse[{at}]");
        let position = |name: &String| stages.iter().position(|stage| stage.name == *name);
        let positions: Option<Vec<usize>> = names.iter().map(position).collect();
        let positions = positions.ok_or_else(|| document.unfit(&key, "names of stages"))?;
        let are_neighbours = positions.windows(2).all(|pair| pair.first().map(|at| at + 1) == pair.last().copied());
        let is_inside = |at: &usize| *at > 0 && *at + 1 < stages.len();
        if !are_neighbours || !positions.iter().all(is_inside) {
            return Err(
                document.unfit(&key, "neighbours in the order of the data, without the first and the last stage")
            );
        }
        for at in positions.iter().skip(1) {
            if let Some(begins) = begins.get_mut(*at) {
                *begins = false;
            }
        }
    }
    let starts: Vec<usize> = (0..=stages.len()).filter(|at| begins.get(*at) == Some(&true)).collect();
    Ok(starts.iter().zip(starts.iter().skip(1)).map(|(start, end)| *start..*end).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Pipeline;

    fn parse(nats: &str) -> Result<Vec<std::ops::Range<usize>>, String> {
        let stages: String = ["a", "b", "c", "d", "e"].map(|name| format!("[[stages]]\nname = '{name}'\n")).concat();
        let text = format!("name = 'x'\n[nats]\n{nats}\n{stages}");
        Pipeline::parse(Path::new("x.toml"), &text).map(|pipeline| pipeline.nats.segments).map_err(|e| e.to_string())
    }

    #[test]
    fn each_stage_is_a_segment_unless_it_is_fused() {
        assert_eq!(parse("").unwrap(), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(parse("fuse = [['b', 'c', 'd']]").unwrap(), [0..1, 1..4, 4..5]);
        assert_eq!(parse("fuse = [['c', 'd']]").unwrap(), [0..1, 1..2, 2..4, 4..5]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in ["fuse = [['a', 'b']]", "fuse = [['d', 'e']]", "fuse = [['b', 'd']]", "fuse = [['x']]"] {
            assert!(parse(wrong).unwrap_err().contains("nats.fuse[0]"), "{wrong}");
        }
        assert!(parse("partitions = 0").unwrap_err().contains("nats.partitions"));
        assert!(parse("replicas = 2").unwrap_err().contains("nats.replicas"));
        assert!(parse("stream_mib = 1").unwrap_err().contains("nats.stream_mib"));
    }
}
