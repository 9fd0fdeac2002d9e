//! Turns events into rows of tables and lines of CSV objects; the host carries both out within the commit.
//!
//! **Input**: the kinds that some table or object wants: trades, bars, averages, alarms, notices. **Output**: rows (module
//! `tables`: which columns, which key) and objects (module `objects`: which path, which header). Keys and paths come from
//! the events alone, so that writing again writes the same.
//!
//! A trade without the vendor's id gets one made from its values, `~` and 16 hex digits (module `id`): two trades
//! alike in time, price, size, source and conditions are then one row, though two lines of an object.
//!
//! **State**: per symbol and window, until when averages are left out by `sample`; see [`Symbol`].
//! **Settings**: [`Settings`]. **Failures**: none; an average that is not a row is dropped by the rule `sampled`.

mod csv;
mod id;
mod objects;
mod sampled;
mod settings;
mod symbol;
mod tables;
mod text;
mod write;

pub use settings::{ObjectName, Settings, TableName};
pub use symbol::Symbol;
pub use write::Writer;

tapeline_sdk::export_writer!(Writer);
