// The states of all symbols: which changed since they were saved, and which are over.

import { SymbolState } from "./alarms.js";
import { I64_MAX, I64_MIN } from "./integers.js";
import { STATE_VERSION, decodeState, encodeState } from "./state.js";

/** The mark that says that nothing comes any more. States stay: another run may go on from them. */
const END = I64_MAX;

export class States {
  /** By key: { key, state, isChanged, parts }, the last the numbers of the parts that are saved. */
  #slots = new Map();
  #changed = [];
  /** Deletions of what is saved, by key. */
  #deleted = new Map();
  /** No state expires before. */
  #nextExpiry = END;

  /** Takes a saved entry in. Throws a `state-error` of the contract. */
  load({ key, part, version, value }) {
    if (value === undefined) return;
    if (version !== STATE_VERSION) throw { tag: "version", val: version };
    const slot = this.slot(key);
    try {
      slot.state = decodeState(value);
    } catch (error) {
      throw { tag: "corrupt", val: error.message };
    }
    slot.parts.push(part);
    this.#schedule(slot);
  }

  /** What is kept for a key, new if need be. Whoever takes it calls `changed` behind. */
  slot(key) {
    let slot = this.#slots.get(key);
    if (slot === undefined) {
      slot = { key, state: new SymbolState(), isChanged: false, parts: [] };
      this.#slots.set(key, slot);
    }
    return slot;
  }

  /** Notes that the state of a slot is not what was saved. */
  changed(slot) {
    if (!slot.isChanged) {
      slot.isChanged = true;
      this.#changed.push(slot);
    }
    this.#schedule(slot);
  }

  /** Forgets what is over. */
  expire(watermark) {
    if (watermark === END || watermark < this.#nextExpiry) return;
    this.#nextExpiry = END;
    for (const slot of this.#slots.values()) {
      if (expiry(slot) <= watermark) {
        this.#forget(slot);
      } else {
        this.#schedule(slot);
      }
    }
  }

  /** The entries that changed since the last call, by key. A key that is gone and came again has what it is now. */
  takeChanged() {
    const entries = this.#deleted;
    for (const slot of this.#changed) {
      if (!slot.isChanged) continue;
      slot.isChanged = false;
      if (!slot.parts.includes(0n)) slot.parts.unshift(0n);
      entries.set(entryId(slot.key, 0n), {
        key: slot.key,
        part: 0n,
        version: STATE_VERSION,
        value: encodeState(slot.state),
        wakeAt: undefined,
        expiresAt: expiry(slot),
      });
    }
    [this.#changed, this.#deleted] = [[], new Map()];
    return [...entries.values()].sort((a, b) => compareTexts(a.key, b.key) || Number(a.part - b.part));
  }

  #schedule(slot) {
    const time = expiry(slot);
    if (time < this.#nextExpiry) this.#nextExpiry = time;
  }

  #forget(slot) {
    for (const part of slot.parts) {
      const deletion = { key: slot.key, part, version: 0, value: undefined, wakeAt: undefined, expiresAt: undefined };
      this.#deleted.set(entryId(slot.key, part), deletion);
    }
    slot.isChanged = false;
    this.#slots.delete(slot.key);
  }
}

/** A symbol none of whose averages counted may be forgotten at once. */
function expiry({ state }) {
  return state.expiresAt ?? I64_MIN;
}

function entryId(key, part) {
  return `${part} ${key}`;
}

/** The order of the bytes of the texts. JavaScript's own is by halves of characters. */
export function compareTexts(a, b) {
  const [left, right] = [[...a], [...b]];
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    const difference = left[at].codePointAt(0) - right[at].codePointAt(0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
