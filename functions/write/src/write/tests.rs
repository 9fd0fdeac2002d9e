//! The stage through the harness: exact rows and bytes, and that neither cuts nor restarts show.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tapeline_sdk::{
    Kind, Number, TextColumn, Unit,
    bindings::writer::exports::tapeline::pipeline::write::{Cells, Rows, Written},
    format_time,
    testing::Harness,
};

use super::*;

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_723_161_255 * SECOND;
const TRADE: &str =
    r#"{"kind":"trade","symbol":"BINANCE:BTCUSDT","time":"2024-08-08T23:54:15.342Z","source":"binance","#;

fn harness(settings: &str) -> Harness<Writer> {
    Harness::new(settings).unwrap()
}

/// What a host holds at last.
#[derive(Debug, Default, PartialEq)]
struct Stored {
    /// Rows as text by table and key.
    rows: BTreeMap<(String, Vec<String>), String>,
    objects: BTreeMap<String, String>,
}

impl Stored {
    fn of(written: Vec<Written>) -> Self {
        let mut stored = Self::default();
        for written in written {
            written.rows.iter().for_each(|rows| stored.put(rows));
            for append in written.appends {
                let header = String::from_utf8(append.header).unwrap();
                let object = stored.objects.entry(append.path).or_insert(header);
                object.push_str(std::str::from_utf8(&append.bytes).unwrap());
            }
        }
        stored
    }

    fn put(&mut self, rows: &Rows) {
        let key_columns = rows.key_columns as usize;
        let columns: Vec<_> = rows.columns.iter().map(|column| texts_of(&column.cells)).collect();
        // A time is one key whatever its unit.
        let keys: Vec<_> = rows.columns.iter().take(key_columns).map(|column| keys_of(&column.cells)).collect();
        for at in 0..columns[0].len() {
            let row: Vec<_> = columns.iter().map(|column| column[at].as_str()).collect();
            let printed = format!("{} | {}", row[..key_columns].join(" "), row[key_columns..].join(" "));
            let key = keys.iter().map(|column| column[at].clone()).collect();
            self.rows.insert((rows.table.clone(), key), printed);
        }
    }

    /// The rows of a table, cells joined by a blank, keys and values by a bar.
    fn table(&self, name: &str) -> Vec<String> {
        self.rows.iter().filter(|((table, _), _)| table == name).map(|(_, row)| row.clone()).collect()
    }
}

fn keys_of(cells: &Cells) -> Vec<String> {
    match cells {
        Cells::Times((times, _)) => times.iter().map(ToString::to_string).collect(),
        cells => texts_of(cells),
    }
}

fn texts_of(cells: &Cells) -> Vec<String> {
    match cells {
        Cells::Texts(texts) => (0..texts.count()).map(|at| texts.text(at).to_owned()).collect(),
        Cells::Integers(integers) => integers.iter().map(|value| format!("#{value}")).collect(),
        Cells::Numbers(numbers) => numbers.iter().map(|value| format!("{value:?}")).collect(),
        Cells::Times((times, unit)) => times.iter().map(|ns| format_time(*ns, Unit::from(*unit))).collect(),
        Cells::Booleans(booleans) => booleans.iter().map(|value| (*value != 0).to_string()).collect(),
    }
}

fn written(settings: &str, lines: &str) -> Stored {
    let mut harness = harness(settings);
    harness.write(lines);
    Stored::of(harness.written())
}

