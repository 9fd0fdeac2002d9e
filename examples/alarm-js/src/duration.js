// Durations as pipeline files write them: "5m", "250ms", "1h 30m", "1.5h". The rules are those of humantime, which the
// stages in Rust use.

import { U64_MAX } from "./integers.js";

const SECOND = 1_000_000_000n;
/** What one of each unit is, ns. */
const UNITS = new Map();
for (const [ns, names] of [
  [1n, "nanos nsec ns"],
  [1_000n, "usec us µs"],
  [1_000_000n, "millis msec ms"],
  [SECOND, "seconds second secs sec s"],
  [60n * SECOND, "minutes minute min mins m"],
  [3_600n * SECOND, "hours hour hrs hr h"],
  [86_400n * SECOND, "days day d"],
  [7n * 86_400n * SECOND, "weeks week wks wk w"],
  [2_630_016n * SECOND, "months month M"],
  [31_557_600n * SECOND, "years year yrs yr y"],
]) {
  for (const name of names.split(" ")) UNITS.set(name, ns);
}

const PART = /\s*(\d[\d\s]*)(?:\.([\d\s]*))?([A-Za-zµ]+)/y;

/** Nanoseconds, or undefined when the text is no duration. */
export function parseDuration(text) {
  let sum = 0n;
  PART.lastIndex = 0;
  do {
    const part = PART.exec(text);
    const ns = part === null ? undefined : parsePart(part);
    if (ns === undefined) return undefined;
    sum += ns;
  } while (text.slice(PART.lastIndex).trim() !== "");
  return sum > U64_MAX ? undefined : sum;
}

function parsePart([, whole, fraction, name]) {
  const unit = UNITS.get(name);
  if (unit === undefined) return undefined;
  const ns = BigInt(whole.replace(/\s/g, "")) * unit;
  if (fraction === undefined) return ns;
  const digits = fraction.replace(/\s/g, "");
  if (digits === "" || unit === 1n) return undefined;
  // A fraction of hours or more must come to whole seconds, one of less to whole nanoseconds.
  const step = unit >= 3_600n * SECOND ? SECOND : 1n;
  const scale = 10n ** BigInt(digits.length);
  const scaled = BigInt(digits) * (unit / step);
  return scaled % scale === 0n ? ns + (scaled / scale) * step : undefined;
}
