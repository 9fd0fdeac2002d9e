//! Events on their way from one holder of names to another: with the texts of just the names that they have.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tapeline_events::Name;

use crate::{
    batch::{self, Breach},
    contract::Batch,
    names::Names,
};

/// The partition of a symbol: the same in every runtime and in every version.
pub fn partition_of(symbol: &str, partitions: u32) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(symbol.as_bytes()) % u64::from(partitions.max(1))) as u32
}

/// Events whose names are indices into a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// The texts.
    pub names: Vec<String>,
    /// The events.
    pub batch: Batch,
}

impl Hop {
    /// Takes the texts of the names along.
    pub fn pack(mut batch: Batch, names: &Names) -> Self {
        let mut texts = Vec::new();
        let mut numbers = FxHashMap::default();
        let renumbered = batch::visit_names::<std::convert::Infallible>(&mut batch, |name| {
            *name = *numbers.entry(*name).or_insert_with(|| {
                texts.push(names.text(Name(*name)).to_owned());
                texts.len() as u32 - 1
            });
            Ok(())
        });
        let Ok(()) = renumbered;
        Self { names: texts, batch }
    }

    /// The events, with the names of who takes them.
    ///
    /// # Errors
    /// When a number is that of no name.
    pub fn unpack(self, names: &mut Names) -> Result<Batch, Breach> {
        let Self { names: texts, mut batch } = self;
        let numbers: Vec<u32> = texts.iter().map(|text| names.intern(text).0).collect();
        batch::visit_names(&mut batch, |name| {
            let known = numbers.get(*name as usize).copied();
            *name = known.ok_or_else(|| Breach(format!("{name} is the number of no name")))?;
            Ok::<_, Breach>(())
        })?;
        Ok(batch)
    }
}
