import { describe, expect, it } from "vitest";
import { Synthesized } from "./stack.ts";

const stack = new Synthesized();
const TABLES = {
  State: ["key"],
  Rows: ["table_symbol", "at"],
  DeadLetters: ["stage", "at"],
  Ledger: ["stage_symbol", "day_partition"],
};
const BUCKETS = ["Objects", "Components"];

describe("a table", () => {
  it.each(Object.entries(TABLES))("%s: its keys", (table, keys) => {
    const { KeySchema, AttributeDefinitions } = stack.one("AWS::DynamoDB::Table", `Stores/${table}`);
    expect(KeySchema).toEqual(keys.map((AttributeName, at) => ({ AttributeName, KeyType: ["HASH", "RANGE"][at] })));
    expect(AttributeDefinitions).toEqual(keys.map((AttributeName) => ({ AttributeName, AttributeType: "S" })));
  });

  it.each(Object.keys(TABLES))("%s: by demand, recoverable, encrypted, and items expire", (table) => {
    expect(stack.one("AWS::DynamoDB::Table", `Stores/${table}`)).toMatchObject({
      BillingMode: "PAY_PER_REQUEST",
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
      TimeToLiveSpecification: { AttributeName: "expires", Enabled: true },
      SSESpecification: { SSEEnabled: true },
    });
  });
});

describe("a bucket", () => {
  it.each(BUCKETS)("%s: encrypted, versioned, never public", (bucket) => {
    expect(stack.one("AWS::S3::Bucket", `Stores/${bucket}`)).toMatchObject({
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [{ ServerSideEncryptionByDefault: { SSEAlgorithm: "AES256" } }],
      },
      VersioningConfiguration: { Status: "Enabled" },
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
    });
  });

  it.each(BUCKETS)("%s: forgets uploads after a day and old versions after a month", (bucket) => {
    expect(stack.one("AWS::S3::Bucket", `Stores/${bucket}`).LifecycleConfiguration.Rules).toEqual([
      {
        Status: "Enabled",
        AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 },
        NoncurrentVersionExpiration: { NoncurrentDays: 30 },
      },
    ]);
  });

  it.each(BUCKETS)("%s: only over TLS", (bucket) => {
    const policy = stack.one("AWS::S3::BucketPolicy", `Stores/${bucket}/Policy`);
    expect(policy.PolicyDocument.Statement).toContainEqual(
      expect.objectContaining({
        Effect: "Deny",
        Action: "s3:*",
        Principal: { AWS: "*" },
        Condition: { Bool: { "aws:SecureTransport": "false" } },
      }),
    );
  });
});

describe("when the stack goes", () => {
  const data = (stack: Synthesized) =>
    ["AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue"].flatMap((type) => Object.entries(stack.all(type)));

  it("all data goes with it by default", () => {
    for (const [path, resource] of data(stack)) {
      expect(resource, path).toMatchObject({ DeletionPolicy: "Delete", UpdateReplacePolicy: "Delete" });
    }
    const emptied = Object.values(stack.all("Custom::S3AutoDeleteObjects")).map(
      ({ Properties }) => Properties.BucketName,
    );
    expect(emptied.map((of) => stack.name(of))).toEqual(BUCKETS.map((bucket) => `Stores/${bucket}`));
  });

  it("all data stays with keep, and nothing empties buckets", () => {
    const kept = new Synthesized({ keep: "true" });
    expect(data(kept)).toHaveLength(4 + 2 + 12);
    for (const [path, resource] of data(kept)) {
      expect(resource, path).toMatchObject({ DeletionPolicy: "Retain", UpdateReplacePolicy: "Retain" });
    }
    expect(kept.all("Custom::S3AutoDeleteObjects")).toEqual({});
  });

  it("the key of the topic goes: nothing is kept under it", () => {
    const key = new Synthesized({ keep: "true" }).all("AWS::KMS::Key")["Alarms/Key"];
    expect(key).toMatchObject({ DeletionPolicy: "Delete", Properties: { EnableKeyRotation: true } });
  });
});
