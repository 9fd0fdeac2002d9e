import { Duration } from "aws-cdk-lib";
import {
  Alarm,
  AlarmStatusWidget,
  ComparisonOperator,
  Dashboard,
  GraphWidget,
  type IMetric,
  Metric,
  SearchExpression,
  TreatMissingData,
} from "aws-cdk-lib/aws-cloudwatch";
import { SnsAction } from "aws-cdk-lib/aws-cloudwatch-actions";
import type { ITopic } from "aws-cdk-lib/aws-sns";
import { Construct } from "constructs";
import type { Hop } from "./hop.ts";
import type { StageFunction } from "./stage-function.ts";

/** What functions tell, and when: `aws/src/metrics.rs`. */
const NAMESPACE = "Tapeline";
/** From the receipt of an event to its row, of the pipeline. */
const LAG_METRIC = "LagMilliseconds";
/** Counts, each of the pipeline and of each function. There is none while there is nothing to count. */
const COUNTS = {
  putAside: "RecordsPutAside",
  dead: "RecordsDead",
  takenBack: "VersionsTakenBack",
  notDone: "MessagesNotDone",
} as const;
/** Hops take tens of milliseconds, and a function that starts some hundreds: a minute is no longer either. */
const LAG_MS_MAX = 60_000;
/** One try that failed costs a visibility timeout; two in a row are no accident. */
const AGE_VISIBILITY_TIMEOUTS = 2;
const PERIOD = Duration.minutes(1);
/** A burst over HTTP is told to whoever sent it; what lasts longer holds up the queues. */
const LASTING_PERIODS = 5;

export interface MonitoringProps {
  readonly pipeline: string;
  readonly segments: readonly Segment[];
  readonly topic: ITopic;
}

/** A function and the hop that feeds it. */
export interface Segment {
  readonly name: string;
  readonly stageFunction: StageFunction;
  readonly hop: Hop;
}

/** A dashboard, and alarms that go to the topic. */
export class Monitoring extends Construct {
  readonly #action: SnsAction;
  readonly #alarms: Alarm[] = [];

  constructor(scope: Construct, id: string, { pipeline, segments, topic }: MonitoringProps) {
    super(scope, id);
    this.#action = new SnsAction(topic);
    const ofPipeline = (metricName: string, statistic: string): Metric =>
      new Metric({
        namespace: NAMESPACE,
        metricName,
        dimensionsMap: { Pipeline: pipeline },
        statistic,
        period: PERIOD,
      });
    const lag = ofPipeline(LAG_METRIC, "Maximum");
    this.alarm("Freshness", lag, {
      is: `rows of ${pipeline} are more than ${LAG_MS_MAX / 1000} s behind`,
      above: LAG_MS_MAX,
      periods: LASTING_PERIODS,
    });
    // Of all functions together, since an alarm costs something each month: the dashboard and the logs say which it was.
    // What stages refuse of what vendors send is none of it, nor what is tried again, of which the age of messages tells.
    this.alarm("PutAside", ofPipeline(COUNTS.putAside, "Sum"), {
      is: `a stage of ${pipeline} failed on records that are in the dead letters now`,
      above: 0,
      periods: 1,
    });
    this.alarm("TakenBack", ofPipeline(COUNTS.takenBack, "Sum"), {
      is: `a component of ${pipeline} failed and the one before it is back`,
      above: 0,
      periods: 1,
    });
    for (const segment of segments) {
      this.watch(segment);
    }
    this.dashboard(pipeline, segments, lag);
  }

  private watch({ name, stageFunction: { lambda }, hop }: Segment): void {
    const age = AGE_VISIBILITY_TIMEOUTS * hop.visibilityTimeout.toSeconds();
    this.alarm(`${name}-Age`, ageOf(hop), { is: `a message has waited ${age} s for ${name}`, above: age, periods: 1 });
    this.alarm(`${name}-DeadLetters`, deadLettersOf(hop), {
      is: `messages that ${name} could not take are in its dead-letter queue`,
      above: 0,
      periods: 1,
    });
    this.alarm(`${name}-Errors`, lambda.metricErrors({ period: PERIOD }), {
      is: `${name} crashed or ran out of time`,
      above: 0,
      periods: 1,
    });
    this.alarm(`${name}-Throttles`, lambda.metricThrottles({ period: PERIOD }), {
      is: `${name} has more calls than its concurrency allows`,
      above: 0,
      periods: LASTING_PERIODS,
    });
  }

