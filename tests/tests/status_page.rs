//! The status page in a real browser. Reported as ignored, by name, where there is no Chromium.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_tests::{listening::Listening, program};
use tempfile::TempDir;

/// What Chromium is called: by Debian, by others, by its maker.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Time that passes for the page before it is looked at; its fetches are waited for.
const PAGE_TIME_MS: u32 = 3_000;
const TRADES: &str = "3000";

fn main() {
    let browser = find_browser();
    let is_missing = browser.is_none();
    let run = move || browser.map_or_else(|| Err("no Chromium".into()), |browser| shows_what_is_stored(&browser));
    let trial = Trial::test("the_page_shows_what_is_stored", run).with_ignored_flag(is_missing);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

fn find_browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let programs = std::env::split_paths(&path).flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
    programs.into_iter().find(|program| program.is_file())
}

fn shows_what_is_stored(browser: &std::path::Path) -> Result<(), Failed> {
    let folder = TempDir::new()?;
    let (market, data) = (folder.path().join("market.txt"), folder.path().join("data"));
    std::fs::write(&market, program::output(&["simulate", "--trades", TRADES, "--noise", "0"])?)?;
    let run = program::run(&program::bitcoin_pipeline(), &[&market], &data)?;
    let bars = program::query(&data, &["bars"])?;
    let last = bars.iter().max_by_key(|bar| &bar["start"]).ok_or_else(|| format!("no bars: {}", run.errors))?;

    let mut up = Command::new(program::path());
    up.args(["up", "--no-source", "--listen", "127.0.0.1:0", "--components"]).arg(program::components());
    up.arg("--data").arg(&data).arg(program::bitcoin_pipeline());
    let up = Listening::start(up.stdout(Stdio::piped()))?;
    let page = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"])
        .arg(format!("--virtual-time-budget={PAGE_TIME_MS}"))
        .arg(format!("--user-data-dir={}", folder.path().join("browser").display()))
        .arg(format!("http://{}/", up.address))
        .stdin(Stdio::null())
        .output()?;
    let page = String::from_utf8_lossy(&page.stdout);
    let cell = |text: &str| format!(">{text}</td>");
    for expected in [
        ">ready<".to_owned(),
        ">bitcoin-trades</h1>".to_owned(),
        cell("aggregate"),
        cell(TRADES),
        cell(&last["symbol"]),
        cell(&last["start"]),
        cell(&last["close"]),
    ] {
        if !page.contains(&expected) {
            return Err(format!("{expected} is not on the page:\n{page}").into());
        }
    }
    Ok(())
}
