//! Makes bars and averages of trades.
//!
//! * **Input:** trades. Other kinds pass by.
//! * **Output:** the trades that came in time; behind each the averages of the sliding `windows` and now and then its
//!   provisional bars; at watermarks the final bars. A trade that came too late is counted as late, and kept aside.
//! * **State:** per symbol the trades of the longest window, the running sums of the windows, and the bars that are open.
//!   A commit saves what is new, however long the windows are.
//! * **Settings:** `bars`, `windows`, `lateness`, `provisional`.
//! * **Failures:** a trade without a usable price or with an impossible size is rejected.
//!
//! It refuses to guess what time it is: whether a bar is complete, and a trade late, follows from watermarks alone.

mod aggregate;
mod bars;
mod journal;
mod settings;
mod state;
mod sum;
mod windows;

pub use aggregate::Aggregate;
pub use settings::Settings;
pub use state::SymbolState;

tapeline_sdk::export_stage!(Aggregate);
