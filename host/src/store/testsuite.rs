//! What every store has to do, one test for each law. A backend runs them with `laws!`.

use std::{collections::BTreeMap, path::Path};

use tapeline_events::{Day, Number, TextColumn};
use tempfile::{TempDir, tempdir};

use super::{
    Aside, Commit, Counts, DeadLetter, InputFile, JournalRecord, LedgerKey, Progress, Query, Ran, RowSink, Runs,
    StateStore as _, Store, Value,
};
use crate::{
    contract::{Append, Cells, Column, Entry, Rows, Texts, TimeUnit},
    error::{Kind, Result},
};

/// A kind of store, and what a test has to do behind its back.
pub(super) trait Backend {
    type Store: Store;

    /// Opens the store for a pipeline, making it if need be.
    fn open(&self, folder: &Path) -> Result<Self::Store>;
    /// As [`Backend::open`], though the store may be open elsewhere.
    fn open_rival(&self, folder: &Path) -> Result<Self::Store>;
    /// Opens a store that is there beside the one that commits.
    fn open_second(&self, folder: &Path) -> Result<Self::Store>;
    /// The bytes of an object.
    fn object(&self, folder: &Path, path: &str) -> Option<Vec<u8>>;
    /// Puts bytes at the end of an object, as a commit does that is interrupted then.
    fn lengthen(&self, folder: &Path, path: &str, bytes: &[u8]);
}

/// Makes a test of each law for a backend.
macro_rules! laws {
    ($backend:expr) => {
        $crate::store::testsuite::laws!($backend =>
            a_commit_is_there_after_reopening,
            a_failing_commit_changes_nothing,
            two_writers_cannot_both_commit,
            writing_the_same_rows_again_changes_nothing,
            rows_that_do_not_fit_are_refused,
            state_is_replaced_and_deleted,
            the_ledger_adds_up,
            the_journal_has_no_gaps_over_two_handles,
            journal_pages_keep_their_limits,
            processed_records_are_passed_over,
            dead_letters_are_put_back_once,
            what_was_read_and_what_ran_is_known,
            queries_filter_order_and_format,
            columns_of_ids_take_numbers_and_texts,
            objects_begin_with_their_header,
            half_written_objects_are_cut_off,
            a_failing_object_changes_nothing,
        );
    };
    ($backend:expr => $($law:ident,)*) => {
        $(#[test]
        fn $law() {
            $crate::store::testsuite::$law(&$backend);
        })*
    };
}

pub(super) use laws;

const MINUTE: i64 = 60_000_000_000;
/// 2024-08-08T00:00:00Z.
const START: i64 = 1_723_075_200_000_000_000;

pub(super) fn a_commit_is_there_after_reopening<B: Backend>(backend: &B) {
    let folder = folder();
    let (mut store, commit) = (backend.open(folder.path()).unwrap(), full_commit());
    assert_eq!(store.progress().unwrap(), Progress::default());
    assert_eq!(store.commit(full_commit()).unwrap(), 1);
    drop(store);
    let store = backend.open(folder.path()).unwrap();
    assert_eq!(store.progress().unwrap(), Progress { journal_sequence: 1, ..commit.progress });
    assert_eq!(store.state("dedup").unwrap(), commit.state[0].1);
    assert_eq!(store.tables().unwrap(), ["trades"]);
    assert_eq!(store.ledger().unwrap(), commit.ledger.into_iter().collect::<Vec<_>>());
    assert_eq!(store.dead_letters(0, 9).unwrap(), [DeadLetter { id: 1, ..letter("fetch", "binance") }]);
    assert_eq!(store.read_journal(0, 9, 99).unwrap()[0].record, record(b"frame"));
    assert_eq!(rows(&store, Query::default()).len(), 2);
    assert_eq!(backend.object(folder.path(), "a/b.csv").unwrap(), b"time\n1\n");
}

