//! Raises an alarm when an average moves by more than a tolerance from one trade to the next.
//!
//! * **Input:** averages. Other kinds pass by.
//! * **Output:** the averages unchanged; behind one that moved too far, an alarm with its envelope.
//! * **State:** per symbol and window the previous average, and when the last alarm was.
//! * **Settings:** `absolute` or `relative`, `cooldown`, `windows`, `keep`.
//! * **Failures:** an average that is not a finite number is rejected.
//!
//! It refuses to tell anyone: alarms are events like others, and who is to know of them is the next stage's business.

mod alarm;
mod settings;

pub use alarm::{Alarms, SymbolState, WindowState};
pub use settings::Settings;

tapeline_sdk::export_stage!(Alarms);
