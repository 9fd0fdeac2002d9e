// Tests of the stage as a host calls it, without WebAssembly: node --test

import assert from "node:assert/strict";
import { test } from "node:test";

import { parseDuration } from "../src/duration.js";
import { I64_MAX, I64_MIN } from "../src/integers.js";
import { parseSettings } from "../src/settings.js";
import { SymbolState } from "../src/alarms.js";
import { decodeState, encodeState } from "../src/state.js";
import { compareTexts } from "../src/states.js";

const SECOND = 1_000_000_000n;
const FIVE_MINUTES = 300n * SECOND;

/** A stage of its own: modules are loaded once for each address. */
let instances = 0;
async function stage(settings) {
  instances += 1;
  const { process } = await import(`../src/stage.js?${instances}`);
  process.configure(settings);
  return process;
}

/** A group of averages of the names 0 (symbol) and 1 (source), one a second from `start` on. */
function averages(values, { start = 0, id = { tag: "absent" }, received = [] } = {}) {
  const length = values.length;
  return {
    source: 1,
    unit: "seconds",
    symbol: new Uint32Array(length),
    time: BigInt64Array.from(values, (_, at) => BigInt(start + at) * SECOND),
    received: BigInt64Array.from(received),
    id,
    columns: {
      tag: "averages",
      val: {
        window: new BigUint64Array(length).fill(FIVE_MINUTES),
        average: Float64Array.from(values),
        count: new BigUint64Array(length).fill(1n),
        price: Float64Array.from(values, () => 7),
      },
    },
  };
}

function feed(process, groups, { names = [], order = [], marks = [] } = {}) {
  const events = { groups, order: Uint8Array.from(order), marks: BigInt64Array.from(marks) };
  return process.process({ names, events });
}

const TOLD = { names: ["X", "source"] };

test("an alarm says what raised it, and stands behind it", async () => {
  const process = await stage('{"absolute": 0.5}');
  const id = { tag: "numbers", val: BigUint64Array.of(4n, 5n, 6n) };
  const output = feed(process, [averages([10, 8, 8], { id, received: [I64_MIN, 9n, I64_MIN] })], TOLD);
  assert.deepEqual([...output.emitted.order], [255, 255, 0, 255]);
  const [group] = output.emitted.groups;
  assert.deepEqual([group.source, [...group.symbol], [...group.time]], [1, [0], [SECOND]]);
  assert.deepEqual([[...group.received], [...group.id.val]], [[9n], [5n]]);
  const alarm = Object.entries(group.columns.val).map(([name, column]) => [name, column[0]]);
  assert.deepEqual(Object.fromEntries(alarm), {
    window: FIVE_MINUTES, previous: 10, average: 8, deviation: 2, tolerance: 0.5, relative: 0, price: 7,
  });
  assert.equal(output.fates.length, 0);
});

test("what is no number is rejected and not remembered", async () => {
  const process = await stage('{"absolute": 0.5}');
  const output = feed(process, [averages([1, NaN, Infinity, 1.25])], TOLD);
  assert.deepEqual([...output.fates], [0, 4, 4, 0]);
  assert.deepEqual(output.rejects.map(({ position }) => position), [1, 2]);
  assert.deepEqual([output.emitted.groups.length, output.emitted.order.length], [0, 0]);
});

test("tolerances are exceeded, not reached; away from 0 is further than any", async () => {
  const alarms = async (settings, values) =>
    [...feed(await stage(settings), [averages(values)], TOLD).emitted.order].filter((code) => code === 0).length;
  assert.equal(await alarms('{"absolute": 0.5}', [1, 1.5, 2.25, 1.75, 1]), 2);
  assert.equal(await alarms('{"relative": 1e9}', [0, 0, 0.001, 0]), 1);
  assert.equal(await alarms('{"absolute": 0.5, "cooldown": "3s"}', [1, 2, 3, 4, 5, 5, 5, 5, 6]), 3);
  assert.equal(await alarms('{"absolute": 0.5, "windows": ["1h"]}', [1, 9]), 0);
});