pub(super) fn a_failing_commit_changes_nothing<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    store.commit(full_commit()).unwrap();
    let before = contents(backend, &store, folder.path());
    let mut wrong = trades(&["A"], &[START], &[3]);
    wrong.columns.pop();
    let failing = || Commit { rows: vec![trades(&["B"], &[START], &[4]), wrong.clone()], ..full_commit() };
    assert_eq!(store.commit(failing()).unwrap_err().kind(), Kind::Invalid);
    let bad_path = Append { path: "../x".to_owned(), header: Vec::new(), bytes: b"x".to_vec() };
    let failing = Commit { appends: vec![append("c.csv", "", "x"), bad_path], ..full_commit() };
    assert_eq!(store.commit(failing).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(contents(backend, &store, folder.path()), before);
    assert_eq!(store.commit(full_commit()).unwrap(), 2, "the store still works");
}

pub(super) fn two_writers_cannot_both_commit<B: Backend>(backend: &B) {
    let folder = folder();
    let mut first = backend.open(folder.path()).unwrap();
    first.commit(full_commit()).unwrap();
    let mut second = backend.open_rival(folder.path()).unwrap();
    let before = contents(backend, &second, folder.path());
    assert_eq!(first.commit(full_commit()).unwrap_err().kind(), Kind::Conflict, "the second has taken over");
    assert_eq!(contents(backend, &second, folder.path()), before);
    second.commit(full_commit()).unwrap();
    let before = contents(backend, &second, folder.path());
    assert_eq!(first.commit(full_commit()).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(contents(backend, &second, folder.path()), before);
    second.commit(full_commit()).unwrap();
    let mut beside = backend.open_second(folder.path()).unwrap();
    assert_eq!(beside.commit(full_commit()).unwrap_err().kind(), Kind::Invalid);
    drop((first, second));
    assert!(backend.open(folder.path()).is_ok());
}

pub(super) fn writing_the_same_rows_again_changes_nothing<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let twice = || vec![trades(&["A", "B"], &[START; 2], &[1, 2]), trades(&["A", "B"], &[START; 2], &[1, 2])];
    store.commit(Commit { rows: twice(), ..Commit::default() }).unwrap();
    let before = rows(&store, Query::default());
    store.commit(Commit { rows: twice(), ..Commit::default() }).unwrap();
    assert_eq!(rows(&store, Query::default()), before);
    assert_eq!(before.len(), 2);
}

pub(super) fn rows_that_do_not_fit_are_refused<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    store.commit(Commit { rows: vec![trades(&["A"], &[START], &[1])], ..Commit::default() }).unwrap();
    let spoilt = |spoil: &dyn Fn(&mut Rows)| {
        let mut rows = trades(&["A"], &[START], &[1]);
        spoil(&mut rows);
        rows
    };
    let wrong = [
        spoilt(&|rows| rows.columns.truncate(3)),
        spoilt(&|rows| rows.columns[3].name = "cost".to_owned()),
        spoilt(&|rows| rows.columns[3].cells = Cells::Booleans(vec![1])),
        spoilt(&|rows| rows.columns[3].cells = Cells::Numbers(vec![1.0, 2.0])),
        spoilt(&|rows| rows.columns[0].cells = Cells::Texts(Texts { ends: vec![9], bytes: vec![b'x'] })),
        spoilt(&|rows| rows.columns[0].cells = Cells::Texts(Texts { ends: vec![1], bytes: vec![255] })),
        spoilt(&|rows| rows.key_columns = 2),
        spoilt(&|rows| (rows.table, rows.key_columns) = ("new".to_owned(), 0)),
        spoilt(&|rows| (rows.table, rows.key_columns) = ("new".to_owned(), 9)),
        spoilt(&|rows| rows.table = "sqlite_x".to_owned()),
        spoilt(&|rows| rows.table = "tapeline_journal".to_owned()),
        spoilt(&|rows| rows.table = "x\"; DROP TABLE trades".to_owned()),
        spoilt(&|rows| (rows.table, rows.columns[3].name) = ("new".to_owned(), "time".to_owned())),
        spoilt(&|rows| (rows.table, rows.columns[3].name) = ("new".to_owned(), "time_digits".to_owned())),
        key_without_value(),
    ];
    for rows in wrong {
        let text = format!("{rows:?}");
        let result = store.commit(Commit { rows: vec![rows], ..Commit::default() });
        assert_eq!(result.map_err(|error| error.kind()), Err(Kind::Invalid), "{text}");
    }
    assert_eq!(store.tables().unwrap(), ["trades"]);
}

