//! The bench of the functions on AWS Lambda: `cargo xtask bench functions`. It runs the package of functions beside a local
//! AWS, prints what it found and the rows of costs for `infra/README.md`, and fails where a limit is passed.

#![allow(clippy::print_stdout, reason = "it prints its results")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tapeline_aws_tests::{
    bench::{
        cost::Inputs,
        hop::Start,
        market::Market,
        package::Size,
        phases::{Chain, Phase},
        readme::{self, Scheduled},
    },
    local_aws::LocalAws,
    stack::{Account, package},
};

/// From exec to the first answer, the median of each function.
const FIRST_ANSWER_MAX: Duration = Duration::from_millis(25);
/// The package as it is uploaded.
const ZIP_BYTES_MAX: u64 = 10_000_000;
/// The most memory that a function has had.
const MEMORY_BYTES_MAX: u64 = 64_000_000;
/// Calls by a schedule.
const SCHEDULED: u32 = 11;
/// How many events a second come in a trickle, and under load: it decides for how long a metric is paid.
const TRICKLE_PER_SECOND: f64 = 1.0;
const LOAD_PER_SECOND: f64 = 1_000.0;

#[derive(Parser)]
struct Arguments {
    /// Trades, at most; the recording has 19,904.
    #[arg(long, default_value_t = 20_000)]
    trades: usize,
    /// Of them, the last but those of starts: each comes alone.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    trickle: u16,
    /// Starts of each function.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u16).range(11..))]
    starts: u16,
    /// Where the results are kept.
    #[arg(long, default_value = "target/bench-functions.json")]
    json: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        LocalAws::is_there(),
        "there is no ministack, which stands for AWS: `cargo xtask bench functions` installs it"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let account = Arc::new(Account { aws: LocalAws::start()?, runtime });
    let mut chain = Chain::make(&account)?;
    let measured = account.runtime.block_on(Measured::new(&mut chain, &arguments));
    let measured = measured.with_context(|| chain.log())?;
    measured.print();
    std::fs::write(&arguments.json, serde_json::to_vec_pretty(&measured.json())?)
        .with_context(|| format!("write {}", arguments.json.display()))?;
    println!("\nkept in {}", arguments.json.display());
    let passed = measured.limits_passed();
    if passed.is_empty() { Ok(()) } else { bail!("a limit is passed: {}", passed.join("; ")) }
}

/// All that is measured.
struct Measured {
    market: String,
    size: Size,
    load: Phase,
    trickle: Phase,
    peaks: Vec<(String, u64)>,
    starts: Vec<(String, Starts)>,
    scheduled: Scheduled,
}

/// The first answers of a function's processes.
struct Starts {
    count: usize,
    median: Start,
    worst: Start,
}

impl Measured {
    async fn new(chain: &mut Chain, arguments: &Arguments) -> Result<Self> {
        let (singly, starts) = (usize::from(arguments.trickle), usize::from(arguments.starts));
        let market = Market::new(arguments.trades, 2 * (singly + starts))?;
        let (loaded, rest) = market.trades.split_at(market.trades.len() - singly - starts);
        let (singly, started) = rest.split_at(singly);
        let load = chain.load(loaded).await.context("load")?;
        let peaks = chain.peak_bytes()?;
        let trickle = chain.trickle(singly).await.context("a trickle")?;
        let (calls, units) = chain.scheduled(SCHEDULED).await.context("a schedule")?;
        let scheduled =
            Scheduled::new(calls.lambda_ms as f64 / calls.count as f64, units.read as f64 / calls.count as f64);
        let starts = chain.starts(started).await.context("starts")?;
        let starts = starts.into_iter().map(|(stage, starts)| {
            let starts = Starts::new(starts).with_context(|| format!("{stage} had nothing to do"))?;
            Ok((stage, starts))
        });
        let starts = starts.collect::<Result<Vec<_>>>()?;
        Ok(Self { market: market.name, size: Size::of(&package())?, load, trickle, peaks, starts, scheduled })
    }

    fn inputs(&self) -> [Inputs; 2] {
        [Inputs::of(&self.trickle, TRICKLE_PER_SECOND), Inputs::of(&self.load, LOAD_PER_SECOND)]
    }

