import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parsePipeline } from "../src/pipeline.ts";
import { hasFunctions, KEYS, resolvePackage, resolveSettings, resolveStoreSettings } from "../src/settings.ts";
import { type Context, PIPELINE_FILE } from "./stack.ts";

const STAGES = ["a", "b", "c", "d"].map((name) => `[[stages]]\nname = "${name}"\n`).join("");

function settings(aws: string, context: Context = {}) {
  return resolveSettings(parsePipeline(`name = "x"\n[aws]\n${aws}\n${STAGES}`), (key) => context[key]);
}

describe("settings", () => {
  it("have the defaults that are documented", () => {
    const { groups, timeout, ...rest } = settings("");
    expect(rest).toEqual({
      architecture: "x86_64",
      authorization: "iam",
      partitions: 1,
      memory_mib: 512,
      concurrency: 5,
      batchConcurrency: undefined,
      keepData: false,
      alarmsEmail: undefined,
      logRetentionDays: 14,
      rowsExpire: undefined,
      schedule: undefined,
    });
    expect(timeout.text).toBe("30s");
    expect(groups.map((stages) => stages.map((stage) => stage.name))).toEqual([["a"], ["b"], ["c"], ["d"]]);
  });

  it("are all in the pipeline file of ours, with their defaults or with examples that are valid", () => {
    const text = readFileSync(PIPELINE_FILE, "utf8");
    const ours = parsePipeline(text);
    expect(resolveSettings(ours, () => undefined)).toEqual(resolveSettings({ ...ours, aws: {} }, () => undefined));
    const [, section] = text.match(/^\[aws\]$(.*?)^\[/ms) ?? [];
    const { aws } = parsePipeline(text.replace(section ?? "", section?.replace(/^# ([a-z_]+ = )/gm, "$1") ?? ""));
    expect(Object.keys(aws)).toEqual(KEYS);
    expect(() => resolveSettings({ ...ours, aws }, () => undefined)).not.toThrow();
  });

  it("are taken from [aws]", () => {
    const aws = `
      architecture = "arm64"
      authorization = "token"
      partitions = 8
      fuse = [["b", "c"]]
      memory_mib = 1024
      concurrency = "unreserved"
      timeout = "1m"
      keep_data = true
      alarms_email = "ops@example.com"
      log_retention_days = 365
      rows_expire = "90d"
      schedule = "cron(0 8 * * ? *)"`;
    expect(settings(aws)).toMatchObject({
      architecture: "arm64",
      authorization: "token",
      partitions: 8,
      memory_mib: 1024,
      concurrency: undefined,
      timeout: { text: "1m" },
      keepData: true,
      alarmsEmail: "ops@example.com",
      logRetentionDays: 365,
      rowsExpire: { text: "90d" },
      schedule: "cron(0 8 * * ? *)",
    });
    expect(settings(aws).groups.map((stages) => stages.length)).toEqual([1, 2, 1]);
  });

  it("are taken from the context first", () => {
    const context = { partitions: "2", keep: "false", fuse: '[["b","c"]]', timeout: "40s" };
    expect(settings('partitions = 8\nkeep_data = true\ntimeout = "1m"', context)).toMatchObject({
      partitions: 2,
      concurrency: 6,
      keepData: false,
      groups: [{ length: 1 }, { length: 2 }, { length: 1 }],
      timeout: { text: "40s" },
    });
  });
});

/** What is wrong in `[aws]`, and what is said about it. */
const WRONG: readonly (readonly [aws: string, expected: string])[] = [
  ["partition = 1", "aws.partition: no such key; there are functions, architecture, authorization, partitions, fuse,"],
  ["partitions = 0", "aws.partitions: 0 instead of 1 to 256"],
  ["partitions = 257", "aws.partitions: 257 instead of 1 to 256"],
  ['partitions = "2"', 'aws.partitions: "2" instead of 1 to 256'],
  ['architecture = "arm"', 'aws.architecture: "arm" instead of "x86_64" or "arm64"'],
  ['authorization = "none"', 'aws.authorization: "none" instead of "iam" or "token"'],
  ["memory_mib = 64", "aws.memory_mib: 64 instead of 128 to 10240"],
  ["concurrency = 0", "aws.concurrency: 0 instead of 1 to 1000"],
  ["partitions = 2\nconcurrency = 1", "aws.concurrency: 1 instead of 2 or more with 2 partitions"],
  ['concurrency = "many"', 'aws.concurrency: "many" instead of 1 to 1000 or "unreserved"'],
  ['timeout = "16m"', 'aws.timeout: "16m" instead of whole seconds from 1s to 900s'],
  ['timeout = "20500ms"', 'aws.timeout: "20500ms" instead of whole seconds from 1s to 900s'],
  ['timeout = "5s"', 'aws.timeout: "5s" instead of 10s at least: 5s that'],
  ['timeout = "10s"\nfuse = [["b", "c"]]', 'aws.timeout: "10s" instead of 15s at least: 10s that'],
  ["keep_data = 1", "aws.keep_data: 1 instead of true or false"],
  ['alarms_email = "me"', 'aws.alarms_email: "me" instead of an address such as you@example.com'],
  ["log_retention_days = 15", "aws.log_retention_days: 15 instead of one of 1, 3, 5, 7, 14,"],
  ['rows_expire = "never"', 'aws.rows_expire: "never" instead of a duration such as "5m", "250ms" or "1h 30m"'],
  ['schedule = "1m"', 'aws.schedule: "1m" instead of "rate(1 minute)" or "cron(0 8 * * ? *)"'],
  ['fuse = ["b", "c"]', 'aws.fuse: ["b","c"] instead of lists of names such as [["dedup", "enrich"]]'],
  ['fuse = [["b", "x"]]', 'aws.fuse: [["b","x"]] instead of names of stages: a, b, c, d'],
  ...['[["a", "b"]]', '[["c", "d"]]', '[["c", "b"]]'].map(
    (fuse) =>
      [
        `fuse = ${fuse}`,
        `aws.fuse: ${fuse.replaceAll(", ", ",")} instead of neighbours in the order of the data, without the first`,
      ] as const,
  ),
];

describe("settings that are wrong", () => {
  it.each(WRONG)("are told so: %s", (aws, expected) => {
    expect(() => settings(aws)).toThrow(expected);
  });

  it("are named as the context has them", () => {
    expect(() => settings("", { keep: "maybe" })).toThrow('-c keep: "maybe" instead of true or false');
    expect(() => settings("", { partitions: "0" })).toThrow("-c partitions: 0 instead of 1 to 256");
  });
});

describe("settings without functions", () => {
  const pipeline = (aws: string) => parsePipeline(`name = "x"\n[aws]\n${aws}\n${STAGES}`);
  const stores = (aws: string, context: Context = {}) => resolveStoreSettings(pipeline(aws), (key) => context[key]);

  it("are said by the file, or by the context", () => {
    const has = (aws: string, context: Context = {}) => hasFunctions(pipeline(aws), (key) => context[key]);
    expect([has(""), has("functions = true"), has("functions = false")]).toEqual([true, true, false]);
    expect([has("", { functions: "false" }), has("functions = false", { functions: "true" })]).toEqual([false, true]);
    expect(() => has('functions = "no"')).toThrow('aws.functions: "no" instead of true or false');
  });

  it("are those of stores", () => {
    expect(stores("functions = false")).toEqual({ keepData: false, rowsExpire: undefined });
    const told = stores('functions = false\nkeep_data = true\nrows_expire = "90d"');
    expect(told).toMatchObject({ keepData: true, rowsExpire: { text: "90d" } });
    expect(() => stores('functions = false\nrows_expire = "0s"')).toThrow("aws.rows_expire: ");
  });

  const EXAMPLES = {
    architecture: '"x86_64"',
    authorization: '"iam"',
    partitions: "1",
    fuse: "[]",
    memory_mib: "512",
    concurrency: "5",
    timeout: '"30s"',
    alarms_email: '"ops@example.com"',
    log_retention_days: "14",
    schedule: '"rate(1 minute)"',
  };

  it.each(Object.entries(EXAMPLES))("refuse what is only for functions: %s", (key, value) => {
    const expected = `${key}: only for functions, and aws.functions is false: leave it out`;
    expect(() => stores(`functions = false\n${key} = ${value}`)).toThrow(`aws.${expected}`);
    expect(() => stores("functions = false", { [key]: value })).toThrow(`-c ${expected}`);
  });

  it("and those of functions are all that there are", () => {
    const all = ["functions", "keep_data", "rows_expire", ...Object.keys(EXAMPLES)];
    expect(all.sort()).toEqual([...KEYS].sort());
  });
});

describe("the package", () => {
  it("is looked for where it is built, and its absence names what builds it", () => {
    expect(() => resolvePackage(() => undefined, "arm64")).toThrow(
      "-c package: no bootstrap in ../../target/lambda/arm64; `cargo xtask lambda` builds it",
    );
  });

  it("needs a bootstrap", () => {
    expect(resolvePackage(() => "test/package", "x86_64")).toBe("test/package");
    expect(() => resolvePackage(() => "src", "x86_64")).toThrow("no bootstrap in src");
    expect(() => resolvePackage(() => true, "x86_64")).toThrow("-c package: true instead of a folder");
  });
});
