import { RemovalPolicy, Validations } from "aws-cdk-lib";
import { AccessLogFormat } from "aws-cdk-lib/aws-apigateway";
import {
  CfnRoute,
  HttpApi,
  HttpMethod,
  HttpNoneAuthorizer,
  HttpStage,
  type IHttpRouteAuthorizer,
  LogGroupLogDestination,
} from "aws-cdk-lib/aws-apigatewayv2";
import { HttpIamAuthorizer } from "aws-cdk-lib/aws-apigatewayv2-authorizers";
import { HttpLambdaIntegration } from "aws-cdk-lib/aws-apigatewayv2-integrations";
import { LogGroup } from "aws-cdk-lib/aws-logs";
import { Construct } from "constructs";
import type { Authorization, Settings } from "./settings.ts";
import type { StageFunction } from "./stage-function.ts";

/** Requests in a second, and in one moment: many events go into a request, and a loop gone wild must not cost a fortune. */
const REQUESTS_PER_SECOND_MAX = 100;
const REQUESTS_BURST_MAX = 200;

/** For probes. */
const HEALTH = "/healthz";

/** Who asked for what, and what became of it. */
const ACCESS_LOG = {
  time: "$context.requestTime",
  id: "$context.requestId",
  route: "$context.routeKey",
  address: "$context.identity.sourceIp",
  caller: "$context.identity.userArn",
  status: "$context.status",
  bytes: "$context.responseLength",
  milliseconds: "$context.responseLatency",
  error: "$context.integrationErrorMessage",
};

export interface HttpTriggerProps {
  readonly pipeline: string;
  readonly settings: Settings;
  /** In the order of the data. */
  readonly functions: readonly StageFunction[];
  readonly first: StageFunction;
}

/**
 * The HTTP API: a stage by itself, events into the pipeline, and whether it is up. Methods and paths that are wrong come to
 * a function too, so that whoever sent them is answered with a problem document.
 */
export class HttpTrigger extends Construct {
  readonly api: HttpApi;
  readonly url: string;

  constructor(scope: Construct, id: string, props: HttpTriggerProps) {
    super(scope, id);
    const { pipeline, settings, functions, first } = props;
    this.api = new HttpApi(this, "Api", {
      description: `Tapeline ${pipeline}`,
      createDefaultStage: false,
      defaultAuthorizer: authorizer(settings.authorization),
      defaultIntegration: new HttpLambdaIntegration("default", first.lambda),
    });
    for (const stageFunction of functions) {
      for (const stage of stageFunction.stages) {
        this.route(`/stages/${stage.name}/invoke`, stageFunction);
      }
    }
    this.route(`/pipelines/${pipeline}/events`, first);
    this.route(HEALTH, first, new HttpNoneAuthorizer());
    this.url = this.stage(settings.logRetentionDays).url;
    this.acknowledge(settings.authorization);
  }

  private route(path: string, target: StageFunction, authorizer?: IHttpRouteAuthorizer): void {
    this.api.addRoutes({
      path,
      methods: [HttpMethod.ANY],
      integration: new HttpLambdaIntegration(path.replaceAll("/", " ").trim(), target.lambda),
      ...(authorizer === undefined ? {} : { authorizer }),
    });
  }

  private stage(logRetentionDays: number): HttpStage {
    const logs = new LogGroup(this, "AccessLogs", {
      retention: logRetentionDays,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    return new HttpStage(this, "Stage", {
      httpApi: this.api,
      stageName: "$default",
      autoDeploy: true,
      throttle: { rateLimit: REQUESTS_PER_SECOND_MAX, burstLimit: REQUESTS_BURST_MAX },
      accessLogSettings: {
        destination: new LogGroupLogDestination(logs),
        // The format that CDK has by default asks for what only REST APIs know.
        format: AccessLogFormat.custom(JSON.stringify(ACCESS_LOG)),
      },
    });
  }

  private acknowledge(authorization: Authorization): void {
    const reason =
      authorization === "token"
        ? "Each function compares the caller's token with the stack's secret, all but for /healthz, which tells nothing."
        : "/healthz is for probes, which have no credentials, and tells nothing; every other route asks IAM.";
    for (const route of this.api.node.findAll().filter((construct) => construct instanceof CfnRoute)) {
      if (authorization === "token" || route.routeKey === `${HttpMethod.ANY} ${HEALTH}`) {
        Validations.of(route).acknowledge({ id: "AwsSolutions-APIG4", reason });
      }
    }
  }
}

function authorizer(authorization: Authorization): IHttpRouteAuthorizer {
  return authorization === "iam" ? new HttpIamAuthorizer() : new HttpNoneAuthorizer();
}
