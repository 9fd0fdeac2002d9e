//! The stages as native code behind the host's interface: what their components must equal, and the limit of speed.

use std::time::Duration;

use tapeline::{
    contract as host,
    runtime::{Fault, Instance},
    segment::{Blueprint, Role},
};
use tapeline_sdk::{
    Decoder, DecoderRunner, Events, Runner, Stage, Tables,
    bindings::{
        events as guest, fetcher::exports::tapeline::pipeline::decode, stage::exports::tapeline::pipeline::process,
        state, writer::exports::tapeline::pipeline::write,
    },
};

/// A stage of native code, made anew as often as a host wants.
pub struct Native<R> {
    name: &'static str,
    role: Role,
    settings: String,
    make: fn(&str) -> Result<R, tapeline_sdk::SettingError>,
}

/// Makes the blueprint of a decoder.
pub fn fetcher<D: Decoder + Send>(settings: &str) -> Box<dyn Blueprint>
where
    DecoderRunner<D>: Send,
{
    Box::new(Native {
        name: D::NAME,
        role: Role::Fetcher,
        settings: settings.to_owned(),
        make: |settings| DecoderRunner::<D>::new(settings).map(Fetching),
    })
}

/// Makes the blueprint of a stage.
pub fn stage<S: Stage<Out = Events>>(settings: &str) -> Box<dyn Blueprint>
where
    Runner<S>: Send,
{
    Box::new(Native {
        name: S::NAME,
        role: Role::Stage,
        settings: settings.to_owned(),
        make: |settings| Runner::<S>::new(settings).map(Processing),
    })
}

/// Makes the blueprint of a writer.
pub fn writer<S: Stage<Out = Tables>>(settings: &str) -> Box<dyn Blueprint>
where
    Runner<S>: Send,
{
    Box::new(Native {
        name: S::NAME,
        role: Role::Writer,
        settings: settings.to_owned(),
        make: |settings| Runner::<S>::new(settings).map(Writing),
    })
}

struct Fetching<D: Decoder>(DecoderRunner<D>);
struct Processing<S: Stage<Out = Events>>(Runner<S>);
struct Writing<S: Stage<Out = Tables>>(Runner<S>);

impl<R: Instance + 'static> Blueprint for Native<R> {
    fn name(&self) -> &str {
        self.name
    }

    fn role(&self) -> Role {
        self.role
    }

    fn digest(&self) -> &str {
        "native"
    }

    fn settings(&self) -> &str {
        &self.settings
    }

    fn call_time_max(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        let made = (self.make)(&self.settings).map_err(|error| {
            let (key, value, expected) = (error.key, error.value, error.expected);
            Fault::Settings(host::SettingError { key, value, expected })
        });
        Ok(Box::new(made?))
    }
}

fn other_world<T>() -> Result<T, Fault> {
    Err(Fault::Breach("not in this world".to_owned()))
}

macro_rules! keyed {
    () => {
        fn describe(&mut self) -> Result<host::Description, Fault> {
            Ok(description(self.0.describe()))
        }

        fn restore(&mut self, entries: &[host::Entry], watermark: i64) -> Result<(), Fault> {
            let entries = entries.iter().cloned().map(guest_entry).collect();
            self.0.restore(entries, watermark).map_err(|error| Fault::State(format!("{error:?}")))
        }

        fn checkpoint(&mut self) -> Result<Vec<host::Entry>, Fault> {
            Ok(self.0.checkpoint().into_iter().map(host_entry).collect())
        }

        fn decode(&mut self, _: &host::Frames) -> Result<host::Decoded, Fault> {
            other_world()
        }

        fn set_call_time_max(&mut self, _: Duration) {}
    };
}

impl<S: Stage<Out = Events>> Instance for Processing<S>
where
    Runner<S>: Send,
{
    keyed!();

    fn process(&mut self, input: &host::Input) -> Result<host::Output, Fault> {
        Ok(host_output(self.0.process(guest_input(input.clone()))))
    }

    fn write(&mut self, _: &host::Input) -> Result<host::Written, Fault> {
        other_world()
    }
}

