import { describe, expect, it } from "vitest";
import { type Json, Synthesized } from "./stack.ts";

const STAGES = ["fetch", "dedup", "enrich", "aggregate", "alarm", "write"];

/** What an alarm looks at, and when it goes off. */
function alarm(stack: Synthesized, id: string) {
  const alarm = stack.one("AWS::CloudWatch::Alarm", `Monitoring/${id}`);
  const [dimension] = alarm.Dimensions;
  return {
    metric: `${alarm.Namespace} ${alarm.MetricName} ${alarm.Statistic}`,
    of: stack.name(dimension.Value),
    above: alarm.Threshold,
    periods: alarm.EvaluationPeriods,
  };
}

describe("an alarm", () => {
  const stack = new Synthesized({ timeout: "1m" });

  it("goes off when rows are late", () => {
    expect(alarm(stack, "Freshness")).toEqual({
      metric: "Tapeline LagMilliseconds Maximum",
      of: "bitcoin-trades",
      above: 60_000,
      periods: 5,
    });
    const { Dimensions } = stack.one("AWS::CloudWatch::Alarm", "Monitoring/Freshness");
    expect(Dimensions).toEqual([{ Name: "Pipeline", Value: "bitcoin-trades" }]);
  });

  it.each([
    ["PutAside", "RecordsPutAside"],
    ["TakenBack", "VersionsTakenBack"],
  ])("goes off at the first of what functions count: %s", (id, metric) => {
    expect(alarm(stack, id)).toEqual({
      metric: `Tapeline ${metric} Sum`,
      of: "bitcoin-trades",
      above: 0,
      periods: 1,
    });
    const { Dimensions } = stack.one("AWS::CloudWatch::Alarm", `Monitoring/${id}`);
    expect(Dimensions).toEqual([{ Name: "Pipeline", Value: "bitcoin-trades" }]);
  });

  it.each(STAGES)("goes off when something is wrong with %s", (stage) => {
    const queue = `Hops/${stage}/Queue.QueueName`;
    const deadLetters = `Hops/${stage}/DeadLetters.QueueName`;
    const lambda = `Stages/${stage}/Function`;
    expect(alarm(stack, `${stage}-Age`)).toEqual({
      metric: "AWS/SQS ApproximateAgeOfOldestMessage Maximum",
      of: queue,
      above: 2 * 6 * 60,
      periods: 1,
    });
    expect(alarm(stack, `${stage}-DeadLetters`)).toEqual({
      metric: "AWS/SQS ApproximateNumberOfMessagesVisible Maximum",
      of: deadLetters,
      above: 0,
      periods: 1,
    });
    expect(alarm(stack, `${stage}-Errors`)).toEqual({
      metric: "AWS/Lambda Errors Sum",
      of: lambda,
      above: 0,
      periods: 1,
    });
    expect(alarm(stack, `${stage}-Throttles`)).toEqual({
      metric: "AWS/Lambda Throttles Sum",
      of: lambda,
      above: 0,
      periods: 5,
    });
  });

  it("tells the topic, and that it is over; silence is none", () => {
    const alarms = Object.values<Json>(stack.all("AWS::CloudWatch::Alarm"));
    // What infra/README.md counts with.
    expect(alarms).toHaveLength(3 + 4 * STAGES.length);
    for (const { Properties } of alarms) {
      expect(Properties).toMatchObject({
        TreatMissingData: "notBreaching",
        ComparisonOperator: "GreaterThanThreshold",
        Period: 60,
      });
      for (const actions of [Properties.AlarmActions, Properties.OKActions]) {
        expect(actions.map((action: Json) => stack.name(action))).toEqual(["Alarms/Topic"]);
      }
    }
  });
});

describe("the topic", () => {
  it("is encrypted, and takes nothing without TLS", () => {
    const stack = new Synthesized();
    const { KmsMasterKeyId } = stack.one("AWS::SNS::Topic", "Alarms/Topic");
    expect(stack.name(KmsMasterKeyId)).toBe("Alarms/Key.Arn");
    const [statement] = stack.one("AWS::SNS::TopicPolicy", "Alarms/Topic/Policy").PolicyDocument.Statement;
    expect(statement).toMatchObject({
      Effect: "Deny",
      Action: "sns:Publish",
      Principal: "*",
      Condition: { Bool: { "aws:SecureTransport": "false" } },
    });
  });

  it("writes to an address when there is one", () => {
    expect(new Synthesized().all("AWS::SNS::Subscription")).toEqual({});
    const stack = new Synthesized({ alarms_email: "ops@example.com" });
    const [subscription] = Object.values(stack.all("AWS::SNS::Subscription"));
    expect(subscription.Properties).toMatchObject({ Protocol: "email", Endpoint: "ops@example.com" });
  });
});

describe("the dashboard", () => {
  const stack = new Synthesized();
  const { DashboardBody } = stack.one("AWS::CloudWatch::Dashboard", "Monitoring/Dashboard");
  /** What CloudFormation makes of it, with something in the place of what it knows then. */
  const parts: Json[] = DashboardBody["Fn::Join"][1];
  const { widgets } = JSON.parse(parts.map((part) => (typeof part === "string" ? part : "x")).join(""));
  const metrics: Json[] = widgets.flatMap(({ properties }: Json) => properties.metrics ?? []);

  it("shows lag, hops, dead letters and functions", () => {
    const body = JSON.stringify(metrics);
    for (const metric of [
      "LagMilliseconds",
      "ApproximateAgeOfOldestMessage",
      "ApproximateNumberOfMessagesVisible",
      "Invocations",
      "Duration",
      "Errors",
      "Throttles",
    ]) {
      expect(body).toContain(metric);
    }
  });

  it("looks for what functions have counted", () => {
    const searches = metrics.map(([first]) => first.expression).filter((expression) => expression !== undefined);
    const ofEach = (name: string) =>
      `SEARCH('{Tapeline,Function,Pipeline} MetricName="${name}" Pipeline="bitcoin-trades"', 'Sum', 60)`;
    expect(searches).toEqual(
      ["RecordsDead", "RecordsPutAside", "MessagesNotDone", "VersionsTakenBack"].map((name) => ofEach(name)),
    );
  });

  it("names no more metrics than a free one may", () => {
    expect(metrics.filter(([first]) => typeof first === "string").length).toBeLessThanOrEqual(50);
  });
});
