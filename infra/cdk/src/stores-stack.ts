import type { Construct } from "constructs";
import { seconds } from "./duration.ts";
import { HostPolicy } from "./host-policy.ts";
import type { Pipeline } from "./pipeline.ts";
import type { StoreSettings } from "./settings.ts";
import { Stores } from "./stores.ts";
import { removalPolicyOf, TapelineStack } from "./tapeline-stack.ts";

export interface StoresStackProps {
  readonly pipeline: Pipeline;
  readonly settings: StoreSettings;
}

/** The stores of a pipeline that hosts of our own work on, and what these hosts may do. Nothing in it runs. */
export class StoresStack extends TapelineStack {
  constructor(scope: Construct, { pipeline, settings }: StoresStackProps) {
    super(scope, pipeline.name, `The stores of the Tapeline pipeline ${pipeline.name}`);
    const stores = new Stores(this, "Stores", { removalPolicy: removalPolicyOf(settings) });
    const { policy } = new HostPolicy(this, "Hosts", { pipeline: pipeline.name, stores });
    this.describe(pipeline, settings);
    this.outputsOf(stores);
    this.output("HostPolicyArn", policy.managedPolicyArn);
  }

  /** What a program must know that finds the pipeline by the name of its stack alone. */
  private describe(pipeline: Pipeline, { rowsExpire }: StoreSettings): void {
    this.output("PipelineName", pipeline.name);
    this.output("Functions", "false");
    // Of functions, as in a stack that has some.
    this.output("Segments", "[]");
    // JSON: the order of the lines of the ledger.
    this.output("Stages", JSON.stringify(pipeline.stages.map((stage) => stage.name)));
    if (rowsExpire !== undefined) {
      this.output("RowsExpire", String(seconds(rowsExpire)));
    }
  }
}
