//! Numbers as text: the vendor's digits, and at most 15 significant ones.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// Decimal digits that a binary64 keeps whatever the number: what comes in with up to so many goes out unchanged.
const SIGNIFICANT_DIGITS_MAX: usize = 15;

/// A binary64 that prints as a plain decimal of at most 15 significant digits.
///
/// A number that came in with up to 15 digits prints with the same digits, without trailing zeros; the last digits of
/// a sum, which are rounding noise, do not print: 61837.630000000005 is `61837.63`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Number(pub f64);

impl Number {
    /// The nearest number with at most 15 significant digits.
    pub fn rounded(self) -> f64 {
        if !self.0.is_finite()
            || significant_digits(zmij::Buffer::new().format_finite(self.0)) <= SIGNIFICANT_DIGITS_MAX
        {
            return self.0;
        }
        format!("{:.*e}", SIGNIFICANT_DIGITS_MAX - 1, self.0).parse().unwrap_or(self.0)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_finite() {
            return write!(f, "{}", self.0);
        }
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(self.0);
        if text.contains('e') || significant_digits(text) > SIGNIFICANT_DIGITS_MAX {
            return write!(f, "{}", self.rounded());
        }
        f.write_str(text.strip_suffix(".0").unwrap_or(text))
    }
}

impl Serialize for Number {
    /// A JSON number, which may have an exponent, integers without a fraction; `null` when not finite.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rounded = self.rounded();
        if rounded.fract() == 0.0 && rounded.abs() < 1e15 {
            serializer.serialize_i64(rounded as i64)
        } else {
            serializer.serialize_f64(rounded)
        }
    }
}

fn significant_digits(text: &str) -> usize {
    let mantissa = text.split('e').next().unwrap_or(text);
    let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
    mantissa.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_the_vendors_digits() {
        for text in ["61837.63", "0.02", "1", "129.575", "0", "-3.5", "77.14202", "123456789012345", "0.00000001"] {
            assert_eq!(Number(text.parse().unwrap()).to_string(), text);
        }
        assert_eq!(Number(61837.630000000005).to_string(), "61837.63");
        assert_eq!(Number(0.1 + 0.2).to_string(), "0.3");
        assert_eq!(Number(1e21).to_string(), "1000000000000000000000");
        assert_eq!(serde_json::to_string(&[Number(2.0), Number(f64::NAN), Number(0.5)]).unwrap(), "[2,null,0.5]");
    }

    proptest! {
        #[test]
        fn fifteen_digits_survive(mantissa in 1_u64..999_999_999_999_999, scale in 0_usize..12) {
            let digits = format!("{mantissa:0>width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let text = format!("{whole}.{fraction}");
            let text = if scale == 0 { whole } else { text.trim_end_matches('0').trim_end_matches('.') };
            prop_assert_eq!(Number(text.parse().unwrap()).to_string(), text);
        }
    }
}