pub(super) fn state_is_replaced_and_deleted<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let mut change = |stage: &str, entries: Vec<Entry>| {
        store.commit(Commit { state: vec![(stage.to_owned(), entries)], ..Commit::default() }).unwrap();
        store.state("dedup").unwrap()
    };
    let in_order = [entry("A", 0, Some("1")), entry("A", u64::MAX, Some("2")), entry("B", 7, Some(""))];
    let [a, a_last, b] = in_order.clone();
    assert_eq!(change("dedup", vec![b.clone(), a_last.clone(), a.clone()]), in_order);
    assert_eq!(change("alarm", vec![entry("A", 0, Some("other"))]), in_order, "each stage has its own");
    let newer = Entry { version: 9, wake_at: None, expires_at: Some(-1), ..entry("A", 0, Some("3")) };
    let gone = entry("A", u64::MAX, None);
    assert_eq!(change("dedup", vec![newer.clone(), gone.clone()]), [newer, b.clone()]);
    assert_eq!(change("dedup", vec![gone, a.clone(), entry("A", 0, None), b.clone()]), [b]);
}

pub(super) fn the_ledger_adds_up<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let key = |index, symbol: &str, day| LedgerKey {
        stage_index: index,
        stage: format!("stage {index}"),
        symbol: symbol.to_owned(),
        day,
    };
    let counts = |rule: &str| Counts {
        entered: 9,
        out: 3,
        duplicate: 2,
        late: 1,
        dead: 1,
        derived: 5,
        dropped: BTreeMap::from([(rule.to_owned(), 2)]),
    };
    let keys =
        [key(0, "", None), key(0, "A", None), key(0, "A", Some(Day(-1))), key(0, "A", Some(Day(3))), key(10, "", None)];
    let mut sum = BTreeMap::<_, Counts>::new();
    for rule in ["ping", "depth", "ping"] {
        let ledger: BTreeMap<_, _> = keys.iter().map(|key| (key.clone(), counts(rule))).collect();
        ledger.iter().for_each(|(key, counts)| sum.entry(key.clone()).or_default().add(counts));
        store.commit(Commit { ledger, ..Commit::default() }).unwrap();
    }
    let ledger = store.ledger().unwrap();
    assert!(ledger.iter().all(|(_, counts)| counts.balances()));
    assert_eq!(ledger, sum.into_iter().collect::<Vec<_>>());
}

