import { RemovalPolicy, Validations } from "aws-cdk-lib";
import { Secret } from "aws-cdk-lib/aws-secretsmanager";
import { Construct } from "constructs";
import { VARIABLES } from "./environment.ts";
import type { StageFunction } from "./stage-function.ts";

/** 48 of 62 letters are 285 bits. */
const LETTERS = 48;

/** What callers over HTTP must show when AWS does not check who they are. Functions compare; nobody else is told. */
export class Token extends Construct {
  readonly secret: Secret;

  constructor(scope: Construct, id: string, pipeline: string) {
    super(scope, id);
    this.secret = new Secret(this, "Secret", {
      description: `Tapeline ${pipeline}: the token for HTTP`,
      // Of signs, a header or a shell might make something else.
      generateSecretString: { passwordLength: LETTERS, excludePunctuation: true },
      removalPolicy: RemovalPolicy.DESTROY,
    });
    Validations.of(this.secret).acknowledge({
      id: "AwsSolutions-SMG4",
      reason:
        "Callers hold the same token: one that changes by itself would lock them out. It is changed by hand, with them.",
    });
  }

  openTo(stage: StageFunction): void {
    stage.reach(VARIABLES.adminTokenSecretArn, this.secret.secretArn, {
      actions: ["secretsmanager:GetSecretValue"],
      resources: [this.secret.secretArn],
    });
  }
}
