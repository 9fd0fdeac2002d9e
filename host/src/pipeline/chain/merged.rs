//! Where partitions meet.

use std::collections::BTreeMap;

use crate::{contract::END, store::ReadFrom};

/// The watermark of several partitions: that of the one that is furthest behind.
pub(super) struct Merged {
    watermarks: BTreeMap<String, i64>,
    current: i64,
    ends: BTreeMap<String, u64>,
    ended: u64,
}

impl Merged {
    pub(super) fn new(read: &BTreeMap<String, ReadFrom>, partitions: u32) -> Self {
        let mut merged = Self { watermarks: BTreeMap::new(), current: i64::MIN, ends: BTreeMap::new(), ended: 0 };
        for producer in (0..partitions).map(|partition| partition.to_string()) {
            let known = read.get(&producer).copied().unwrap_or_default();
            merged.watermarks.insert(producer.clone(), known.watermark);
            merged.ends.insert(producer, known.ends);
        }
        (merged.current, merged.ended) = merged.reached();
        merged
    }

    fn reached(&self) -> (i64, u64) {
        let watermark = self.watermarks.values().copied().min().unwrap_or(i64::MIN);
        (watermark, self.ends.values().copied().min().unwrap_or(0))
    }

    /// The marks that all have reached now: the watermark if it has moved, and the end of everything.
    pub(super) fn reach(&mut self, producer: &str, read: &ReadFrom) -> Vec<i64> {
        self.watermarks.insert(producer.to_owned(), read.watermark);
        self.ends.insert(producer.to_owned(), read.ends);
        let (watermark, ended) = self.reached();
        let mut marks = Vec::new();
        if watermark > self.current {
            marks.push(watermark);
        }
        if ended > self.ended {
            marks.push(END);
        }
        (self.current, self.ended) = (self.current.max(watermark), ended);
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_the_watermark_of_the_last_one() {
        let mut merged = Merged::new(&BTreeMap::new(), 2);
        let read = |watermark, ends| ReadFrom { last: 1, watermark, ends };
        assert_eq!(merged.reach("0", &read(10, 0)), [0_i64; 0]);
        assert_eq!(merged.reach("1", &read(5, 0)), [5]);
        assert_eq!(merged.reach("1", &read(7, 0)), [7]);
        assert_eq!(merged.reach("1", &read(20, 1)), [10]);
        assert_eq!(merged.reach("1", &read(30, 1)), [0_i64; 0]);
        assert_eq!(merged.reach("0", &read(30, 1)), [30, END]);
        assert_eq!(merged.reach("0", &read(30, 2)), [0_i64; 0]);
    }
}
