//! `tapeline explain`: why an alarm is there.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    DataFolder, Globals,
    exit::Exit,
    output::{self, visible},
    replay::{ReportFormat, as_json, stage_lines},
};
use crate::{
    error::Result,
    pipeline::replay::{Explanation, State, Wanted},
};

/// Say what made an alarm, and whether the same comes out once more
#[derive(Args)]
#[command(after_help = "\
ALARM is how a line of `tapeline query alarms --format csv` begins: symbol, window, time and id of the trade. The whole
line will do, and the id may be left out where there is one alarm of that time.

All that was ever read into the data folder up to the alarm is read again, with the components that ran then: where a
stage was swapped, it is swapped at the same place. The data folder is only read. The exit code is 1 when the same alarm
does not come out again.

Examples:
  tapeline query alarms --data ./btc --format csv --limit 1
  tapeline explain BINANCE:BTCUSDT,5m,2024-08-08T23:54:15.621Z,3735683269 pipelines/bitcoin-trades.toml --data ./btc
  tapeline explain BINANCE:BTCUSDT,5m,2024-08-08T23:54:15.621Z,3735683269 pipelines/bitcoin-trades.toml --format json")]
pub(super) struct Explain {
    /// The alarm: SYMBOL,WINDOW,TIME[,TRADE_ID]
    #[arg(value_parser = Wanted::parse)]
    alarm: Wanted,
    /// The pipeline file
    pipeline: PathBuf,
    #[command(flatten)]
    data: DataFolder,
    /// How to write it
    #[arg(long, default_value = "text")]
    format: ReportFormat,
}

impl Explain {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let data = self.data.path.clone();
        let explanation = globals.recorded(&self.pipeline, self.data)?.explain(&self.alarm)?;
        let text = match self.format {
            ReportFormat::Text => report(&explanation, &data),
            ReportFormat::Json => as_json(&explanation)?,
        };
        let mut out = output::lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(if explanation.is_same { Exit::Fine } else { Exit::Failed })
    }
}

fn report(explanation: &Explanation, data: &Path) -> String {
    let Explanation { row, raw, stage, event, state, watermark, stages, notes, again, differences, is_same } =
        explanation;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{name:<10} {}", visible(value));
    };
    line("alarm", row.get());
    line("raw", &raw.place);
    line("", raw.text.trim_end());
    line("stage", stage);
    line("event", event.get());
    line("watermark", watermark.as_deref().unwrap_or("none yet"));
    if state.is_empty() {
        line("state", "nothing yet of what the event touches");
    }
    for entry in state {
        line("state", &state_line(entry));
    }
    for note in notes {
        line("note", note);
    }
    line("again", again.as_ref().map_or("no such alarm", |again| again.get()));
    for difference in differences {
        line("differs", difference);
    }
    let verdict = match is_same {
        true => "the same alarm came out again, in all fields",
        false => "the same alarm did not come out again",
    };
    line("verdict", verdict);
    let _ = writeln!(text, "stages of {}", visible(&data.display().to_string()));
    text + &stage_lines(stages)
}

fn state_line(entry: &State) -> String {
    let State { key, part, version, bytes, wake_at, expires_at } = entry;
    let mut text = format!("key {key:?}, part {part}, version {version}, bytes {bytes}");
    for (what, time) in [("wakes", wake_at), ("expires", expires_at)] {
        if let Some(time) = time {
            let _ = write!(text, ", {what} {time}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_named_by_a_line_of_csv() {
        let wanted = |text: &str| Wanted::parse(text).unwrap();
        let named = Wanted {
            symbol: "BINANCE:BTCUSDT".to_owned(),
            window: 300_000_000_000,
            time: 1_500_000_000,
            trade_id: Some("7".to_owned()),
        };
        assert_eq!(wanted("BINANCE:BTCUSDT,5m,1970-01-01T00:00:01.500Z,7"), named);
        assert_eq!(wanted("BINANCE:BTCUSDT,5m,1970-01-01T00:00:01.500Z,7,10,8,2,0.5\n"), named);
        assert_eq!(wanted("BINANCE:BTCUSDT,5m,1970-01-01T00:00:01.5Z").trade_id, None);
        assert_eq!(wanted("\"A,B\",1h 30m,1970-01-01T00:00:00Z,").symbol, "A,B");
        for wrong in ["", "A", "A,5m", "A,5x,1970-01-01T00:00:00Z", "A,5m,noon"] {
            assert!(Wanted::parse(wrong).unwrap_err().contains("SYMBOL,WINDOW,TIME[,TRADE_ID]"), "{wrong}");
        }
    }
}
