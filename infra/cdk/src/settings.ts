import { existsSync } from "node:fs";
import { join } from "node:path";
import { RetentionDays } from "aws-cdk-lib/aws-logs";
import { type Span, seconds } from "./duration.ts";
import { type Pipeline, type Stage, timePerCall } from "./pipeline.ts";
import { Section } from "./section.ts";
import { unfit, Wrong } from "./wrong.ts";

/** What every stack has: tables and a bucket. */
export interface StoreSettings {
  /** Whether tables, buckets and queues stay when the stack goes. */
  readonly keepData: boolean;
  /** After so long a row may go. */
  readonly rowsExpire: Span | undefined;
}

/** How a pipeline is put on AWS: `[aws]` of its file, and the context of the command line, which has the last word. */
export interface Settings extends StoreSettings {
  readonly architecture: Architecture;
  /** Who may call over HTTP: whoever AWS knows and allows, or whoever has the stack's token. */
  readonly authorization: Authorization;
  /** Parts into which symbols are divided: message groups of the queues. */
  readonly partitions: number;
  /** Each the stages of one function, in the order of the data. */
  readonly groups: readonly (readonly Stage[])[];
  /** Of each function. */
  readonly memory_mib: number;
  /** Calls of each function at once, set aside for it; none when calls share what the account has. */
  readonly concurrency: number | undefined;
  /** Limit of a queue's calls at once; none when its message groups are one. */
  readonly batchConcurrency: number | undefined;
  /** Of each function, whole seconds. */
  readonly timeout: Span;
  readonly alarmsEmail: string | undefined;
  readonly logRetentionDays: number;
  /** When EventBridge calls the first function. */
  readonly schedule: string | undefined;
}

export const ARCHITECTURES = ["x86_64", "arm64"] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

export const AUTHORIZATIONS = ["iam", "token"] as const;
export type Authorization = (typeof AUTHORIZATIONS)[number];

/** Where a value of the context comes from: `app.node.tryGetContext`. */
export type Context = (key: string) => unknown;

/** In the order in which they are explained. */
export const KEYS = [
  "functions",
  "architecture",
  "authorization",
  "partitions",
  "fuse",
  "memory_mib",
  "concurrency",
  "timeout",
  "keep_data",
  "alarms_email",
  "log_retention_days",
  "rows_expire",
  "schedule",
] as const;
type Key = (typeof KEYS)[number];

/** Those that say something of tables and buckets; all others are for functions alone. */
const STORE_KEYS: readonly Key[] = ["functions", "keep_data", "rows_expire"];

/** On the command line it reads better without what it is that is kept. */
const CONTEXT_KEYS: Readonly<Record<string, string>> = { keep_data: "keep" };

/** As in the host. */
const PARTITIONS_MAX = 256;
/** What an account has by default. */
const CONCURRENCY_MAX = 1000;
/** Requests over HTTP that a function takes beside a batch of each partition, when nothing else is said. */
const HTTP_CALLS = 4;
/** The least limit that AWS knows for the calls of a queue. */
const BATCH_CONCURRENCY_MIN = 2;
/** What AWS Lambda offers. */
const MEMORY_MIB = [128, 10_240] as const;
const TIMEOUT_SECONDS_MAX = 900;

/** What CloudWatch Logs can keep. */
const RETENTIONS = Object.values(RetentionDays).filter(
  (days): days is RetentionDays => typeof days === "number" && days !== RetentionDays.INFINITE,
);

/** Whether functions work on the pipeline, or hosts of our own on stores that are on AWS. */
export function hasFunctions(pipeline: Pipeline, context: Context): boolean {
  return sectionOf(pipeline, context).flag("functions", true);
}

/** Of a stack without functions; what is for these alone is refused, since nobody would read it. */
export function resolveStoreSettings(pipeline: Pipeline, context: Context): StoreSettings {
  const section = sectionOf(pipeline, context);
  const unread = KEYS.find((key) => !STORE_KEYS.includes(key) && section.value(key) !== undefined);
  if (unread !== undefined) {
    const which = `${section.key("functions")} is false`;
    throw new Wrong(`${section.key(unread)}: only for functions, and ${which}: leave it out`);
  }
  return storeSettings(section);
}

export function resolveSettings(pipeline: Pipeline, context: Context): Settings {
  const section = sectionOf(pipeline, context);
  const partitions = section.integer("partitions", [1, PARTITIONS_MAX], 1);
  const groups = resolveGroups(section, pipeline.stages);
  const concurrency = resolveConcurrency(section, partitions);
  return {
    architecture: section.oneOf("architecture", ARCHITECTURES, "x86_64"),
    authorization: section.oneOf("authorization", AUTHORIZATIONS, "iam"),
    partitions,
    groups,
    memory_mib: section.integer("memory_mib", MEMORY_MIB, 512),
    concurrency,
    batchConcurrency: batchConcurrency(partitions, concurrency),
    timeout: resolveTimeout(section, groups),
    ...storeSettings(section),
    alarmsEmail: resolveMatch(section, "alarms_email", /^[^\s@]+@[^\s@]+$/, "an address such as you@example.com"),
    logRetentionDays: resolveRetention(section),
    schedule: resolveMatch(
      section,
      "schedule",
      /^(rate\(\d+ (minute|hour|day)s?\)|cron\(([^\s()]+ ){5}[^\s()]+\))$/,
      '"rate(1 minute)" or "cron(0 8 * * ? *)"',
    ),
  };
}

function storeSettings(section: Section): StoreSettings {
  return { keepData: section.flag("keep_data", false), rowsExpire: section.span("rows_expire", "1s") };
}

