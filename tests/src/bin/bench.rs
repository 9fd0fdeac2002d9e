//! Benchmarks: the same job on the same input, in one run, four ways.
//!
//! `cargo xtask bench [--events N] [--rounds N] [--chained] [--json FILE]`. Each way runs in a process of its own, so that CPU time
//! and peak memory are its own, and in every round, in turns; its fastest round counts, since what else goes on in a
//! machine only ever takes time. The figures of one run can be compared with each other; those of two runs cannot.

#![allow(clippy::print_stdout, reason = "it prints its results")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use tapeline::pipeline::spec::Pipeline;
use tapeline_tests::{
    bench::{chain, chained, cpu_seconds, invoke, invoke::Answers, layouts, plain, swap},
    cluster::NatsServer,
    program::{self, SpawnQuietly},
};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    way: Option<Way>,
    /// Trades of the input.
    #[arg(long, default_value_t = 1_000_000, global = true)]
    events: u64,
    /// How often each way is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only swaps of a stage; nothing is kept.
    #[arg(long)]
    swaps: bool,
    /// Only chains by NATS; nothing is kept.
    #[arg(long)]
    chained: bool,
    /// Where the results are kept.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// The input, written by the first process.
    #[arg(long, hide = true, global = true)]
    market: Option<PathBuf>,
}

#[derive(Subcommand, Clone, Copy)]
enum Way {
    /// The stages as native code, in memory: the limit.
    Native,
    /// One native function with serde_json.
    Plain,
    /// The stages as components, in memory.
    Wasm,
    /// `tapeline run`, bars and alarms stored.
    RunBars,
    /// `tapeline run`, every trade a row and a line of CSV as well.
    RunAll,
    /// `tapeline run`, every trade a row as well.
    RunRows,
}

/// What one way took.
#[derive(Serialize, Deserialize)]
struct Figures {
    way: String,
    events: u64,
    seconds: f64,
    cpu_seconds: f64,
    events_per_second: f64,
    events_per_cpu_second: f64,
    ns_per_event: f64,
    peak_mib: f64,
    stages_ns_per_event: Vec<(String, f64)>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match (arguments.way, &arguments.market) {
        (Some(way), Some(market)) => {
            println!("{}", serde_json::to_string(&measure(way, market, arguments.events)?)?);
            Ok(())
        }
        _ => compare(&arguments),
    }
}

fn print_pauses(folder: &Path) -> Result<()> {
    let swap::Pauses { entries, pause_ms, swapping_ms, quiet_ms } = swap::pauses(folder)?;
    let [half, most, longest] = pause_ms;
    println!("swap with {entries} entries of state: pause p50 {half:.2} ms, p99 {most:.2} ms, longest {longest:.2} ms");
    println!(
        "  500 trades and their commit: p99 {:.1} ms, longest {:.1} ms while swapping; {:.1} and {:.1} while not",
        swapping_ms[0], swapping_ms[1], quiet_ms[0], quiet_ms[1]
    );
    Ok(())
}

const WAYS: [&str; 6] = ["native", "plain", "wasm", "run-bars", "run-rows", "run-all"];

fn compare(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    if arguments.swaps {
        return print_pauses(folder.path());
    }
    let market = folder.path().join("market.txt");
    chain::write_market(&market, arguments.events)?;
    if arguments.chained {
        return of_chain(folder.path(), &market, arguments).map(drop);
    }
    let all = best_of_rounds(arguments, &market)?;
    print(&all);
    println!("start-up: first row {:.0} ms after a warm start", first_row_ms(folder.path())?);
    let stage = invoke::of_stage(folder.path())?;
    print_answers("invoke", stage);
    let wasmtime = invoke::of_wasmtime()?;
    match wasmtime {
        Some(wasmtime) => {
            print_answers("wasmtime serve", wasmtime);
            println!("invoke / wasmtime serve {:.2}", stage.per_second / wasmtime.per_second);
        }
        None => println!("wasmtime serve: not compared; `cargo install wasmtime-cli` puts it on the path"),
    }
    print_pauses(folder.path())?;
    let chained = of_chain(folder.path(), &market, arguments)?;
    let layouts = layouts::measure()?;
    for (layout, ns) in &layouts {
        println!("layout {layout:<18} {ns:>8.0} ns/event");
    }
    let kept = serde_json::json!({ "ways": all, "invoke": stage, "wasmtime_serve": wasmtime, "chained": chained, "layouts": layouts });
    std::fs::write(&arguments.json, serde_json::to_vec_pretty(&kept)?)?;
    println!("kept in {}", arguments.json.display());
    Ok(())
}

