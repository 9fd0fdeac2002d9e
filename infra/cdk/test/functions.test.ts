import { describe, expect, it } from "vitest";
import { Synthesized } from "./stack.ts";

const EVERYWHERE = {
  TAPELINE_PIPELINE: "bitcoin-trades",
  TAPELINE_PARTITIONS: "1",
  TAPELINE_STATE_TABLE: "Stores/State",
  TAPELINE_DEAD_LETTERS_TABLE: "Stores/DeadLetters",
  TAPELINE_LEDGER_TABLE: "Stores/Ledger",
  TAPELINE_COMPONENTS_BUCKET: "Stores/Components",
};

/** Without what its stages are told, which is compared as JSON. */
function environment(stack: Synthesized, segment: string) {
  const { TAPELINE_STAGES, ...rest } = stack.environment(segment);
  return { rest, stages: JSON.parse(TAPELINE_STAGES ?? "") };
}

describe("the environment of", () => {
  const stack = new Synthesized();

  it("the first function", () => {
    const { rest, stages } = environment(stack, "fetch");
    expect(rest).toEqual({
      ...EVERYWHERE,
      TAPELINE_IN_QUEUE_URL: "Hops/fetch/Queue",
      TAPELINE_OUT_QUEUE_URL: "Hops/dedup/Queue",
      TAPELINE_OBJECTS_BUCKET: "Stores/Objects",
      TAPELINE_FORMAT: "binance",
      TAPELINE_WATERMARK: '{"delay":"2s","every":"1s","max_future":"10s","idle":"5s"}',
    });
    expect(stages).toEqual([
      { name: "fetch", component: "fetch", settings: {}, memory_mib: 256, time_per_batch: "5s" },
    ]);
  });

  it("a function in the middle", () => {
    const { rest, stages } = environment(stack, "dedup");
    expect(rest).toEqual({
      ...EVERYWHERE,
      TAPELINE_IN_QUEUE_URL: "Hops/dedup/Queue",
      TAPELINE_OUT_QUEUE_URL: "Hops/enrich/Queue",
    });
    expect(stages).toEqual([
      {
        name: "dedup",
        component: "dedup",
        settings: { policy: "id", keep: "24h" },
        memory_mib: 256,
        time_per_batch: "5s",
      },
    ]);
  });

  it("the last function", () => {
    const { rest, stages } = environment(stack, "write");
    expect(rest).toEqual({
      ...EVERYWHERE,
      TAPELINE_IN_QUEUE_URL: "Hops/write/Queue",
      TAPELINE_ROWS_TABLE: "Stores/Rows",
      TAPELINE_OBJECTS_BUCKET: "Stores/Objects",
      TAPELINE_ALARMS_TOPIC_ARN: "Alarms/Topic",
    });
    expect(stages[0].settings.tables).toEqual(["trades", "bars", "averages", "alarms"]);
  });

  it("fused stages: all of them in order, between their neighbours", () => {
    const fused = new Synthesized({ fuse: '[["enrich", "aggregate", "alarm"]]', partitions: "4" });
    const { rest, stages } = environment(fused, "enrich+aggregate+alarm");
    expect(rest).toEqual({
      ...EVERYWHERE,
      TAPELINE_PARTITIONS: "4",
      TAPELINE_IN_QUEUE_URL: "Hops/enrich/Queue",
      TAPELINE_OUT_QUEUE_URL: "Hops/write/Queue",
    });
    expect(stages.map((stage: { name: string }) => stage.name)).toEqual(["enrich", "aggregate", "alarm"]);
    expect(fused.environment("dedup").TAPELINE_OUT_QUEUE_URL).toBe("Hops/enrich/Queue");
  });

  it("a function with a token, and a writer whose rows expire", () => {
    const more = new Synthesized({ authorization: "token", rows_expire: "90d" });
    expect(more.environment("dedup").TAPELINE_ADMIN_TOKEN_SECRET_ARN).toBe("Token/Secret");
    expect(more.environment("dedup").TAPELINE_ROWS_EXPIRE).toBeUndefined();
    expect(more.environment("write").TAPELINE_ROWS_EXPIRE).toBe("90d");
  });

  it("settings of any kind: they arrive as the file has them", () => {
    const stages = `[[stages]]\nname = "a"\n[stages.settings]\nnames = { "A:B" = ["ü", 1.5, -2, true, {}] }`;
    const stack = new Synthesized({}, `name = "x"\n${stages}\n[[stages]]\nname = "b"\ncomponent = "../b.wasm"`);
    expect(environment(stack, "a").stages[0].settings).toEqual({ names: { "A:B": ["ü", 1.5, -2, true, {}] } });
    expect(environment(stack, "b").stages[0].component).toBe("../b.wasm");
    expect(stack.environment("a")).toMatchObject({
      TAPELINE_FORMAT: "events",
      TAPELINE_WATERMARK: '{"delay":"1s","every":"1s","max_future":"10s","idle":"5s"}',
    });
  });
});

