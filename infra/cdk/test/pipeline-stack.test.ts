import { describe, expect, it } from "vitest";
import { createApp } from "../src/app.ts";
import { explained, explainedInVain, unexplained } from "./nag.ts";
import { type Context, type Json, PACKAGE, PIPELINE_FILE, Synthesized, stackOf } from "./stack.ts";

/** Contexts in which a stack has all that it can have. */
const CONTEXTS: readonly Context[] = [
  {},
  {
    authorization: "token",
    schedule: "rate(1 minute)",
    keep: "true",
    fuse: '[["dedup", "enrich"]]',
    alarms_email: "ops@example.com",
    rows_expire: "90d",
  },
];

const appProps = (context: Context) => ({ context: { pipeline: PIPELINE_FILE, package: PACKAGE, ...context } });

/** What AWS takes no tags for, or CDK passes none to; these get them when they are deployed, from the stack. */
const WITHOUT_TAGS = [
  "AWS::ApiGatewayV2::Integration",
  "AWS::ApiGatewayV2::Route",
  "AWS::CloudWatch::Dashboard",
  "AWS::IAM::Policy",
  "AWS::Lambda::EventInvokeConfig",
  "AWS::Lambda::Permission",
  "AWS::S3::BucketPolicy",
  "AWS::SNS::Subscription",
  "AWS::SNS::TopicPolicy",
  "AWS::SQS::QueuePolicy",
  "AWS::Scheduler::Schedule",
  "Custom::S3AutoDeleteObjects",
];

describe("the stack", () => {
  it("is named for its pipeline, and knows neither account nor region", () => {
    const stack = stackOf();
    expect(stack.stackName).toBe("tapeline-bitcoin-trades");
    expect(stack.environment).toBe("aws://unknown-account/unknown-region");
  });

  it("tags whatever takes tags", () => {
    for (const context of CONTEXTS) {
      const stack = new Synthesized(context);
      for (const [id, { Type, Properties }] of Object.entries<Json>(stack.json.Resources)) {
        if (WITHOUT_TAGS.includes(Type) || id.startsWith("CustomS3AutoDeleteObjects")) {
          continue;
        }
        const tags = Array.isArray(Properties.Tags)
          ? Object.fromEntries(Properties.Tags.map(({ Key, Value }: Json) => [Key, Value]))
          : Properties.Tags;
        expect(tags?.["tapeline:pipeline"], `${Type} ${id}`).toBe("bitcoin-trades");
      }
    }
  });

  it("passes the tag on to what CloudFormation tags by itself", () => {
    expect(createApp(appProps({})).app.synth().stacks[0]?.tags).toEqual({ "tapeline:pipeline": "bitcoin-trades" });
  });

  it("says where everything is", () => {
    const stack = new Synthesized({ fuse: '[["dedup", "enrich"]]', authorization: "token" });
    const outputs = Object.entries<Json>(stack.json.Outputs).map(([key, { Value }]) => [key, stack.name(Value)]);
    const segments = {
      Fetch: "fetch",
      DedupEnrich: "dedup+enrich",
      Aggregate: "aggregate",
      Alarm: "alarm",
      Write: "write",
    };
    const ofSegments = Object.entries(segments).flatMap(([name, segment]) => [
      [`Function${name}`, `Stages/${segment}/Function`],
      [`Queue${name}`, `Hops/${segment.replace(/\+.*/, "")}/Queue`],
      [`DeadLetterQueue${name}`, `Hops/${segment.replace(/\+.*/, "")}/DeadLetters`],
    ]);
    expect(Object.fromEntries(outputs)).toEqual({
      PipelineName: "bitcoin-trades",
      Partitions: "1",
      Architecture: "x86_64",
      Engines: "0123456789abcdef",
      Segments: '[["fetch"],["dedup","enrich"],["aggregate"],["alarm"],["write"]]',
      ApiUrl: "https://Http/Api.execute-api.AWS::Region.AWS::URLSuffix/",
      StateTable: "Stores/State",
      RowsTable: "Stores/Rows",
      DeadLettersTable: "Stores/DeadLetters",
      LedgerTable: "Stores/Ledger",
      ObjectsBucket: "Stores/Objects",
      ComponentsBucket: "Stores/Components",
      AlarmsTopicArn: "Alarms/Topic",
      TokenSecretArn: "Token/Secret",
      ...Object.fromEntries(ofSegments),
    });
  });

  it("lets stages be called as they like", () => {
    const names = ["stores", "role", "a-b", "1", "x".repeat(60)];
    const text = `name = "${"x".repeat(60)}"\n${names.map((name) => `[[stages]]\nname = "${name}"\n`).join("")}`;
    expect(Object.keys(new Synthesized({}, text).all("AWS::Lambda::Function"))).toEqual(
      expect.arrayContaining(names.map((name) => `Stages/${name}/Function`)),
    );
  });

  it("is as it was", () => {
    const template = JSON.stringify(new Synthesized().json, undefined, 2);
    // What is in an asset is not for this test: it changes with versions of CDK.
    expect(template.replace(/[0-9a-f]{64}/g, "<asset>")).toMatchSnapshot();
  });
});

describe("the app", () => {
  const app = (context: Context) => createApp(appProps(context));

  it.each(CONTEXTS)("passes the rules of AWS Solutions but for what is explained: %j", (context) => {
    expect(unexplained(app(context).app)).toEqual([]);
  });

  it.each(CONTEXTS)("explains no more than is found: %j", (context) => {
    const { app: root } = app(context);
    expect(explained(root)).not.toEqual([]);
    expect(explainedInVain(root)).toEqual([]);
  });

  it("wants a pipeline file", () => {
    expect(() => createApp({ context: { package: PACKAGE } })).toThrow(
      "-c pipeline: nothing instead of a pipeline file such as ../../pipelines/bitcoin-trades.toml",
    );
  });
});
