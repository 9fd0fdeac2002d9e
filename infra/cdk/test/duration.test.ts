import { describe, expect, it } from "vitest";
import { parseSpan } from "../src/duration.ts";

describe("a duration", () => {
  it.each([
    ["0s", 0],
    ["250ms", 250e6],
    ["5m", 300e9],
    ["1h 30m", 5_400e9],
    ["1h30m", 5_400e9],
    ["2 days", 172_800e9],
    ["366d", 366 * 86_400e9],
    ["1M", 2_630_016e9],
  ])("%s", (text, ns) => {
    expect(parseSpan(text)).toEqual({ text, ns });
  });

  it.each(["", "5", "m", "soon", "1.5s", "-1s", "5 parsecs", "1h, 30m"])("is not %j", (text) => {
    expect(parseSpan(text)).toBeUndefined();
  });
});
