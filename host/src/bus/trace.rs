//! Trace context: which chain of commits a message belongs to, as tracing systems know it.

use xxhash_rust::xxh3;

/// The header that carries it (<https://www.w3.org/TR/trace-context/#traceparent-header>).
pub const TRACEPARENT: &str = "traceparent";
/// The one version that there is.
const VERSION: &str = "00";

/// A step of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace: all commits that came of one commit of the source.
    pub trace: u128,
    /// The commit.
    pub span: u64,
    /// Whether somebody records it, and what else the one who began it says.
    pub flags: u8,
}

impl TraceContext {
    /// The step of a commit, by its identity: behind the step whose outputs it has read, or the first of a new trace.
    pub fn of_commit(identity: &str, parent: Option<Self>) -> Self {
        let span = xxh3::xxh3_64(identity.as_bytes()).max(1);
        let begun = || Self { trace: xxh3::xxh3_128(identity.as_bytes()).max(1), span, flags: 1 };
        parent.map_or_else(begun, |parent| Self { span, ..parent })
    }

    /// Reads a header; `None` for what is none, which begins a new trace.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let mut hex = |digits: usize| parts.next().filter(|part| part.len() == digits && is_hex(part));
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_known = version != "ff" && (version != VERSION || parts.next().is_none());
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (is_known && context.trace != 0 && context.span != 0).then_some(context)
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{VERSION}-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written() {
        let context = TraceContext::parse(HEADER).unwrap();
        assert_eq!(context.span, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(context.to_string(), HEADER);
        let newer = HEADER.replacen("00", "01", 1) + "-more";
        assert_eq!(TraceContext::parse(&newer), Some(context), "a later version may say more");
    }

    #[test]
    fn what_is_no_header_begins_a_new_trace() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for wrong in ["", "00", zero, &HEADER.to_uppercase(), &HEADER.replacen("00", "ff", 1), &format!("{HEADER}-x")] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_trace_goes_on_over_commits() {
        let first = TraceContext::of_commit("a", None);
        let second = TraceContext::of_commit("b", Some(first));
        assert_eq!(second.trace, first.trace);
        assert_ne!(second.span, first.span);
        assert_ne!(TraceContext::of_commit("b", None).trace, first.trace);
    }
}
