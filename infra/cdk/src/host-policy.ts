import { Arn, Stack, Validations } from "aws-cdk-lib";
import type { Table } from "aws-cdk-lib/aws-dynamodb";
import { ManagedPolicy, PolicyStatement } from "aws-cdk-lib/aws-iam";
import { Construct } from "constructs";
import { anyObject, type Stores } from "./stores.ts";

export interface HostPolicyProps {
  readonly pipeline: string;
  readonly stores: Stores;
}

/**
 * What a host of our own may do: find the stack, work on its stores, and read what is asked for with `--aws`. It is for the
 * role or the user that the host runs as, which is none of the stack's.
 */
export class HostPolicy extends Construct {
  readonly policy: ManagedPolicy;

  constructor(scope: Construct, id: string, { pipeline, stores }: HostPolicyProps) {
    super(scope, id);
    this.policy = new ManagedPolicy(this, "Policy", { description: `Tapeline ${pipeline}: what its hosts may do` });
    this.allowItems(stores.state, "BatchGetItem", "GetItem", "PutItem", "UpdateItem", "DeleteItem");
    // Rows of all symbols are asked for by a scan, and so is the whole ledger.
    this.allowItems(stores.rows, "PutItem", "Query", "Scan");
    this.allowItems(stores.deadLetters, "PutItem", "Query");
    this.allowItems(stores.ledger, "UpdateItem", "Query", "Scan");
    this.allow("s3:PutObject", stores.objects.arnForObjects("*"));
    anyObject(
      this,
      stores.objects,
      "*",
      "Records as they came are numbered on and on, and the component of the writer names files as it likes.",
    );
    this.allowToFind();
  }

  /** A host is told the name of the stack; the outputs say the rest. */
  private allowToFind(): void {
    const stack = Stack.of(this);
    const resource = { service: "cloudformation", resource: "stack", resourceName: `${stack.stackName}/*` };
    this.allow("cloudformation:DescribeStacks", Arn.format(resource, stack));
    Validations.of(this).acknowledge({
      id: `AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:cloudformation:<AWS::Region>:<AWS::AccountId>:stack/${stack.stackName}/*]`,
      reason:
        "Behind the name of a stack is an id that whoever asks by the name does not know; one stack has the name.",
    });
  }

  private allowItems(table: Table, ...operations: readonly string[]): void {
    this.policy.addStatements(
      new PolicyStatement({
        actions: operations.map((operation) => `dynamodb:${operation}`),
        resources: [table.tableArn],
      }),
    );
  }

  private allow(action: string, resource: string): void {
    this.policy.addStatements(new PolicyStatement({ actions: [action], resources: [resource] }));
  }
}