pub(super) fn the_journal_has_no_gaps_over_two_handles<B: Backend>(backend: &B)
where
    B::Store: 'static,
{
    let folder = folder();
    let mut stores = vec![backend.open(folder.path()).unwrap()];
    stores.push(backend.open_second(folder.path()).unwrap());
    let threads = stores.into_iter().enumerate().map(|(of, mut store)| {
        std::thread::spawn(move || {
            (0..50).for_each(|number| {
                let records = [record(format!("{of} {number}").as_bytes()), record(b"")];
                store.append_journal(&records).unwrap();
            });
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    let store = backend.open(folder.path()).unwrap();
    let entries = store.read_journal(0, 1000, 100_000).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    assert_eq!(store.journal_end().unwrap(), 200);
    let of_second =
        entries.iter().filter(|entry| entry.record.bytes.starts_with(b"1 ")).map(|entry| &entry.record.bytes);
    assert!(of_second.eq(&(0..50).map(|number| format!("1 {number}").into_bytes()).collect::<Vec<_>>()));
}

pub(super) fn journal_pages_keep_their_limits<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let page = |store: &B::Store, after, records, bytes| {
        let entries = store.read_journal(after, records, bytes).unwrap();
        entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    assert_eq!((store.journal_end().unwrap(), page(&store, 0, 9, 99)), (0, vec![]));
    let records: Vec<_> = (0..4000_u32).map(|number| record(format!("{number:0>1000}").as_bytes())).collect();
    assert_eq!(store.append_journal(&records[..3]).unwrap(), 3);
    assert_eq!(store.append_journal(&[]).unwrap(), 3);
    assert_eq!(store.append_journal(&records[3..]).unwrap(), 4000);
    assert_eq!(page(&store, 0, 2, 99_999), [1, 2]);
    assert_eq!(page(&store, 2, 3, 99_999), [3, 4, 5]);
    assert_eq!(page(&store, 2, 9, 2999), [3, 4]);
    assert_eq!(page(&store, 2, 9, 3000), [3, 4, 5]);
    assert_eq!(page(&store, 2, 0, 0), [3], "at least one");
    assert_eq!(page(&store, 3999, 9, 99_999), [4000]);
    assert_eq!(page(&store, 4000, 9, 99_999), [0; 0]);
    assert_eq!(page(&store, u64::MAX, 9, 99_999), [0; 0]);
    let mut read = Vec::new();
    while read.len() < records.len() {
        let page = store.read_journal(read.len() as u64, 700, 450_000).unwrap();
        assert!((1..=450).contains(&page.len()));
        read.extend(page.into_iter().map(|entry| entry.record));
    }
    assert_eq!(read, records);
}

pub(super) fn processed_records_are_passed_over<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let mut beside = backend.open_second(folder.path()).unwrap();
    let mut commit = |sequence, texts: &[&str]| {
        let journal = texts.iter().map(|text| record(text.as_bytes())).collect();
        let progress = Progress { journal_sequence: sequence, ..Progress::default() };
        store.commit(Commit { journal, progress, ..Commit::default() }).unwrap()
    };
    assert_eq!(commit(0, &["one", "two"]), 2);
    assert_eq!(beside.append_journal(&[record(b"three")]).unwrap(), 3);
    assert_eq!(commit(2, &["four"]), 2, "the third waits");
    assert_eq!(commit(2, &["five"]), 2);
    let waiting = beside.read_journal(2, 9, 99).unwrap();
    let waiting: Vec<_> = waiting.iter().map(|entry| (entry.sequence, entry.is_processed)).collect();
    assert_eq!(waiting, [(3, false), (4, true), (5, true)]);
    assert_eq!(commit(3, &[]), 5);
    assert_eq!(store.progress().unwrap().journal_sequence, 5);
}

pub(super) fn dead_letters_are_put_back_once<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let letters = vec![letter("fetch", "binance"), letter("alarm", "events"), letter("fetch", "events")];
    store.commit(Commit { dead_letters: letters, ..Commit::default() }).unwrap();
    let mut beside = backend.open_second(folder.path()).unwrap();
    assert_eq!(beside.redrive(&[2, 77]).unwrap_err().kind(), Kind::NotFound);
    assert_eq!((beside.journal_end().unwrap(), redriven(&beside)), (0, vec![]));
    assert_eq!(beside.redrive(&[2, 1, 2]).unwrap(), 2);
    assert_eq!(beside.redrive(&[1, 2, 3]).unwrap(), 1);
    assert_eq!(redriven(&store), [1, 2, 3]);
    let page: Vec<_> = store.dead_letters(2, 1).unwrap().iter().map(|letter| letter.id).collect();
    assert_eq!(page, [2]);
    let entries = store.read_journal(0, 9, 999).unwrap();
    assert!(entries.iter().all(|entry| !entry.is_processed && entry.record.received == Some(5)));
    let entries: Vec<_> =
        entries.iter().map(|entry| (entry.record.format.as_str(), entry.record.stage.as_deref())).collect();
    assert_eq!(entries, [("events", Some("alarm.4")), ("binance", None), ("events", None)]);
}

pub(super) fn queries_filter_order_and_format<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let times = [START + MINUTE, START, START - 1];
    let mut seconds = trades(&["A"], &[START + 1], &[9]);
    seconds.columns[1].cells = Cells::Times((vec![START + 2 * MINUTE], TimeUnit::Seconds));
    seconds.columns[3].cells = Cells::Numbers(vec![f64::NAN]);
    store
        .commit(Commit { rows: vec![trades(&["B", "A", "A"], &times, &[1, 2, 3]), seconds], ..Commit::default() })
        .unwrap();
    let text = |text: &str| Value::Text(text.to_owned());
    let number = |number| Value::Number(Number(number));
    let (a, b) = (Value::Text("A".to_owned()), Value::Text("B".to_owned()));
    let [last, second, third, first] = [
        [a.clone(), text("2024-08-08T00:02:00Z"), Value::Integer(9), Value::Null, Value::Boolean(true)],
        [a.clone(), text("2024-08-08T00:00:00.000Z"), Value::Integer(2), number(1.5), Value::Boolean(true)],
        [b, text("2024-08-08T00:01:00.000Z"), Value::Integer(1), number(1.5), Value::Boolean(true)],
        [a, text("2024-08-07T23:59:59.999Z"), Value::Integer(3), number(1.5), Value::Boolean(true)],
    ]
    .map(|row| row.to_vec());
    let asked = |query| rows(&store, query);
    let of_a = Query { symbol: Some("A".to_owned()), ..Query::default() };
    assert_eq!(asked(Query::default()), [&first, &second, &last, &third].map(Clone::clone));
    assert_eq!(asked(of_a.clone()), [&first, &second, &last].map(Clone::clone));
    assert_eq!(asked(Query { limit: Some(1), ..of_a.clone() }), std::slice::from_ref(&first));
    assert_eq!(asked(Query { from: Some(START), to: Some(START + 2 * MINUTE), ..Query::default() }), [second, third]);
    assert_eq!(asked(Query { to: Some(START), ..of_a }), [first]);
    assert_eq!(asked(Query { limit: Some(0), ..Query::default() }), [[]; 0]);
    let mut sink = Collected::default();
    let none = store.query(&Query { table: "none".to_owned(), ..Query::default() }, &mut sink);
    assert_eq!(none.unwrap_err().kind(), Kind::NotFound);
    store.query(&Query { table: "trades".to_owned(), ..Query::default() }, &mut sink).unwrap();
    assert_eq!(sink.columns, ["symbol", "time", "id", "price", "final"]);
}

pub(super) fn columns_of_ids_take_numbers_and_texts<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let mut other = trades(&["A", "A"], &[START; 2], &[0, 0]);
    other.columns[2].cells = texts(&["7", "x"]);
    store.commit(Commit { rows: vec![other, trades(&["A"], &[START], &[7])], ..Commit::default() }).unwrap();
    let ids: Vec<_> = rows(&store, Query::default()).into_iter().map(|row| row[2].clone()).collect();
    assert_eq!(ids, [Value::Integer(7), Value::Text("7".to_owned()), Value::Text("x".to_owned())]);
}

