//! Batches in motion: elements in order, cutting, and putting together what a stage answered.
//!
//! Knows the order codes of the contract and nothing else: no stages, no state, no clocks.

mod breach;

use std::ops::Range;

use tapeline_events::{Entry, Line, LineError, Name};

use crate::{
    contract::{Batch, Columns, Fate, GROUPS_MAX, Group, KindSet, MARK, Output},
    names::Names,
};

pub use breach::{Breach, check, check_answer, check_decoded};

/// Bytes that a batch takes, roughly: what its columns hold.
pub fn byte_count(batch: &Batch) -> usize {
    // Some ten columns of eight bytes; texts are short and rare.
    event_count(batch) * 80 + batch.order.len() + batch.marks.len() * 8
}

/// Takes the marks out, and puts others at the end.
pub fn replace_marks(batch: &mut Batch, marks: Vec<i64>) {
    batch.marks.clear();
    batch.order.retain(|code| *code != MARK);
    if batch.groups.len() <= 1 {
        batch.order.clear();
    }
    if marks.is_empty() {
        return;
    }
    if batch.order.is_empty() {
        batch.order = vec![0; event_count(batch)];
    }
    batch.order.extend(marks.iter().map(|_| MARK));
    batch.marks = marks;
}

/// Puts the elements of one batch behind those of another.
///
/// # Errors
/// Both, when together they have more groups than a batch can have.
pub fn join(mut first: Batch, second: Batch) -> Result<Batch, Box<(Batch, Batch)>> {
    if first.groups.len() + second.groups.len() > GROUPS_MAX {
        return Err(Box::new((first, second)));
    }
    if first.order.is_empty() {
        first.order = vec![0; event_count(&first)];
    }
    let mut code_of = [MARK; 256];
    let implied = if second.order.is_empty() { event_count(&second) } else { 0 };
    for (at, group) in second.groups.into_iter().enumerate() {
        let alike = |known: &Group| !group.is_empty() && known.takes(&group.envelope_at(0), group.columns.kind());
        let place = first.groups.iter().position(alike).unwrap_or_else(|| {
            first.groups.push(group.empty_like());
            first.groups.len() - 1
        });
        code_of[at] = place as u8;
        first.groups[place].append(&group, 0..group.len());
    }
    first.order.extend(std::iter::repeat_n(code_of[0], implied));
    first.order.extend(second.order.iter().map(|code| code_of[usize::from(*code)]));
    first.marks.extend(second.marks);
    if first.groups.len() <= 1 && first.marks.is_empty() {
        first.order.clear();
    }
    Ok(first)
}

/// Calls `visit` with each name of a batch that is there.
///
/// # Errors
/// The first that `visit` fails with.
pub fn visit_names<E>(batch: &mut Batch, mut visit: impl FnMut(&mut u32) -> Result<(), E>) -> Result<(), E> {
    for group in &mut batch.groups {
        visit(&mut group.source)?;
        group.symbol.iter_mut().try_for_each(&mut visit)?;
        let column = match &mut group.columns {
            Columns::Trades(trades) => &mut trades.currency,
            Columns::OptionQuotes(quotes) => &mut quotes.underlying,
            Columns::Dividends(dividends) => &mut dividends.currency,
            Columns::Predictions(predictions) => &mut predictions.model,
            _ => continue,
        };
        column.iter_mut().filter(|name| **name != Name::NONE).try_for_each(&mut visit)?;
    }
    Ok(())
}

/// One element of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// The event at `at` of a group.
    Event {
        /// Number of the group.
        group: usize,
        /// Place in the group.
        at: usize,
    },
    /// A mark, by its number.
    Mark(usize),
}

/// A batch without anything in it.
pub fn empty() -> Batch {
    Batch { groups: Vec::new(), order: Vec::new(), marks: Vec::new() }
}

/// Number of events.
pub fn event_count(batch: &Batch) -> usize {
    batch.groups.iter().map(Group::len).sum()
}

