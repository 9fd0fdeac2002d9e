import { App, type AppProps, Validations } from "aws-cdk-lib";
import { AwsSolutionsChecks } from "cdk-nag";
import { loadPipeline } from "./pipeline.ts";
import { PipelineStack } from "./pipeline-stack.ts";
import { resolvePackage, resolveSettings } from "./settings.ts";
import { unfit } from "./wrong.ts";

/** The app with the one stack that the context asks for. */
export function createApp(props: AppProps = {}): { app: App; stack: PipelineStack } {
  const app = new App(props);
  const context = (key: string): unknown => app.node.tryGetContext(key);
  const path = context("pipeline");
  if (typeof path !== "string") {
    throw unfit("-c pipeline", path, "a pipeline file such as ../../pipelines/bitcoin-trades.toml");
  }
  const pipeline = loadPipeline(path);
  const settings = resolveSettings(pipeline, context);
  const stack = new PipelineStack(app, { pipeline, settings, package: resolvePackage(context, settings.architecture) });
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  return { app, stack };
}