#[test]
fn a_trade_is_a_row_and_a_line() {
    let stored = written(
        "{}",
        &[
            format!(r#"{TRADE}"id":3735683259,"price":61837.63,"size":0.02}}"#),
            format!(r#"{TRADE}"id":3735683260,"price":61837.64,"size":1.5}}"#),
            format!(r#"{TRADE}"id":18446744073709551615,"price":1}}"#),
            format!(r#"{TRADE}"id":"a,\"b\"","price":0.30000000000000004,"size":3}}"#),
        ]
        .join("\n"),
    );
    let key = "BINANCE:BTCUSDT 2024-08-08T23:54:15.342Z";
    assert_eq!(
        stored.table("trades"),
        [
            format!("{key} #3735683259 | 61837.63 0.02 binance"),
            format!("{key} #3735683260 | 61837.64 1.5 binance"),
            format!("{key} 18446744073709551615 | 1.0 NaN binance"),
            format!("{key} a,\"b\" | 0.30000000000000004 3.0 binance"),
        ]
    );
    assert_eq!(
        stored.objects["trades/date=2024-08-08/symbol=BINANCE%3ABTCUSDT/trades.csv"],
        "time,id,price,size,source\n\
         2024-08-08T23:54:15.342Z,3735683259,61837.63,0.02,binance\n\
         2024-08-08T23:54:15.342Z,3735683260,61837.64,1.5,binance\n\
         2024-08-08T23:54:15.342Z,18446744073709551615,1,,binance\n\
         2024-08-08T23:54:15.342Z,\"a,\"\"b\"\"\",0.3,3,binance\n"
    );
}

#[test]
fn a_trade_without_id_gets_one_of_its_values() {
    let line = |fields: &str| format!(r#"{TRADE}"price":1,{fields}}}"#) + "\n";
    let lines = [r#""size":1"#, r#""size":2"#, r#""size":1,"conditions":"8""#, r#""size":1"#].map(line).concat();
    let stored = written("{}", &lines);
    let rows = stored.table("trades");
    assert_eq!(rows.len(), 3, "the twin replaces its like");
    assert!(rows.iter().all(|row| row.split(' ').nth(2).unwrap().len() == 17 && row.contains(" ~")));
    assert!(
        rows.contains(&"BINANCE:BTCUSDT 2024-08-08T23:54:15.342Z ~6745c660a8328485 | 1.0 1.0 binance".to_owned()),
        "{rows:?}"
    );
    let lines: Vec<_> = stored.objects.values().next().unwrap().lines().collect();
    assert_eq!((lines.len(), lines[1]), (5, lines[4]));
}

#[test]
fn a_final_bar_replaces_a_provisional_one_and_is_a_line() {
    let bar = |count: u32, last: bool| {
        format!(
            r#"{{"kind":"bar","symbol":"a/b","time":"2024-08-08T23:54:00Z","interval":"1m","count":{count},"average":1.1000000000000001,"open":1,"high":2,"low":1,"close":2,"volume":0.30000000000000004,"final":{last}}}"#
        )
    };
    let mut harness = harness("{}");
    harness.write(&bar(1, false));
    assert!(Stored::of(harness.written()).objects.is_empty());
    harness.write(&[bar(1, false), bar(2, true)].join("\n"));
    let stored = Stored::of(harness.written());
    assert_eq!(stored.table("bars"), ["a/b 1m 2024-08-08T23:54:00Z | #2 1.1 1.0 2.0 1.0 2.0 0.3 NaN true"]);
    assert_eq!(
        stored.objects["bars/date=2024-08-08/symbol=a%2Fb/bars.csv"],
        "interval,start,count,average,open,high,low,close,volume,vwap\n\
         1m,2024-08-08T23:54:00Z,2,1.1,1,2,1,2,0.3,\n"
    );
}

fn average(window: &str, ns: i64, average: f64) -> String {
    let time = format_time(ns, Unit::Milliseconds);
    format!(
        r#"{{"kind":"average","symbol":"X","time":"{time}","window":"{window}","average":{average:?},"count":3,"price":1}}"#
    ) + "\n"
}

#[test]
fn the_first_average_of_a_second_is_a_row() {
    let ms = SECOND / 1000;
    let lines = [
        average("5m", START + 10 * ms, 1.0),
        average("5m", START + 10 * ms, 2.0),
        average("1h 30m", START + 10 * ms, 0.1 + 0.2),
        average("5m", START + 999 * ms, 3.0),
        average("5m", START + 1000 * ms, 4.0),
        average("5m", START + 20 * ms, 5.0),
    ];
    let mut harness = harness("{}");
    for line in &lines {
        harness.write(line);
        harness.restart().unwrap();
    }
    let stored = Stored::of(harness.written());
    assert_eq!(
        stored.table("averages"),
        [
            "X 1h 30m 2024-08-08T23:54:15.010Z | 0.3 #3",
            "X 5m 2024-08-08T23:54:15.010Z | 1.0 #3",
            "X 5m 2024-08-08T23:54:16.000Z | 4.0 #3",
        ]
    );
    assert_eq!((harness.count("forward"), harness.dropped("sampled")), (3, 3));
    let all = written(r#"{"sample":"0s"}"#, &lines.concat());
    assert_eq!(all.table("averages").len(), 5, "of two at one time the later is kept");
}

#[test]
fn alarms_and_notices_are_rows() {
    let lines = format!(
        "{}\n{}\n{}",
        r#"{"kind":"alarm","symbol":"X","time":"2024-08-08T23:54:15Z","id":7,"window":"5m","previous":1.2000000000000002,"average":2,"deviation":0.8,"tolerance":0.5,"relative":false,"price":9}"#,
        r#"{"kind":"alarm","symbol":"X","time":"2024-08-08T23:54:15Z","window":"5m","previous":1,"average":2,"deviation":1,"tolerance":0.5,"relative":false,"price":9}"#,
        r#"{"kind":"notice","symbol":"X","time":"2024-08-08T23:54:15Z","source":"s","text":"no access"}"#,
    );
    let stored = written(r#"{"tables":["alarms","notices"]}"#, &lines);
    let rows = stored.table("alarms");
    assert_eq!(rows[0], "X 5m 2024-08-08T23:54:15Z #7 | 1.2 2.0 0.8 0.5");
    assert!(rows[1].starts_with("X 5m 2024-08-08T23:54:15Z ~"));
    assert_eq!(stored.table("notices"), ["X 2024-08-08T23:54:15Z no access | s"]);
}

#[test]
fn only_what_is_wanted_is_taken_and_written() {
    let trade = format!(r#"{TRADE}"id":1,"price":1,"size":1}}"#);
    let takes = |settings| Writer::new(settings).unwrap().takes();
    let settings = |tables: &[TableName], objects: &[ObjectName]| Settings {
        tables: tables.to_vec(),
        objects: objects.to_vec(),
        ..Settings::default()
    };
    assert_eq!(takes(Settings::default()), Kinds::of(&[Kind::Trade, Kind::Bar, Kind::Average, Kind::Alarm]));
    assert_eq!(takes(settings(&[TableName::Notices], &[ObjectName::Bars])), Kinds::of(&[Kind::Notice, Kind::Bar]));
    assert_eq!(takes(settings(&[], &[])), Kinds::NONE);
    let rows = written(r#"{"tables":["trades"],"objects":[]}"#, &trade);
    assert_eq!((rows.rows.len(), rows.objects.len()), (1, 0));
    let lines = written(r#"{"tables":[],"objects":["trades"]}"#, &trade);
    assert_eq!((lines.rows.len(), lines.objects.len()), (0, 1));
}

#[test]
fn a_setting_that_cannot_be_used_is_named() {
    for (settings, key, value) in [
        (r#"{"sample":"400days"}"#, "sample", "\"400days\""),
        (r#"{"tables":["trade"]}"#, "tables[0]", "\"trade\""),
        (r#"{"objects":["trades","averages"]}"#, "objects[1]", "\"averages\""),
        (r#"{"window":1}"#, "window", "1"),
    ] {
        let error = Harness::<Writer>::new(settings).err().unwrap();
        assert_eq!((error.key.as_str(), error.value.as_str()), (key, value), "{error:?}");
    }
}

#[test]
fn a_quiet_symbol_is_forgotten() {
    let mut harness = harness("{}");
    harness.write(&average("5m", START, 1.0));
    harness.checkpoint();
    assert_eq!(harness.saved().len(), 1);
    harness.write(&mark(START + 601 * SECOND));
    harness.checkpoint();
    assert!(harness.saved().is_empty());
    harness.write(&average("5m", START, 1.0));
    assert_eq!(harness.count("forward"), 2);
}

#[test]
fn trades_save_nothing() {
    let mut harness = harness("{}");
    harness.write(&format!(r#"{TRADE}"id":1,"price":1,"size":1}}"#));
    assert!(harness.checkpoint().is_empty());
}

fn mark(ns: i64) -> String {
    format!(r#"{{"kind":"watermark","time":"{}"}}"#, format_time(ns, Unit::Nanoseconds)) + "\n"
}

/// An event, or a mark, and what a host does after it: 0 and 1 nothing, 2 a cut, 3 a restart, 4 one without what expired.
fn step() -> impl Strategy<Value = (String, u8)> {
    let symbol = prop_oneof![Just("X"), Just("a/b:c,\\\"d\\\" é"), Just("..")];
    let step = (0_u8..8, symbol, 0_i64..2000, 0_u8..4, any::<bool>(), 0_u8..5);
    step.prop_map(|(what, symbol, at, id, flag, after)| {
        // 1 of 8 steps is a mark, and a jump that is longer than what a quiet symbol is remembered for.
        let ns = START + at * SECOND / 2;
        let unit = if flag { Unit::Seconds } else { Unit::Milliseconds };
        let time = format_time(ns / SECOND * SECOND, unit);
        let envelope = format!(r#""symbol":"{symbol}","time":"{time}","source":"s,{flag}""#);
        let id = match id {
            0 => String::new(),
            1 => r#""id":"x\ny","#.to_owned(),
            id => format!(r#""id":{id},"#),
        };
        let line = match what {
            0 => mark(ns),
            1 | 2 => format!(r#"{{"kind":"trade",{id}{envelope},"price":{at},"size":0.1}}"#),
            3 => format!(
                r#"{{"kind":"bar",{envelope},"interval":"1m","count":{at},"average":1,"open":1,"high":2,"low":1,"close":2,"volume":3,"final":{flag}}}"#
            ),
            4 => format!(
                r#"{{"kind":"alarm",{id}{envelope},"window":"5m","previous":{at},"average":2,"deviation":1,"tolerance":0.5,"relative":true,"price":1}}"#
            ),
            _ => format!(r#"{{"kind":"average",{envelope},"window":"{what}m","average":{at},"count":1,"price":1}}"#),
        };
        (line, after)
    })
}

fn run(steps: &[(String, u8)], settings: &str) -> (Stored, Vec<u64>) {
    let mut harness = harness(settings);
    let mut pending = String::new();
    for (line, after) in steps {
        pending += &(line.trim_end().to_owned() + "\n");
        if *after >= 2 {
            harness.write(&std::mem::take(&mut pending));
        }
        if *after == 4 {
            harness.checkpoint();
            harness.expire();
        }
        if *after >= 3 {
            harness.restart().unwrap();
        }
    }
    harness.write(&pending);
    let counts = ["forward", "dropped by sampled"].map(|fate| harness.count(fate)).to_vec();
    (Stored::of(harness.written()), counts)
}

proptest! {
    #[test]
    fn neither_cuts_nor_restarts_nor_expiry_show(steps in proptest::collection::vec(step(), 1..60), sample in 0..3) {
        let settings = format!(r#"{{"sample":"{sample}m"}}"#);
        let straight: Vec<_> = steps.iter().map(|(line, _)| (line.clone(), 0)).collect();
        prop_assert_eq!(run(&steps, &settings), run(&straight, &settings));
    }

    #[test]
    fn lines_have_the_vendors_digits(price in 1_u64..9_999_999_999, scale in 0_i32..8) {
        let price = Number(price as f64 / 10_f64.powi(scale));
        let stored = written("{}", &format!(r#"{TRADE}"id":1,"price":{price},"size":1}}"#));
        let object = stored.objects.values().next().unwrap().clone();
        prop_assert_eq!(object.lines().nth(1).unwrap(), format!("2024-08-08T23:54:15.342Z,1,{price},1,binance"));
    }
}