/// The elements in order.
pub fn elements(batch: &Batch) -> impl Iterator<Item = Element> + '_ {
    let mut next = [0_usize; 256];
    let implied = if batch.order.is_empty() { batch.groups.first().map_or(0, Group::len) } else { 0 };
    let coded = batch.order.iter().map(move |code| {
        let at = next[usize::from(*code)];
        next[usize::from(*code)] += 1;
        if *code == MARK { Element::Mark(at) } else { Element::Event { group: usize::from(*code), at } }
    });
    (0..implied).map(|at| Element::Event { group: 0, at }).chain(coded)
}

/// The elements in `range` as a batch.
pub fn slice(batch: &Batch, range: Range<usize>) -> Batch {
    let mut weaver = Weaver::new(batch.groups.len());
    for element in elements(batch).skip(range.start).take(range.len()) {
        match element {
            Element::Event { group, at } => weaver.event(group, at),
            Element::Mark(at) => weaver.mark(batch.marks[at]),
        }
    }
    weaver.finish(batch.groups.clone())
}

/// The batch without the events that `keeps` says no to; it is asked for each event in order, by its position.
pub fn retain(batch: Batch, mut keeps: impl FnMut(usize) -> bool) -> Batch {
    let mut weaver = Weaver::new(batch.groups.len());
    let mut position = 0;
    for element in elements(&batch) {
        match element {
            Element::Mark(at) => weaver.mark(batch.marks[at]),
            Element::Event { group, at } => {
                if keeps(position) {
                    weaver.event(group, at);
                }
                position += 1;
            }
        }
    }
    weaver.finish(batch.groups)
}

/// The batch without the events that `keeps` says no to; it is asked for each event in order, by its group and its place
/// there.
pub fn filter(batch: Batch, mut keeps: impl FnMut(&Group, usize) -> bool) -> Batch {
    let kept: Vec<bool> = elements(&batch)
        .filter_map(|element| match element {
            Element::Event { group, at } => Some(keeps(&batch.groups[group], at)),
            Element::Mark(_) => None,
        })
        .collect();
    if kept.iter().all(|kept| *kept) {
        return batch;
    }
    retain(batch, |position| kept[position])
}

/// The events of the kinds in `takes`, with all marks, and whether anything is left out.
pub fn select(batch: Batch, takes: KindSet) -> (Batch, Option<Bypass>) {
    let taken: Vec<bool> = batch.groups.iter().map(|group| takes.has(group.columns.kind())).collect();
    if taken.iter().all(|taken| *taken) {
        return (batch, None);
    }
    let mut code_of = [MARK; 256];
    let mut groups = Vec::new();
    let mut rest = Vec::new();
    for (at, (group, taken)) in batch.groups.into_iter().zip(&taken).enumerate() {
        if *taken {
            code_of[at] = groups.len() as u8;
            groups.push(group);
            rest.push(None);
        } else {
            rest.push(Some(group));
        }
    }
    let is_taken = |code: &u8| *code == MARK || taken[usize::from(*code)];
    let order: Vec<u8> =
        batch.order.iter().filter(|code| is_taken(code)).map(|code| code_of[usize::from(*code)]).collect();
    let bypass = Bypass { order: batch.order, rest };
    let order = if groups.len() <= 1 && batch.marks.is_empty() { Vec::new() } else { order };
    (Batch { groups, order, marks: batch.marks }, Some(bypass))
}

/// What a stage was not shown, and where it stood.
pub struct Bypass {
    /// The order of the whole batch.
    order: Vec<u8>,
    /// For each group of the whole batch, the group when it was not shown.
    rest: Vec<Option<Group>>,
}

impl Bypass {
    /// Number of groups of the whole batch.
    pub fn group_count(&self) -> usize {
        self.rest.len()
    }

    /// What the stage was not shown.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.rest.iter().flatten()
    }
}

