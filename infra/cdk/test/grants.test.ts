import { describe, expect, it } from "vitest";
import { Synthesized } from "./stack.ts";

const STATE = "dynamodb:BatchGetItem dynamodb:DeleteItem dynamodb:GetItem dynamodb:PutItem dynamodb:UpdateItem";
const PUT = "dynamodb:PutItem";
const CONSUME = "sqs:DeleteMessage sqs:GetQueueAttributes sqs:ReceiveMessage";

/** What each function may do wherever it is in the chain. */
function everyFunction(segment: string, hop = segment): string[] {
  return [
    `Hops/${hop}/Queue.Arn: ${CONSUME}`,
    `Stages/${segment}/Logs.Arn: logs:CreateLogStream logs:PutLogEvents`,
    "Stores/Components.Arn/*: s3:GetObject",
    "Stores/Components.Arn: s3:ListBucket",
    `Stores/DeadLetters.Arn: ${PUT}`,
    "Stores/Ledger.Arn: dynamodb:UpdateItem",
    `Stores/State.Arn: ${STATE}`,
  ];
}

const WRITER = [
  "Alarms/Key.Arn: kms:Decrypt kms:GenerateDataKey",
  "Alarms/Topic: sns:Publish",
  "Stores/Objects.Arn/*: s3:PutObject",
  `Stores/Rows.Arn: ${PUT}`,
];

function sends(hop: string): string {
  return `Hops/${hop}/Queue.Arn: sqs:SendMessage`;
}

describe("a role can do exactly what its function needs", () => {
  const stack = new Synthesized();
  const middle = { dedup: "enrich", enrich: "aggregate", aggregate: "alarm", alarm: "write" };

  it("the first function: also send to the queue that feeds it, and keep records as they came", () => {
    const expected = [
      ...everyFunction("fetch"),
      sends("fetch"),
      sends("dedup"),
      "Stores/Objects.Arn/raw/*: s3:PutObject",
    ];
    expect(stack.grants("Stages/fetch/Role")).toEqual(expected.sort());
  });

  it.each(Object.entries(middle))("%s: only on to %s", (stage, next) => {
    expect(stack.grants(`Stages/${stage}/Role`)).toEqual([...everyFunction(stage), sends(next)].sort());
  });

  it("the last function: rows, files and alarms, and no queue", () => {
    expect(stack.grants("Stages/write/Role")).toEqual([...everyFunction("write"), ...WRITER].sort());
  });

  it("fused stages share one role", () => {
    const fused = new Synthesized({ fuse: '[["dedup", "enrich"]]' });
    const expected = [...everyFunction("dedup+enrich", "dedup"), sends("aggregate")];
    expect(fused.grants("Stages/dedup+enrich/Role")).toEqual(expected.sort());
  });

  it("with a token each function may read it, and nothing else is added", () => {
    const token = new Synthesized({ authorization: "token" });
    const expected = [...everyFunction("dedup"), sends("enrich"), "Token/Secret: secretsmanager:GetSecretValue"];
    expect(token.grants("Stages/dedup/Role")).toEqual(expected.sort());
  });

  it("the schedule may call the first function", () => {
    const scheduled = new Synthesized({ schedule: "rate(1 minute)" });
    expect(scheduled.grants("Schedule/Role")).toEqual(["Stages/fetch/Function.Arn: lambda:InvokeFunction"]);
  });

  it("there are no other roles than those, and that of CDK which empties buckets", () => {
    const expected = ["fetch", "dedup", "enrich", "aggregate", "alarm", "write"].map((stage) => `Stages/${stage}/Role`);
    expect(Object.keys(stack.all("AWS::IAM::Role")).sort()).toEqual(
      ["Custom::S3AutoDeleteObjectsCustomResourceProvider/Role", ...expected].sort(),
    );
    expect(Object.keys(new Synthesized({ keep: "true" }).all("AWS::IAM::Role")).sort()).toEqual(expected.sort());
  });
});

describe("the other way around", () => {
  const stack = new Synthesized();

  it("only the HTTP API, and only by the function's routes, may call a function", () => {
    const permissions = Object.values(stack.all("AWS::Lambda::Permission")).map(({ Properties }) => [
      stack.name(Properties.FunctionName),
      Properties.Principal,
      stack.name(Properties.SourceArn).replace(/.*\/Api/, ""),
    ]);
    const invoke = (stage: string) => [
      `Stages/${stage}/Function.Arn`,
      "apigateway.amazonaws.com",
      `/*/*/stages/${stage}/invoke`,
    ];
    expect(permissions).toEqual([
      // Whatever no other route is for: the ARN of such a call has any method and path.
      ["Stages/fetch/Function.Arn", "apigateway.amazonaws.com", "/*/*"],
      ...["fetch", "dedup", "enrich", "aggregate", "alarm", "write"].map(invoke),
      ["Stages/fetch/Function.Arn", "apigateway.amazonaws.com", "/*/*/pipelines/bitcoin-trades/events"],
      ["Stages/fetch/Function.Arn", "apigateway.amazonaws.com", "/*/*/healthz"],
    ]);
  });

  it("a role is for Lambda alone", () => {
    const { Statement } = stack.one("AWS::IAM::Role", "Stages/fetch/Role").AssumeRolePolicyDocument;
    expect(Statement).toEqual([
      { Action: "sts:AssumeRole", Effect: "Allow", Principal: { Service: "lambda.amazonaws.com" } },
    ]);
  });

  it("CloudWatch of this account may publish alarms under the topic's key", () => {
    const cloudWatch = {
      Effect: "Allow",
      Principal: { Service: "cloudwatch.amazonaws.com" },
      Condition: { StringEquals: { "aws:SourceAccount": { Ref: "AWS::AccountId" } } },
    };
    const [, topic] = stack.one("AWS::SNS::TopicPolicy", "Alarms/Topic/Policy").PolicyDocument.Statement;
    expect(topic).toMatchObject({ ...cloudWatch, Action: "sns:Publish" });
    const [, key] = stack.one("AWS::KMS::Key", "Alarms/Key").KeyPolicy.Statement;
    expect(key).toMatchObject({ ...cloudWatch, Action: ["kms:Decrypt", "kms:GenerateDataKey"] });
  });
});