pub(super) fn objects_begin_with_their_header<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let appends =
        || vec![append("a", "h\n", "1\n"), append("b", "", ""), append("a", "h\n", "2\n"), append("c", "h", "")];
    store.commit(Commit { appends: appends(), ..Commit::default() }).unwrap();
    store.commit(Commit { appends: appends(), ..Commit::default() }).unwrap();
    let object = |path| backend.object(folder.path(), path);
    assert_eq!((object("a").unwrap(), object("c").unwrap()), (b"h\n1\n2\n1\n2\n".to_vec(), b"h".to_vec()));
    assert_eq!(object("b"), None, "nothing was put there");
}

pub(super) fn half_written_objects_are_cut_off<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let appends = || vec![append("a/old", "h\n", "1\n")];
    store.commit(Commit { appends: appends(), ..Commit::default() }).unwrap();
    let mut wrong = trades(&["A"], &[START], &[1]);
    wrong.columns.pop();
    wrong.columns[0].cells = texts(&[]);
    let failing = Commit { rows: vec![wrong], appends: vec![append("a/new", "h\n", "2\n")], ..Commit::default() };
    store.commit(failing).unwrap_err();
    let interrupt = |store: B::Store| {
        drop(store);
        backend.lengthen(folder.path(), "a/old", b"half a li");
        backend.lengthen(folder.path(), "a/new", b"h");
        backend.open(folder.path()).unwrap()
    };
    let object = |path| backend.object(folder.path(), path);
    store = interrupt(store);
    assert_eq!((object("a/old"), object("a/new")), (Some(b"h\n1\n".to_vec()), None));
    let both = || vec![append("a/old", "h\n", "1\n"), append("a/new", "h\n", "2\n")];
    store.commit(Commit { appends: both(), ..Commit::default() }).unwrap();
    store = interrupt(store);
    store.commit(Commit { appends: appends(), ..Commit::default() }).unwrap();
    assert_eq!((object("a/old"), object("a/new")), (Some(b"h\n1\n1\n1\n".to_vec()), Some(b"h\n2\n".to_vec())));
}

