import { describe, expect, it } from "vitest";
import { Synthesized } from "./stack.ts";

const STAGES = ["fetch", "dedup", "enrich", "aggregate", "alarm", "write"];
const RETENTION_S = 14 * 86_400;

describe("a hop", () => {
  const stack = new Synthesized({ timeout: "45s" });

  it.each(STAGES)("to %s: FIFO, by message group, without looking at contents, encrypted", (stage) => {
    for (const queue of ["Queue", "DeadLetters"]) {
      expect(stack.one("AWS::SQS::Queue", `Hops/${stage}/${queue}`)).toMatchObject({
        FifoQueue: true,
        DeduplicationScope: "messageGroup",
        FifoThroughputLimit: "perMessageGroupId",
        ContentBasedDeduplication: false,
        SqsManagedSseEnabled: true,
        MessageRetentionPeriod: RETENTION_S,
      });
    }
  });

  it.each(STAGES)("to %s: has dead letters of its own, after as many tries as SQS knows", (stage) => {
    const { RedrivePolicy } = stack.one("AWS::SQS::Queue", `Hops/${stage}/Queue`);
    expect(stack.name(RedrivePolicy.deadLetterTargetArn)).toBe(`Hops/${stage}/DeadLetters.Arn`);
    expect(RedrivePolicy.maxReceiveCount).toBe(1000);
  });

  it.each(STAGES)("to %s: keeps a message for six calls before others see it", (stage) => {
    const { VisibilityTimeout } = stack.one("AWS::SQS::Queue", `Hops/${stage}/Queue`);
    const { Timeout } = stack.one("AWS::Lambda::Function", `Stages/${stage}/Function`);
    expect(Timeout).toBe(45);
    expect(VisibilityTimeout).toBeGreaterThanOrEqual(6 * Timeout);
  });

  it.each(STAGES)("to %s: only over TLS", (stage) => {
    for (const queue of ["Queue", "DeadLetters"]) {
      const policy = stack.one("AWS::SQS::QueuePolicy", `Hops/${stage}/${queue}/Policy`);
      expect(policy.PolicyDocument.Statement).toEqual([
        expect.objectContaining({
          Effect: "Deny",
          Action: "sqs:*",
          Principal: { AWS: "*" },
          Condition: { Bool: { "aws:SecureTransport": "false" } },
        }),
      ]);
      expect(policy.Queues.map((of: unknown) => stack.name(of))).toEqual([`Hops/${stage}/${queue}`]);
    }
  });

  it.each(STAGES)("to %s: calls its function with ten messages, which fail one by one", (stage) => {
    const mapping = stack.one("AWS::Lambda::EventSourceMapping", `Hops/${stage}/Mapping`);
    expect(mapping).toMatchObject({ BatchSize: 10, FunctionResponseTypes: ["ReportBatchItemFailures"] });
    expect(stack.name(mapping.EventSourceArn)).toBe(`Hops/${stage}/Queue.Arn`);
    expect(stack.name(mapping.FunctionName)).toBe(`Stages/${stage}/Function`);
  });

  it.each([
    ["as often at once as there are partitions", { partitions: "8" }, undefined],
    ["no more often than is set aside", { partitions: "8", concurrency: "5" }, 5],
    ["once where one call is set aside for one partition", { concurrency: "1" }, undefined],
    ["with what the account has", { partitions: "8", concurrency: "unreserved" }, undefined],
  ])("calls its function %s", (_, context, calls) => {
    const stack = new Synthesized(context);
    for (const stage of STAGES) {
      const { ScalingConfig } = stack.one("AWS::Lambda::EventSourceMapping", `Hops/${stage}/Mapping`);
      expect(ScalingConfig).toEqual(calls === undefined ? undefined : { MaximumConcurrency: calls });
    }
  });

  it("fused stages have none between them, and the one into them keeps its name", () => {
    const fused = new Synthesized({ fuse: '[["dedup", "enrich"], ["aggregate", "alarm"]]' });
    const queues = ["fetch", "dedup", "aggregate", "write"].flatMap((stage) => [
      `Hops/${stage}/DeadLetters`,
      `Hops/${stage}/Queue`,
    ]);
    expect(Object.keys(fused.all("AWS::SQS::Queue")).sort()).toEqual(queues.sort());
    const mapping = fused.one("AWS::Lambda::EventSourceMapping", "Hops/dedup/Mapping");
    expect(fused.name(mapping.FunctionName)).toBe("Stages/dedup+enrich/Function");
  });
});
