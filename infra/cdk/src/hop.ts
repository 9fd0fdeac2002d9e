import { Duration, type RemovalPolicy } from "aws-cdk-lib";
import { EventSourceMapping } from "aws-cdk-lib/aws-lambda";
import { DeduplicationScope, FifoThroughputLimit, Queue, QueueEncryption, type QueueProps } from "aws-cdk-lib/aws-sqs";
import { Construct } from "constructs";
import { seconds } from "./duration.ts";
import { VARIABLES, type Variable } from "./environment.ts";
import type { Settings } from "./settings.ts";
import type { StageFunction } from "./stage-function.ts";

/** What AWS asks for: while a call is throttled and tried again, its messages must not come back to others. */
const VISIBILITY_TIMEOUTS = 6;
/** The longest that SQS knows: after a weekend and a week of holidays nothing is gone. */
const RETENTION = Duration.days(14);
/**
 * The most that SQS knows. A record that a stage fails on is put aside by the function, so that no message comes back
 * because of what is in its records. What comes back whole is done when its cause is gone, and some causes go by
 * themselves: a crash, a throttled call, a service that was down, a call that had no time left. Others wait for somebody: a
 * stage that does not start or does not take the state, a component that is nowhere, stages that were fused in another
 * way, a message that is none of ours, or comes behind one that is lost.
 *
 * In the dead letters none of these would be better off. Behind the first function a message that went there would stop its
 * partition anyway, since none may be left out; before it, its records would come late. So it waits in its place, and an
 * alarm tells how long. Messages behind it count as received too, without having been tried.
 */
const RECEIVES_MAX = 1000;
/** Messages hold many records already, and those of a call fail and wait together. */
const BATCH_MESSAGES_MAX = 10;

export interface HopProps {
  readonly settings: Settings;
  readonly removalPolicy: RemovalPolicy;
}

/** The way into a function: a FIFO queue with a group for each partition, and where its messages end that never pass. */
export class Hop extends Construct {
  readonly queue: Queue;
  readonly deadLetters: Queue;
  readonly visibilityTimeout: Duration;
  readonly #callsMax: number | undefined;

  constructor(scope: Construct, id: string, { settings, removalPolicy }: HopProps) {
    super(scope, id);
    this.visibilityTimeout = Duration.seconds(VISIBILITY_TIMEOUTS * seconds(settings.timeout));
    this.#callsMax = settings.batchConcurrency;
    const shared: QueueProps = {
      fifo: true,
      // Who sends names its messages: equal bytes may be two messages.
      contentBasedDeduplication: false,
      // Together these two lift the limit of 300 calls a second from the queue to each partition.
      deduplicationScope: DeduplicationScope.MESSAGE_GROUP,
      fifoThroughputLimit: FifoThroughputLimit.PER_MESSAGE_GROUP_ID,
      // Costs nothing and needs no grant; the queue's policy says who reads.
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      retentionPeriod: RETENTION,
      removalPolicy,
    };
    this.deadLetters = new Queue(this, "DeadLetters", shared);
    this.queue = new Queue(this, "Queue", {
      ...shared,
      visibilityTimeout: this.visibilityTimeout,
      deadLetterQueue: { queue: this.deadLetters, maxReceiveCount: RECEIVES_MAX },
    });
  }

  /** Calls a function with what arrives. */
  feed(reader: StageFunction): void {
    reader.reach(VARIABLES.inQueueUrl, this.queue.queueUrl, {
      actions: ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
      resources: [this.queue.queueArn],
    });
    new EventSourceMapping(this, "Mapping", {
      target: reader.lambda,
      eventSourceArn: this.queue.queueArn,
      batchSize: BATCH_MESSAGES_MAX,
      reportBatchItemFailures: true,
      // A call that is refused for want of concurrency counts as a try of its messages.
      ...(this.#callsMax === undefined ? {} : { maxConcurrency: this.#callsMax }),
    });
  }

  /** Lets a function send. */
  openTo(sender: StageFunction, variable: Variable): void {
    sender.reach(variable, this.queue.queueUrl, { actions: ["sqs:SendMessage"], resources: [this.queue.queueArn] });
  }
}