/** The folder with `bootstrap` and the compiled components. */
export function resolvePackage(context: Context, architecture: Architecture): string {
  const value = context("package") ?? join("../../target/lambda", architecture);
  if (typeof value !== "string") {
    throw unfit("-c package", value, "a folder");
  }
  if (!existsSync(join(value, "bootstrap"))) {
    throw new Wrong(`-c package: no bootstrap in ${value}; \`cargo xtask lambda\` builds it`);
  }
  return value;
}

/** The context beats the file, and errors say which of the two it was. */
function sectionOf(pipeline: Pipeline, context: Context): Section {
  new Section(pipeline.aws, (key) => `aws.${key}`).only(KEYS);
  const contextKey = (key: string) => CONTEXT_KEYS[key] ?? key;
  const given = KEYS.map((key) => [key, typed(context(contextKey(key)))] as const);
  const fromContext = Object.fromEntries(given.filter(([, value]) => value !== undefined));
  return new Section({ ...pipeline.aws, ...fromContext }, (key) =>
    key in fromContext ? `-c ${contextKey(key)}` : `aws.${key}`,
  );
}

/** The command line has texts only: those that read as a number, a truth or a list are one. */
function typed(value: unknown): unknown {
  if (typeof value !== "string") {
    return value;
  }
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === "number" || typeof parsed === "boolean" || Array.isArray(parsed) ? parsed : value;
  } catch {
    return value;
  }
}

/** Each stage by itself, but for those that are fused; the first and the last are never fused, as with `[nats] fuse`. */
function resolveGroups(section: Section, stages: readonly Stage[]): Stage[][] {
  const fuse = section.value("fuse") ?? [];
  if (!isListOfNames(fuse)) {
    throw section.unfit("fuse", 'lists of names such as [["dedup", "enrich"]]');
  }
  const begins = stages.map(() => true);
  for (const names of fuse) {
    const positions = names.map((name) => stages.findIndex((stage) => stage.name === name));
    if (positions.includes(-1)) {
      throw section.unfit("fuse", `names of stages: ${stages.map((stage) => stage.name).join(", ")}`);
    }
    const areNeighbours = positions.every((at, nth) => nth === 0 || at === (positions[nth - 1] ?? at) + 1);
    if (!areNeighbours || !positions.every((at) => at > 0 && at < stages.length - 1)) {
      throw section.unfit("fuse", "neighbours in the order of the data, without the first and the last stage");
    }
    for (const at of positions.slice(1)) {
      begins[at] = false;
    }
  }
  return stages.reduce<Stage[][]>((groups, stage, at) => {
    if (begins[at]) {
      groups.push([]);
    }
    groups.at(-1)?.push(stage);
    return groups;
  }, []);
}

function isListOfNames(value: unknown): value is string[][] {
  return Array.isArray(value) && value.every((names) => Array.isArray(names) && names.every(isText));
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function resolveConcurrency(section: Section, partitions: number): number | undefined {
  const value = section.value("concurrency");
  if (value === "unreserved") {
    return undefined;
  }
  if (value !== undefined && typeof value !== "number") {
    throw section.unfit("concurrency", `1 to ${CONCURRENCY_MAX} or "unreserved"`);
  }
  const concurrency = section.integer("concurrency", [1, CONCURRENCY_MAX], partitions + HTTP_CALLS);
  if (concurrency < BATCH_CONCURRENCY_MIN && partitions > 1) {
    throw section.unfit("concurrency", `${BATCH_CONCURRENCY_MIN} or more with ${partitions} partitions`);
  }
  return concurrency;
}

/**
 * A message group is worked on by one call at a time, so that a queue has no more of them than there are partitions. Where
 * less is set aside, it must be limited; where it need not be, a queue without a limit is asked less often when it is empty,
 * which is what costs at rest.
 */
function batchConcurrency(partitions: number, concurrency: number | undefined): number | undefined {
  return concurrency !== undefined && concurrency < partitions ? concurrency : undefined;
}

/** A stage must reach its own limit before Lambda ends the call, or its batch would never be put aside as dead. */
/** Of a call, what reading, sending and writing may take besides the stages. */
const OTHER_SECONDS = 5;

function resolveTimeout(section: Section, groups: readonly (readonly Stage[])[]): Span {
  const timeout = section.span("timeout", "1s", "30s");
  if (timeout.ns % 1e9 !== 0 || seconds(timeout) > TIMEOUT_SECONDS_MAX) {
    throw section.unfit("timeout", `whole seconds from 1s to ${TIMEOUT_SECONDS_MAX}s`);
  }
  for (const stages of groups) {
    const needed = timePerCall(stages);
    if (seconds(timeout) < needed + OTHER_SECONDS) {
      const names = stages.map((stage) => stage.name).join(" and ");
      const right = `${needed + OTHER_SECONDS}s at least: ${needed}s that ${names} may take for a batch, and what is around it`;
      throw unfit(section.key("timeout"), timeout.text, right);
    }
  }
  return timeout;
}

function resolveRetention(section: Section): number {
  const days = section.integer("log_retention_days", [1, RETENTIONS.at(-1) ?? 1], 14);
  if (!RETENTIONS.includes(days)) {
    throw section.unfit("log_retention_days", `one of ${RETENTIONS.join(", ")}`);
  }
  return days;
}

function resolveMatch(section: Section, key: string, pattern: RegExp, expected: string): string | undefined {
  const value = section.value(key);
  if (value !== undefined && !(typeof value === "string" && pattern.test(value))) {
    throw section.unfit(key, expected);
  }
  return value;
}