impl<S: Stage<Out = Tables>> Instance for Writing<S>
where
    Runner<S>: Send,
{
    keyed!();

    fn process(&mut self, _: &host::Input) -> Result<host::Output, Fault> {
        other_world()
    }

    fn write(&mut self, input: &host::Input) -> Result<host::Written, Fault> {
        Ok(host_written(self.0.process(guest_input(input.clone()))))
    }
}

impl<D: Decoder> Instance for Fetching<D>
where
    DecoderRunner<D>: Send,
{
    fn describe(&mut self) -> Result<host::Description, Fault> {
        Ok(description(self.0.describe()))
    }

    fn restore(&mut self, _: &[host::Entry], _: i64) -> Result<(), Fault> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Vec<host::Entry>, Fault> {
        Ok(Vec::new())
    }

    fn decode(&mut self, frames: &host::Frames) -> Result<host::Decoded, Fault> {
        let frames = frames.clone();
        let decoded = self.0.decode(decode::Frames {
            names: frames.names,
            format: frames.format,
            received: frames.received,
            ends: frames.ends,
            bytes: frames.bytes,
        });
        Ok(host_decoded(decoded))
    }

    fn process(&mut self, _: &host::Input) -> Result<host::Output, Fault> {
        other_world()
    }

    fn write(&mut self, _: &host::Input) -> Result<host::Written, Fault> {
        other_world()
    }

    fn set_call_time_max(&mut self, _: Duration) {}
}

fn description(from: state::Description) -> host::Description {
    let kinds = |kinds: guest::Kinds| host_kinds(kinds);
    host::Description {
        name: from.name,
        version: from.version,
        takes: kinds(from.takes),
        gives: kinds(from.gives),
        state_version: from.state_version,
    }
}

fn host_kinds(kinds: guest::Kinds) -> host::Kinds {
    let pairs = [
        (guest::Kinds::TRADES, host::Kinds::TRADES),
        (guest::Kinds::QUOTES, host::Kinds::QUOTES),
        (guest::Kinds::BARS, host::Kinds::BARS),
        (guest::Kinds::OPTION_QUOTES, host::Kinds::OPTION_QUOTES),
        (guest::Kinds::DIVIDENDS, host::Kinds::DIVIDENDS),
        (guest::Kinds::SPLITS, host::Kinds::SPLITS),
        (guest::Kinds::RATES, host::Kinds::RATES),
        (guest::Kinds::AVERAGES, host::Kinds::AVERAGES),
        (guest::Kinds::ALARMS, host::Kinds::ALARMS),
        (guest::Kinds::PREDICTIONS, host::Kinds::PREDICTIONS),
        (guest::Kinds::GAPS, host::Kinds::GAPS),
        (guest::Kinds::NOTICES, host::Kinds::NOTICES),
    ];
    pairs
        .iter()
        .filter(|(guest, _)| (kinds & *guest) == *guest)
        .fold(host::Kinds::empty(), |all, (_, host)| all | *host)
}

/// Converts one side's columns into the other's: vectors move, nothing is copied.
macro_rules! convert {
    ($name:ident, $from:ident, $to:ident, $texts:ident, $group:ident, $ids:ident, $columns:ident) => {
        fn $texts(from: $from::Texts) -> $to::Texts {
            $to::Texts { ends: from.ends, bytes: from.bytes }
        }

        fn $ids(from: $from::Ids) -> $to::Ids {
            match from {
                $from::Ids::Absent => $to::Ids::Absent,
                $from::Ids::Numbers(ids) => $to::Ids::Numbers(ids),
                $from::Ids::Texts(ids) => $to::Ids::Texts($texts(ids)),
            }
        }

        fn $group(from: $from::Group) -> $to::Group {
            $to::Group {
                source: from.source,
                unit: tapeline_events::Unit::from(from.unit).into(),
                symbol: from.symbol,
                time: from.time,
                received: from.received,
                id: $ids(from.id),
                columns: $columns(from.columns),
            }
        }

        fn $name(from: $from::Batch) -> $to::Batch {
            $to::Batch { groups: from.groups.into_iter().map($group).collect(), order: from.order, marks: from.marks }
        }

        tapeline_events::for_each_kind!(convert_columns [$from $to $texts $columns]);
    };
}

