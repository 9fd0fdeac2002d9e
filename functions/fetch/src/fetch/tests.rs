use proptest::prelude::*;
use tapeline_sdk::testing::DecoderHarness;

use super::*;

/// 2024-08-09T00:00:00.001Z
const RECEIVED: i64 = 1_723_161_600_001_000_000;
const DAY: i32 = 19_944;

/// What a call gave, in short.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    lines: Vec<String>,
    records: Vec<u32>,
    /// Rule, day, count.
    dropped: Vec<(String, Option<i32>, u64)>,
    /// Reason, part.
    rejects: Vec<(String, Option<String>)>,
}

fn decode_all(format: &str, frames: &[&[u8]]) -> Outcome {
    let mut harness = DecoderHarness::<Fetch>::new("{}").unwrap();
    let frames: Vec<_> = frames.iter().map(|frame| (Some(RECEIVED), *frame)).collect();
    let (lines, decoded) = harness.decode(format, &frames);
    Outcome {
        lines,
        records: decoded.records,
        dropped: decoded.dropped.into_iter().map(|drop| (drop.rule, drop.day, drop.count)).collect(),
        rejects: decoded.rejects.into_iter().map(|reject| (reject.reason, reject.part)).collect(),
    }
}

fn decode(format: &str, frame: &str) -> Outcome {
    decode_all(format, &[frame.as_bytes()])
}

fn dropped(format: &str, frame: &str) -> String {
    let outcome = decode(format, frame);
    assert_eq!(
        (outcome.lines.len(), outcome.rejects.len(), &*outcome.records),
        (0, 0, &[1][..]),
        "{frame}: {outcome:?}"
    );
    assert_eq!((outcome.dropped[0].1, outcome.dropped[0].2), (Some(DAY), 1));
    outcome.dropped[0].0.clone()
}

fn refused(format: &str, frame: &str) -> String {
    let outcome = decode(format, frame);
    assert_eq!(
        (outcome.lines.len(), outcome.dropped.len(), &*outcome.records),
        (0, 0, &[1][..]),
        "{frame}: {outcome:?}"
    );
    outcome.rejects[0].0.clone()
}

const TRADE: &str = r#"{"e":"trade","E":1700000000124,"s":"ABCUSDT","t":42,"p":"1.25000000","q":"3.50000000","T":1700000000123,"m":true,"M":true}"#;
const TRADE_LINE: &str = r#"{"kind":"trade","symbol":"ABCUSDT","time":"2023-11-14T22:13:20.123Z","received":"2024-08-09T00:00:00.001000000Z","source":"binance","id":42,"price":1.25,"size":3.5}"#;

