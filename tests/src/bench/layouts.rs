//! What crosses the boundary of a component, and what it costs: the measurements behind `wit/events.wit`.

use std::time::Instant;

use anyhow::{Context, Result};
use layouts::Averages;
use wasmtime::{
    Config, Engine, Store,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::program;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from the guest's WIT")]
mod bindings {
    wasmtime::component::bindgen!({ world: "layouts", path: "guests/layouts/wit" });
}

use bindings::{Layouts, Row, TextRow};

/// Events of a call.
const EVENTS: usize = 256;
/// Symbols, so that a map has something to do.
const SYMBOLS: usize = 500;
/// Calls of each layout.
const CALLS: usize = 4_000;

struct State(WasiCtx, ResourceTable);

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.0, table: &mut self.1 }
    }
}

/// Nanoseconds an event of each layout, and of native code with texts as keys. All give the same answer.
///
/// # Errors
/// When the guest has not been built, or traps.
pub fn measure() -> Result<Vec<(&'static str, f64)>> {
    let engine = Engine::new(Config::new().epoch_interruption(true)).map_err(plainly)?;
    let path = program::components().join("test/layouts.wasm");
    let component = Component::from_file(&engine, path).map_err(plainly).context("`cargo xtask build` makes it")?;
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).map_err(plainly)?;
    let names: Vec<String> = (0..SYMBOLS).map(|at| format!("SYMBOL{at:03}")).collect();
    let symbols: Vec<u32> = (0..EVENTS).map(|at| (at * 7 % SYMBOLS) as u32).collect();
    let prices: Vec<f64> = (0..EVENTS).map(|at| 100.0 + at as f64 / 4.0).collect();
    let events = || symbols.iter().zip(&prices);
    let rows: Vec<Row> = events().map(|(symbol, price)| Row { symbol: *symbol, price: *price }).collect();
    let text = |symbol: &u32| names[*symbol as usize].clone();
    let text_rows: Vec<TextRow> =
        events().map(|(symbol, price)| TextRow { symbol: text(symbol), price: *price }).collect();
    let json: Vec<serde_json::Value> =
        events().map(|(symbol, price)| serde_json::json!({ "symbol": text(symbol), "price": price })).collect();
    let json = serde_json::to_vec(&json)?;

    let mut native = Averages::default();
    let mut results = vec![timed("native, texts", || {
        Ok(events().map(|(symbol, price)| native.take_text(&names[*symbol as usize], *price)).sum())
    })?];
    let fresh = || -> Result<(Store<State>, Layouts)> {
        let mut store = Store::new(&engine, State(WasiCtx::builder().build(), ResourceTable::new()));
        store.set_epoch_deadline(u64::MAX / 2);
        let layouts = Layouts::instantiate(&mut store, &component, &linker).map_err(plainly)?;
        Ok((store, layouts))
    };
    let (mut store, layouts) = fresh()?;
    results.push(timed("columns, numbers", || layouts.call_columns(&mut store, &symbols, &prices).map_err(plainly))?);
    let (mut store, layouts) = fresh()?;
    results.push(timed("rows, numbers", || layouts.call_rows(&mut store, &rows).map_err(plainly))?);
    let (mut store, layouts) = fresh()?;
    results.push(timed("rows, texts", || layouts.call_text_rows(&mut store, &text_rows).map_err(plainly))?);
    let (mut store, layouts) = fresh()?;
    results.push(timed("JSON", || layouts.call_json(&mut store, &json).map_err(plainly))?);
    let expected = results.first().map_or(f64::NAN, |(_, _, sum)| *sum);
    let same = results.iter().all(|(_, _, sum)| (sum / expected - 1.0).abs() < 1e-9);
    anyhow::ensure!(same, "the layouts disagree: {results:?}");
    Ok(results.into_iter().map(|(name, ns, _)| (name, ns)).collect())
}

/// The engine's errors are of a type of its own.
fn plainly(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn timed(name: &'static str, mut call: impl FnMut() -> Result<f64>) -> Result<(&'static str, f64, f64)> {
    let mut sum = call()?;
    let started = Instant::now();
    for _ in 0..CALLS {
        sum += call()?;
    }
    Ok((name, started.elapsed().as_secs_f64() * 1e9 / (CALLS * EVENTS) as f64, sum))
}
