//! Tapeline's own JSON lines: one event a frame, of any kind.

use tapeline_sdk::{Decoded, Entry, Envelope, Line, Name, Number, Part, Row};

use crate::record::{PRICE, SIZE, day, is_price, is_size, malformed, wrong};

const EXPECTED: &str = "a JSON line of an event or a watermark";

/// Decodes one line.
pub(crate) fn decode(text: &str, received: Option<i64>, out: &mut Decoded) {
    let line = match Line::parse(text.as_bytes()) {
        Ok(line) => line,
        Err(error) => return out.reject(Part::Whole, None, malformed(EXPECTED, error)),
    };
    match line.entry(&mut |text| out.intern(text)) {
        Ok(Entry::Event(envelope, row)) => take_event(envelope, row, received, out),
        // A host makes marks of its own: those of a recording say what another host knew.
        Ok(Entry::Watermark(time)) => out.drop("watermark", None, day(received.or(Some(time)))),
        Err(error) => {
            let symbol = name(&line.symbol, out);
            out.reject(Part::Whole, symbol, malformed(EXPECTED, error));
        }
    }
}

fn take_event(mut envelope: Envelope<'_>, row: Row<'_>, received: Option<i64>, out: &mut Decoded) {
    envelope.received = envelope.received.or(received);
    match check(&row) {
        Ok(()) => out.emit(&envelope, row),
        Err(reason) => out.reject(Part::Whole, Some(envelope.symbol), reason),
    }
}

fn check(row: &Row<'_>) -> Result<(), String> {
    let Row::Trade(trade) = row else { return Ok(()) };
    if !is_price(trade.price) {
        return Err(wrong("price", Number(trade.price), PRICE));
    }
    if !(trade.size.is_nan() || is_size(trade.size)) {
        return Err(wrong("size", Number(trade.size), SIZE));
    }
    Ok(())
}

fn name(text: &str, out: &mut Decoded) -> Option<Name> {
    (!text.is_empty()).then(|| out.intern(text))
}
