// The logic: compares each average with the one before it. The operations on numbers are those of functions/alarm, in
// the same order, so that both give the same bits.

import { I64_MIN, max, saturatingAdd } from "./integers.js";

/** Largest deviation that is told. A move away from 0 has no relative size, and infinity cannot be written as JSON. */
const DEVIATION_MAX = 1e300;

/** What is kept for a symbol. */
export class SymbolState {
  /** In the order in which they came first: { window, previous, seenAt, armedAt }. */
  windows = [];
  /** undefined until there was an average that counts. */
  expiresAt = undefined;
}

/** Takes the average of a window in; gives the alarm that it raises, or undefined. */
export function takeAverage(state, plan, watermark, window, average, price, time) {
  if (plan.windows.length > 0 && !plan.windows.includes(window)) return undefined;
  // What comes behind the watermark must not have expired before it is saved: a host may delete what has.
  const now = max(time, watermark);
  const known = find(state.windows, window);
  if (known === undefined) {
    watch(state, plan, window, average, now);
    return undefined;
  }
  known.seenAt = max(known.seenAt, now);
  const alarm = compare(known, plan, average, price, time);
  keepUntil(state, neededUntil(known, plan.keep));
  return alarm;
}

function find(windows, window) {
  for (let at = 0; at < windows.length; at += 1) {
    if (windows[at].window === window) return windows[at];
  }
  return undefined;
}

/** Begins to watch a window, and ends to watch those that nothing came of for long. */
function watch(state, plan, window, average, now) {
  state.windows = state.windows.filter((known) => neededUntil(known, plan.keep) > now);
  const watched = { window, previous: average, seenAt: now, armedAt: I64_MIN };
  keepUntil(state, neededUntil(watched, plan.keep));
  state.windows.push(watched);
}

/** Puts an average in the place of the previous one; gives the alarm that it raises, or undefined. */
function compare(known, plan, average, price, time) {
  const { window, previous } = known;
  known.previous = average;
  const { tolerance, isRelative } = plan;
  const deviation = isRelative ? relative(previous, average) : absolute(previous, average);
  if (deviation <= tolerance || time < known.armedAt) return undefined;
  known.armedAt = saturatingAdd(time, plan.cooldown);
  return { window, previous, average, deviation, tolerance, isRelative, price };
}

/** Watermark from which on it may be forgotten: a cooldown is not cut short. */
function neededUntil(known, keep) {
  return max(saturatingAdd(known.seenAt, keep), known.armedAt);
}

function keepUntil(state, time) {
  state.expiresAt = state.expiresAt === undefined ? time : max(state.expiresAt, time);
}

function absolute(previous, average) {
  return told(Math.abs(average - previous));
}

/** A move away from 0 is larger than any tolerance. */
function relative(previous, average) {
  const moved = Math.abs(average - previous);
  return moved === 0 ? 0 : told(moved / Math.abs(previous));
}

/** Also what is no number becomes the largest, as with Rust's `f64::min`. */
function told(deviation) {
  return deviation < DEVIATION_MAX ? deviation : DEVIATION_MAX;
}
