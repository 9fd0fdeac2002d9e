//! The names of an instance, as somebody who stands between it and its worker hears them.

use crate::contract::COINED;

/// The names that an instance was told, and those that it coined.
#[derive(Default)]
pub(super) struct Lexicon {
    told: Vec<String>,
    coined: Vec<String>,
}

impl Lexicon {
    /// Hears what the instance is told.
    pub(super) fn hear(&mut self, told: &[String]) {
        self.told.extend_from_slice(told);
    }

    /// Hears what the instance coins.
    pub(super) fn coin(&mut self, coined: &[String]) {
        self.coined.extend_from_slice(coined);
    }

    /// All that it was told, in order.
    pub(super) fn told(&self) -> &[String] {
        &self.told
    }

    /// The text of a name in the instance's answer; empty for a number that nobody gave.
    pub(super) fn text(&self, number: u32) -> &str {
        let text = match number.checked_sub(COINED) {
            None => self.told.get(number as usize),
            Some(at) => self.coined.get(at as usize),
        };
        text.map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_what_was_told_or_coined() {
        let mut lexicon = Lexicon::default();
        lexicon.hear(&["A".to_owned()]);
        lexicon.hear(&["B".to_owned()]);
        lexicon.coin(&["C".to_owned()]);
        assert_eq!(
            [lexicon.text(1), lexicon.text(COINED), lexicon.text(2), lexicon.text(COINED + 1)],
            ["B", "C", "", ""]
        );
    }
}
