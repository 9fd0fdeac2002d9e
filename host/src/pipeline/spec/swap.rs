//! `[swap]`: how other versions of stages are brought in.

use super::{Swap, document::Document, raw::RawSwap, resolve_span};
use crate::{error::Result, runtime::CompileLimits};

/// Records that are seen in days; what stands beside costs as much as the version itself.
const PROBATION_MAX: u64 = 1_000_000_000;
/// Compiling takes some seconds.
const COMPILE_TIME_MIN: tapeline_events::Span = tapeline_events::Span(10_000_000);
const COMPILE_MIB: std::ops::RangeInclusive<u64> = 64..=64 * 1_024;
const COMPONENTS_MIB: std::ops::RangeInclusive<u64> = 1..=1_024 * 1_024;

pub(super) fn resolve(document: &Document, raw: RawSwap) -> Result<Swap> {
    if raw.probation > PROBATION_MAX {
        return Err(document.unfit("swap.probation", &format!("0 to {PROBATION_MAX}")));
    }
    if !(0.0..=1.0).contains(&raw.dead_share) {
        return Err(document.unfit("swap.dead_share", "a share from 0 to 1"));
    }
    if !COMPILE_MIB.contains(&raw.compile_memory_mib) {
        return Err(document.unfit("swap.compile_memory_mib", "64 to 65536"));
    }
    if !COMPONENTS_MIB.contains(&raw.components_mib) {
        return Err(document.unfit("swap.components_mib", "1 to 1048576"));
    }
    for (at, key) in raw.trusted_keys.iter().enumerate() {
        if minisign_verify::PublicKey::from_base64(key).is_err() {
            let expected = "a public key of minisign: the second line of its .pub file";
            return Err(document.unfit(&format!("swap.trusted_keys[{at}]"), expected));
        }
    }
    let time_max = resolve_span(document, "swap.compile_time", raw.compile_time, COMPILE_TIME_MIN)?;
    Ok(Swap {
        probation: raw.probation,
        dead_share: raw.dead_share,
        compile: CompileLimits { time_max, memory_bytes_max: raw.compile_memory_mib << 20 },
        components_bytes_max: raw.components_mib << 20,
        trusted_keys: raw.trusted_keys,
    })
}
