//! Lines of CSV: fields are quoted by `csv-core` where they must be, lines end with `\n`.

/// Bytes that a field and what stands around it can need beyond twice its length: two quotes, and a delimiter or
/// terminator.
const AROUND_FIELD: usize = 4;

/// Makes one line after the other.
#[derive(Default)]
pub(crate) struct Line {
    writer: csv_core::Writer,
    /// The line so far is `buffer[..len]`.
    buffer: Vec<u8>,
    len: usize,
    has_fields: bool,
}

impl Line {
    /// Puts a field at the end of the line.
    #[inline]
    pub(crate) fn field(&mut self, field: &[u8]) -> &mut Self {
        self.reserve(field.len() * 2 + AROUND_FIELD);
        if std::mem::replace(&mut self.has_fields, true) {
            let (_, written) = self.writer.delimiter(&mut self.buffer[self.len..]);
            self.len += written;
        }
        // The buffer has room for the worst case, so the field is written as a whole.
        let (_, _, written) = self.writer.field(field, &mut self.buffer[self.len..]);
        self.len += written;
        self
    }

    /// Ends the line and puts it at the end of `out`.
    #[inline]
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        self.reserve(AROUND_FIELD);
        let (_, written) = self.writer.terminator(&mut self.buffer[self.len..]);
        out.extend_from_slice(&self.buffer[..self.len + written]);
        self.len = 0;
        self.has_fields = false;
    }

    #[inline]
    fn reserve(&mut self, more: usize) {
        if self.buffer.len() < self.len + more {
            self.buffer.resize((self.len + more) * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_read_back(lines in proptest::collection::vec(proptest::array::uniform3("[a-z,\"\r\n #é]{0,9}"), 0..9)) {
            let (mut line, mut out) = (Line::default(), Vec::new());
            for fields in &lines {
                fields.iter().for_each(|field| _ = line.field(field.as_bytes()));
                line.end(&mut out);
            }
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(out.as_slice());
            let read: Vec<Vec<String>> =
                reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
            prop_assert_eq!(read, lines.iter().map(|fields| fields.to_vec()).collect::<Vec<_>>());
        }
    }
}
