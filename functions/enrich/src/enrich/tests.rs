use proptest::prelude::*;
use tapeline_sdk::{Number, testing::Harness};

use super::*;

const SETTINGS: &str = r#"{
    "names": {
        "yahoo:VOD.L": {"venue": "XLON", "symbol": "VOD", "currency": "GBp"},
        "VOD.L": {"venue": "LSE"},
        "finnhub:OANDA:EUR_USD": {"symbol": "EURUSD"}
    },
    "venues": {"iqfeed": "NASDAQ"}
}"#;

fn trade(source: &str, symbol: &str, rest: &str) -> String {
    format!(
        r#"{{"kind":"trade","symbol":"{symbol}","time":"2024-08-08T23:54:15.342Z","received":"2024-08-08T23:54:15.500Z","source":"{source}"{rest}}}"#
    )
}

fn enriched(settings: &str, line: &str) -> serde_json::Value {
    let mut harness = Harness::<Enrich>::new(settings).unwrap();
    harness.feed(line);
    let out = harness.out();
    assert_eq!(harness.count("replaced"), 1);
    serde_json::from_str(&out[0]).unwrap()
}

#[test]
fn a_trade_gets_symbol_notional_and_lag_and_keeps_the_rest() {
    let mut harness = Harness::<Enrich>::new("{}").unwrap();
    harness.feed(&trade("binance", "BTCUSDT", r#","id":7,"price":61837.63,"size":0.02,"conditions":"1,8""#));
    assert_eq!(
        harness.out(),
        [concat!(
            r#"{"kind":"trade","symbol":"BINANCE:BTCUSDT","time":"2024-08-08T23:54:15.342Z","#,
            r#""received":"2024-08-08T23:54:15.500000000Z","source":"binance","id":7,"price":61837.63,"size":0.02,"#,
            r#""notional":1236.7526,"lag":158000000,"conditions":"1,8"}"#
        )]
    );
}

#[test]
fn a_quote_gets_its_symbol_and_other_kinds_pass() {
    let mut harness = Harness::<Enrich>::new(SETTINGS).unwrap();
    let quote = r#"{"kind":"quote","symbol":"VOD.L","time":"2024-08-08T23:54:15Z","source":"yahoo","bid":71.5,"ask":71.52,"ask-size":3}"#;
    let notice = r#"{"kind":"notice","symbol":"yahoo","time":"2024-08-08T23:54:15Z","source":"yahoo","text":"hello"}"#;
    harness.feed(&format!("{quote}\n{notice}"));
    let quote = r#"{"kind":"quote","symbol":"XLON:VOD","time":"2024-08-08T23:54:15Z","source":"yahoo","bid":0.715,"ask":0.7152,"ask-size":3}"#;
    assert_eq!(harness.out(), [quote, notice]);
    assert_eq!((harness.count("replaced"), harness.count("forward")), (1, 1));
}

#[test]
fn symbols_are_canonical() {
    for (source, symbol, canonical) in [
        ("binance", "BTCUSDT", "BINANCE:BTCUSDT"),
        ("finnhub", "AAPL", "FINNHUB:AAPL"),
        ("finnhub", "BINANCE:BTCUSDT", "BINANCE:BTCUSDT"),
        ("finnhub", "OANDA:EUR_USD", "OANDA:EURUSD"),
        ("iqfeed", "AAPL", "NASDAQ:AAPL"),
        ("yahoo", "VOD.L", "XLON:VOD"),
        ("other", "VOD.L", "LSE:VOD.L"),
        ("", "AAPL", "AAPL"),
    ] {
        let line = trade(source, symbol, r#","price":1"#);
        assert_eq!(enriched(SETTINGS, &line)["symbol"], canonical, "{source} {symbol}");
    }
}

#[test]
fn minor_units_become_major_ones() {
    for (source, symbol, currency, price, major, in_major) in [
        ("x", "A", "GBp", "164.5", "GBP", 1.645),
        ("x", "A", "GBX", "77.1", "GBP", 0.771),
        ("x", "A", "ILA", "5021", "ILS", 50.21),
        ("x", "A", "ZAc", "12345.6", "ZAR", 123.456),
        ("x", "A", "GBP", "1.645", "GBP", 1.645),
        ("x", "A", "USD", "77.1", "USD", 77.1),
        // What the event says counts.
        ("yahoo", "VOD.L", "EUR", "71.5", "EUR", 71.5),
    ] {
        let line = trade(source, symbol, &format!(r#","price":{price},"size":2,"currency":"{currency}""#));
        let out = enriched(SETTINGS, &line);
        assert_eq!((out["currency"].as_str(), out["price"].as_f64()), (Some(major), Some(in_major)), "{line}");
        assert_eq!(out["notional"].as_f64(), Some(Number(in_major * 2.0).rounded()));
    }
    let out = enriched(SETTINGS, &trade("yahoo", "VOD.L", r#","price":71.5"#));
    assert_eq!((out["currency"].as_str(), out["price"].as_f64()), (Some("GBP"), Some(0.715)));
    assert!(out["notional"].is_null(), "no size, no notional");
}

#[test]
fn what_cannot_be_computed_is_absent() {
    let out = enriched("{}", &trade("x", "A", r#","price":1e300,"size":1e300"#));
    assert!(out["notional"].is_null());
    let line = r#"{"kind":"trade","symbol":"A","time":"2024-08-08T23:54:15Z","source":"x","price":1}"#;
    assert!(enriched("{}", line)["lag"].is_null());
    let line = r#"{"kind":"trade","symbol":"A","time":"1700-01-01T00:00:00Z","received":"2200-01-01T00:00:00Z","source":"x","price":1}"#;
    assert!(enriched("{}", line)["lag"].is_null());
    let behind = r#"{"kind":"trade","symbol":"A","time":"2024-08-08T23:54:16Z","received":"2024-08-08T23:54:15Z","source":"x","price":1}"#;
    assert_eq!(enriched("{}", behind)["lag"], -1_000_000_000);
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let refused =
        |settings: &str| Harness::<Enrich>::new(settings).err().map(|error| (error.key, error.value)).unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(refused(r#"{"colour": 1}"#), pair("colour", "1"));
    assert_eq!(refused(r#"{"venues": {"x": ""}}"#), pair("venues.x", "\"\""));
    assert_eq!(refused(r#"{"names": {"A.L": {"venue": "X:Y"}}}"#), pair("names.A.L.venue", "\"X:Y\""));
    assert_eq!(refused(r#"{"names": {"A": {"symbol": ""}}}"#), pair("names.A.symbol", "\"\""));
    assert_eq!(refused(r#"{"names": {"A": {"currency": ""}}}"#), pair("names.A.currency", "\"\""));
}

fn any_line() -> impl Strategy<Value = String> {
    let source = prop::sample::select(vec!["binance", "finnhub", "yahoo", "iqfeed"]);
    let symbol = prop::sample::select(vec!["A", "VOD.L", "BINANCE:BTCUSDT", "OANDA:EUR_USD", "B"]);
    let rest =
        prop::sample::select(vec!["", r#","currency":"GBp""#, r#","currency":"ZAc","id":"x""#, r#","id":7,"size":3"#]);
    let event = (source, symbol, rest, 1_u32..99_999)
        .prop_map(|(source, symbol, rest, price)| trade(source, symbol, &format!(r#","price":{price}.25{rest}"#)));
    let quote = event.clone().prop_map(|line| {
        let envelope = line.split(r#","price""#).next().unwrap().replace("trade", "quote");
        format!(r#"{envelope},"bid":12.5}}"#)
    });
    let mark = Just(r#"{"kind":"watermark","time":"2024-08-08T23:54:15Z"}"#.to_owned());
    let other =
        Just(r#"{"kind":"rate","symbol":"A","time":"2024-08-08T23:54:15Z","source":"yahoo","value":0.05}"#.to_owned());
    prop_oneof![4 => event, 2 => quote, 1 => mark, 1 => other]
}

proptest! {
    #[test]
    fn neither_cuts_nor_restarts_show(lines in prop::collection::vec((any_line(), any::<bool>(), any::<bool>()), 0..40)) {
        let mut whole = Harness::<Enrich>::new(SETTINGS).unwrap();
        whole.feed(&lines.iter().map(|(line, _, _)| line.as_str()).collect::<Vec<_>>().join("\n"));
        let mut cut = Harness::<Enrich>::new(SETTINGS).unwrap();
        let mut batch = String::new();
        for (line, is_cut, is_restarted) in &lines {
            batch.push_str(line);
            batch.push('\n');
            if *is_cut {
                cut.feed(&std::mem::take(&mut batch));
                if *is_restarted {
                    cut.restart().unwrap();
                }
            }
        }
        cut.feed(&batch);
        prop_assert_eq!(whole.out(), cut.out());
        prop_assert_eq!(whole.count("replaced"), cut.count("replaced"));
    }

    #[test]
    fn the_decimal_point_moves_by_two(whole in 0_u64..99_999_999, micros in 0_u32..1_000_000) {
        let minor: f64 = format!("{whole}.{micros:06}").parse().unwrap();
        let major: f64 = format!("{}.{:02}{micros:06}", whole / 100, whole % 100).parse().unwrap();
        prop_assert_eq!(in_major(minor, 100.0).to_bits(), major.to_bits());
    }

    #[test]
    fn enriching_twice_names_alike(symbol in "[A-Z:.]{1,8}", source in "[a-z]{1,5}") {
        let settings = Settings::default();
        let once = canonical_symbol(&settings, &source, &symbol);
        prop_assert_eq!(canonical_symbol(&settings, &source, &once), once);
    }
}
