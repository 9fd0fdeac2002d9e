/** A length of time, as text and in nanoseconds. */
export interface Span {
  /** As it is written: the host reads the same texts. */
  readonly text: string;
  readonly ns: number;
}

const SECOND_NS = 1e9;

/** The units that the host's parser of durations, `humantime`, knows. Its month and year are means. */
const UNITS: readonly (readonly [ns: number, names: readonly string[]])[] = [
  [1, ["nanos", "nsec", "ns"]],
  [1e3, ["micros", "usec", "us", "µs"]],
  [1e6, ["millis", "msec", "ms"]],
  [SECOND_NS, ["seconds", "second", "secs", "sec", "s"]],
  [60 * SECOND_NS, ["minutes", "minute", "mins", "min", "m"]],
  [3_600 * SECOND_NS, ["hours", "hour", "hrs", "hr", "h"]],
  [86_400 * SECOND_NS, ["days", "day", "d"]],
  [604_800 * SECOND_NS, ["weeks", "week", "wks", "wk", "w"]],
  [2_630_016 * SECOND_NS, ["months", "month", "M"]],
  [31_557_600 * SECOND_NS, ["years", "year", "yrs", "yr", "y"]],
];

const NS_OF_UNIT = new Map(UNITS.flatMap(([ns, names]) => names.map((name) => [name, ns] as const)));

/** Reads "5m", "250ms" or "1h 30m"; nothing when it is none of these. */
export function parseSpan(text: string): Span | undefined {
  if (!/^\s*(\d+\s*[a-zA-Zµ]+\s*)+$/.test(text)) {
    return undefined;
  }
  let sum = 0;
  for (const [, number, unit] of text.matchAll(/(\d+)\s*([a-zA-Zµ]+)/g)) {
    const ns = NS_OF_UNIT.get(unit ?? "");
    if (ns === undefined) {
      return undefined;
    }
    sum += Number(number) * ns;
  }
  return { text, ns: sum };
}

/** A span that is known to be right. */
export function span(text: string): Span {
  const parsed = parseSpan(text);
  if (parsed === undefined) {
    throw new Error(`${text} is not a duration`);
  }
  return parsed;
}

/** Whole seconds, rounded up. */
export function seconds(span: Span): number {
  return Math.ceil(span.ns / SECOND_NS);
}
