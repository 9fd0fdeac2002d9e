import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createApp } from "../src/app.ts";
import { explained, explainedInVain, unexplained } from "./nag.ts";
import { type Context, type Json, Synthesized } from "./stack.ts";

const FILE = "test/stores.toml";
const TEXT = readFileSync(FILE, "utf8");
/** A stack without functions asks for no package. */
const NO_PACKAGE = { package: "/nowhere" };
const CONTEXTS: readonly Context[] = [NO_PACKAGE, { ...NO_PACKAGE, keep: "true" }];
const STORES = ["AWS::DynamoDB::Table", "AWS::S3::Bucket"];

const stack = (context: Context = NO_PACKAGE) => new Synthesized(context, TEXT);

/** Types of resources, but for what of CDK empties the bucket. */
function types(stack: Synthesized): string[] {
  const resources = Object.entries<Json>(stack.json.Resources).filter(([id]) => !id.startsWith("CustomS3AutoDelete"));
  return [...new Set(resources.map(([, { Type }]) => Type))].sort();
}

describe("a stack without functions", () => {
  it("has stores, what hosts may do, and nothing that runs", () => {
    const stores = ["AWS::DynamoDB::Table", "AWS::IAM::ManagedPolicy", "AWS::S3::Bucket", "AWS::S3::BucketPolicy"];
    expect(types(stack())).toEqual([...stores, "Custom::S3AutoDeleteObjects"]);
    const kept = stack({ ...NO_PACKAGE, keep: "true" });
    expect([...new Set(Object.values<Json>(kept.json.Resources).map(({ Type }) => Type))].sort()).toEqual(stores);
  });

  it("has the stores of one with functions, but for components", () => {
    const withFunctions = new Synthesized({}, TEXT.replace("functions = false", ""));
    for (const type of STORES) {
      const { "Stores/Components": components, ...expected } = withFunctions.all(type);
      expect(components === undefined).toBe(type !== "AWS::S3::Bucket");
      expect(stack().all(type)).toEqual(expected);
    }
    const { Rows, ...others } = Object.fromEntries(
      Object.entries(stack().all("AWS::DynamoDB::Table")).map(([path, table]) => [path.replace("Stores/", ""), table]),
    );
    expect(Object.keys(others)).toEqual(["State", "DeadLetters", "Ledger"]);
    expect(Rows.Properties.TimeToLiveSpecification).toEqual({ AttributeName: "expires", Enabled: true });
  });

  it("keeps its data with keep, and loses it by default", () => {
    for (const [context, policy] of [
      [NO_PACKAGE, "Delete"],
      [{ ...NO_PACKAGE, keep: "true" }, "Retain"],
    ] as const) {
      const synthesized = stack(context);
      const data = STORES.flatMap((type) => Object.entries(synthesized.all(type)));
      expect(data).toHaveLength(4 + 1);
      for (const [path, resource] of data) {
        expect(resource, path).toMatchObject({ DeletionPolicy: policy, UpdateReplacePolicy: policy });
      }
    }
  });

  it("lets hosts do exactly what they need", () => {
    expect(stack().grantsOf("Hosts/Policy")).toEqual([
      "Stores/DeadLetters.Arn: dynamodb:PutItem dynamodb:Query",
      "Stores/Ledger.Arn: dynamodb:Query dynamodb:Scan dynamodb:UpdateItem",
      "Stores/Objects.Arn/*: s3:PutObject",
      "Stores/Rows.Arn: dynamodb:PutItem dynamodb:Query dynamodb:Scan",
      "Stores/State.Arn: dynamodb:BatchGetItem dynamodb:DeleteItem dynamodb:GetItem dynamodb:PutItem dynamodb:UpdateItem",
      "arn:AWS::Partition:cloudformation:AWS::Region:AWS::AccountId:stack/tapeline-on-hosts/*: cloudformation:DescribeStacks",
    ]);
    expect(stack({ ...NO_PACKAGE, keep: "true" }).all("AWS::IAM::Role")).toEqual({});
  });

  it("says where everything is", () => {
    const synthesized = stack();
    const outputs = Object.entries<Json>(synthesized.json.Outputs);
    expect(Object.fromEntries(outputs.map(([key, { Value }]) => [key, synthesized.name(Value)]))).toEqual({
      PipelineName: "on-hosts",
      Functions: "false",
      Segments: "[]",
      Stages: '["fetch","write"]',
      RowsExpire: "7776000",
      StateTable: "Stores/State",
      RowsTable: "Stores/Rows",
      DeadLettersTable: "Stores/DeadLetters",
      LedgerTable: "Stores/Ledger",
      ObjectsBucket: "Stores/Objects",
      HostPolicyArn: "Hosts/Policy",
    });
    const forever = new Synthesized(NO_PACKAGE, TEXT.replace(/^rows_expire.*$/m, ""));
    expect(Object.keys(forever.json.Outputs)).not.toContain("RowsExpire");
  });

  it("is named and tagged as one with functions", () => {
    const { app, stack } = createApp({ context: { pipeline: FILE, ...NO_PACKAGE } });
    expect(stack.stackName).toBe("tapeline-on-hosts");
    expect(app.synth().stacks[0]?.tags).toEqual({ "tapeline:pipeline": "on-hosts" });
  });

  it.each(CONTEXTS)("passes the rules of AWS Solutions but for what is explained: %j", (context) => {
    const { app } = createApp({ context: { pipeline: FILE, ...context } });
    expect(unexplained(app)).toEqual([]);
    expect(explained(app)).not.toEqual([]);
    expect(explainedInVain(app)).toEqual([]);
  });

  it("is as it was", () => {
    const template = JSON.stringify(stack({ ...NO_PACKAGE, keep: "true" }).json, undefined, 2);
    expect(template).toMatchSnapshot();
  });
});