fn best_of_rounds(arguments: &Arguments, market: &Path) -> Result<Vec<Figures>> {
    let mut best: Vec<Figures> = Vec::new();
    for _ in 0..arguments.rounds {
        for way in WAYS {
            let figures = in_own_process(way, market, arguments.events)?;
            match best.iter_mut().find(|known| known.way == way) {
                Some(known) if known.cpu_seconds <= figures.cpu_seconds => {}
                Some(known) => *known = figures,
                None => best.push(figures),
            }
        }
    }
    Ok(best)
}

fn in_own_process(way: &str, market: &Path, events: u64) -> Result<Figures> {
    let output = Command::new(std::env::current_exe()?)
        .args([way, "--events", &events.to_string(), "--market"])
        .arg(market)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("{way}: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("read {way}"))
}

fn print(all: &[Figures]) {
    println!(
        "{:<10} {:>12} {:>14} {:>10} {:>9} {:>9}",
        "way", "events/s", "events/CPU s", "ns/event", "CPU s", "peak MiB"
    );
    for figures in all {
        println!(
            "{:<10} {:>12.0} {:>14.0} {:>10.0} {:>9.2} {:>9.0}",
            figures.way,
            figures.events_per_second,
            figures.events_per_cpu_second,
            figures.ns_per_event,
            figures.cpu_seconds,
            figures.peak_mib
        );
        for (stage, ns) in &figures.stages_ns_per_event {
            println!("  {stage:<12} {ns:>8.0} ns/event");
        }
    }
    let speed = |way: &str| all.iter().find(|figures| figures.way == way).map_or(f64::NAN, |f| f.events_per_cpu_second);
    println!(
        "wasm / native {:.2}, wasm / plain {:.2}",
        speed("wasm") / speed("native"),
        speed("wasm") / speed("plain")
    );
}

fn print_answers(what: &str, answers: Answers) {
    let p99 = answers.p99_seconds * 1e3;
    println!("{what}: {:.0} requests/s on one connection, p99 {p99:.3} ms", answers.per_second);
}

fn measure(way: Way, market: &Path, events: u64) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let pipeline = std::fs::read_to_string(program::bitcoin_pipeline())?;
    let file = folder.path().join("pipeline.toml");
    let who = match way {
        Way::RunAll | Way::RunBars | Way::RunRows => UsageWho::RUSAGE_CHILDREN,
        _ => UsageWho::RUSAGE_SELF,
    };
    let text = match way {
        Way::RunAll => pipeline,
        Way::RunRows => only_rows(&pipeline),
        _ => only_bars(&pipeline),
    };
    std::fs::write(&file, text)?;
    let spec = Pipeline::load(&file)?;
    let (name, cpu_before);
    let mut stages = Vec::new();
    let started;
    let seconds = match way {
        Way::Native | Way::Wasm => {
            let chunks = chain::read_market(market)?;
            let chain =
                if matches!(way, Way::Native) { chain::native_stages(&spec) } else { chain::wasm_stages(&spec)? };
            name = if matches!(way, Way::Native) { "native" } else { "wasm" };
            cpu_before = cpu_seconds(who)?;
            let took = chain::run(&spec, chain, &chunks)?;
            stages =
                took.stages.iter().map(|(name, time)| (name.clone(), ns_each(time.as_secs_f64(), events))).collect();
            took.total.as_secs_f64()
        }
        Way::Plain => {
            let chunks = chain::read_market(market)?;
            name = "plain";
            cpu_before = cpu_seconds(who)?;
            started = Instant::now();
            let result = plain::run(chunks.iter().flat_map(|frames| {
                let starts = std::iter::once(0).chain(frames.ends.iter().copied());
                starts.zip(&frames.ends).map(|(start, end)| &frames.bytes[start as usize..*end as usize])
            }));
            anyhow::ensure!(result.trades > 0 && !result.alarms.is_empty(), "nothing came of the trades");
            started.elapsed().as_secs_f64()
        }
        Way::RunAll | Way::RunBars | Way::RunRows => {
            name = match way {
                Way::RunAll => "run-all",
                Way::RunRows => "run-rows",
                _ => "run-bars",
            };
            cpu_before = cpu_seconds(who)?;
            started = Instant::now();
            let run = program::run(&file, &[market], &folder.path().join("data"))?;
            anyhow::ensure!(run.code == 0, "exit code {}: {}", run.code, run.errors);
            started.elapsed().as_secs_f64()
        }
    };
    let cpu = cpu_seconds(who)? - cpu_before;
    Ok(Figures {
        way: name.to_owned(),
        events,
        seconds,
        cpu_seconds: cpu,
        events_per_second: events as f64 / seconds,
        events_per_cpu_second: events as f64 / cpu,
        ns_per_event: ns_each(cpu, events),
        peak_mib: getrusage(who)?.max_rss() as f64 / 1024.0,
        stages_ns_per_event: stages,
    })
}