/// What goes on behind a stage: events that it let through, that it was not shown, and that it emitted. The answer has
/// passed [`check_answer`], and there are no more groups than a batch can have.
pub fn merge(input: Batch, bypass: Option<Bypass>, output: Output) -> Batch {
    let is_untouched = output.fates.iter().all(|fate| *fate == Fate::FORWARD);
    if is_untouched && output.emitted.groups.is_empty() {
        return rejoin(input, bypass);
    }
    let shown = bypass.as_ref().map(|bypass| bypass.rest.iter().map(Option::is_none).collect::<Vec<_>>());
    if is_untouched {
        return append(rejoin(input, bypass), shown.as_deref(), output.emitted);
    }
    weave(rejoin(input, bypass), shown.as_deref(), &output.fates, output.emitted)
}

/// The whole batch, as it was before [`select`].
pub fn rejoin(input: Batch, bypass: Option<Bypass>) -> Batch {
    let Some(bypass) = bypass else { return input };
    let mut shown = input.groups.into_iter();
    let groups = bypass.rest.into_iter().filter_map(|group| group.or_else(|| shown.next())).collect();
    Batch { groups, order: bypass.order, marks: input.marks }
}

/// As [`weave`] when all events go on: no group changes, only the order has to be found.
fn append(whole: Batch, shown: Option<&[bool]>, emitted: Batch) -> Batch {
    let base = whole.groups.len() as u8;
    let implied = vec![0; if whole.order.is_empty() { event_count(&whole) } else { 0 }];
    let mut order = Vec::with_capacity(whole.order.len() + implied.len() + event_count(&emitted));
    let mut codes = emitted.order.iter().copied().peekable();
    for code in implied.iter().chain(&whole.order) {
        order.push(*code);
        if *code != MARK && shown.is_some_and(|shown| !shown[usize::from(*code)]) {
            continue;
        }
        codes.next();
        while let Some(code) = codes.next_if(|code| *code < MARK) {
            order.push(base + code);
        }
    }
    let mut groups = whole.groups;
    groups.extend(emitted.groups);
    Batch { groups, order, marks: whole.marks }
}

/// Puts emitted events behind the elements at which they were emitted; `shown` says which groups the stage saw.
fn weave(whole: Batch, shown: Option<&[bool]>, fates: &[u8], emitted: Batch) -> Batch {
    let emitted_base = whole.groups.len();
    let mut weaver = Weaver::new(emitted_base + emitted.groups.len());
    let mut codes = emitted.order.iter().copied().peekable();
    let mut next_emitted = vec![0_usize; emitted.groups.len()];
    let mut position = 0;
    for element in elements(&whole) {
        match element {
            Element::Event { group, at } if shown.is_some_and(|shown| !shown[group]) => {
                weaver.event(group, at);
                continue;
            }
            Element::Event { group, at } => {
                if fates.get(position).is_none_or(|fate| *fate == Fate::FORWARD) {
                    weaver.event(group, at);
                }
                position += 1;
            }
            Element::Mark(at) => weaver.mark(whole.marks[at]),
        }
        codes.next();
        while let Some(code) = codes.next_if(|code| *code < MARK) {
            let group = usize::from(code);
            weaver.event(emitted_base + group, next_emitted[group]);
            next_emitted[group] += 1;
        }
    }
    let mut groups = whole.groups;
    groups.extend(emitted.groups);
    weaver.finish(groups)
}

/// Takes elements in order and then builds the batch, column by column, from runs of events of the groups.
struct Weaver {
    /// Number of the group, or [`Weaver::MARK`].
    order: Vec<u16>,
    marks: Vec<i64>,
    runs: Vec<Vec<Range<usize>>>,
}

impl Weaver {
    const MARK: u16 = u16::MAX;

    fn new(groups: usize) -> Self {
        Self { order: Vec::new(), marks: Vec::new(), runs: vec![Vec::new(); groups] }
    }

    fn mark(&mut self, time: i64) {
        self.order.push(Self::MARK);
        self.marks.push(time);
    }