pub(super) fn a_failing_object_changes_nothing<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    store.commit(full_commit()).unwrap();
    let before = contents(backend, &store, folder.path());
    let both = || vec![append("a/b.csv", "", "2\n"), append("a/b.csv/below", "", "x")];
    let failing = Commit { appends: both(), ..full_commit() };
    assert_eq!(store.commit(failing).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(contents(backend, &store, folder.path()), before);
}

fn folder() -> TempDir {
    tempdir().unwrap()
}

#[derive(Default)]
struct Collected {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl RowSink for Collected {
    fn columns(&mut self, names: &[String]) -> Result<()> {
        self.columns = names.to_vec();
        Ok(())
    }

    fn row(&mut self, values: &[Value]) -> Result<()> {
        self.rows.push(values.to_vec());
        Ok(())
    }
}

/// Rows of the table `trades`.
fn rows(store: &impl Store, query: Query) -> Vec<Vec<Value>> {
    let mut sink = Collected::default();
    store.query(&Query { table: "trades".to_owned(), ..query }, &mut sink).unwrap();
    sink.rows
}

/// All that can be read, to be compared.
fn contents<B: Backend>(backend: &B, store: &B::Store, folder: &Path) -> String {
    let objects = ["a/b.csv", "c.csv", "../x"].map(|path| backend.object(folder, path));
    let journal = store.read_journal(0, 99, 9999).unwrap();
    let kept = (store.progress().unwrap(), store.state("dedup").unwrap(), store.ledger().unwrap());
    let letters = store.dead_letters(0, 99).unwrap();
    format!(
        "{kept:?} {journal:?} {letters:?} {:?} {:?} {objects:?}",
        rows(store, Query::default()),
        store.tables().unwrap()
    )
}

fn redriven(store: &impl Store) -> Vec<u64> {
    let letters = store.dead_letters(0, 99).unwrap();
    letters.iter().filter(|letter| letter.is_redriven).map(|letter| letter.id).collect()
}

pub(super) fn what_was_read_and_what_ran_is_known<B: Backend>(backend: &B) {
    let folder = folder();
    let mut store = backend.open(folder.path()).unwrap();
    let file = |digest: &str, offset| InputFile {
        digest: digest.to_owned(),
        path: format!("/{digest}"),
        format: "binance".to_owned(),
        offset,
        is_done: false,
    };
    let mut commit = |journal_sequence, inputs: &[InputFile], ran: &[(&str, &str, bool)]| {
        let progress = Progress { journal_sequence, inputs: inputs.to_vec(), ..Progress::default() };
        let ran = ran.iter().map(|(stage, digest, has_own_state)| runs(stage, digest, *has_own_state));
        store.commit(Commit { progress, ran: ran.collect(), ..Commit::default() }).unwrap();
    };
    commit(0, &[file("a", 10)], &[("dedup", "one", false), ("alarm", "one", false)]);
    commit(3, &[file("a", 20)], &[("dedup", "one", true)]);
    commit(4, &[file("b", 0)], &[("dedup", "two", true)]);
    commit(5, &[file("b", 10)], &[]);
    let inputs = store.inputs_ever().unwrap();
    assert_eq!(inputs, [(file("a", 0), 0), (file("b", 0), 5)]);
    let ran = |stage: &str, digest: &str, has_own_state, journal_sequence, inputs: &[InputFile]| Ran {
        stage: stage.to_owned(),
        digest: digest.to_owned(),
        settings: "{}".to_owned(),
        has_own_state: Some(has_own_state),
        journal_sequence,
        inputs: inputs.to_vec(),
    };
    let expected = [
        ran("dedup", "one", false, 0, &[]),
        ran("alarm", "one", false, 0, &[]),
        ran("dedup", "two", true, 3, &[file("a", 20)]),
    ];
    assert_eq!(store.ran().unwrap(), expected);
}

fn runs(stage: &str, digest: &str, has_own_state: bool) -> Runs {
    Runs { stage: stage.to_owned(), digest: digest.to_owned(), settings: "{}".to_owned(), has_own_state }
}

/// A commit with something of everything.
fn full_commit() -> Commit {
    let key =
        LedgerKey { stage_index: 1, stage: "dedup".to_owned(), symbol: "A".to_owned(), day: Some(Day::of(START)) };
    let counts = Counts { entered: 2, out: 1, dropped: BTreeMap::from([("ping".to_owned(), 1)]), ..Counts::default() };
    Commit {
        trace: None,
        ran: vec![runs("dedup", "d1", false)],
        journal: vec![record(b"frame")],
        progress: Progress { watermark: START, cursor: Some("{}".to_owned()), ..Progress::default() },
        state: vec![("dedup".to_owned(), vec![entry("A", 1, Some("value"))])],
        rows: vec![trades(&["A", "B"], &[START, START + MINUTE], &[1, 2])],
        appends: vec![append("a/b.csv", "time\n", "1\n")],
        ledger: BTreeMap::from([(key, counts)]),
        out: Vec::new(),
        dead_letters: vec![letter("fetch", "binance")],
    }
}

fn record(bytes: &[u8]) -> JournalRecord {
    JournalRecord { format: "binance".to_owned(), stage: None, received: Some(1), bytes: bytes.to_vec() }
}

fn entry(key: &str, part: u64, value: Option<&str>) -> Entry {
    let value = value.map(|value| value.as_bytes().to_vec());
    Entry { key: key.to_owned(), part, version: 1, value, wake_at: Some(START), expires_at: None }
}

fn append(path: &str, header: &str, bytes: &str) -> Append {
    Append { path: path.to_owned(), header: header.as_bytes().to_vec(), bytes: bytes.as_bytes().to_vec() }
}

fn letter(stage: &str, format: &str) -> DeadLetter {
    DeadLetter {
        id: 0,
        aside: if format == "binance" { Aside::Dead } else { Aside::Late },
        stage: stage.to_owned(),
        component: "0f".to_owned(),
        symbol: String::new(),
        time: Some(START),
        reason: "no price".to_owned(),
        origin: "journal 1".to_owned(),
        format: format.to_owned(),
        received: Some(5),
        payload: b"{}".to_vec(),
        partition: Some(4),
        is_redriven: false,
    }
}

fn texts(values: &[&str]) -> Cells {
    let mut texts = Texts { ends: Vec::new(), bytes: Vec::new() };
    values.iter().for_each(|value| texts.push_text(value));
    Cells::Texts(texts)
}

fn trades(symbols: &[&str], times: &[i64], ids: &[i64]) -> Rows {
    let column = |name: &str, cells| Column { name: name.to_owned(), cells };
    Rows {
        table: "trades".to_owned(),
        key_columns: 3,
        columns: vec![
            column("symbol", texts(symbols)),
            column("time", Cells::Times((times.to_vec(), TimeUnit::Milliseconds))),
            column("id", Cells::Integers(ids.to_vec())),
            column("price", Cells::Numbers(vec![1.5; ids.len()])),
            column("final", Cells::Booleans(vec![1; ids.len()])),
        ],
    }
}

fn key_without_value() -> Rows {
    Rows {
        table: "curves".to_owned(),
        key_columns: 1,
        columns: vec![Column { name: "rate".to_owned(), cells: Cells::Numbers(vec![f64::NAN]) }],
    }
}
