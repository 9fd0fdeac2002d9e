import { Duration, RemovalPolicy, Stack, Validations } from "aws-cdk-lib";
import { type Attribute, AttributeType, BillingMode, Table, TableEncryption } from "aws-cdk-lib/aws-dynamodb";
import { BlockPublicAccess, Bucket, BucketEncryption, type CfnBucket } from "aws-cdk-lib/aws-s3";
import { Construct, type IConstruct } from "constructs";
import { VARIABLES } from "./environment.ts";
import type { StageFunction } from "./stage-function.ts";

/** Where items say when they may go. Only rows do, with `rows_expire`; of the others nothing goes by the clock. */
const TTL_ATTRIBUTE = "expires";
/** An upload that was not finished in a day never is. */
const UPLOAD_AGE_MAX = Duration.days(1);
/** Where records are kept as they came, before they are parsed. */
const RAW_OBJECTS = "raw/*";
/** What was overwritten by mistake can be had back for a month. */
const NONCURRENT_AGE_MAX = Duration.days(30);

export interface StoresProps {
  readonly removalPolicy: RemovalPolicy;
}

/** What a pipeline keeps, whoever works on it: tables for state, rows, dead letters and the ledger, a bucket for files. */
export class Stores extends Construct {
  readonly state: Table;
  readonly rows: Table;
  readonly deadLetters: Table;
  readonly ledger: Table;
  readonly objects: Bucket;

  constructor(scope: Construct, id: string, { removalPolicy }: StoresProps) {
    super(scope, id);
    this.state = table(this, "State", removalPolicy, text("key"));
    this.rows = table(this, "Rows", removalPolicy, text("table_symbol"), text("at"));
    this.deadLetters = table(this, "DeadLetters", removalPolicy, text("stage"), text("at"));
    this.ledger = table(this, "Ledger", removalPolicy, text("stage_symbol"), text("day_partition"));
    this.objects = bucket(this, "Objects", removalPolicy);
  }
}

/** Stores that functions work on, and a bucket for their components. */
export class FunctionStores extends Stores {
  readonly components: Bucket;

  constructor(scope: Construct, id: string, props: StoresProps) {
    super(scope, id, props);
    this.components = bucket(this, "Components", props.removalPolicy);
  }

  /** What every function needs: state, components, a place for what it cannot take, and one for what it counts. */
  openTo(stage: StageFunction): void {
    stage.reach(VARIABLES.stateTable, this.state.tableName, {
      actions: ["BatchGetItem", "GetItem", "PutItem", "UpdateItem", "DeleteItem"].map((action) => `dynamodb:${action}`),
      resources: [this.state.tableArn],
    });
    stage.reach(VARIABLES.deadLettersTable, this.deadLetters.tableName, {
      actions: ["dynamodb:PutItem"],
      resources: [this.deadLetters.tableArn],
    });
    stage.reach(VARIABLES.ledgerTable, this.ledger.tableName, {
      actions: ["dynamodb:UpdateItem"],
      resources: [this.ledger.tableArn],
    });
    stage.reach(
      VARIABLES.componentsBucket,
      this.components.bucketName,
      { actions: ["s3:GetObject"], resources: [this.components.arnForObjects("*")] },
      // Without it what is not there reads as forbidden, and nobody could tell that nothing was pushed.
      { actions: ["s3:ListBucket"], resources: [this.components.bucketArn] },
    );
    anyObject(
      stage,
      this.components,
      "*",
      "Components are named by their digests, which are not known before they are pushed.",
    );
  }

  /** What only the first function needs: a place for records as they came. */
  openToFirst(first: StageFunction): void {
    first.reach(VARIABLES.objectsBucket, this.objects.bucketName, {
      actions: ["s3:PutObject"],
      resources: [this.objects.arnForObjects(RAW_OBJECTS)],
    });
    anyObject(first, this.objects, RAW_OBJECTS, "Records as they came are numbered on and on.");
  }

  /** What only the writer needs. It puts files there and reads none. */
  openToWriter(writer: StageFunction): void {
    writer.reach(VARIABLES.rowsTable, this.rows.tableName, {
      actions: ["dynamodb:PutItem"],
      resources: [this.rows.tableArn],
    });
    writer.reach(VARIABLES.objectsBucket, this.objects.bucketName, {
      actions: ["s3:PutObject"],
      resources: [this.objects.arnForObjects("*")],
    });
    anyObject(
      writer,
      this.objects,
      "*",
      "The component of the writer names files as it likes: by dataset, symbol and day.",
    );
  }
}

function table(
  scope: Construct,
  id: string,
  removalPolicy: RemovalPolicy,
  partitionKey: Attribute,
  sortKey?: Attribute,
): Table {
  return new Table(scope, id, {
    partitionKey,
    ...(sortKey === undefined ? {} : { sortKey }),
    billingMode: BillingMode.PAY_PER_REQUEST,
    pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
    timeToLiveAttribute: TTL_ATTRIBUTE,
    // Its use is in the account's trail, and no role needs a grant. A key of our own would cost a dollar a month each,
    // and what is kept could not be read any more once it went with its stack.
    encryption: TableEncryption.AWS_MANAGED,
    removalPolicy,
  });
}

function bucket(scope: Construct, id: string, removalPolicy: RemovalPolicy): Bucket {
  const made = new Bucket(scope, id, {
    encryption: BucketEncryption.S3_MANAGED,
    blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
    enforceSSL: true,
    versioned: true,
    lifecycleRules: [
      { abortIncompleteMultipartUploadAfter: UPLOAD_AGE_MAX, noncurrentVersionExpiration: NONCURRENT_AGE_MAX },
    ],
    removalPolicy,
    autoDeleteObjects: removalPolicy === RemovalPolicy.DESTROY,
  });
  Validations.of(made).acknowledge({
    id: "AwsSolutions-S1",
    reason:
      "Only roles of this account reach it, and CloudTrail can log what they read and write; access logs would be " +
      "another bucket that grows with every file that is written.",
  });
  return made;
}

function text(name: string): Attribute {
  return { name, type: AttributeType.STRING };
}

/** Explains a grant of all keys of a bucket, or of all that begin in the same way. */
export function anyObject(granted: IConstruct, bucket: Bucket, keys: string, reason: string): void {
  Validations.of(granted).acknowledge({
    id: `AwsSolutions-IAM5[Resource::<${logicalId(bucket)}.Arn>/${keys}]`,
    reason,
  });
}

function logicalId(bucket: Bucket): string {
  return Stack.of(bucket).getLogicalId(bucket.node.defaultChild as CfnBucket);
}
