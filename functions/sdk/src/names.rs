//! Names in an instance: texts on one side, the host's numbers and the stage's own on the other.

use rustc_hash::FxHashMap;
use tapeline_events::Name;

/// First number of the names that a stage coins; see `events.name` in the contract.
pub(crate) const COINED: u32 = 0x8000_0000;

/// The texts behind the names that an instance knows.
///
/// A [`Name`] in a stage's hands is an index into this table, the same for one text however it came. It MUST NOT be
/// saved or shown: another instance numbers differently.
#[derive(Default)]
pub struct Names {
    texts: Vec<Box<str>>,
    by_text: FxHashMap<Box<str>, u32>,
    /// The host's numbers, in its order, as indices into `texts`.
    told: Vec<u32>,
    /// What to call `texts[i]` towards the host.
    numbers: Vec<u32>,
    coined_count: u32,
    /// Coined since they were last taken.
    coined: Vec<String>,
}

impl Names {
    /// The text of a name; empty for a name of another instance.
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("", AsRef::as_ref)
    }

    /// The name of a text, new if need be.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(index) = self.by_text.get(text) {
            return Name(*index);
        }
        Name(self.insert(text, None))
    }

    /// The name of a text, if it has one.
    pub fn find(&self, text: &str) -> Option<Name> {
        self.by_text.get(text).copied().map(Name)
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    pub(crate) fn tell(&mut self, names: Vec<String>) {
        for text in names {
            let number = self.told.len() as u32;
            let index = match self.by_text.get(text.as_str()) {
                Some(index) => *index,
                None => self.insert(&text, Some(number)),
            };
            self.told.push(index);
        }
    }

    /// The name behind a number of the host's, or behind one that was coined here.
    #[inline]
    pub(crate) fn of_number(&self, number: u32) -> Name {
        match self.told.get(number as usize) {
            Some(index) => Name(*index),
            None => self.of_coined(number),
        }
    }

    #[cold]
    fn of_coined(&self, number: u32) -> Name {
        let index = self.numbers.iter().position(|known| *known == number);
        Name(index.map_or(Name::NONE, |index| index as u32))
    }

    /// What to call a name towards the host; coins a number for one that the host has not told.
    #[inline]
    pub(crate) fn number(&mut self, name: Name) -> u32 {
        match self.numbers.get(name.0 as usize) {
            Some(number) if *number != Name::NONE => *number,
            _ => self.coin(name),
        }
    }

    #[cold]
    fn coin(&mut self, name: Name) -> u32 {
        let Some(text) = self.texts.get(name.0 as usize) else { return Name::NONE };
        let number = COINED + self.coined_count;
        self.coined.push(text.to_string());
        self.coined_count += 1;
        self.numbers[name.0 as usize] = number;
        number
    }

    pub(crate) fn take_coined(&mut self) -> Vec<String> {
        std::mem::take(&mut self.coined)
    }

    fn insert(&mut self, text: &str, number: Option<u32>) -> u32 {
        let index = self.texts.len() as u32;
        self.texts.push(text.into());
        self.by_text.insert(text.into(), index);
        self.numbers.push(number.unwrap_or(Name::NONE));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_one_name_whoever_says_it_first() {
        let mut names = Names::default();
        names.tell(vec!["A".into()]);
        let b = names.intern("B");
        assert_eq!(names.number(b), COINED);
        assert_eq!(names.take_coined(), ["B"]);
        names.tell(vec!["B".into(), "C".into()]);
        assert_eq!(names.of_number(1), b);
        assert_eq!(names.of_number(COINED), b);
        assert_eq!(names.number(b), COINED, "a name keeps its number");
        let c = names.intern("C");
        assert_eq!((names.number(c), names.text(c)), (2, "C"));
        assert!(names.take_coined().is_empty());
    }
}
