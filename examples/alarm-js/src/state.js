// The state of a symbol as bytes: those of functions/alarm, so that either stage goes on where the other was.
//
// The format is postcard (https://postcard.jamesmunns.com/wire-format): integers as variable-length numbers, signed ones
// in zigzag, numbers as 8 bytes, a list behind its length, an option behind a 0 or 1.

import { SymbolState } from "./alarms.js";

/** Of the layout. */
export const STATE_VERSION = 1;

/** No varint of 64 bits is longer. */
const VARINT_BYTES_MAX = 10;

export function encodeState(state) {
  const bytes = [];
  putUnsigned(bytes, BigInt(state.windows.length));
  for (const { window, previous, seenAt, armedAt } of state.windows) {
    putUnsigned(bytes, window);
    putNumber(bytes, previous);
    putSigned(bytes, seenAt);
    putSigned(bytes, armedAt);
  }
  bytes.push(state.expiresAt === undefined ? 0 : 1);
  if (state.expiresAt !== undefined) putSigned(bytes, state.expiresAt);
  return Uint8Array.from(bytes);
}

/** Throws a RangeError when the bytes are not what `encodeState` gives. */
export function decodeState(bytes) {
  const reader = new Reader(bytes);
  const state = new SymbolState();
  for (let left = reader.unsigned(); left > 0n; left -= 1n) {
    const [window, previous] = [reader.unsigned(), reader.number()];
    state.windows.push({ window, previous, seenAt: reader.signed(), armedAt: reader.signed() });
  }
  const isPresent = reader.byte();
  if (isPresent > 1) throw new RangeError(`an option that begins with ${isPresent}`);
  if (isPresent === 1) state.expiresAt = reader.signed();
  return state;
}

function putUnsigned(bytes, value) {
  while (value >= 0x80n) {
    bytes.push(Number(value & 0x7fn) | 0x80);
    value >>= 7n;
  }
  bytes.push(Number(value));
}

function putSigned(bytes, value) {
  putUnsigned(bytes, BigInt.asUintN(64, (value << 1n) ^ (value >> 63n)));
}

function putNumber(bytes, value) {
  bytes.push(...new Uint8Array(new Float64Array([value]).buffer));
}

class Reader {
  #view;
  #at = 0;

  constructor(bytes) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  byte() {
    this.#at += 1;
    return this.#view.getUint8(this.#at - 1);
  }

  number() {
    this.#at += 8;
    return this.#view.getFloat64(this.#at - 8, true);
  }

  unsigned() {
    let value = 0n;
    for (let at = 0; at < VARINT_BYTES_MAX; at += 1) {
      const byte = this.byte();
      value |= BigInt(byte & 0x7f) << BigInt(7 * at);
      if (byte < 0x80) {
        if (value >> 64n !== 0n) break;
        return value;
      }
    }
    throw new RangeError("an integer of more than 64 bits");
  }

  signed() {
    const value = this.unsigned();
    return (value >> 1n) ^ -(value & 1n);
  }
}
