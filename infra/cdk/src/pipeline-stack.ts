import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { RemovalPolicy } from "aws-cdk-lib";
import { Code } from "aws-cdk-lib/aws-lambda";
import { Construct } from "constructs";
import { AlarmsTopic } from "./alarms-topic.ts";
import { VARIABLES } from "./environment.ts";
import { Hop } from "./hop.ts";
import { HttpTrigger } from "./http-trigger.ts";
import { Monitoring, type Segment } from "./monitoring.ts";
import type { Pipeline } from "./pipeline.ts";
import { ScheduleTrigger } from "./schedule-trigger.ts";
import type { Settings } from "./settings.ts";
import { StageFunction } from "./stage-function.ts";
import { FunctionStores } from "./stores.ts";
import { removalPolicyOf, TapelineStack } from "./tapeline-stack.ts";
import { Token } from "./token.ts";
import { Wrong } from "./wrong.ts";

export interface PipelineStackProps {
  readonly pipeline: Pipeline;
  readonly settings: Settings;
  /** The folder with `bootstrap` and the compiled components. */
  readonly package: string;
}

/** A pipeline: its functions, the hops between them, its stores and triggers, and what watches over it. */
export class PipelineStack extends TapelineStack {
  constructor(scope: Construct, { pipeline, settings, package: folder }: PipelineStackProps) {
    super(scope, pipeline.name, `The Tapeline pipeline ${pipeline.name}`);
    const removalPolicy = removalPolicyOf(settings);
    const stores = new FunctionStores(this, "Stores", { removalPolicy });
    const alarms = new AlarmsTopic(this, "Alarms", { pipeline: pipeline.name, email: settings.alarmsEmail });
    const segments = this.segments(pipeline, settings, Code.fromAsset(folder), removalPolicy);
    const functions = segments.map((segment) => segment.stageFunction);
    const [first, last] = ends(segments);

    for (const stageFunction of functions) {
      stores.openTo(stageFunction);
    }
    stores.openToFirst(first.stageFunction);
    stores.openToWriter(last.stageFunction);
    alarms.openTo(last.stageFunction);
    connect(segments);
    // What comes in by HTTP waits in the first queue like anything else.
    first.hop.openTo(first.stageFunction, VARIABLES.inQueueUrl);
    tellEnds(pipeline, settings, first.stageFunction, last.stageFunction);
    const token = this.token(pipeline.name, settings, functions);
    for (const stageFunction of functions) {
      stageFunction.check();
    }

    const http = new HttpTrigger(this, "Http", {
      pipeline: pipeline.name,
      settings,
      functions,
      first: first.stageFunction,
    });
    if (settings.schedule !== undefined) {
      new ScheduleTrigger(this, "Schedule", {
        pipeline: pipeline.name,
        schedule: settings.schedule,
        target: first.stageFunction,
      });
    }
    new Monitoring(this, "Monitoring", { pipeline: pipeline.name, segments, topic: alarms.topic });
    this.describe(pipeline, settings, segments, enginesOf(folder));
    this.outputs({ http, stores, alarms, segments, token });
  }

  private segments(pipeline: Pipeline, settings: Settings, code: Code, removalPolicy: RemovalPolicy): Segment[] {
    // Scopes of their own, so that a stage may be called as it likes.
    const stages = new Construct(this, "Stages");
    const hops = new Construct(this, "Hops");
    return settings.groups.map((group) => {
      const name = group.map((stage) => stage.name).join("+");
      return {
        name,
        stageFunction: new StageFunction(stages, name, { pipeline, settings, stages: group, code }),
        // By the stage that it leads to, so that the queue stays when stages behind that one are fused with it.
        hop: new Hop(hops, firstOf(group).name, { settings, removalPolicy }),
      };
    });
  }

  private token(pipeline: string, settings: Settings, functions: readonly StageFunction[]): Token | undefined {
    if (settings.authorization !== "token") {
      return undefined;
    }
    const token = new Token(this, "Token", pipeline);
    for (const stageFunction of functions) {
      token.openTo(stageFunction);
    }
    return token;
  }

  /** What a program must know that finds the pipeline by the name of its stack alone. */
  private describe(pipeline: Pipeline, settings: Settings, segments: readonly Segment[], engines: string): void {
    this.output("PipelineName", pipeline.name);
    this.output("Partitions", String(settings.partitions));
    this.output("Architecture", settings.architecture);
    // What a component must be compiled for to be run in the place of one of the package.
    this.output("Engines", engines);
    const stages = segments.map(({ stageFunction }) => stageFunction.stages.map((stage) => stage.name));
    // JSON: what is behind `Function`, `Queue` and `DeadLetterQueue` in the names of other outputs is made of these.
    this.output("Segments", JSON.stringify(stages));
  }

  private outputs(parts: {
    http: HttpTrigger;
    stores: FunctionStores;
    alarms: AlarmsTopic;
    segments: readonly Segment[];
    token: Token | undefined;
  }): void {
    const { http, stores, alarms, segments, token } = parts;
    this.output("ApiUrl", http.url);
    this.outputsOf(stores);
    this.output("ComponentsBucket", stores.components.bucketName);
    this.output("AlarmsTopicArn", alarms.topic.topicArn);
    if (token !== undefined) {
      this.output("TokenSecretArn", token.secret.secretArn);
    }
    for (const { name, stageFunction, hop } of segments) {
      this.output(`Function${pascal(name)}`, stageFunction.lambda.functionName);
      this.output(`Queue${pascal(name)}`, hop.queue.queueUrl);
      this.output(`DeadLetterQueue${pascal(name)}`, hop.deadLetters.queueUrl);
    }
  }
}

/** Which engines run in a package, as its compiler says. */
function enginesOf(folder: string): string {
  const path = join(folder, "components", "engines");
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    const reason = (error as Error).message;
    throw new Wrong(`-c package: ${path} cannot be read: ${reason}; \`cargo xtask lambda\` builds it`);
  }
}

function connect(segments: readonly Segment[]): void {
  segments.forEach(({ hop, stageFunction }, at) => {
    hop.feed(stageFunction);
    segments[at + 1]?.hop.openTo(stageFunction, VARIABLES.outQueueUrl);
  });
}

/** What only the first and the last function are told. */
function tellEnds(pipeline: Pipeline, settings: Settings, first: StageFunction, last: StageFunction): void {
  first.tell(VARIABLES.format, pipeline.format);
  first.tell(VARIABLES.watermark, JSON.stringify(pipeline.watermark));
  if (settings.rowsExpire !== undefined) {
    last.tell(VARIABLES.rowsExpire, settings.rowsExpire.text);
  }
}

function ends(segments: readonly Segment[]): [Segment, Segment] {
  return [firstOf(segments), firstOf(segments.toReversed())];
}

/** Of a list that is known to have something in it. */
function firstOf<Item>(items: readonly Item[]): Item {
  const [first] = items;
  if (first === undefined) {
    throw new Error("a pipeline has two stages at least");
  }
  return first;
}

/** The name of an output has letters and digits only. */
function pascal(name: string): string {
  return name.replace(/(?:^|[^a-z0-9]+)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()).replace(/\W/g, "");
}
