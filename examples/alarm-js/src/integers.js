// 64-bit integers of the contract, which are BigInt here: times, durations, lengths of windows.

export const I64_MIN = -(2n ** 63n);
export const I64_MAX = 2n ** 63n - 1n;
export const U64_MAX = 2n ** 64n - 1n;

/** A sum that stays at the ends of the range, as Rust's `saturating_add`. */
export function saturatingAdd(a, b) {
  const sum = a + b;
  if (sum > I64_MAX) return I64_MAX;
  return sum < I64_MIN ? I64_MIN : sum;
}

export function max(a, b) {
  return a > b ? a : b;
}
