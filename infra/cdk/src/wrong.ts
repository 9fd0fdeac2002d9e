/** Something in a pipeline file or in the context that cannot be. Its text says where, what it is and what would be right. */
export class Wrong extends Error {
  override readonly name = "Wrong";
}

/** Says what is there instead of what would be right. */
export function unfit(key: string, value: unknown, expected: string): Wrong {
  return new Wrong(`${key}: ${show(value)} instead of ${expected}`);
}

/** Shows no more of a value than a line: it may be a whole table. */
const SHOWN_LETTERS_MAX = 80;

function show(value: unknown): string {
  if (value === undefined) {
    return "nothing";
  }
  const text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > SHOWN_LETTERS_MAX ? `${text.slice(0, SHOWN_LETTERS_MAX)}…` : text;
}
