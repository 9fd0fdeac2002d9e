import { describe, expect, it } from "vitest";
import { Synthesized } from "./stack.ts";

/** By route: who may call, and which function answers. */
function routes(stack: Synthesized): Record<string, [string, string]> {
  const integrations = stack.all("AWS::ApiGatewayV2::Integration");
  const routes = Object.values(stack.all("AWS::ApiGatewayV2::Route")).map(({ Properties }) => {
    const integration = integrations[stack.name(Properties.Target).replace("integrations/", "")];
    const target = stack.name(integration.Properties.IntegrationUri);
    return [Properties.RouteKey, [Properties.AuthorizationType, target]];
  });
  return Object.fromEntries(routes);
}

function expected(authorization: string, of: (stage: string) => string = (stage) => stage) {
  const target = (stage: string) => `Stages/${of(stage)}/Function.Arn`;
  const stages = ["fetch", "dedup", "enrich", "aggregate", "alarm", "write"];
  return {
    ...Object.fromEntries(stages.map((stage) => [`ANY /stages/${stage}/invoke`, [authorization, target(stage)]])),
    "ANY /pipelines/bitcoin-trades/events": [authorization, target("fetch")],
    "ANY /healthz": ["NONE", target("fetch")],
    $default: [authorization, target("fetch")],
  };
}

describe("the HTTP API", () => {
  it("asks IAM for all but /healthz by default", () => {
    expect(routes(new Synthesized())).toEqual(expected("AWS_IAM"));
  });

  it("with a token leaves it to the functions, which have the secret", () => {
    const stack = new Synthesized({ authorization: "token" });
    expect(routes(stack)).toEqual(expected("NONE"));
    expect(stack.one("AWS::SecretsManager::Secret", "Token/Secret").GenerateSecretString).toEqual({
      PasswordLength: 48,
      ExcludePunctuation: true,
    });
    for (const segment of ["fetch", "alarm", "write"]) {
      expect(stack.environment(segment).TAPELINE_ADMIN_TOKEN_SECRET_ARN).toBe("Token/Secret");
    }
  });

  it("has no secret when IAM is asked", () => {
    expect(new Synthesized().all("AWS::SecretsManager::Secret")).toEqual({});
  });

  it("calls the one function of stages that are fused", () => {
    const stack = new Synthesized({ fuse: '[["dedup", "enrich"]]' });
    const of = (stage: string) => (["dedup", "enrich"].includes(stage) ? "dedup+enrich" : stage);
    expect(routes(stack)).toEqual(expected("AWS_IAM", of));
    const permissions = Object.values(stack.all("AWS::Lambda::Permission")).map(({ Properties }) =>
      stack.name(Properties.FunctionName),
    );
    expect(permissions.filter((name) => name === "Stages/dedup+enrich/Function.Arn")).toHaveLength(2);
  });

  it("has limits, and logs who asked for what", () => {
    const stack = new Synthesized();
    const stage = stack.one("AWS::ApiGatewayV2::Stage", "Http/Stage");
    expect(stage).toMatchObject({
      StageName: "$default",
      AutoDeploy: true,
      DefaultRouteSettings: { ThrottlingRateLimit: 100, ThrottlingBurstLimit: 200 },
    });
    expect(stack.name(stage.AccessLogSettings.DestinationArn)).toBe("Http/AccessLogs.Arn");
    expect(JSON.parse(stage.AccessLogSettings.Format)).toMatchObject({ route: "$context.routeKey" });
  });
});

describe("the schedule", () => {
  it("is there only when asked for", () => {
    expect(new Synthesized().all("AWS::Scheduler::Schedule")).toEqual({});
  });

  it("calls the first function, and does not try for long", () => {
    const stack = new Synthesized({ schedule: "rate(5 minutes)" });
    const { ScheduleExpression, State, Target } = stack.one("AWS::Scheduler::Schedule", "Schedule/Schedule");
    expect([ScheduleExpression, State]).toEqual(["rate(5 minutes)", "ENABLED"]);
    expect(stack.name(Target.Arn)).toBe("Stages/fetch/Function.Arn");
    expect(stack.name(Target.RoleArn)).toBe("Schedule/Role.Arn");
    expect(JSON.parse(Target.Input)).toEqual({ tapeline: "schedule" });
    expect(Target.RetryPolicy).toEqual({ MaximumEventAgeInSeconds: 60, MaximumRetryAttempts: 1 });
    const [config] = Object.values(stack.all("AWS::Lambda::EventInvokeConfig"));
    expect(config.Properties).toMatchObject({ MaximumEventAgeInSeconds: 60, MaximumRetryAttempts: 1 });
  });
});