/// The pipeline with bars and alarms stored, and nothing else.
fn only_bars(text: &str) -> String {
    let text = text.replace(r#"tables = ["trades", "bars", "averages", "alarms"]"#, r#"tables = ["bars", "alarms"]"#);
    only_rows(&text)
}

/// The pipeline without files of trades.
fn only_rows(text: &str) -> String {
    text.replace(r#"objects = ["trades", "bars"]"#, r#"objects = ["bars"]"#)
}

/// The main job chained by a broker: the best of some rounds, its latency, and what an idle host takes.
fn of_chain(folder: &Path, market: &Path, arguments: &Arguments) -> Result<serde_json::Value> {
    if !NatsServer::is_there() {
        println!("chained: not measured; there is no nats-server on the path");
        return Ok(serde_json::Value::Null);
    }
    let pipeline = folder.join("bars.toml");
    std::fs::write(&pipeline, only_bars(&std::fs::read_to_string(program::bitcoin_pipeline())?))?;
    let mut best: Option<chained::Chained> = None;
    for _ in 0..arguments.rounds {
        let measured = chained::throughput(&pipeline, market, arguments.events)?;
        if best.is_none_or(|best| best.events_per_second < measured.events_per_second) {
            best = Some(measured);
        }
    }
    let best = best.context("at least one round")?;
    let per_cpu = arguments.events as f64 / (best.program_cpu_seconds + best.broker_cpu_seconds);
    println!(
        "chained: {:.0} events/s through six stages, {per_cpu:.0} events/CPU s (broker {:.2} of {:.2} CPU s)",
        best.events_per_second,
        best.broker_cpu_seconds,
        best.program_cpu_seconds + best.broker_cpu_seconds
    );
    println!(
        "  the broker alone, {} messages of {} bytes: {:.0} events/s; chained / alone {:.2}",
        best.messages,
        best.bytes / best.messages.max(1),
        best.broker_events_per_second,
        best.events_per_second / best.broker_events_per_second
    );
    let latency = chained::latency(&program::bitcoin_pipeline())?;
    println!("  request to row at 1,000 trades/s: p50 {:.1} ms, p99 {:.1} ms", latency.p50_ms, latency.p99_ms);
    let idle = chained::idle(&program::bitcoin_pipeline())?;
    println!("  an idle host: {:.1} % of a core, {:.0} MiB", idle.cpu_percent, idle.mib);
    Ok(serde_json::json!({ "throughput": best, "latency": latency, "idle": idle }))
}

fn ns_each(seconds: f64, events: u64) -> f64 {
    seconds * 1e9 / events.max(1) as f64
}

/// How long a warm start takes until the first row can be read.
fn first_row_ms(folder: &Path) -> Result<f64> {
    let market = folder.join("short.txt");
    chain::write_market(&market, 1_000)?;
    let data = folder.join("first");
    let started = Instant::now();
    let arguments = program::run_arguments(&program::bitcoin_pipeline(), &[&market], &data);
    let mut child = Command::new(program::path()).args(arguments).spawn_quietly()?;
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "{status}");
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
