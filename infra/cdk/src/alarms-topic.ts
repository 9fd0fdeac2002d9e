import { Aws, Duration, RemovalPolicy } from "aws-cdk-lib";
import { PolicyStatement, ServicePrincipal } from "aws-cdk-lib/aws-iam";
import { Key } from "aws-cdk-lib/aws-kms";
import { Topic } from "aws-cdk-lib/aws-sns";
import { EmailSubscription } from "aws-cdk-lib/aws-sns-subscriptions";
import { Construct } from "constructs";
import { VARIABLES } from "./environment.ts";
import type { StageFunction } from "./stage-function.ts";

export interface AlarmsTopicProps {
  readonly pipeline: string;
  readonly email: string | undefined;
}

/** Where alarms go, those of the market and those of the pipeline itself. */
export class AlarmsTopic extends Construct {
  readonly topic: Topic;
  readonly #key: Key;

  constructor(scope: Construct, id: string, { pipeline, email }: AlarmsTopicProps) {
    super(scope, id);
    // CloudWatch may not use the key that AWS keeps for SNS, so that its alarms would be lost without a word.
    this.#key = new Key(this, "Key", {
      description: `Tapeline ${pipeline}: alarms`,
      enableKeyRotation: true,
      // Nothing is kept under it, so that nobody needs time to think again.
      pendingWindow: Duration.days(7),
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.#key.addToResourcePolicy(cloudWatch(["kms:Decrypt", "kms:GenerateDataKey"], "*"));
    this.topic = new Topic(this, "Topic", {
      displayName: `Tapeline ${pipeline}`,
      masterKey: this.#key,
      enforceSSL: true,
    });
    // With a policy of its own, a topic no longer has the one that lets everyone in the account.
    this.topic.addToResourcePolicy(cloudWatch(["sns:Publish"], this.topic.topicArn));
    if (email !== undefined) {
      this.topic.addSubscription(new EmailSubscription(email));
    }
  }

  openTo(writer: StageFunction): void {
    writer.reach(
      VARIABLES.alarmsTopicArn,
      this.topic.topicArn,
      { actions: ["sns:Publish"], resources: [this.topic.topicArn] },
      { actions: ["kms:Decrypt", "kms:GenerateDataKey"], resources: [this.#key.keyArn] },
    );
  }
}

/** Alarms of this account, not those of others that have been told to use our topic. */
function cloudWatch(actions: string[], resource: string): PolicyStatement {
  return new PolicyStatement({
    principals: [new ServicePrincipal("cloudwatch.amazonaws.com")],
    actions,
    resources: [resource],
    conditions: { StringEquals: { "aws:SourceAccount": Aws.ACCOUNT_ID } },
  });
}
