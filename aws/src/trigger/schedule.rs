//! A schedule: in quiet times the watermark follows the clock, so that the last bars of a market become final too.

use super::{Failure, now_ns};
use crate::{
    function::Function,
    message::{ENTRANCE_GROUP, Raw},
};

/// Moves the watermark on if no event has come for a while: after `idle`, twice `idle`, four times, ...
pub(super) async fn tick(function: &Function, request: &str) -> Result<(), Failure> {
    let Some(entrance) = &function.settings.entrance else { return Ok(()) };
    let position = function.scope(0).begin().await?.meta;
    let times = Times { newest: position.newest, watermark: position.watermark, sent: position.sent };
    let Some(mark) = times.due(now_ns(), entrance.idle, entrance.watermark.delay) else { return Ok(()) };
    let message = (format!("mark-{request}"), Raw::Mark(mark).encode());
    Ok(function.entrance.send(vec![(ENTRANCE_GROUP.to_owned(), vec![message])]).await?)
}

/// How far a pipeline has come, ns since the epoch.
struct Times {
    newest: i64,
    watermark: i64,
    /// When the last event was sent to it.
    sent: i64,
}

impl Times {
    /// The watermark that time has reached, when it is time to say so.
    fn due(&self, now: i64, idle: i64, delay: i64) -> Option<i64> {
        if self.newest == i64::MIN || self.sent == 0 {
            return None;
        }
        let elapsed = now.saturating_sub(self.sent);
        // How long it had been quiet when this was said last.
        let said = self.watermark.saturating_add(delay).saturating_sub(self.newest).max(0);
        if elapsed < idle.max(said.saturating_mul(2)) {
            return None;
        }
        let reached = self.newest.saturating_add(elapsed).saturating_sub(delay);
        (reached > self.watermark).then_some(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_follows_the_clock_in_quiet_times() {
        let times = |watermark| Times { newest: 1_000, watermark, sent: 5_000 };
        assert_eq!(times(900).due(5_040, 50, 100), None, "it is not quiet yet");
        assert_eq!(times(900).due(5_050, 50, 100), Some(950));
        assert_eq!(times(950).due(5_099, 50, 100), None, "it was said 50 after the last event");
        assert_eq!(times(950).due(5_100, 50, 100), Some(1_000));
        assert_eq!(times(1_000).due(5_199, 50, 100), None);
        assert_eq!(Times { newest: i64::MIN, watermark: i64::MIN, sent: 0 }.due(i64::MAX, 50, 100), None);
    }
}