    #[inline]
    fn event(&mut self, group: usize, at: usize) {
        self.order.push(group as u16);
        match self.runs[group].last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => self.runs[group].push(at..at + 1),
        }
    }

    fn finish(self, groups: Vec<Group>) -> Batch {
        let mut code_of = vec![MARK; self.runs.len()];
        let mut kept = Vec::new();
        for (at, (group, runs)) in groups.into_iter().zip(self.runs).enumerate() {
            if runs.is_empty() {
                continue;
            }
            code_of[at] = kept.len().min(GROUPS_MAX) as u8;
            kept.push(cut(group, runs));
        }
        let needs_order = kept.len() > 1 || !self.marks.is_empty();
        let code = |group: &u16| code_of.get(usize::from(*group)).copied().unwrap_or(MARK);
        let order = if needs_order { self.order.iter().map(code).collect() } else { Vec::new() };
        Batch { groups: kept, order, marks: self.marks }
    }
}

/// The group with only the events in `runs`.
fn cut(group: Group, runs: Vec<Range<usize>>) -> Group {
    if let [run] = runs.as_slice()
        && *run == (0..group.len())
    {
        return group;
    }
    let mut out = group.empty_like();
    for run in runs {
        out.append(&group, run);
    }
    out
}

/// A batch from JSON lines: events, and watermarks as marks. Names become the pipeline's.
///
/// # Errors
/// The number of the line, from 0, and what is wrong with it.
pub fn from_lines<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    received: Option<i64>,
    names: &mut Names,
) -> Result<Batch, (usize, LineError)> {
    let mut batch = empty();
    let mut order = Vec::new();
    for (number, text) in lines.enumerate().filter(|(_, text)| !text.trim_ascii().is_empty()) {
        let line = Line::parse(text).map_err(|error| (number, error))?;
        match line.entry(&mut |name| names.intern(name)).map_err(|error| (number, error))? {
            Entry::Watermark(time) => {
                batch.marks.push(time);
                order.push(MARK);
            }
            Entry::Event(mut envelope, row) => {
                envelope.received = envelope.received.or(received);
                let kind = row.kind();
                let found = batch.groups.iter().rposition(|group| group.takes(&envelope, kind));
                let at = found.unwrap_or_else(|| {
                    batch.groups.push(Group::for_events_like(&envelope, kind));
                    batch.groups.len() - 1
                });
                batch.groups[at].push(&envelope, row);
                order.push(at.min(GROUPS_MAX) as u8);
            }
        }
    }
    if batch.groups.len() > 1 || !batch.marks.is_empty() {
        batch.order = order;
    }
    Ok(batch)
}

