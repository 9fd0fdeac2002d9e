//! A sum that keeps what rounding loses.

use serde::{Deserialize, Serialize};

/// Neumaier's compensated sum: the error of each addition is found exactly and summed on its own, so that adding and
/// taking out billions of prices leaves an error far below the last digit of a price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum {
    sum: f64,
    error: f64,
}

impl Sum {
    /// Adds a number; its negative takes it out again.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        // Knuth's TwoSum finds the same error as Neumaier's case distinction, without a branch to mispredict.
        let sum = self.sum + value;
        let rest = sum - self.sum;
        self.error += (self.sum - (sum - rest)) + (value - rest);
        self.sum = sum;
    }

    /// The sum, rounded once.
    #[inline]
    pub(crate) fn value(self) -> f64 {
        self.sum + self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_rounding_loses() {
        let mut sum = Sum::default();
        for value in [1.0, 1e100, 1.0, -1e100] {
            sum.add(value);
        }
        assert_eq!(sum.value(), 2.0);
    }

    #[test]
    fn a_million_prices_in_and_out_leave_nothing() {
        let price = |at: u32| 61_837.63 + f64::from(at % 9_973) * 0.01;
        let mut sum = Sum::default();
        for at in 0..1_000_000 {
            sum.add(price(at));
            if at >= 7 {
                sum.add(-price(at - 7));
            }
        }
        let exact: f64 = (999_993..1_000_000).map(price).sum();
        assert!((sum.value() - exact).abs() < 1e-9, "{} {exact}", sum.value());
    }
}