test("state goes over into a new instance, and texts of ids with it", async () => {
  const first = await stage('{"absolute": 0.5}');
  feed(first, [averages([1])], TOLD);
  const entries = first.checkpoint();
  assert.deepEqual(entries.map(({ key, part, version }) => [key, part, version]), [["X", 0n, 1]]);
  assert.equal(first.checkpoint().length, 0);
  const second = await stage('{"absolute": 0.5}');
  second.restore(entries, 0n);
  const id = { tag: "texts", val: { ends: Uint32Array.of(0, 2), bytes: new TextEncoder().encode("ab") } };
  const { emitted } = feed(second, [averages([5, 1], { start: 1, id })], TOLD);
  assert.deepEqual(emitted.groups.map((group) => group.id.tag), ["absent", "texts"]);
  assert.deepEqual([...emitted.order], [255, 0, 255, 1]);
  assert.throws(() => second.restore([{ ...entries[0], version: 2 }], 0n), (error) => error.val === 2);
  assert.throws(() => second.restore([{ ...entries[0], value: new Uint8Array(0) }], 0n), (error) => error.tag === "corrupt");
});

test("a symbol is forgotten after a while, and its entry deleted", async () => {
  const process = await stage('{"absolute": 0.5, "keep": "1m"}');
  feed(process, [averages([1])], TOLD);
  process.checkpoint();
  feed(process, [], { order: [254], marks: [59n * SECOND] });
  assert.equal(process.checkpoint().length, 0);
  feed(process, [], { order: [254, 254], marks: [60n * SECOND, I64_MAX] });
  assert.deepEqual(process.checkpoint().map(({ key, value }) => [key, value]), [["X", undefined]]);
  assert.deepEqual([...feed(process, [averages([9], { start: 61 })]).emitted.order], []);
});

test("what cannot be used is named", () => {
  for (const [text, key] of [
    ["{}", "absolute"],
    ['{"absolute": 1, "relative": 1}', "relative"],
    ['{"absolute": -0.5}', "absolute"],
    ['{"absolute": "1"}', "absolute"],
    ['{"relative": -1}', "relative"],
    ['{"absolute": 1, "windows": ["1m", "0s"]}', "windows[1]"],
    ['{"absolute": 1, "windows": [1]}', "windows[0]"],
    ['{"absolute": 1, "cooldown": "500years"}', "cooldown"],
    ['{"absolute": 1, "keep": "500years"}', "keep"],
    ['{"absolute": 1, "keep": "0s"}', "keep"],
    ['{"absolute": 1, "colour": 2}', "colour"],
    ["[]", "."],
  ]) {
    assert.throws(() => parseSettings(text), (error) => error.key === key, text);
  }
});

test("durations are read as humantime reads them", () => {
  for (const [text, ns] of [
    ["5m", FIVE_MINUTES], ["250ms", 250_000_000n], ["1h 30m", 5_400n * SECOND], ["1h30min", 5_400n * SECOND],
    ["1.5h", 5_400n * SECOND], ["0.5s", 500_000_000n], ["1day", 86_400n * SECOND], [" 2 w ", 1_209_600n * SECOND],
  ]) {
    assert.equal(parseDuration(text), ns, text);
  }
  for (const text of ["", "5", "m", "1.5ns", "5 lightyears", "-1s", "1e3s", "999999999years", "1,5h"]) {
    assert.equal(parseDuration(text), undefined, text);
  }
});

test("the bytes of a state are those of postcard", () => {
  const state = new SymbolState();
  assert.deepEqual([...encodeState(state)], [0, 0]);
  state.windows.push({ window: 300n, previous: 1, seenAt: -1n, armedAt: I64_MIN });
  state.expiresAt = 64n;
  const least = [...Array(9).fill(0xff), 0x01];
  assert.deepEqual([...encodeState(state)], [1, 0xac, 0x02, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x01, ...least, 1, 0x80, 0x01]);
  assert.deepEqual(decodeState(encodeState(state)), state);
});

test("keys stand in the order of their bytes", () => {
  const keys = ["\u{1F600}", "\uFFFD", "B", "A", "AB"].sort(compareTexts);
  assert.deepEqual(keys, ["A", "AB", "B", "\uFFFD", "\u{1F600}"]);
});