describe("an environment over 4 KB", () => {
  const text = (letters: number) =>
    `name = "x"\n[[stages]]\nname = "a"\nsettings.text = "${"x".repeat(letters)}"\n[[stages]]\nname = "b"`;

  it("names the function, its size and what may be done", () => {
    expect(() => new Synthesized({}, text(4096))).toThrow(
      /function a: \d{4} bytes of environment instead of at most 4096, \d{4} of them in TAPELINE_STAGES: shorten/,
    );
  });

  it("counts what only CloudFormation knows, and signs that JSON escapes", () => {
    expect(() => new Synthesized({}, text(2500))).not.toThrow();
    expect(() => new Synthesized({}, text(3600))).toThrow("bytes of environment");
    expect(() => new Synthesized({}, text(2500).replaceAll("xx", '\\"\\"'))).toThrow("bytes of environment");
  });
});

describe("a function", () => {
  it("runs bootstrap for as long, with as much and as often as it is told", () => {
    const stack = new Synthesized({ memory_mib: "1024", concurrency: "7", timeout: "1m", architecture: "arm64" });
    expect(stack.one("AWS::Lambda::Function", "Stages/alarm/Function")).toMatchObject({
      Runtime: "provided.al2023",
      Handler: "bootstrap",
      Architectures: ["arm64"],
      MemorySize: 1024,
      Timeout: 60,
      ReservedConcurrentExecutions: 7,
    });
  });

  it("has the defaults that are documented", () => {
    const stack = new Synthesized({ partitions: "3" });
    expect(stack.one("AWS::Lambda::Function", "Stages/alarm/Function")).toMatchObject({
      Architectures: ["x86_64"],
      MemorySize: 512,
      Timeout: 30,
      ReservedConcurrentExecutions: 3 + 4,
    });
  });

  it("can share the concurrency of the account", () => {
    const stack = new Synthesized({ concurrency: "unreserved" });
    const properties = stack.one("AWS::Lambda::Function", "Stages/alarm/Function");
    expect(properties.ReservedConcurrentExecutions).toBeUndefined();
  });

  it("logs into a group of its own, which forgets and goes with the stack", () => {
    const stack = new Synthesized({ log_retention_days: "30" });
    const { LoggingConfig } = stack.one("AWS::Lambda::Function", "Stages/alarm/Function");
    expect(stack.name(LoggingConfig.LogGroup)).toBe("Stages/alarm/Logs");
    for (const group of Object.values(stack.all("AWS::Logs::LogGroup"))) {
      expect(group).toMatchObject({ DeletionPolicy: "Delete", Properties: { RetentionInDays: 30 } });
    }
    const group = new Synthesized().one("AWS::Logs::LogGroup", "Stages/alarm/Logs");
    expect(group.RetentionInDays).toBe(14);
  });
});
