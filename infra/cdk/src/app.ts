import { App, type AppProps, type Stack, Validations } from "aws-cdk-lib";
import { AwsSolutionsChecks } from "cdk-nag";
import type { Construct } from "constructs";
import { loadPipeline, type Pipeline } from "./pipeline.ts";
import { PipelineStack } from "./pipeline-stack.ts";
import { type Context, hasFunctions, resolvePackage, resolveSettings, resolveStoreSettings } from "./settings.ts";
import { StoresStack } from "./stores-stack.ts";
import { unfit } from "./wrong.ts";

/** The app with the one stack that the context asks for. */
export function createApp(props: AppProps = {}): { app: App; stack: Stack } {
  const app = new App(props);
  const context = (key: string): unknown => app.node.tryGetContext(key);
  const path = context("pipeline");
  if (typeof path !== "string") {
    throw unfit("-c pipeline", path, "a pipeline file such as ../../pipelines/bitcoin-trades.toml");
  }
  const stack = createStack(app, loadPipeline(path), context);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  return { app, stack };
}

/** Functions and their stores, or the stores alone, which need no package. */
export function createStack(scope: Construct, pipeline: Pipeline, context: Context): Stack {
  if (!hasFunctions(pipeline, context)) {
    return new StoresStack(scope, { pipeline, settings: resolveStoreSettings(pipeline, context) });
  }
  const settings = resolveSettings(pipeline, context);
  return new PipelineStack(scope, { pipeline, settings, package: resolvePackage(context, settings.architecture) });
}
