import { CfnOutput, RemovalPolicy, Stack, Tags } from "aws-cdk-lib";
import type { Construct } from "constructs";
import type { StoreSettings } from "./settings.ts";
import type { Stores } from "./stores.ts";

/** What every stack of a pipeline has: the name by which it is found, a tag, and outputs that say where its stores are. */
export abstract class TapelineStack extends Stack {
  constructor(scope: Construct, pipeline: string, description: string) {
    super(scope, `tapeline-${pipeline}`, { description });
    Tags.of(this).add("tapeline:pipeline", pipeline);
  }

  protected outputsOf(stores: Stores): void {
    this.output("StateTable", stores.state.tableName);
    this.output("RowsTable", stores.rows.tableName);
    this.output("DeadLettersTable", stores.deadLetters.tableName);
    this.output("LedgerTable", stores.ledger.tableName);
    this.output("ObjectsBucket", stores.objects.bucketName);
  }

  protected output(name: string, value: string): void {
    new CfnOutput(this, name, { value });
  }
}

/** What becomes of data when the stack goes. */
export function removalPolicyOf({ keepData }: StoreSettings): RemovalPolicy {
  return keepData ? RemovalPolicy.RETAIN : RemovalPolicy.DESTROY;
}
