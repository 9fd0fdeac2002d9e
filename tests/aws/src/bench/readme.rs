//! The tables of costs in `infra/README.md`: written from what was measured, and read again.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::cost::{INPUTS, Inputs, LINES, of_schedule, rounded, sum};

/// What is measured of a schedule: ms of a call, and its read units.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Scheduled {
    /// Milliseconds of a call.
    pub ms: f64,
    /// Read units of a call.
    pub read_units: f64,
}

/// How the row of a schedule begins and goes on, around its two numbers.
const SCHEDULE: [&str; 3] = [
    "| only with a schedule of a minute | 43,800 × ($1/M + $0.20/M + ",
    " ms × 0.5 GB × $0.0000166667/s + ",
    " × $0.125/M read) | ",
];

impl Scheduled {
    /// As they are written.
    pub fn new(ms: f64, read_units: f64) -> Self {
        Self { ms: rounded(ms, 1), read_units: rounded(read_units, 1) }
    }

    /// Its row in the table of what is paid at rest.
    pub fn row(self) -> String {
        let Self { ms, read_units } = self;
        let [begin, middle, end] = SCHEDULE;
        format!("{begin}{ms}{middle}{read_units}{end}{:.2} |", of_schedule(ms, read_units))
    }

    /// What a row says.
    fn of_row(readme: &str) -> Option<Self> {
        let [begin, middle, end] = SCHEDULE;
        let (ms, rest) = readme.split_once(begin)?.1.split_once(middle)?;
        Some(Self { ms: ms.parse().ok()?, read_units: rest.split_once(end)?.0.parse().ok()? })
    }
}

/// The rows of what costs depend on.
pub fn inputs(trickle: &Inputs, load: &Inputs) -> String {
    let mut rows = String::new();
    for (letter, what, decimals) in INPUTS {
        let [trickle, load] = [trickle, load].map(|inputs| number(inputs.get(letter), decimals));
        let _ = writeln!(rows, "| {letter} | {what} | {trickle} | {load} |");
    }
    rows
}

/// The rows of costs.
pub fn costs(trickle: &Inputs, load: &Inputs) -> String {
    let mut rows = String::new();
    for line in &LINES {
        let [trickle, load] = [trickle, load].map(|inputs| number(line.dollars(inputs), 2));
        let _ = writeln!(rows, "| {} | {} | {} | {trickle} | {load} |", line.name, line.amount, line.price);
    }
    let [trickle, load] = [trickle, load].map(|inputs| number(sum(inputs), 2));
    let _ = writeln!(rows, "| **sum** | | | **{trickle}** | **{load}** |");
    rows
}

/// What costs depend on, with a trickle and under load, and of a schedule, as a text says.
///
/// # Errors
/// Says which row is missing, or has no numbers.
pub fn read(readme: &str) -> Result<(Inputs, Inputs, Scheduled)> {
    let (mut trickle, mut load) = (Inputs::default(), Inputs::default());
    for (letter, what, _) in INPUTS {
        let begin = format!("| {letter} | {what} | ");
        let row = readme.lines().find_map(|line| line.strip_prefix(&begin));
        let cells = row.and_then(|row| row.strip_suffix(" |")?.split_once(" | "));
        let (first, second) = cells.with_context(|| format!("no row that begins with {begin:?}"))?;
        let value = |text: &str| text.replace(',', "").parse().with_context(|| format!("{begin}{text:?} is no number"));
        trickle.set(letter, value(first)?);
        load.set(letter, value(second)?);
    }
    let scheduled = Scheduled::of_row(readme).with_context(|| format!("no row with numbers {SCHEDULE:?}"))?;
    Ok((trickle, load, scheduled))
}

/// A number with so many decimals, and commas.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut parts: Vec<&str> = Vec::new();
    let mut left = whole;
    while left.len() > 3 {
        let (front, back) = left.split_at(left.len() - 3);
        parts.push(back);
        left = front;
    }
    parts.push(left);
    parts.reverse();
    format!("{}{rest}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What users read.
    const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/README.md"));

    #[test]
    fn the_costs_that_users_read_follow_from_what_was_measured() {
        assert!(
            !README.contains("<<") && !README.contains("@@"),
            "a figure is missing: `cargo xtask bench functions` prints them"
        );
        let (trickle, load, scheduled) = read(README).unwrap();
        for row in [inputs(&trickle, &load), costs(&trickle, &load), scheduled.row()].join("\n").lines() {
            assert!(row.is_empty() || README.lines().any(|line| line == row), "infra/README.md has not\n{row}");
        }
    }

    #[test]
    fn numbers_have_commas() {
        let texts = [(0.0, 2), (999.5, 1), (1_000.0, 0), (6_000_000.0, 0), (12_345.678, 2)].map(|(v, d)| number(v, d));
        assert_eq!(texts, ["0.00", "999.5", "1,000", "6,000,000", "12,345.68"]);
    }
}
