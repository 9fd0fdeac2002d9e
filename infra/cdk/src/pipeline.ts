import { readFileSync } from "node:fs";
import { parse } from "smol-toml";
import { type Span, seconds } from "./duration.ts";
import { isName, isTable, Section, type Table } from "./section.ts";
import { unfit, Wrong } from "./wrong.ts";

/** What a stack takes from a pipeline file. Keys that it does not read are the host's to check. */
export interface Pipeline {
  readonly name: string;
  /** How the first stage reads what comes in. */
  readonly format: string;
  readonly watermark: Watermark;
  /** In the order of the data. */
  readonly stages: readonly Stage[];
  /** `[aws]`, as it is written. */
  readonly aws: Table;
}

/** Durations are texts as in the file. */
export interface Watermark {
  readonly delay: string;
  readonly every: string;
  readonly max_future: string;
  readonly idle: string;
}

export interface Stage {
  readonly name: string;
  /** A name, or a path that ends in .wasm. */
  readonly component: string;
  readonly settings: Table;
  readonly memory_mib: number;
  readonly timePerBatch: Span;
}

/** As in the host. */
const STAGES_MAX = 32;
const MEMORY_MIB_MAX = 4096;
/** What the ledger calls the step behind the first stage, which is no component. */
const WATERMARK_STAGE = "watermark";

/** Reads a pipeline file. Errors name the file, the key, the value and what would be right. */
export function loadPipeline(path: string): Pipeline {
  const text = readText(path);
  try {
    return parsePipeline(text);
  } catch (error) {
    throw error instanceof Wrong ? new Wrong(`${path}: ${error.message}`) : error;
  }
}

/** Reads the text of a pipeline file. */
export function parsePipeline(text: string): Pipeline {
  const file = new Section(parseToml(text), (key) => key);
  const aws = file.value("aws") ?? {};
  if (!isTable(aws)) {
    throw file.unfit("aws", "a table");
  }
  return {
    name: file.name("name"),
    format: format(file.section("source")),
    watermark: watermark(file.section("watermark")),
    stages: stages(file),
    aws,
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Wrong(`${path}: cannot be read as a pipeline file: ${(error as Error).message}`);
  }
}

function parseToml(text: string): Table {
  try {
    return parse(text);
  } catch (error) {
    throw new Wrong(`not TOML: ${(error as Error).message.trimEnd()}`);
  }
}

function format(source: Section): string {
  const type = source.oneOf("type", ["none", "simulator"], "none");
  return source.name("format", type === "simulator" ? "binance" : "events");
}

function watermark(section: Section): Watermark {
  return {
    delay: section.span("delay", "0s", "1s").text,
    every: section.span("every", "1ns", "1s").text,
    max_future: section.span("max_future", "0s", "10s").text,
    idle: section.span("idle", "1ns", "5s").text,
  };
}

function stages(file: Section): Stage[] {
  const tables = file.value("stages") ?? [];
  if (!Array.isArray(tables) || !tables.every(isTable)) {
    throw file.unfit("stages", "tables, one for each stage");
  }
  if (tables.length < 2 || tables.length > STAGES_MAX) {
    throw new Wrong(`stages: ${tables.length} stages instead of 2 to ${STAGES_MAX}`);
  }
  const names = new Set<string>();
  return tables.map((table) => {
    const section = new Section(table, (key) => `stages.${label(table, tables)}.${key}`);
    const stage = resolveStage(section);
    if (names.has(stage.name)) {
      throw section.unfit("name", "a name that no other stage has");
    }
    names.add(stage.name);
    return stage;
  });
}

/** A stage by its name, or by its position when it has none. */
function label(table: Table, tables: readonly Table[]): string {
  return typeof table.name === "string" ? table.name : String(tables.indexOf(table));
}

function resolveStage(section: Section): Stage {
  const name = section.name("name");
  if (name === WATERMARK_STAGE) {
    throw section.unfit("name", "another name: the ledger calls our own step so");
  }
  const component = section.text("component", name);
  if (!component.endsWith(".wasm") && !isName(component)) {
    throw section.unfit("component", 'a name such as "dedup" or a path that ends in .wasm');
  }
  return {
    name,
    component,
    settings: settings(section, name),
    memory_mib: section.integer("memory_mib", [1, MEMORY_MIB_MAX], 256),
    timePerBatch: section.span("time_per_batch", "10ms", "5s"),
  };
}

function settings(section: Section, stage: string): Table {
  const value = section.value("settings") ?? {};
  if (!isTable(value)) {
    throw section.unfit("settings", "a table");
  }
  checkJson(`stages.${stage}.settings`, value);
  return value;
}

/** JSON knows neither dates nor infinite numbers, and a component would not see that one was meant. */
function checkJson(key: string, value: unknown): void {
  if (value instanceof Date) {
    throw unfit(key, value, "a text: put it in quotes");
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw unfit(key, value, "a finite number");
  }
  if (Array.isArray(value)) {
    value.forEach((item, at) => {
      checkJson(`${key}[${at}]`, item);
    });
  } else if (isTable(value)) {
    for (const [name, member] of Object.entries(value)) {
      checkJson(`${key}.${name}`, member);
    }
  }
}

/** Seconds that a call may take that runs each of these stages once. */
export function timePerCall(stages: readonly Stage[]): number {
  return stages.reduce((sum, stage) => sum + seconds(stage.timePerBatch), 0);
}
