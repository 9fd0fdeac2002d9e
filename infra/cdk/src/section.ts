import { parseSpan, type Span, span } from "./duration.ts";
import { unfit, Wrong } from "./wrong.ts";

/** What TOML and JSON have in common: keys and values. */
export type Table = Readonly<Record<string, unknown>>;

/** Longest duration, as in the host: whoever wants more has mistaken a unit. */
export const SPAN_MAX = span("366d");
/** Letters of a name, as in the host: it becomes part of the names of resources. */
const NAME_LETTERS_MAX = 60;

/** A table of a pipeline file. Reads typed values, and tells those that are not right by their full key. */
export class Section {
  readonly #table: Table;
  readonly #keyOf: (key: string) => string;

  constructor(table: Table, keyOf: (key: string) => string) {
    this.#table = table;
    this.#keyOf = keyOf;
  }

  /** The table under a key; an empty one when there is none. */
  section(key: string): Section {
    const value = this.value(key) ?? {};
    if (!isTable(value)) {
      throw this.unfit(key, "a table");
    }
    return new Section(value, (inner) => `${this.#keyOf(key)}.${inner}`);
  }

  value(key: string): unknown {
    return this.#table[key];
  }

  text(key: string, fallback: string): string {
    const value = this.value(key) ?? fallback;
    if (typeof value !== "string") {
      throw this.unfit(key, "a text");
    }
    return value;
  }

  /** One word. Required unless there is a fallback. */
  name(key: string, fallback?: string): string {
    const value = this.value(key) ?? fallback;
    if (typeof value !== "string" || !isName(value)) {
      throw this.unfit(key, `1 to ${NAME_LETTERS_MAX} of a-z, 0-9 and -`);
    }
    return value;
  }

  oneOf<Choice extends string>(key: string, choices: readonly Choice[], fallback: Choice): Choice {
    const value = this.value(key) ?? fallback;
    const choice = choices.find((choice) => choice === value);
    if (choice === undefined) {
      throw this.unfit(key, choices.map((choice) => `"${choice}"`).join(" or "));
    }
    return choice;
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.value(key) ?? fallback;
    if (typeof value !== "boolean") {
      throw this.unfit(key, "true or false");
    }
    return value;
  }

  integer(key: string, [least, most]: readonly [number, number], fallback: number): number {
    const value = this.value(key) ?? fallback;
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
      throw this.unfit(key, `${least} to ${most}`);
    }
    return value;
  }

  span(key: string, least: string, fallback: string): Span;
  span(key: string, least: string): Span | undefined;
  span(key: string, least: string, fallback?: string): Span | undefined {
    const value = this.value(key) ?? fallback;
    if (value === undefined) {
      return undefined;
    }
    const parsed = typeof value === "string" ? parseSpan(value) : undefined;
    if (parsed === undefined) {
      throw this.unfit(key, 'a duration such as "5m", "250ms" or "1h 30m"');
    }
    if (parsed.ns < span(least).ns || parsed.ns > SPAN_MAX.ns) {
      throw this.unfit(key, `a duration from ${least} to ${SPAN_MAX.text}`);
    }
    return parsed;
  }

  /** Refuses keys that nobody reads: they would be mistakes in silence. */
  only(known: readonly string[]): void {
    const unknown = Object.keys(this.#table).find((key) => !known.includes(key));
    if (unknown !== undefined) {
      throw new Wrong(`${this.#keyOf(unknown)}: no such key; there are ${known.join(", ")}`);
    }
  }

  /** The full key, as errors name it. */
  key(key: string): string {
    return this.#keyOf(key);
  }

  unfit(key: string, expected: string): Wrong {
    return unfit(this.#keyOf(key), this.value(key), expected);
  }
}

export function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

export function isName(text: string): boolean {
  return text.length <= NAME_LETTERS_MAX && /^[a-z0-9-]+$/.test(text);
}
