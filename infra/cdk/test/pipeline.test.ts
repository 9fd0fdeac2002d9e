import { describe, expect, it } from "vitest";
import { loadPipeline, parsePipeline } from "../src/pipeline.ts";
import { PIPELINE_FILE } from "./stack.ts";

const A_AND_B = '[[stages]]\nname = "a"\n[[stages]]\nname = "b"';

/** A file with something wrong, and what is said about it. */
const WRONG: readonly (readonly [text: string, expected: string])[] = [
  ["x", "not TOML: Invalid TOML document: incomplete key-value: cannot find end of key"],
  [A_AND_B, "name: nothing instead of 1 to 60 of a-z, 0-9 and -"],
  [`name = "Bitcoin trades"\n${A_AND_B}`, 'name: "Bitcoin trades" instead of 1 to 60 of a-z, 0-9 and -'],
  [`name = 5\n${A_AND_B}`, "name: 5 instead of 1 to 60 of a-z, 0-9 and -"],
  ['name = "x"', "stages: 0 stages instead of 2 to 32"],
  ['name = "x"\n[[stages]]\nname = "a"', "stages: 1 stages instead of 2 to 32"],
  [`name = "x"\n${"[[stages]]\nname = 'a'\n".repeat(33)}`, "stages: 33 stages instead of 2 to 32"],
  ['name = "x"\nstages = 2', "stages: 2 instead of tables, one for each stage"],
  [`name = "x"\nsource = 1\n${A_AND_B}`, "source: 1 instead of a table"],
  [`name = "x"\naws = 1\n${A_AND_B}`, "aws: 1 instead of a table"],
  [`name = "x"\nsource.type = "nats"\n${A_AND_B}`, 'source.type: "nats" instead of "none" or "simulator"'],
  [`name = "x"\nsource.format = "CSV"\n${A_AND_B}`, 'source.format: "CSV" instead of 1 to 60 of a-z, 0-9 and -'],
  [
    `name = "x"\nwatermark.delay = "soon"\n${A_AND_B}`,
    'watermark.delay: "soon" instead of a duration such as "5m", "250ms" or "1h 30m"',
  ],
  [
    `name = "x"\nwatermark.max_future = 5\n${A_AND_B}`,
    'watermark.max_future: 5 instead of a duration such as "5m", "250ms" or "1h 30m"',
  ],
  [`name = "x"\nwatermark.idle = "0s"\n${A_AND_B}`, 'watermark.idle: "0s" instead of a duration from 1ns to 366d'],
  [`name = "x"\nwatermark.every = "0s"\n${A_AND_B}`, 'watermark.every: "0s" instead of a duration from 1ns to 366d'],
  [`name = "x"\nwatermark.delay = "2y"\n${A_AND_B}`, 'watermark.delay: "2y" instead of a duration from 0s to 366d'],
  [`name = "x"\n[[stages]]\n${A_AND_B}`, "stages.0.name: nothing instead of 1 to 60 of a-z, 0-9 and -"],
  [`name = "x"\n${A_AND_B}\n[[stages]]\nname = "a"`, 'stages.a.name: "a" instead of a name that no other stage has'],
  [
    `name = "x"\n${A_AND_B}\n[[stages]]\nname = "watermark"`,
    'stages.watermark.name: "watermark" instead of another name: the ledger calls our own step so',
  ],
  [
    `name = "x"\n${A_AND_B}\ncomponent = "dedup.py"`,
    'stages.b.component: "dedup.py" instead of a name such as "dedup" or a path that ends in .wasm',
  ],
  [`name = "x"\n${A_AND_B}\nmemory_mib = 5000`, "stages.b.memory_mib: 5000 instead of 1 to 4096"],
  [`name = "x"\n${A_AND_B}\nmemory_mib = 1.5`, "stages.b.memory_mib: 1.5 instead of 1 to 4096"],
  [
    `name = "x"\n${A_AND_B}\ntime_per_batch = "1ms"`,
    'stages.b.time_per_batch: "1ms" instead of a duration from 10ms to 366d',
  ],
  [`name = "x"\n${A_AND_B}\nsettings = 1`, "stages.b.settings: 1 instead of a table"],
  [
    `name = "x"\n${A_AND_B}\nsettings.from = [1, 2024-08-08]`,
    'stages.b.settings.from[1]: "2024-08-08" instead of a text: put it in quotes',
  ],
  [
    `name = "x"\n${A_AND_B}\nsettings.deep.level = inf`,
    "stages.b.settings.deep.level: Infinity instead of a finite number",
  ],
];

describe("a pipeline file", () => {
  it.each(WRONG)("that is wrong is told so: %j", (text, expected) => {
    expect(() => parsePipeline(text)).toThrow(expected);
  });

  it("is named in errors, also when it is not there", () => {
    expect(() => loadPipeline("test/stack.ts")).toThrow(/^test\/stack\.ts: not TOML: /);
    expect(() => loadPipeline("nowhere.toml")).toThrow(/^nowhere\.toml: cannot be read as a pipeline file: ENOENT/);
  });

  it("has the host's defaults", () => {
    const { format, watermark, stages } = parsePipeline(`name = "x"\n${A_AND_B}`);
    expect(format).toBe("events");
    expect(watermark).toEqual({ delay: "1s", every: "1s", max_future: "10s", idle: "5s" });
    expect(stages[0]).toEqual({
      name: "a",
      component: "a",
      settings: {},
      memory_mib: 256,
      timePerBatch: { text: "5s", ns: 5e9 },
    });
    expect(parsePipeline(`name = "x"\nsource.type = "simulator"\n${A_AND_B}`).format).toBe("binance");
  });

  it("of ours is read", () => {
    const { name, format, watermark, stages } = loadPipeline(PIPELINE_FILE);
    expect(name).toBe("bitcoin-trades");
    expect(format).toBe("binance");
    expect(watermark).toEqual({ delay: "2s", every: "1s", max_future: "10s", idle: "5s" });
    expect(stages.map((stage) => stage.name)).toEqual(["fetch", "dedup", "enrich", "aggregate", "alarm", "write"]);
  });
});
