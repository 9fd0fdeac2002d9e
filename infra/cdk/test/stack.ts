import { readFileSync } from "node:fs";
import { App, type Stack } from "aws-cdk-lib";
import { Template } from "aws-cdk-lib/assertions";
import { createStack } from "../src/app.ts";
import { parsePipeline } from "../src/pipeline.ts";

export const PIPELINE_FILE = "../../pipelines/bitcoin-trades.toml";
/** A stand-in: nothing of it is run. */
export const PACKAGE = "test/package";

export type Context = Readonly<Record<string, unknown>>;
// biome-ignore lint/suspicious/noExplicitAny: a template is JSON, and a test that looks for what is not there fails.
export type Json = any;

export function stackOf(context: Context = {}, text = readFileSync(PIPELINE_FILE, "utf8")): Stack {
  const app = new App({ context: { "aws:cdk:enable-path-metadata": true } });
  return createStack(app, parsePipeline(text), (key) => ({ package: PACKAGE, ...context })[key]);
}

/** A synthesized stack, in which resources are known by their construct paths. */
export class Synthesized {
  readonly json: Json;
  readonly #paths: ReadonlyMap<string, string>;

  constructor(context: Context = {}, text?: string) {
    const stack = stackOf(context, text);
    this.json = Template.fromStack(stack).toJSON();
    const resources = Object.entries<Json>(this.json.Resources);
    const path = (resource: Json): string => resource.Metadata?.["aws:cdk:path"] ?? "";
    this.#paths = new Map(
      resources.map(([id, resource]) => [
        id,
        path(resource)
          .replace(`${stack.stackName}/`, "")
          .replace(/\/Resource$/, ""),
      ]),
    );
  }

  /** The resources of a type, by path. */
  all(type: string): Record<string, Json> {
    const entries = Object.entries<Json>(this.json.Resources).filter(([, resource]) => resource.Type === type);
    return Object.fromEntries(entries.map(([id, resource]) => [this.#paths.get(id) ?? id, resource]));
  }

  /** The properties of one resource. */
  one(type: string, path: string): Json {
    const found = this.all(type)[path];
    if (found === undefined) {
      throw new Error(`no ${type} ${path}; there are ${Object.keys(this.all(type)).join(", ")}`);
    }
    return found.Properties;
  }

  /** What a property refers to, as a text: `Stores/State.Arn`. */
  name(value: Json): string {
    if (typeof value === "string") {
      return value;
    }
    if (value.Ref !== undefined) {
      return this.#paths.get(value.Ref) ?? value.Ref;
    }
    if (value["Fn::GetAtt"] !== undefined) {
      const [id, attribute] = value["Fn::GetAtt"];
      return `${this.#paths.get(id)}.${attribute}`;
    }
    if (value["Fn::Join"] !== undefined) {
      const [delimiter, parts] = value["Fn::Join"];
      return parts.map((part: Json) => this.name(part)).join(delimiter);
    }
    throw new Error(`what is ${JSON.stringify(value)}?`);
  }

  /** All that a role may do: a line for each resource. Nothing but its own policies may say so. */
  grants(role: string): string[] {
    const { ManagedPolicyArns, Policies } = this.one("AWS::IAM::Role", role);
    if (ManagedPolicyArns !== undefined || Policies !== undefined) {
      throw new Error(`${role} has other policies`);
    }
    const policies = Object.values(this.all("AWS::IAM::Policy")).map((policy) => policy.Properties);
    const own = policies.filter((policy) => policy.Roles.some((of: Json) => this.name(of) === role));
    return this.#grants(own);
  }

  /** All that a policy allows to whom it is attached. Nobody of the stack may be among these. */
  grantsOf(policy: string): string[] {
    const { Roles, Users, Groups, ...properties } = this.one("AWS::IAM::ManagedPolicy", policy);
    if (Roles !== undefined || Users !== undefined || Groups !== undefined) {
      throw new Error(`${policy} is attached`);
    }
    return this.#grants([properties]);
  }

  #grants(policies: readonly Json[]): string[] {
    const statements = policies.flatMap((policy) => policy.PolicyDocument.Statement);
    return statements.flatMap((statement: Json) => this.#grant(statement)).sort();
  }

  #grant(statement: Json): string[] {
    const { Effect, Action, Resource, ...rest } = statement;
    if (Effect !== "Allow" || Object.keys(rest).length > 0) {
      throw new Error(`a grant with more to it: ${JSON.stringify(statement)}`);
    }
    const actions = [Action].flat().sort().join(" ");
    return [Resource].flat().map((resource: Json) => `${this.name(resource)}: ${actions}`);
  }

  /** The variables of a function. */
  environment(segment: string): Record<string, string> {
    const { Variables } = this.one("AWS::Lambda::Function", `Stages/${segment}/Function`).Environment;
    return Object.fromEntries(Object.entries<Json>(Variables).map(([key, value]) => [key, this.name(value)]));
  }
}