#[test]
fn binance_trades_single_and_combined_and_in_any_order() {
    let combined = format!(r#"{{"stream":"abcusdt@trade","data":{TRADE}}}"#);
    let behind = format!(r#"{{"data":{TRADE},"stream":"abcusdt@trade"}}"#);
    let shuffled = r#"{"T":1700000000123,"q":"3.5","p":"1.25","t":42,"s":"\u0041BCUSDT","e":"trade"}"#;
    for frame in [TRADE, &combined, &behind, shuffled, &format!(" {TRADE}\r\n")] {
        let outcome = decode("binance", frame);
        assert_eq!(outcome.lines, [TRADE_LINE], "{frame}: {outcome:?}");
        assert_eq!(outcome.records, [1]);
    }
}

#[test]
fn other_messages_of_binance_are_dropped_under_their_names() {
    for (frame, rule) in [
        (
            r#"{"stream":"abcusdt@depth","data":{"e":"depthUpdate","E":1,"s":"ABCUSDT","U":1,"u":2,"b":[["1","2"]],"a":[]}}"#,
            "depth",
        ),
        (r#"{"u":4,"s":"ABCUSDT","b":"1.0","B":"2.0","a":"1.1","A":"2.1"}"#, "book-ticker"),
        (
            r#"{"stream":"abcusdt@bookTicker","data":{"u":4,"s":"ABCUSDT","b":"1.0","B":"2.0","a":"1.1","A":"2.1"}}"#,
            "book-ticker",
        ),
        (r#"{"lastUpdateId":1,"bids":[["1","2"]],"asks":[]}"#, "depth-snapshot"),
        (r#"{"stream":"abcusdt@depth5","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#, "depth-snapshot"),
        (r#"{"result":null,"id":1}"#, "subscription"),
        (r#"{"result":["abcusdt@trade"],"id":"x"}"#, "subscription"),
        (
            r#"{"e":"aggTrade","E":1,"s":"ABCUSDT","a":1,"p":"1.0","q":"2.0","f":1,"l":2,"T":3,"m":true,"M":true}"#,
            "agg-trade",
        ),
        (r#"{"e":"kline","E":1,"s":"ABCUSDT","k":{"t":1,"T":2,"s":"ABCUSDT"}}"#, "kline"),
        (r#"{"e":"24hrTicker","E":1,"s":"ABCUSDT","p":"1","b":"1","a":"2"}"#, "ticker"),
        (r#"{"e":"24hrMiniTicker","E":1,"s":"ABCUSDT"}"#, "ticker"),
        (r#"{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}"#, "other-message"),
        (r#"[{"e":"24hrTicker"}]"#, "other-message"),
        (r#"{"e":"executionReport","t":-1,"p":5,"q":[{"x":{}}],"T":null,"s":"ABCUSDT"}"#, "other-message"),
        (r#"{"stream":"new@thing","data":{"x":1}}"#, "other-message"),
        ("  \n", "empty"),
        ("", "empty"),
    ] {
        assert_eq!(dropped("binance", frame), rule, "{frame}");
    }
}

#[test]
fn a_drop_without_receive_time_counts_on_the_day_it_was_sent() {
    let mut harness = DecoderHarness::<Fetch>::new("{}").unwrap();
    let frame = br#"{"e":"depthUpdate","E":1700000000124,"s":"ABCUSDT"}"#;
    let (_, decoded) = harness.decode("binance", &[(None, frame), (None, b"{\"result\":null}")]);
    let days: Vec<_> = decoded.dropped.iter().map(|drop| drop.day).collect();
    assert_eq!(days, [Some(19_675), None]);
    assert!(decoded.dropped[0].symbol.is_some());
}

#[test]
fn errors_of_a_feed_become_notices() {
    for (format, frame, text) in [
        ("binance", r#"{"error":{"code":2,"msg":"Invalid request"},"id":1}"#, "2: Invalid request"),
        ("binance", r#"{"code":-1121,"msg":"Invalid symbol."}"#, "-1121: Invalid symbol."),
        ("binance", r#"{"error":"gone"}"#, "gone"),
        ("finnhub", r#"{"msg":"Too many symbols","type":"error"}"#, "Too many symbols"),
        ("finnhub", r#"{"type":"error"}"#, "error"),
    ] {
        let line = format!(
            r#"{{"kind":"notice","symbol":"{format}","time":"2024-08-09T00:00:00.001000000Z","received":"2024-08-09T00:00:00.001000000Z","source":"{format}","text":"{text}"}}"#
        );
        assert_eq!(decode(format, frame).lines, [line], "{frame}");
    }
    let mut harness = DecoderHarness::<Fetch>::new("{}").unwrap();
    let (lines, _) = harness.decode("binance", &[(None, br#"{"code":1,"msg":"m"}"#)]);
    assert!(lines[0].contains("1970-01-01T00:00:00"), "{lines:?}");
}

#[test]
fn binance_trades_that_cannot_be_used_are_refused_with_the_reason() {
    let long = format!("\"{}\"", "9".repeat(5_000));
    for (field, value, reason) in [
        ("p", r#""0.00000000""#, "p: found \"0.00000000\", expected a finite price above 0"),
        ("p", r#""-1""#, "p: found \"-1\", expected a finite price above 0"),
        ("p", r#""1e999""#, "p: found \"1e999\", expected a finite price above 0"),
        ("p", r#""NaN""#, "p: found \"NaN\""),
        ("p", r#""inf""#, "p: found \"inf\""),
        ("p", r#""""#, "p: found \"\""),
        ("p", r#""1,25""#, "p: found \"1,25\""),
        ("p", "1.25", "p: found 1.25"),
        ("p", "null", "p: found null"),
        ("p", "[]", "p: found a list"),
        ("p", "{}", "p: found an object"),
        ("p", &long, "p: found \"9999999999"),
        ("q", r#""-3""#, "q: found \"-3\", expected a finite size of at least 0"),
        ("q", "true", "q: found true"),
        ("t", "-1", "t: found -1, expected the trade id"),
        ("t", r#""42""#, "t: found \"42\""),
        ("t", "18446744073709551616", "t: found 1.8446744073709552e19"),
        ("T", "9223372036855", "T: found 9223372036855, expected milliseconds since 1970"),
        ("T", r#""soon""#, "T: found \"soon\""),
        ("s", r#""""#, "s: found \"\", expected the symbol"),
        ("e", "5", "e: found 5, expected the event type"),
    ] {
        let frame = with_field(TRADE, field, Some(value));
        let found = refused("binance", &frame);
        assert!(found.starts_with(reason), "{frame}: {found}");
        assert!(found.len() <= 300, "{found}");
    }
    for (field, reason) in
        [("p", "p: missing"), ("q", "q: missing"), ("t", "t: missing"), ("T", "T: missing"), ("s", "s: missing")]
    {
        let found = refused("binance", &with_field(TRADE, field, None));
        assert!(found.starts_with(reason), "{found}");
    }
}

/// The flat object with another value of a field, or without it.
fn with_field(object: &str, field: &str, value: Option<&str>) -> String {
    let fields = object.trim_matches(['{', '}']).split(',').filter_map(|pair| {
        let (name, _) = pair.split_once(':').unwrap();
        if name != format!("\"{field}\"") {
            return Some(pair.to_owned());
        }
        value.map(|value| format!("{name}:{value}"))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

#[test]
fn what_is_no_message_is_refused() {
    for format in ["binance", "finnhub", "events"] {
        for frame in
            ["{", "nonsense", "5", "null", "\"text\"", "{}", "{\"a\":", &TRADE[..70], &format!("{TRADE}{TRADE}")]
        {
            let reason = refused(format, frame);
            assert!(reason.contains("expected") && reason.len() <= 300, "{format} {frame}: {reason}");
        }
        let reason = refused_bytes(format, b"{\"e\":\"\xff\"}");
        assert!(reason.starts_with("not UTF-8 from byte 6"), "{reason}");
    }
    for (frame, reason) in [
        (r#"{"e":"trade","e":"trade"}"#, "duplicate field `e`"),
        (r#"{"e":"trade","p":1e999}"#, "number out of range"),
        (r#"{"stream":"x","data":"text"}"#, "invalid type: string \"text\""),
    ] {
        let found = refused("binance", frame);
        assert!(found.starts_with(reason), "{found}");
    }
}

fn refused_bytes(format: &str, frame: &[u8]) -> String {
    decode_all(format, &[frame]).rejects[0].0.clone()
}

#[test]
fn a_format_that_is_not_known_is_refused() {
    let outcome = decode_all("reuters", &[TRADE.as_bytes(), b""]);
    let reason = "format: found \"reuters\", expected one of binance, finnhub, events";
    assert_eq!(outcome.rejects, [(reason.to_owned(), None), (reason.to_owned(), None)]);
    assert_eq!(outcome.records, [1, 1]);
}

#[test]
fn finnhub_trades_come_in_their_order() {
    let frame = r#"{"data":[
        {"c":["1","8"],"p":12.5,"s":"ABC","t":1700000000123,"v":100},
        {"c":null,"p":12,"s":"X:YZ","t":1700000000000,"v":0.25},
        {"p":12.5,"s":"ABC","t":1700000000123,"v":0,"c":[]},
        {"p":1.1,"s":"EUR","t":1700000000123,"v":null}],"type":"trade"}"#;
    let line = |symbol: &str, time: &str, rest: &str| {
        format!(
            r#"{{"kind":"trade","symbol":"{symbol}","time":"2023-11-14T22:13:20.{time}Z","received":"2024-08-09T00:00:00.001000000Z","source":"finnhub","price":{rest}}}"#
        )
    };
    let outcome = decode("finnhub", frame);
    assert_eq!(
        outcome.lines,
        [
            line("ABC", "123", r#"12.5,"size":100,"conditions":"1,8""#),
            line("X:YZ", "000", r#"12,"size":0.25"#),
            line("ABC", "123", r#"12.5,"size":0"#),
            line("EUR", "123", "1.1"),
        ]
    );
    assert_eq!(outcome.records, [4]);
}

#[test]
fn a_bad_trade_of_finnhub_is_refused_alone() {
    let good = r#"{"p":12.5,"s":"ABC","t":1700000000123,"v":1}"#;
    for (bad, reason) in [
        (r#"{"p":0,"s":"ABC","t":1700000000123,"v":1}"#, "p: found 0, expected a finite price above 0"),
        (r#"{"p":"12","s":"ABC","t":1700000000123,"v":1}"#, "p: invalid type: string \"12\", expected f64"),
        (r#"{"p":1,"p":2,"s":"ABC","t":1700000000123,"v":1}"#, "duplicate field `p`"),
        (r#"{"s":"ABC","t":1700000000123,"v":1}"#, "p: missing"),
        (r#"{"p":1,"t":1700000000123,"v":1}"#, "s: missing"),
        (r#"{"p":1,"s":"","t":1700000000123,"v":1}"#, "s: missing"),
        (r#"{"p":1,"s":"ABC","v":1}"#, "t: missing"),
        (r#"{"p":1,"s":"ABC","t":9223372036855,"v":1}"#, "t: found 9223372036855"),
        (r#"{"p":1,"s":"ABC","t":-5,"v":1}"#, "t: invalid value: integer `-5`"),
        (r#"{"p":1,"s":"ABC","t":1700000000123,"v":-1}"#, "v: found -1, expected a finite size of at least 0"),
        (r#"{"p":1,"s":"ABC","t":1700000000123,"c":[1]}"#, "c: invalid type: integer `1`"),
        (r#"{"p":1,"s":"ABC","t":1700000000123,"c":"1"}"#, "c: invalid type: string"),
        ("5", "invalid type: integer `5`"),
        ("{}", "p: missing"),
    ] {
        let frame = format!(r#"{{"type":"trade","data":[{good},{bad},{good}]}}"#);
        let outcome = decode("finnhub", &frame);
        assert_eq!(
            (outcome.lines.len(), outcome.rejects.len(), &*outcome.records),
            (2, 1, &[3][..]),
            "{bad}: {outcome:?}"
        );
        assert!(outcome.rejects[0].0.starts_with(reason), "{bad}: {outcome:?}");
        assert_eq!(outcome.rejects[0].1.as_deref(), Some(bad));
    }
}

#[test]
fn other_messages_of_finnhub() {
    for (frame, rule) in [
        (r#"{"type":"ping"}"#, "ping"),
        (r#"{"data":[],"type":"trade"}"#, "empty"),
        (r#"{"type":"news","data":[{"headline":"x"}]}"#, "other-message"),
        (r#"{"type":"news","data":{"p":1}}"#, "other-message"),
        (r#"{"type":"trade_update","data":[{"p":1,"s":"A","t":1}]}"#, "other-message"),
    ] {
        assert_eq!(dropped("finnhub", frame), rule, "{frame}");
    }
    for (frame, reason) in [
        (r#"{"type":"trade"}"#, "data: missing"),
        (r#"{"type":"trade","data":null}"#, "data: missing"),
        (r#"{"type":"trade","data":5}"#, "data: invalid type: integer `5`"),
        (r#"{"data":[]}"#, "missing field `type`"),
        (r#"{"type":5}"#, "invalid type: integer `5`"),
        (r#"{"type":"trade","data":[{"p":1e999,"s":"A","t":1}]}"#, "number out of range"),
    ] {
        let outcome = decode("finnhub", frame);
        assert!(outcome.rejects[0].0.contains(reason), "{frame}: {outcome:?}");
    }
}

#[test]
fn events_of_any_kind_are_read_back() {
    let bar = r#"{"kind":"bar","symbol":"A","time":"2023-11-14T22:13:00Z","received":"2023-11-14T22:14:00.000000000Z","source":"s","interval":"1m","count":1,"average":1,"open":1,"high":1,"low":1,"close":1,"volume":1,"vwap":1,"final":true}"#;
    let trade = r#"{"kind":"trade","symbol":"A","time":"2023-11-14T22:13:20.5Z","source":"s","id":"x-1","price":1.5}"#;
    let mark = r#"{"kind":"watermark","time":"2023-11-14T22:13:20.5Z"}"#;
    let outcome = decode_all("events", &[bar.as_bytes(), trade.as_bytes(), mark.as_bytes()]);
    assert_eq!(outcome.lines[0], bar);
    assert!(outcome.lines[1].contains(r#""received":"2024-08-09T00:00:00.001000000Z""#), "{outcome:?}");
    assert_eq!(outcome.dropped, [("watermark".to_owned(), Some(DAY), 1)]);
    assert_eq!(outcome.records, [1, 1, 1]);
}

#[test]
fn event_lines_that_cannot_be_used_are_refused_with_the_reason() {
    let envelope = r#""symbol":"A","time":"2023-11-14T22:13:20Z","source":"s""#;
    for (line, reason) in [
        (format!(r#"{{"kind":"trade",{envelope},"price":0}}"#), "price: found 0, expected a finite price above 0"),
        (format!(r#"{{"kind":"trade",{envelope},"price":1,"size":-2}}"#), "size: found -2"),
        (format!(r#"{{"kind":"trade",{envelope},"price":1e999}}"#), "not an event line: number out of range"),
        (format!(r#"{{"kind":"deal",{envelope}}}"#), "kind: \"deal\" is none of"),
        (
            format!(r#"{{"kind":"trade",{envelope},"price":1,"colour":"red"}}"#),
            "not an event line: unknown field `colour`",
        ),
        (format!(r#"{{"kind":"trade",{envelope}}}"#), "price: missing"),
    ] {
        let found = refused("events", &line);
        assert!(found.starts_with(reason) && found.len() <= 300, "{found}");
    }
}

#[test]
fn any_number_of_sources_is_accounted_for() {
    let line = |at: usize| {
        format!(r#"{{"kind":"rate","symbol":"A","time":"2023-11-14T22:13:20Z","source":"s{at}","value":1}}"#)
    };
    let lines: Vec<_> = (0..300).map(line).collect();
    let outcome = decode_all("events", &lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
    assert_eq!((outcome.lines.len(), outcome.rejects.len()), (253, 47));
    assert!(outcome.rejects[0].0.starts_with("more than 253"), "{:?}", outcome.rejects[0]);
}

/// Frames of all formats, in good order.
fn any_good_frame() -> impl Strategy<Value = (&'static str, String)> {
    let trade = (1_u64..1_000_000, 1_u32..9_999).prop_map(|(id, price)| {
        let trade = with_field(TRADE, "t", Some(&id.to_string()));
        (
            "binance",
            format!(
                r#"{{"stream":"abcusdt@trade","data":{}}}"#,
                with_field(&trade, "p", Some(&format!("\"{price}.5\"")))
            ),
        )
    });
    let book = Just(("binance", r#"{"u":4,"s":"ABCUSDT","b":"1.0","B":"2.0","a":"1.1","A":"2.1"}"#.to_owned()));
    let finnhub =
        prop::collection::vec((1_u32..9_999, prop::sample::select(vec!["ABC", "X:YZ"])), 0..4).prop_map(|trades| {
            let trade = |(price, symbol): (u32, &str)| {
                format!(r#"{{"c":["1","8"],"p":{price}.25,"s":"{symbol}","t":1700000000123,"v":2}}"#)
            };
            (
                "finnhub",
                format!(
                    r#"{{"data":[{}],"type":"trade"}}"#,
                    trades.into_iter().map(trade).collect::<Vec<_>>().join(",")
                ),
            )
        });
    prop_oneof![trade, book, finnhub, Just(("events", TRADE_LINE.to_owned()))]
}

/// The frame with bytes changed, or cut off.
fn broken(mut frame: Vec<u8>, changes: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) -> Vec<u8> {
    for (at, byte) in changes {
        let at = at.index(frame.len());
        frame[at] = *byte;
    }
    if let Some(cut) = cut {
        frame.truncate(cut.index(frame.len()));
    }
    frame
}

fn check_accounts(format: &str, frames: &[&[u8]]) -> Result<(), TestCaseError> {
    let outcome = decode_all(format, frames);
    prop_assert_eq!(outcome.records.len(), frames.len());
    prop_assert!(outcome.records.iter().all(|records| *records >= 1));
    let dropped: u64 = outcome.dropped.iter().map(|(_, _, count)| count).sum();
    let sum = outcome.lines.len() as u64 + dropped + outcome.rejects.len() as u64;
    prop_assert_eq!(outcome.records.iter().copied().map(u64::from).sum::<u64>(), sum);
    for (reason, _) in &outcome.rejects {
        prop_assert!(!reason.is_empty() && reason.chars().count() <= 300, "{}", reason);
    }
    Ok(())
}

fn any_format() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["binance", "finnhub", "events", "other"])
}

proptest! {
    #[test]
    fn any_bytes_are_accounted_for(format in any_format(), frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..5)) {
        check_accounts(format, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    }

    #[test]
    fn broken_frames_are_accounted_for(
        (format, frame) in any_good_frame(),
        other in any_format(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:0-e.\\".to_vec())]), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let broken = broken(frame.into_bytes(), &changes, cut);
        check_accounts(format, &[&broken])?;
        check_accounts(other, &[&broken])?;
    }

    #[test]
    fn each_frame_is_decoded_by_itself(frames in prop::collection::vec(any_good_frame(), 1..12), format in any_format()) {
        let frames: Vec<_> = frames.iter().map(|(_, frame)| frame.as_bytes()).collect();
        let together = decode_all(format, &frames);
        let mut alone = Outcome::default();
        let mut dropped = std::collections::BTreeMap::new();
        for frame in frames {
            let one = decode_all(format, &[frame]);
            alone.lines.extend(one.lines);
            alone.records.extend(one.records);
            alone.rejects.extend(one.rejects);
            for (rule, day, count) in one.dropped {
                *dropped.entry((rule, day)).or_insert(0) += count;
            }
        }
        prop_assert_eq!(&together.lines, &alone.lines);
        prop_assert_eq!(&together.records, &alone.records);
        prop_assert_eq!(&together.rejects, &alone.rejects);
        let mut sums = std::collections::BTreeMap::new();
        for (rule, day, count) in together.dropped {
            *sums.entry((rule, day)).or_insert(0) += count;
        }
        prop_assert_eq!(sums, dropped);
    }
}
