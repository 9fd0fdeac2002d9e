// The stage: the functions of the contract's interface `process`, over the logic in alarms.js.

import { takeAverage } from "./alarms.js";
import { Emitted } from "./emitted.js";
import { I64_MAX, I64_MIN, max } from "./integers.js";
import { parseSettings } from "./settings.js";
import { STATE_VERSION } from "./state.js";
import { States, compareTexts } from "./states.js";

/** Code in an order: the next mark. */
const MARK = 254;
/** Code in the fates: it is in `rejects`. Those of all others are 0, it goes on. */
const REJECTED = 4;
/** The mark that says that nothing comes any more. */
const END = I64_MAX;

/** Texts of the host's numbers. It tells each once, until it gives settings again. */
let names = [];
let plan;
let states = new States();
let watermark = I64_MIN;

/** Functions are called without `this`. */
export const process = {
  describe() {
    return {
      name: "alarm",
      version: "0.1.0",
      takes: { averages: true },
      gives: { alarms: true },
      stateVersion: STATE_VERSION,
    };
  },

  configure(settings) {
    plan = parseSettings(settings);
    names = [];
    states = new States();
    watermark = I64_MIN;
  },

  restore(entries, from) {
    states = new States();
    // A single integer comes in without its sign; in lists it has it.
    watermark = BigInt.asIntN(64, from);
    for (const entry of entries) states.load(entry);
  },

  checkpoint() {
    return states.takeChanged();
  },

  keys(input) {
    learn(input.names);
    const keys = new Set();
    for (const { symbol } of input.events.groups) {
      for (const name of symbol) keys.add(names[name]);
    }
    return [...keys].sort(compareTexts);
  },

  process(input) {
    learn(input.names);
    const [emitted, rejects] = [new Emitted(), []];
    const { groups, marks } = input.events;
    const order = orderOf(input.events);
    const next = new Uint32Array(256);
    let position = 0;
    // A loop over numbers: whatever else walks through a sequence makes an object for each element.
    for (let element = 0; element < order.length; element += 1) {
      const code = order[element];
      const at = next[code];
      next[code] = at + 1;
      if (code === MARK) {
        emitted.mark();
        takeMark(marks[at]);
      } else {
        emitted.event();
        takeEvent(groups[code], at, position, emitted, rejects);
        position += 1;
      }
    }
    return { names: [], fates: fates(position, rejects), rules: [], rejects, emitted: emitted.take() };
  },
};

function learn(told) {
  for (const name of told) names.push(name);
}

/** The sequence, one code an element. The contract leaves it out where there is one group at most and no mark. */
function orderOf({ groups, order }) {
  return order.length > 0 || groups.length === 0 ? order : new Uint8Array(groups[0].symbol.length);
}

function takeEvent(group, at, position, emitted, rejects) {
  const { tag, val } = group.columns;
  if (tag !== "averages") return;
  const slot = states.slot(names[group.symbol[at]]);
  const average = val.average[at];
  if (Number.isFinite(average)) {
    const alarm = takeAverage(slot.state, plan, watermark, val.window[at], average, val.price[at], group.time[at]);
    if (alarm !== undefined) emitted.alarm(group, at, alarm);
  } else {
    rejects.push({ position, reason: "average: not a finite number" });
  }
  states.changed(slot);
}

function takeMark(mark) {
  if (mark === END) return;
  watermark = max(watermark, mark);
  states.expire(mark);
}

/** Empty when all events go on. */
function fates(count, rejects) {
  const codes = new Uint8Array(rejects.length === 0 ? 0 : count);
  for (const { position } of rejects) codes[position] = REJECTED;
  return codes;
}
