import { Duration } from "aws-cdk-lib";
import { PolicyStatement, Role, ServicePrincipal } from "aws-cdk-lib/aws-iam";
import { Schedule, ScheduleExpression, ScheduleTargetInput } from "aws-cdk-lib/aws-scheduler";
import { Construct } from "constructs";
import type { StageFunction } from "./stage-function.ts";

/** A call that came to nothing is made up for by the next one: what is older than this is not worth a try. */
const AGE_MAX = Duration.minutes(1);
const RETRIES_MAX = 1;

export interface ScheduleTriggerProps {
  readonly pipeline: string;
  /** As EventBridge writes it: "rate(1 minute)". */
  readonly schedule: string;
  readonly target: StageFunction;
}

/** Calls a function again and again: in quiet times it has nothing else to move the watermark on by. */
export class ScheduleTrigger extends Construct {
  constructor(scope: Construct, id: string, { pipeline, schedule, target }: ScheduleTriggerProps) {
    super(scope, id);
    // The role that CDK would make may call every version of the function; there is one.
    const role = new Role(this, "Role", { assumedBy: new ServicePrincipal("scheduler.amazonaws.com") });
    const functionArn = target.lambda.functionArn;
    role.addToPolicy(new PolicyStatement({ actions: ["lambda:InvokeFunction"], resources: [functionArn] }));
    target.lambda.configureAsyncInvoke({ maxEventAge: AGE_MAX, retryAttempts: RETRIES_MAX });
    new Schedule(this, "Schedule", {
      description: `Tapeline ${pipeline}: the watermark of quiet times`,
      schedule: ScheduleExpression.expression(schedule),
      target: {
        bind: () => ({
          arn: functionArn,
          role,
          input: ScheduleTargetInput.fromObject({ tapeline: "schedule" }),
          retryPolicy: { maximumEventAgeInSeconds: AGE_MAX.toSeconds(), maximumRetryAttempts: RETRIES_MAX },
        }),
      },
    });
  }
}
