// Settings of the stage: from JSON to what is worked with. They are those of functions/alarm, as is each limit.

import { parseDuration } from "./duration.js";

const WINDOWS_MAX = 32;
const DAY = 86_400_000_000_000n;
const SPAN_MAX = 100n * 365n * DAY;

/** How each key is read. A reader gives undefined for what it cannot read. */
const READERS = {
  absolute: [readOptionalNumber, "a number"],
  relative: [readOptionalNumber, "a number"],
  cooldown: [readDuration, 'a duration such as "5m", "250ms" or "1h 30m"'],
  windows: [(value) => (Array.isArray(value) ? value : undefined), "a list of durations"],
  keep: [readDuration, 'a duration such as "5m", "250ms" or "1h 30m"'],
};

/**
 * Reads the settings, a JSON object. Throws a `setting-error` of the contract.
 */
export function parseSettings(text) {
  const found = parseObject(text);
  const refuse = (key, expected) => {
    throw { key, value: valueAt(found, key), expected };
  };
  const read = { cooldown: 0n, windows: [], keep: DAY };
  for (const [key, value] of Object.entries(found)) {
    if (!Object.hasOwn(READERS, key)) refuse(key, `one of ${Object.keys(READERS).join(", ")}`);
    const [reader, expected] = READERS[key];
    read[key] = reader(value);
    if (read[key] === undefined) refuse(key, expected);
  }
  read.windows = read.windows.map((window, at) => readDuration(window) ?? refuse(`windows[${at}]`, READERS.keep[1]));
  return plan(read, refuse);
}

function plan({ absolute = null, relative = null, cooldown, windows, keep }, refuse) {
  if (absolute === null && relative === null) refuse("absolute", "a tolerance: either absolute or relative");
  if (absolute !== null && relative !== null) refuse("relative", "nothing, as absolute is given");
  const isRelative = relative !== null;
  const tolerance = isRelative ? relative : absolute;
  if (!Number.isFinite(tolerance) || tolerance < 0) {
    refuse(isRelative ? "relative" : "absolute", "a finite number >= 0");
  }
  if (windows.length > WINDOWS_MAX) refuse("windows", `at most ${WINDOWS_MAX} durations`);
  const empty = windows.indexOf(0n);
  if (empty >= 0) refuse(`windows[${empty}]`, "a duration above 0");
  if (keep === 0n) refuse("keep", "a duration above 0");
  if (cooldown > SPAN_MAX) refuse("cooldown", "a duration of at most 36500days");
  if (keep > SPAN_MAX) refuse("keep", "a duration of at most 36500days");
  return { tolerance, isRelative, cooldown, windows, keep };
}

function parseObject(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw { key: ".", value: "nothing", expected: `a JSON object: ${error.message}` };
  }
  if (found === null || typeof found !== "object" || Array.isArray(found)) {
    throw { key: ".", value: JSON.stringify(found), expected: "a JSON object" };
  }
  return found;
}

function valueAt(found, key) {
  const [, name, at] = /^([^[]*)(?:\[(\d+)\])?$/.exec(key) ?? [null, key];
  const value = at === undefined ? found[name] : found[name]?.[at];
  return value === undefined ? "nothing" : JSON.stringify(value);
}

function readOptionalNumber(value) {
  return value === null || typeof value === "number" ? value : undefined;
}

function readDuration(value) {
  return typeof value === "string" ? parseDuration(value) : undefined;
}
