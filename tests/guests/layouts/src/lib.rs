//! A keyed average over events that are laid out in four ways: what decided the layout of `wit/events.wit`.

use rustc_hash::FxHashMap;
use serde::Deserialize;

/// Sum and count of each symbol.
#[derive(Default)]
pub struct Averages {
    by_number: Vec<(f64, u64)>,
    by_text: FxHashMap<String, (f64, u64)>,
}

impl Averages {
    /// Takes a price; gives the symbol's average.
    pub fn take(&mut self, symbol: u32, price: f64) -> f64 {
        let at = symbol as usize;
        if self.by_number.len() <= at {
            self.by_number.resize(at + 1, (0.0, 0));
        }
        add(&mut self.by_number[at], price)
    }

    /// The same, by the symbol's text.
    pub fn take_text(&mut self, symbol: &str, price: f64) -> f64 {
        if let Some(average) = self.by_text.get_mut(symbol) {
            return add(average, price);
        }
        add(self.by_text.entry(symbol.to_owned()).or_default(), price)
    }
}

fn add(average: &mut (f64, u64), price: f64) -> f64 {
    average.0 += price;
    average.1 += 1;
    average.0 / average.1 as f64
}

/// An event of the JSON layout.
#[derive(Deserialize)]
pub struct Event<'a> {
    /// The instrument.
    #[serde(borrow)]
    pub symbol: std::borrow::Cow<'a, str>,
    /// Its price.
    pub price: f64,
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated exports of the component")]
mod component {
    use std::cell::RefCell;

    use super::{Averages, Event};

    wit_bindgen::generate!({ world: "layouts", path: "wit" });

    thread_local! {
        static AVERAGES: RefCell<Averages> = RefCell::new(Averages::default());
    }

    struct Component;

    impl Guest for Component {
        fn columns(symbols: Vec<u32>, prices: Vec<f64>) -> f64 {
            AVERAGES.with_borrow_mut(|all| symbols.iter().zip(&prices).map(|(s, p)| all.take(*s, *p)).sum())
        }

        fn rows(rows: Vec<Row>) -> f64 {
            AVERAGES.with_borrow_mut(|all| rows.iter().map(|row| all.take(row.symbol, row.price)).sum())
        }

        fn text_rows(rows: Vec<TextRow>) -> f64 {
            AVERAGES.with_borrow_mut(|all| rows.iter().map(|row| all.take_text(&row.symbol, row.price)).sum())
        }

        fn json(bytes: Vec<u8>) -> f64 {
            let events: Vec<Event<'_>> = serde_json::from_slice(&bytes).expect("the benchmark writes JSON");
            AVERAGES.with_borrow_mut(|all| events.iter().map(|event| all.take_text(&event.symbol, event.price)).sum())
        }
    }

    export!(Component);
}