    fn print(&self) {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let Size { zip, unzipped, program } = self.size;
        println!(
            "package: {:.2} MB zipped, {:.1} MB unzipped ({:.1} of it the program)",
            mb(zip),
            mb(unzipped),
            mb(program)
        );
        println!("market: {}; {} trades under load, {} singly", self.market, self.load.events, self.trickle.events);
        println!(
            "{:<10} {:>7} {:>11} {:>11} {:>14} {:>11} {:>10}",
            "function", "starts", "median ms", "worst ms", "of it services", "of it CPU", "peak MB"
        );
        for ((stage, starts), (_, peak)) in self.starts.iter().zip(&self.peaks) {
            let Starts { count, median, worst } = starts;
            println!(
                "{stage:<10} {count:>7} {:>11.1} {:>11.1} {:>14.1} {:>11.1} {:>10.1}",
                ms(median.whole),
                ms(worst.whole),
                ms(median.services),
                ms(median.cpu),
                mb(*peak)
            );
        }
        for (name, phase) in [("trickle", &self.trickle), ("load", &self.load)] {
            let calls = &phase.taken.calls;
            println!(
                "{name}: {} messages in {} calls, each message {:.1} ms here, {:.1} ms of them a processor's",
                phase.taken.messages,
                calls.count,
                ms(calls.took) / phase.taken.messages as f64,
                ms(calls.cpu) / phase.taken.messages as f64,
            );
        }
        let [trickle, load] = self.inputs();
        println!("\nfor infra/README.md:\n\n{}\n{}", self.takes(), self.scheduled.row());
        println!("\n{}\n{}", readme::inputs(&trickle, &load), readme::costs(&trickle, &load));
    }

    /// The rows of what the functions take.
    fn takes(&self) -> String {
        let span = |of: fn(&Start) -> Duration| {
            let all = self.starts.iter().map(|(_, starts)| ms(of(&starts.median)));
            let (least, most) = all.fold((f64::MAX, 0.0_f64), |(least, most), ms| (least.min(ms), most.max(ms)));
            format!("{least:.0} to {most:.0} ms")
        };
        let peaks = self.peaks.iter().map(|(_, peak)| *peak as f64 / 1e6);
        let (least, most) = peaks.fold((f64::MAX, 0.0_f64), |(least, most), peak| (least.min(peak), most.max(peak)));
        let count = self.starts.iter().map(|(_, starts)| starts.count).min().unwrap_or_default();
        format!(
            "| from exec to the answer to the first message, median of {count}, by function | {} | {:.0} ms |\n\
             | of it waiting for services; time of a processor | {}; {} | |\n\
             | memory at most, under load, by function | {least:.0} to {most:.0} MB | {:.0} MB |\n\
             | the package, zipped; unzipped | {:.2} MB; {:.1} MB | {:.0} MB |",
            span(|start| start.whole),
            ms(FIRST_ANSWER_MAX),
            span(|start| start.services),
            span(|start| start.cpu),
            MEMORY_BYTES_MAX as f64 / 1e6,
            self.size.zip as f64 / 1e6,
            self.size.unzipped as f64 / 1e6,
            ZIP_BYTES_MAX as f64 / 1e6,
        )
    }

    fn json(&self) -> Value {
        let starts = self.starts.iter().zip(&self.peaks).map(|((stage, starts), (_, peak))| {
            json!({
                "function": stage,
                "starts": starts.count,
                "median_ms": ms(starts.median.whole),
                "median_services_ms": ms(starts.median.services),
                "median_cpu_ms": ms(starts.median.cpu),
                "worst_ms": ms(starts.worst.whole),
                "peak_bytes": peak,
            })
        });
        let phase = |phase: &Phase| {
            json!({
                "events": phase.events,
                "requests": phase.requests.count,
                "requests_ms": ms(phase.requests.took),
                "messages": phase.taken.messages,
                "calls": phase.taken.calls.count,
                "calls_ms": ms(phase.taken.calls.took),
                "calls_cpu_ms": ms(phase.taken.calls.cpu),
                "asked": phase.counted.requests,
                "asked_ms": ms(phase.counted.busy),
                "state": [phase.state.read, phase.state.written],
                "rows": [phase.rows.read, phase.rows.written],
                "objects_put": phase.counted.objects_put,
                "told": phase.counted.told_chunks,
                "log_bytes": phase.log_bytes,
            })
        };
        json!({
            "market": self.market,
            "package": self.size,
            "functions": starts.collect::<Vec<_>>(),
            "trickle": phase(&self.trickle),
            "load": phase(&self.load),
            "scheduled": self.scheduled,
        })
    }

    fn limits_passed(&self) -> Vec<String> {
        let mut passed = Vec::new();
        for (stage, Starts { median, .. }) in &self.starts {
            if median.whole > FIRST_ANSWER_MAX {
                let (found, max) = (ms(median.whole), ms(FIRST_ANSWER_MAX));
                passed.push(format!("{stage} answers after {found:.1} ms instead of {max:.0} at most"));
            }
        }
        for (stage, peak) in &self.peaks {
            if *peak > MEMORY_BYTES_MAX {
                passed.push(format!("{stage} had {peak} bytes of memory instead of {MEMORY_BYTES_MAX} at most"));
            }
        }
        if self.size.zip > ZIP_BYTES_MAX {
            passed.push(format!("the package has {} bytes instead of {ZIP_BYTES_MAX} at most", self.size.zip));
        }
        passed
    }
}

impl Starts {
    fn new(mut starts: Vec<Start>) -> Option<Self> {
        starts.sort_unstable_by_key(|start| start.whole);
        let (median, worst) = (*starts.get(starts.len() / 2)?, *starts.last()?);
        Some(Self { count: starts.len(), median, worst })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
