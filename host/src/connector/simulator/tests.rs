use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn settings() -> SimulatorSettings {
    SimulatorSettings { symbols: ["BTCUSDT", "ETHUSDT", "X1"].map(str::to_owned).to_vec(), ..Default::default() }
}

fn frames(simulator: &mut Simulator, times: impl IntoIterator<Item = i64>) -> Vec<(FrameKind, String)> {
    let frame = |time| {
        let frame = simulator.next_frame(time);
        (frame.kind, frame.text.to_owned())
    };
    times.into_iter().map(frame).collect()
}

fn recording(settings: &SimulatorSettings, trades: u64) -> String {
    let mut bytes = Vec::new();
    write_recording(settings, 1_700_000_000_000_000_000, trades, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let first = recording(&settings(), 1000);
    assert_eq!(first, recording(&settings(), 1000));
    assert_ne!(first, recording(&SimulatorSettings { seed: 2, ..settings() }, 1000));
    // What a recording of an earlier day holds must not change with the program.
    assert!(first.starts_with(GOLDEN), "{}", &first[..GOLDEN.len()]);
}

const GOLDEN: &str = r#"1700000000005000000 {"stream":"ethusdt@trade","data":{"e":"trade","E":1700000000000,"s":"ETHUSDT","t":1,"p":"3000.08000000","q":"12.51078000","T":1700000000000,"m":true,"M":true}}
1700000000025000000 {"stream":"x1@trade","data":{"e":"trade","E":1700000000020,"s":"X1","t":1,"p":"318.52000000","q":"0.93067000","T":1700000000020,"m":true,"M":true}}
1700000000045000000 {"stream":"x1@trade","data":{"e":"trade","E":1700000000040,"s":"X1","t":2,"p":"318.58000000","q":"0.00296000","T":1700000000040,"m":false,"M":true}}
"#;

#[test]
fn frames_are_as_binance_writes_them() {
    let mut simulator = Simulator::new(&settings()).unwrap();
    let mut shapes = BTreeMap::new();
    for (kind, text) in frames(&mut simulator, (0..20_000).map(|at| 1_700_000_000_000 + at)) {
        let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
        let (stream, data) = (frame["stream"].as_str().unwrap(), frame["data"].as_object().unwrap());
        let symbol = data["s"].as_str().unwrap().to_lowercase();
        assert_eq!(stream.split('@').next(), Some(symbol.as_str()));
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        shapes.entry(format!("{kind:?}")).or_insert_with(BTreeSet::new).insert(keys.join(" "));
        if kind == FrameKind::Trade {
            for key in ["p", "q"] {
                let (whole, digits) = data[key].as_str().unwrap().split_once('.').unwrap();
                assert!(!whole.is_empty() && digits.len() == 8, "{text}");
                assert!(data[key].as_str().unwrap().parse::<f64>().unwrap() > 0.0, "{text}");
            }
        } else if kind == FrameKind::BookTicker {
            let side = |key: &str| data[key].as_str().unwrap().parse::<f64>().unwrap();
            assert!(side("b") < side("a"), "{text}");
        }
    }
    let shapes: Vec<(&str, Vec<&str>)> =
        shapes.iter().map(|(kind, keys)| (kind.as_str(), keys.iter().map(String::as_str).collect())).collect();
    let trade = vec!["E M T e m p q s t"];
    let expected = [
        ("BookTicker", vec!["A B a b s u"]),
        ("Depth", vec!["E U a b e s u"]),
        ("Repeated", trade.clone()),
        ("Trade", trade),
    ];
    assert_eq!(shapes, expected);
}

#[test]
fn it_has_what_real_feeds_have() {
    let mut simulator = Simulator::new(&settings()).unwrap();
    let (mut ids, mut before) = (BTreeMap::new(), String::new());
    let (mut trades, mut repeated, mut back, mut same) = (0, 0, 0, 0);
    let (mut noise, mut time_before) = (0, 0);
    for at in 0..200_000 {
        let now = 1_700_000_000_000 + at * 2;
        let frame = simulator.next_frame(now);
        match frame.kind {
            FrameKind::Repeated => {
                repeated += 1;
                assert_eq!(frame.text, before);
            }
            FrameKind::Trade => {
                trades += 1;
                before = frame.text.to_owned();
                let frame: serde_json::Value = serde_json::from_str(frame.text).unwrap();
                let id = ids.entry(frame["data"]["s"].to_string()).or_insert(0);
                *id += 1;
                assert_eq!(frame["data"]["t"], *id);
                let time = frame["data"]["T"].as_i64().unwrap();
                assert!((now - 300..=now).contains(&time));
                back += u64::from(time < time_before);
                same += u64::from(time == time_before);
                time_before = time;
            }
            _ => noise += 1,
        }
    }
    assert_eq!(ids.len(), 3);
    assert!((60_000..72_000).contains(&noise), "{noise}");
    assert!((40..100).contains(&repeated), "{repeated} of {trades}");
    assert!((80..220).contains(&back), "{back} of {trades}");
    assert!((trades / 20..trades / 5).contains(&same), "{same} of {trades}");
}

#[test]
fn a_recording_has_as_many_trades_as_asked_for_and_times_that_advance() {
    let settings = SimulatorSettings { noise: 0.0, rate: 4.0, ..settings() };
    let text = recording(&settings, 9);
    let stamp = |line: &str| line.split_once(' ').unwrap().0.parse::<i64>().unwrap();
    let stamps: Vec<i64> = text.lines().map(stamp).collect();
    let expected: Vec<i64> = (0..9).map(|at| 1_700_000_000_005_000_000 + at * 250_000_000).collect();
    assert_eq!(stamps, expected);
    let error = write_recording(&settings, i64::MAX - 1_000_000_000, 9, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "simulate trades behind the year 2262");
}

#[test]
fn another_set_of_symbols_keeps_what_is_known() {
    let mut simulator = Simulator::new(&settings()).unwrap();
    frames(&mut simulator, 0..1000);
    let id_of = |simulator: &mut Simulator, symbol: &str| {
        let wanted = format!("\"s\":\"{symbol}\",\"t\":");
        (0..).find_map(|at| {
            let (_, id) = simulator.next_frame(at).text.split_once(&wanted)?;
            id.split(',').next()?.parse::<u64>().ok()
        })
    };
    let changed = SimulatorSettings { symbols: vec!["NEW".to_owned(), "X1".to_owned()], ..settings() };
    let mut resumed = Simulator::resume(&changed, &simulator.cursor()).unwrap();
    assert_eq!(id_of(&mut resumed, "NEW"), Some(1));
    assert!(id_of(&mut resumed, "X1").unwrap() > 100);
    assert_eq!(Simulator::resume(&changed, "{}").unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_setting_that_cannot_be_used_is_named() {
    let symbols = |symbols: &[&str]| SimulatorSettings {
        symbols: symbols.iter().map(|symbol| (*symbol).to_owned()).collect(),
        ..settings()
    };
    for (settings, expected) in [
        (symbols(&[]), "symbols: 0 symbols instead of 1 to 1024 symbols"),
        (symbols(&["A", ""]), "symbols[1]: \"\" instead of 1 to 20 of A-Z and 0-9"),
        (symbols(&["A\"B"]), "symbols[0]: \"A\\\"B\" instead of 1 to 20 of A-Z and 0-9"),
        (symbols(&["A", "A"]), "symbols[1]: \"A\" instead of a symbol that is not there yet"),
        (SimulatorSettings { rate: f64::NAN, ..settings() }, "rate: NaN instead of more than 0, at most 1000000"),
        (SimulatorSettings { noise: 1.0, ..settings() }, "noise: 1 instead of 0 to 0.9"),
    ] {
        assert_eq!(Simulator::new(&settings).unwrap_err().to_string(), expected);
    }
}

proptest! {
    #[test]
    fn going_on_is_as_not_to_have_stopped(seed: u64, first in 0..3000_i64, second in 1..100_i64, noise in 0.0..0.9) {
        let settings = SimulatorSettings { seed, noise, ..settings() };
        let mut whole = Simulator::new(&settings).unwrap();
        let expected = frames(&mut whole, 0..first + second).split_off(first as usize);
        let mut begun = Simulator::new(&settings).unwrap();
        frames(&mut begun, 0..first);
        let mut resumed = Simulator::resume(&settings, &begun.cursor()).unwrap();
        prop_assert_eq!(frames(&mut resumed, first..first + second), expected);
        prop_assert_eq!(resumed.cursor(), whole.cursor());
    }
}
