// The alarms of a call, as the contract's columns, and the sequence in which they stand between what came in.
//
// A column of numbers must be the typed array of its type.

import { I64_MIN } from "./integers.js";

/** Groups that a batch can have. */
const GROUPS_MAX = 253;
/** In the order of an output: the next mark of the input, and its next event. */
const MARK = 254;
const INPUT = 255;

export class Emitted {
  /** By source, unit and form of id. */
  #groups = new Map();
  #order = [];

  event() {
    this.#order.push(INPUT);
  }

  mark() {
    this.#order.push(MARK);
  }

  /** Puts an alarm behind the last element, with the envelope of the event at `at` of the group `from`. */
  alarm(from, at, alarm) {
    const id = idAt(from.id, at);
    const group = this.#group(from, id);
    group.push(from, at, id, alarm);
    this.#order.push(group.number);
  }

  /** The batch; empty when there was no alarm. */
  take() {
    const groups = [...this.#groups.values()].map((group) => group.columns());
    const order = groups.length === 0 ? [] : this.#order;
    return { groups, order: Uint8Array.from(order), marks: new BigInt64Array(0) };
  }

  #group({ source, unit }, id) {
    const key = `${source} ${unit} ${id.tag}`;
    let group = this.#groups.get(key);
    if (group === undefined) {
      if (this.#groups.size === GROUPS_MAX) throw new Error("more sources, units and forms of id than a batch can have");
      group = new Group(this.#groups.size, source, unit, id.tag);
      this.#groups.set(key, group);
    }
    return group;
  }
}

class Group {
  symbol = [];
  time = [];
  received = [];
  ids = [];
  alarms = [];

  constructor(number, source, unit, idTag) {
    Object.assign(this, { number, source, unit, idTag });
  }

  push(from, at, id, alarm) {
    // The host's numbers of names are good for its own events and for ours.
    this.symbol.push(from.symbol[at]);
    this.time.push(from.time[at]);
    this.received.push(from.received.length === 0 ? I64_MIN : from.received[at]);
    this.ids.push(id.val);
    this.alarms.push(alarm);
  }

  columns() {
    const numbers = (field) => Float64Array.from(this.alarms, (alarm) => alarm[field]);
    const alarms = {
      window: BigUint64Array.from(this.alarms, ({ window }) => window),
      previous: numbers("previous"),
      average: numbers("average"),
      deviation: numbers("deviation"),
      tolerance: numbers("tolerance"),
      relative: Uint8Array.from(this.alarms, ({ isRelative }) => Number(isRelative)),
      price: numbers("price"),
    };
    return {
      source: this.source,
      unit: this.unit,
      symbol: Uint32Array.from(this.symbol),
      time: BigInt64Array.from(this.time),
      received: BigInt64Array.from(this.received.every((time) => time === I64_MIN) ? [] : this.received),
      id: idColumn(this.idTag, this.ids),
      columns: { tag: "alarms", val: alarms },
    };
  }
}

/** The id of one event: { tag, val }. An empty text is none. */
function idAt(ids, at) {
  if (ids.tag === "numbers") return { tag: "numbers", val: ids.val[at] };
  if (ids.tag === "absent") return ids;
  const { ends, bytes } = ids.val;
  const text = bytes.subarray(at === 0 ? 0 : ends[at - 1], ends[at]);
  return text.length === 0 ? { tag: "absent" } : { tag: "texts", val: text };
}

function idColumn(tag, ids) {
  if (tag === "numbers") return { tag, val: BigUint64Array.from(ids) };
  if (tag === "absent") return { tag };
  const ends = new Uint32Array(ids.length);
  let end = 0;
  ids.forEach((text, at) => {
    end += text.length;
    ends[at] = end;
  });
  const bytes = new Uint8Array(end);
  ids.forEach((text, at) => bytes.set(text, ends[at] - text.length));
  return { tag, val: { ends, bytes } };
}