macro_rules! convert_columns {
    ([$from:ident $to:ident $texts:ident $name:ident]
        $($row:ident $life:tt $columns:ident $text:literal { $($field:ident: $type:ident,)* })*) => {
        fn $name(from: $from::Columns) -> $to::Columns {
            match from {
                $($from::Columns::$columns(from) => $to::Columns::$columns(columns::$to::$columns {
                    $($field: convert_field!($type $texts from.$field),)*
                }),)*
            }
        }
    };
}

macro_rules! convert_field {
    (text $texts:ident $value:expr) => {
        $texts($value)
    };
    (opt_text $texts:ident $value:expr) => {
        $texts($value)
    };
    ($any:ident $texts:ident $value:expr) => {
        $value
    };
}

/// The column types of both sides.
mod columns {
    pub(super) use tapeline::contract::stage_world::tapeline::pipeline::events as host;
    pub(super) use tapeline_sdk::bindings::events as guest;
}

convert!(guest_batch, host, guest, guest_texts, guest_group, guest_ids, guest_columns);
convert!(host_batch, guest, host, host_texts, host_group, host_ids, host_columns);

fn guest_input(from: host::Input) -> guest::Input {
    guest::Input { names: from.names, events: guest_batch(from.events) }
}

fn guest_entry(from: host::Entry) -> state::Entry {
    state::Entry {
        key: from.key,
        part: from.part,
        version: from.version,
        value: from.value,
        wake_at: from.wake_at,
        expires_at: from.expires_at,
    }
}

fn host_entry(from: state::Entry) -> host::Entry {
    host::Entry {
        key: from.key,
        part: from.part,
        version: from.version,
        value: from.value,
        wake_at: from.wake_at,
        expires_at: from.expires_at,
    }
}

fn host_rejects(from: Vec<guest::Reject>) -> Vec<host::Reject> {
    from.into_iter().map(|reject| host::Reject { position: reject.position, reason: reject.reason }).collect()
}

fn host_output(from: process::Output) -> host::Output {
    host::Output {
        names: from.names,
        fates: from.fates,
        rules: from.rules,
        rejects: host_rejects(from.rejects),
        emitted: host_batch(from.emitted),
    }
}

fn host_decoded(from: decode::Decoded) -> host::Decoded {
    let dropped = from.dropped.into_iter().map(|dropped| host::Dropped {
        rule: dropped.rule,
        symbol: dropped.symbol,
        day: dropped.day,
        count: dropped.count,
    });
    let rejects = from.rejects.into_iter().map(|reject| host::FrameReject {
        frame: reject.frame,
        symbol: reject.symbol,
        reason: reject.reason,
        part: reject.part,
    });
    host::Decoded {
        names: from.names,
        records: from.records,
        events: host_batch(from.events),
        dropped: dropped.collect(),
        rejects: rejects.collect(),
    }
}

fn host_written(from: write::Written) -> host::Written {
    let appends = from.appends.into_iter().map(|append| host::Append {
        path: append.path,
        header: append.header,
        bytes: append.bytes,
    });
    host::Written {
        fates: from.fates,
        rules: from.rules,
        rejects: host_rejects(from.rejects),
        rows: from.rows.into_iter().map(host_rows).collect(),
        appends: appends.collect(),
    }
}

fn host_rows(from: write::Rows) -> host::Rows {
    let column = |column: write::Column| host::Column { name: column.name, cells: host_cells(column.cells) };
    host::Rows {
        table: from.table,
        key_columns: from.key_columns,
        columns: from.columns.into_iter().map(column).collect(),
    }
}

fn host_cells(from: write::Cells) -> host::Cells {
    match from {
        write::Cells::Texts(cells) => host::Cells::Texts(host_texts(cells)),
        write::Cells::Integers(cells) => host::Cells::Integers(cells),
        write::Cells::Numbers(cells) => host::Cells::Numbers(cells),
        write::Cells::Times((cells, unit)) => host::Cells::Times((cells, tapeline_events::Unit::from(unit).into())),
        write::Cells::Booleans(cells) => host::Cells::Booleans(cells),
    }
}