/// The event at `at` of a group as a JSON line, without the line's end.
pub fn to_line(group: &Group, at: usize, names: &Names) -> String {
    let line = Line::of(&group.envelope_at(at), &group.columns.row(at), &|name: Name| names.text(name));
    // A line is a map of texts and numbers, which JSON can always write.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::INPUT;

    fn trades(names: &mut Names, events: &[(char, i64)]) -> Batch {
        let text: Vec<String> = events
            .iter()
            .map(|(symbol, time)| match symbol {
                '|' => format!(r#"{{"kind":"watermark","time":"1970-01-01T00:00:{time:02}Z"}}"#),
                'q' => format!(r#"{{"kind":"quote","symbol":"q","time":"1970-01-01T00:00:{time:02}Z","bid":1}}"#),
                _ => format!(
                    r#"{{"kind":"trade","symbol":"{symbol}","time":"1970-01-01T00:00:{time:02}Z","id":{time},"price":1}}"#
                ),
            })
            .collect();
        from_lines(text.iter().map(String::as_bytes), None, names).unwrap()
    }

    fn lines(batch: &Batch, names: &Names) -> Vec<String> {
        elements(batch)
            .map(|element| match element {
                Element::Event { group, at } => to_line(&batch.groups[group], at, names),
                Element::Mark(at) => format!("mark {}", batch.marks[at]),
            })
            .collect()
    }

    fn answer(fates: &[u8], emitted: Batch) -> Output {
        let rejects = fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::REJECT);
        let rejects = rejects.map(|(at, _)| crate::contract::Reject { position: at as u32, reason: String::new() });
        Output { names: Vec::new(), fates: fates.to_vec(), rules: Vec::new(), rejects: rejects.collect(), emitted }
    }

    #[test]
    fn emitted_events_stand_where_they_were_emitted() {
        let mut names = Names::default();
        let whole = trades(&mut names, &[('a', 1), ('q', 2), ('|', 3), ('b', 4), ('q', 5), ('c', 6)]);
        let expected = lines(&whole, &names);
        let all = KindSet::from(crate::contract::Kinds::TRADES);
        let (input, bypass) = select(whole, all);
        assert_eq!(event_count(&input), 3);
        let mut emitted = trades(&mut names, &[('x', 7), ('y', 8), ('z', 9)]);
        emitted.order = vec![INPUT, 0, MARK, 0, INPUT, INPUT, 0];
        let batch = merge(input, bypass, answer(&[0, 2, 0], emitted));
        check(&batch).unwrap();
        let found = lines(&batch, &names);
        assert_eq!(found.len(), 8);
        assert_eq!(
            [&found[0], &found[2], &found[3], &found[5], &found[6]],
            [&expected[0], &expected[1], &expected[2], &expected[4], &expected[5]]
        );
        assert!(found[1].contains("\"x\"") && found[4].contains("\"y\"") && found[7].contains("\"z\""));
    }

    #[test]
    fn answers_that_do_not_fit_are_breaches() {
        let mut names = Names::default();
        let input = trades(&mut names, &[('a', 1), ('b', 2)]);
        for output in [
            answer(&[0], empty()),
            answer(&[0, 9], empty()),
            Output { rejects: Vec::new(), ..answer(&[0, 4], empty()) },
            answer(&[], trades(&mut names, &[('x', 7)])),
        ] {
            assert!(check_answer(&input, &output).is_err());
        }
        let mut uneven = input.clone();
        uneven.groups[0].time.pop();
        assert!(check(&uneven).is_err());
    }

    proptest! {
        #[test]
        fn parts_joined_are_the_whole(kinds in "[abq|]{1,40}", cut in 0_usize..40) {
            let mut names = Names::default();
            let events: Vec<_> = kinds.chars().zip(1..).collect();
            let batch = trades(&mut names, &events);
            let cut = cut.min(events.len());
            let joined = join(slice(&batch, 0..cut), slice(&batch, cut..events.len())).unwrap();
            check(&joined).unwrap();
            prop_assert_eq!(lines(&joined, &names), lines(&batch, &names));
        }

        #[test]
        fn what_is_filtered_out_is_gone_and_the_rest_is_as_before(kinds in "[abq|]{1,40}", from in 0_i64..40) {
            let mut names = Names::default();
            let events: Vec<_> = kinds.chars().zip(1..).collect();
            let batch = trades(&mut names, &events);
            let is_kept = |time: i64| time >= from * 1_000_000_000;
            let lines_before = lines(&batch, &names);
            let kept = events.iter().zip(lines_before).filter(|((kind, time), _)| *kind == '|' || *time >= from);
            let filtered = filter(batch, |group, at| is_kept(group.time[at]));
            check(&filtered).unwrap();
            prop_assert_eq!(lines(&filtered, &names), kept.map(|(_, line)| line).collect::<Vec<_>>());
        }

        #[test]
        fn slices_put_together_are_the_whole(kinds in "[abq|]{1,40}", cut in 0_usize..40) {
            let mut names = Names::default();
            let events: Vec<_> = kinds.chars().zip(1..).collect();
            let batch = trades(&mut names, &events);
            check(&batch).unwrap();
            let cut = cut.min(events.len());
            let mut parts = lines(&slice(&batch, 0..cut), &names);
            parts.extend(lines(&slice(&batch, cut..events.len()), &names));
            prop_assert_eq!(parts, lines(&batch, &names));
        }
    }
}