  private alarm(id: string, metric: Metric, rule: { is: string; above: number; periods: number }): void {
    const alarm = new Alarm(this, id, {
      alarmDescription: `Tapeline: ${rule.is}`,
      metric,
      threshold: rule.above,
      comparisonOperator: ComparisonOperator.GREATER_THAN_THRESHOLD,
      evaluationPeriods: rule.periods,
      // A market that is closed sends nothing.
      treatMissingData: TreatMissingData.NOT_BREACHING,
    });
    alarm.addAlarmAction(this.#action);
    alarm.addOkAction(this.#action);
    this.#alarms.push(alarm);
  }

  private dashboard(pipeline: string, segments: readonly Segment[], lag: Metric): void {
    const each = (metric: (segment: Segment) => IMetric) => segments.map(metric);
    const lambdas = (metric: (segment: Segment, options: { label: string; period: Duration }) => IMetric) =>
      each((segment) => metric(segment, { label: segment.name, period: PERIOD }));
    const widgets = [
      new GraphWidget({ title: "From receipt to commit, ms", width: 12, left: [lag] }),
      new GraphWidget({ title: "Oldest message of each hop, s", width: 12, left: each(({ hop }) => ageOf(hop)) }),
      new GraphWidget({
        title: "Messages in each hop",
        width: 12,
        left: each(({ hop }) => hop.queue.metricApproximateNumberOfMessagesVisible({ period: PERIOD })),
      }),
      new GraphWidget({
        title: "Messages in dead-letter queues",
        width: 12,
        left: each(({ hop }) => deadLettersOf(hop)),
      }),
      new GraphWidget({
        title: "Records in the dead letters; right: of these, those that a stage failed on",
        width: 12,
        left: [ofEachFunction(pipeline, COUNTS.dead)],
        right: [ofEachFunction(pipeline, COUNTS.putAside)],
      }),
      new GraphWidget({
        title: "Messages to be tried again; right: versions that were taken back",
        width: 12,
        left: [ofEachFunction(pipeline, COUNTS.notDone)],
        right: [ofEachFunction(pipeline, COUNTS.takenBack)],
      }),
      new GraphWidget({
        title: "Calls",
        width: 12,
        left: lambdas((segment, options) => segment.stageFunction.lambda.metricInvocations(options)),
      }),
      new GraphWidget({
        title: "Time of a call, 99 of 100, ms",
        width: 12,
        left: lambdas((segment, options) =>
          segment.stageFunction.lambda.metricDuration({ ...options, statistic: "p99" }),
        ),
      }),
      new GraphWidget({
        title: "Errors and throttles",
        width: 12,
        left: lambdas((segment, options) => segment.stageFunction.lambda.metricErrors(options)),
        right: lambdas((segment, options) => segment.stageFunction.lambda.metricThrottles(options)),
      }),
      new AlarmStatusWidget({ title: "Alarms", width: 12, alarms: this.#alarms }),
    ];
    new Dashboard(this, "Dashboard", { widgets: [widgets] });
  }
}

function ageOf(hop: Hop): Metric {
  return hop.queue.metricApproximateAgeOfOldestMessage({ period: PERIOD });
}

function deadLettersOf(hop: Hop): Metric {
  return hop.deadLetters.metricApproximateNumberOfMessagesVisible({ period: PERIOD });
}

/**
 * A line for each function that has told a count within two weeks. Most never do; and a dashboard that is free has at most
 * 50 metrics, of which six functions have 43 without these.
 */
function ofEachFunction(pipeline: string, metricName: string): SearchExpression {
  const metrics = `{${NAMESPACE},Function,Pipeline} MetricName="${metricName}" Pipeline="${pipeline}"`;
  return new SearchExpression({
    expression: `SEARCH('${metrics}', 'Sum', ${PERIOD.toSeconds()})`,
    label: metricName,
    period: PERIOD,
  });
}
