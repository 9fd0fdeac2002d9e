//! Rows in and out of the columns that binding generators make from `wit/events.wit`.
//!
//! Guest and host have column types of their own, generated from the same contract, with the same names. The macro
//! [`column_glue!`](crate::column_glue) gives both the same operations.

/// A column of texts.
pub trait TextColumn {
    /// The text at `at`; empty when there is none. Bytes that are not UTF-8 read as empty.
    fn text(&self, at: usize) -> &str;
    /// Puts a text at the end.
    fn push_text(&mut self, text: &str);
    /// Number of texts.
    fn count(&self) -> usize;
}

/// Puts a value at the end of a column that may be absent; `at` is the number of events before this one.
pub fn push_optional<T: Copy>(column: &mut Vec<T>, at: usize, value: Option<T>, none: T) {
    match value {
        None if column.is_empty() => {}
        None => column.push(none),
        Some(value) => {
            if column.len() < at {
                column.resize(at, none);
            }
            column.push(value);
        }
    }
}

/// Implements rows, slices and JSON lines for the column types in scope (`Trades`, ..., `Columns`, `Group`, `Ids`,
/// `Texts`, `TimeUnit`), which a binding generator made from `wit/events.wit`.
#[macro_export]
macro_rules! column_glue {
    () => {
        impl $crate::TextColumn for Texts {
            fn text(&self, at: usize) -> &str {
                let start = if at == 0 { 0 } else { self.ends.get(at - 1).copied().unwrap_or(0) as usize };
                let end = self.ends.get(at).copied().unwrap_or(0) as usize;
                self.bytes.get(start..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
            }

            fn push_text(&mut self, text: &str) {
                self.bytes.extend_from_slice(text.as_bytes());
                self.ends.push(self.bytes.len() as u32);
            }

            fn count(&self) -> usize {
                self.ends.len()
            }
        }

        impl Texts {
            /// Whether the ends ascend and stay inside of the bytes, and each text is UTF-8.
            pub fn is_sound(&self) -> bool {
                let mut start = 0;
                self.ends.iter().all(|end| {
                    let sound = self.bytes.get(start..*end as usize).is_some_and(|text| std::str::from_utf8(text).is_ok());
                    start = *end as usize;
                    sound
                }) && start == self.bytes.len()
            }

            fn push_optional_text(&mut self, at: usize, text: &str) {
                if text.is_empty() && self.ends.is_empty() {
                    return;
                }
                let filled = self.ends.len();
                if filled < at {
                    self.ends.resize(at, self.bytes.len() as u32);
                }
                $crate::TextColumn::push_text(self, text);
            }
        }

        impl Ids {
            /// Takes the events of `from` in `range` behind the `at` events that are here.
            fn append(&mut self, from: &Self, range: std::ops::Range<usize>) {
                match (self, from) {
                    (Self::Numbers(to), Self::Numbers(from)) => to.extend_from_slice(&from[range]),
                    (Self::Texts(to), Self::Texts(from)) => {
                        for at in range {
                            $crate::TextColumn::push_text(to, $crate::TextColumn::text(from, at));
                        }
                    }
                    _ => {}
                }
            }

            fn empty_like(&self) -> Self {
                match self {
                    Self::Absent => Self::Absent,
                    Self::Numbers(_) => Self::Numbers(Vec::new()),
                    Self::Texts(_) => Self::Texts(Texts { ends: Vec::new(), bytes: Vec::new() }),
                }
            }

            fn is_sound(&self, len: usize) -> bool {
                match self {
                    Self::Absent => true,
                    Self::Numbers(ids) => ids.len() == len,
                    Self::Texts(ids) => ids.ends.len() == len && ids.is_sound(),
                }
            }
        }

        impl From<$crate::Unit> for TimeUnit {
            fn from(unit: $crate::Unit) -> Self {
                match unit {
                    $crate::Unit::Seconds => Self::Seconds,
                    $crate::Unit::Milliseconds => Self::Milliseconds,
                    $crate::Unit::Microseconds => Self::Microseconds,
                    $crate::Unit::Nanoseconds => Self::Nanoseconds,
                }
            }
        }

        impl From<TimeUnit> for $crate::Unit {
            fn from(unit: TimeUnit) -> Self {
                match unit {
                    TimeUnit::Seconds => Self::Seconds,
                    TimeUnit::Milliseconds => Self::Milliseconds,
                    TimeUnit::Microseconds => Self::Microseconds,
                    TimeUnit::Nanoseconds => Self::Nanoseconds,
                }
            }
        }

        impl Group {
            /// A group without events, for events of this kind with such an envelope.
            pub fn for_events_like(envelope: &$crate::Envelope<'_>, kind: $crate::Kind) -> Self {
                Self {
                    source: envelope.source.0,
                    unit: envelope.unit.into(),
                    symbol: Vec::new(),
                    time: Vec::new(),
                    received: Vec::new(),
                    id: match envelope.id {
                        $crate::IdRef::Absent => Ids::Absent,
                        $crate::IdRef::Number(_) => Ids::Numbers(Vec::new()),
                        $crate::IdRef::Text(_) => Ids::Texts(Texts { ends: Vec::new(), bytes: Vec::new() }),
                    },
                    columns: Columns::empty(kind),
                }
            }

            /// Makes room for so many more events in the columns that every event fills.
            pub fn reserve(&mut self, events: usize) {
                self.symbol.reserve(events);
                self.time.reserve(events);
                if let Ids::Numbers(ids) = &mut self.id {
                    ids.reserve(events);
                }
                self.columns.reserve(events);
            }

            /// Whether an event of this kind with such an envelope belongs into this group.
            #[inline]
            pub fn takes(&self, envelope: &$crate::Envelope<'_>, kind: $crate::Kind) -> bool {
                self.columns.kind() == kind
                    && self.source == envelope.source.0
                    && $crate::Unit::from(self.unit) == envelope.unit
                    && matches!(
                        (&self.id, envelope.id),
                        (Ids::Absent, $crate::IdRef::Absent)
                            | (Ids::Numbers(_), $crate::IdRef::Number(_))
                            | (Ids::Texts(_), $crate::IdRef::Text(_))
                    )
            }

            /// Puts an event that the group [takes](Self::takes) at the end.
            // Inlined whatever the compiler thinks: a call that passes a row costs a fifth of a stage that emits much.
            #[inline(always)]
            pub fn push(&mut self, envelope: &$crate::Envelope<'_>, row: $crate::Row<'_>) {
                let at = self.symbol.len();
                self.symbol.push(envelope.symbol.0);
                self.time.push(envelope.time);
                $crate::push_optional(&mut self.received, at, envelope.received, i64::MIN);
                match (&mut self.id, envelope.id) {
                    (Ids::Numbers(ids), $crate::IdRef::Number(id)) => ids.push(id),
                    (Ids::Texts(ids), $crate::IdRef::Text(id)) => $crate::TextColumn::push_text(ids, id),
                    _ => {}
                }
                self.columns.push(at, row);
            }

            /// The vendor's id of the event at `at`.
            #[inline]
            pub fn id_at(&self, at: usize) -> $crate::IdRef<'_> {
                match &self.id {
                    Ids::Absent => $crate::IdRef::Absent,
                    Ids::Numbers(ids) => $crate::IdRef::Number(ids[at]),
                    Ids::Texts(ids) => match $crate::TextColumn::text(ids, at) {
                        "" => $crate::IdRef::Absent,
                        text => $crate::IdRef::Text(text),
                    },
                }
            }

            /// The envelope of the event at `at`, with the names as the columns have them.
            #[inline]
            pub fn envelope_at(&self, at: usize) -> $crate::Envelope<'_> {
                $crate::Envelope {
                    symbol: $crate::Name(self.symbol[at]),
                    source: $crate::Name(self.source),
                    time: self.time[at],
                    unit: self.unit.into(),
                    received: self.received_at(at),
                    id: self.id_at(at),
                }
            }

            /// Number of events.
            pub fn len(&self) -> usize {
                self.symbol.len()
            }

            /// Whether there is no event.
            pub fn is_empty(&self) -> bool {
                self.symbol.is_empty()
            }

            /// A group without events, of the same kind, source, unit and form of ids.
            pub fn empty_like(&self) -> Self {
                Self {
                    source: self.source,
                    unit: self.unit,
                    symbol: Vec::new(),
                    time: Vec::new(),
                    received: Vec::new(),
                    id: self.id.empty_like(),
                    columns: Columns::empty(self.columns.kind()),
                }
            }

            /// Whether every column has the length that the contract asks for.
            pub fn is_sound(&self) -> bool {
                let len = self.len();
                self.time.len() == len
                    && (self.received.is_empty() || self.received.len() == len)
                    && self.id.is_sound(len)
                    && self.columns.is_sound(len)
            }

            /// Puts the events of `from` in `range`, a group alike, behind those that are here.
            pub fn append(&mut self, from: &Self, range: std::ops::Range<usize>) {
                let at = self.len();
                self.columns.append(at, &from.columns, range.clone());
                self.id.append(&from.id, range.clone());
                self.symbol.extend_from_slice(&from.symbol[range.clone()]);
                self.time.extend_from_slice(&from.time[range.clone()]);
                if from.received.is_empty() {
                    if !self.received.is_empty() {
                        self.received.resize(at + range.len(), i64::MIN);
                    }
                } else {
                    self.received.resize(at, i64::MIN);
                    self.received.extend_from_slice(&from.received[range]);
                }
            }

            /// When the event at `at` was received, if that is known.
            pub fn received_at(&self, at: usize) -> Option<i64> {
                self.received.get(at).copied().filter(|received| *received != i64::MIN)
            }
        }

        $crate::for_each_kind!($crate::column_glue_kinds []);
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! column_glue_kinds {
    ([] $($row:ident $life:tt $columns:ident $text:literal { $($field:ident: $type:ident,)* })*) => {
        impl Columns {
            /// The kind of the events.
            pub const fn kind(&self) -> $crate::Kind {
                match self { $(Self::$columns(_) => $crate::Kind::$row,)* }
            }

            /// Columns of this kind without events.
            pub fn empty(kind: $crate::Kind) -> Self {
                match kind { $($crate::Kind::$row => Self::$columns($columns::empty()),)* }
            }

            fn is_sound(&self, len: usize) -> bool {
                match self { $(Self::$columns(columns) => columns.is_sound(len),)* }
            }

            fn reserve(&mut self, events: usize) {
                match self { $(Self::$columns(columns) => columns.reserve(events),)* }
            }

            /// The event at `at`.
            ///
            /// # Panics
            /// When there is none.
            pub fn row(&self, at: usize) -> $crate::Row<'_> {
                match self { $(Self::$columns(columns) => $crate::Row::$row(columns.row(at)),)* }
            }

            /// Puts an event behind the `at` events that are here. One of another kind is not taken.
            #[inline(always)]
            pub fn push(&mut self, at: usize, row: $crate::Row<'_>) {
                match (self, row) {
                    $((Self::$columns(columns), $crate::Row::$row(row)) => columns.push(at, row),)*
                    _ => debug_assert!(false, "an event of another kind"),
                }
            }

            fn append(&mut self, at: usize, from: &Self, range: std::ops::Range<usize>) {
                match (self, from) {
                    $((Self::$columns(to), Self::$columns(from)) => to.append(at, from, range),)*
                    _ => debug_assert!(false, "columns of another kind"),
                }
            }
        }

        $(impl $columns {
            /// Columns without events.
            pub fn empty() -> Self {
                Self { $($field: $crate::column_field!(empty $type),)* }
            }

            /// Puts an event behind the `at` events that are here.
            #[inline(always)]
            pub fn push(&mut self, at: usize, row: $crate::row_of!('_ $row $life)) {
                let _ = at;
                $($crate::column_field!(push $type self.$field, at, row.$field);)*
            }

            /// The event at `at`.
            ///
            /// # Panics
            /// When there is none.
            #[inline]
            pub fn row(&self, at: usize) -> $crate::row_of!('_ $row $life) {
                $crate::$row { $($field: $crate::column_field!(get $type self.$field, at),)* }
            }

            fn reserve(&mut self, events: usize) {
                $($crate::column_field!(reserve $type self.$field, events);)*
            }

            fn append(&mut self, at: usize, from: &Self, range: std::ops::Range<usize>) {
                let _ = at;
                $($crate::column_field!(append $type self.$field, at, from.$field, range);)*
            }

            fn is_sound(&self, len: usize) -> bool {
                $($crate::column_field!(sound $type self.$field, len))&&*
            }
        })*
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! column_field {
    (empty text) => { Texts { ends: Vec::new(), bytes: Vec::new() } };
    (empty opt_text) => { Texts { ends: Vec::new(), bytes: Vec::new() } };
    (empty $any:ident) => { Vec::new() };

    (reserve text $c:expr, $events:expr) => { $c.ends.reserve($events) };
    (reserve opt_text $c:expr, $events:expr) => {};
    (reserve opt_name $c:expr, $events:expr) => {};
    (reserve opt_num $c:expr, $events:expr) => {};
    (reserve opt_int $c:expr, $events:expr) => {};
    (reserve $any:ident $c:expr, $events:expr) => { $c.reserve($events) };

    (push flag $c:expr, $at:expr, $v:expr) => { $c.push(u8::from($v)) };
    (push name $c:expr, $at:expr, $v:expr) => { $c.push($v.0) };
    (push opt_name $c:expr, $at:expr, $v:expr) => {
        $crate::push_optional(&mut $c, $at, $v.map(|name| name.0), $crate::Name::NONE)
    };
    (push opt_num $c:expr, $at:expr, $v:expr) => {
        $crate::push_optional(&mut $c, $at, Some($v).filter(|v: &f64| !v.is_nan()), f64::NAN)
    };
    (push opt_int $c:expr, $at:expr, $v:expr) => { $crate::push_optional(&mut $c, $at, $v, i64::MIN) };
    (push text $c:expr, $at:expr, $v:expr) => { $crate::TextColumn::push_text(&mut $c, $v) };
    (push opt_text $c:expr, $at:expr, $v:expr) => { $c.push_optional_text($at, $v) };
    (push $any:ident $c:expr, $at:expr, $v:expr) => { $c.push($v) };

    (get flag $c:expr, $at:expr) => { $c[$at] != 0 };
    (get name $c:expr, $at:expr) => { $crate::Name($c[$at]) };
    (get opt_name $c:expr, $at:expr) => {
        $c.get($at).copied().filter(|name| *name != $crate::Name::NONE).map($crate::Name)
    };
    (get opt_num $c:expr, $at:expr) => { $c.get($at).copied().unwrap_or(f64::NAN) };
    (get opt_int $c:expr, $at:expr) => { $c.get($at).copied().filter(|v| *v != i64::MIN) };
    (get text $c:expr, $at:expr) => { $crate::TextColumn::text(&$c, $at) };
    (get opt_text $c:expr, $at:expr) => { $crate::TextColumn::text(&$c, $at) };
    (get $any:ident $c:expr, $at:expr) => { $c[$at] };

    (append opt_name $c:expr, $at:expr, $f:expr, $r:expr) => {
        $crate::column_field!(append_optional $c, $at, $f, $r, $crate::Name::NONE)
    };
    (append opt_num $c:expr, $at:expr, $f:expr, $r:expr) => {
        $crate::column_field!(append_optional $c, $at, $f, $r, f64::NAN)
    };
    (append opt_int $c:expr, $at:expr, $f:expr, $r:expr) => {
        $crate::column_field!(append_optional $c, $at, $f, $r, i64::MIN)
    };
    (append text $c:expr, $at:expr, $f:expr, $r:expr) => {
        for row in $r.clone() {
            $crate::TextColumn::push_text(&mut $c, $crate::TextColumn::text(&$f, row));
        }
    };
    (append opt_text $c:expr, $at:expr, $f:expr, $r:expr) => {
        if !$f.ends.is_empty() || !$c.ends.is_empty() {
            for (done, row) in $r.clone().enumerate() {
                $c.push_optional_text($at + done, $crate::TextColumn::text(&$f, row));
            }
        }
    };
    (append_optional $c:expr, $at:expr, $f:expr, $r:expr, $none:expr) => {
        if $f.is_empty() {
            if !$c.is_empty() {
                $c.resize($at + $r.len(), $none);
            }
        } else {
            $c.resize($at, $none);
            $c.extend_from_slice(&$f[$r.clone()]);
        }
    };
    (append $any:ident $c:expr, $at:expr, $f:expr, $r:expr) => { $c.extend_from_slice(&$f[$r.clone()]) };

    (sound text $c:expr, $len:expr) => { $c.ends.len() == $len && $c.is_sound() };
    (sound opt_text $c:expr, $len:expr) => { ($c.ends.is_empty() || $c.ends.len() == $len) && $c.is_sound() };
    (sound opt_name $c:expr, $len:expr) => { ($c.is_empty() || $c.len() == $len) };
    (sound opt_num $c:expr, $len:expr) => { ($c.is_empty() || $c.len() == $len) };
    (sound opt_int $c:expr, $len:expr) => { ($c.is_empty() || $c.len() == $len) };
    (sound $any:ident $c:expr, $len:expr) => { $c.len() == $len };
}
