import { Duration, RemovalPolicy, Stack } from "aws-cdk-lib";
import { PolicyStatement, Role, ServicePrincipal } from "aws-cdk-lib/aws-iam";
import { Architecture, type Code, Function as LambdaFunction, Runtime } from "aws-cdk-lib/aws-lambda";
import { LogGroup } from "aws-cdk-lib/aws-logs";
import { Construct } from "constructs";
import { seconds } from "./duration.ts";
import { Environment, VARIABLES, type Variable } from "./environment.ts";
import type { Pipeline, Stage } from "./pipeline.ts";
import type { Settings } from "./settings.ts";

export interface StageFunctionProps {
  readonly pipeline: Pipeline;
  readonly settings: Settings;
  readonly stages: readonly Stage[];
  readonly code: Code;
}

/** What a function may do, with what. */
export interface Grant {
  readonly actions: string[];
  readonly resources: string[];
}

/** One stage, or neighbours that are fused, with a role that can do what it was granted and nothing else. */
export class StageFunction extends Construct {
  readonly stages: readonly Stage[];
  readonly lambda: LambdaFunction;
  readonly #role: Role;
  readonly #environment = new Environment();

  constructor(scope: Construct, id: string, props: StageFunctionProps) {
    super(scope, id);
    const { pipeline, settings, stages } = props;
    this.stages = stages;
    this.#role = new Role(this, "Role", { assumedBy: new ServicePrincipal("lambda.amazonaws.com") });
    const logGroup = new LogGroup(this, "Logs", {
      retention: settings.logRetentionDays,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.allow({ actions: ["logs:CreateLogStream", "logs:PutLogEvents"], resources: [logGroup.logGroupArn] });
    this.lambda = new LambdaFunction(this, "Function", {
      description: `Tapeline ${pipeline.name}: ${stages.map((stage) => stage.name).join(", ")}`,
      runtime: Runtime.PROVIDED_AL2023,
      architecture: settings.architecture === "arm64" ? Architecture.ARM_64 : Architecture.X86_64,
      handler: "bootstrap",
      code: props.code,
      memorySize: settings.memory_mib,
      timeout: Duration.seconds(seconds(settings.timeout)),
      ...(settings.concurrency === undefined ? {} : { reservedConcurrentExecutions: settings.concurrency }),
      role: this.#role,
      logGroup,
    });
    this.tell(VARIABLES.pipeline, pipeline.name);
    this.tell(VARIABLES.stages, JSON.stringify(stages.map(stageSpec)));
    this.tell(VARIABLES.partitions, String(settings.partitions));
  }

  /** Sets a variable. */
  tell(variable: Variable, text: string): void {
    this.#environment.tell(variable, text);
    this.lambda.addEnvironment(variable, text);
  }

  /** Says where something is and grants its use in one call, so that neither can be forgotten. */
  reach(variable: Variable, address: string, ...grants: readonly Grant[]): void {
    this.#environment.address(variable);
    this.lambda.addEnvironment(variable, address);
    for (const grant of grants) {
      this.allow(grant);
    }
  }

  /** Refuses an environment that Lambda would refuse; when all is said. */
  check(): void {
    this.#environment.check(this.node.id, Stack.of(this).stackName);
  }

  allow(grant: Grant): void {
    this.#role.addToPolicy(new PolicyStatement(grant));
  }
}

function stageSpec({ name, component, settings, memory_mib, timePerBatch }: Stage) {
  return { name, component, settings, memory_mib, time_per_batch: timePerBatch.text };
}
