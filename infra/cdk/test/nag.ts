import { type App, Validations } from "aws-cdk-lib";
import { AwsSolutionsChecks } from "cdk-nag";

export interface Finding {
  readonly rule: string;
  readonly path: string;
}

/** What breaks a rule of AWS Solutions and is not explained. */
export function unexplained(app: App): Finding[] {
  return findings(app, new AwsSolutionsChecks(app));
}

/** What is explained although no rule is broken there. */
export function explainedInVain(app: App): Finding[] {
  const checks = new AwsSolutionsChecks(app);
  Object.defineProperty(checks, "isAcknowledged", { value: () => false });
  const found = findings(app, checks);
  const isFound = ({ rule, path }: Finding) =>
    found.some((finding) => finding.rule === rule && finding.path.startsWith(path));
  return explained(app).filter((finding) => !isFound(finding));
}

/** What is explained. */
export function explained(app: App): Finding[] {
  return app.node.findAll().flatMap(({ node }) =>
    node.metadata
      .filter(({ type }) => type === Validations.ACKNOWLEDGED_RULES_METADATA_KEY)
      .flatMap(({ data }) => Object.keys(data))
      .map((rule) => ({ rule: rule.replace(/^annotation::/i, ""), path: node.path })),
  );
}

function findings(app: App, checks: AwsSolutionsChecks): Finding[] {
  return checks
    .validateScope(app)
    .violations.flatMap(({ ruleName, violatingResources }) =>
      violatingResources.map(({ constructPath }) => ({ rule: ruleName, path: constructPath ?? "" })),
    );
}
