import { Wrong } from "./wrong.ts";

/**
 * What a function is told: the whole contract between this stack and the program `bootstrap`. Durations are texts as in
 * the pipeline file; "JSON" is one line of it.
 */
export const VARIABLES = {
  /** The pipeline's name. Every function. */
  pipeline: "TAPELINE_PIPELINE",
  /** JSON: `[{name, component, settings, memory_mib, time_per_batch}]`, the function's stages in the order of the data. */
  stages: "TAPELINE_STAGES",
  /** JSON: `{delay, every, max_future, idle}`. The first function. */
  watermark: "TAPELINE_WATERMARK",
  /** `source.format`: how what comes in is read when nothing else is said. The first function. */
  format: "TAPELINE_FORMAT",
  /** A number: parts into which symbols are divided. Every function. */
  partitions: "TAPELINE_PARTITIONS",
  /**
   * A table: key `key`. Every function gets, puts, updates and deletes items, one at a time. None of them has `expires`:
   * what a stage remembers goes by event time, when the watermark has passed it.
   */
  stateTable: "TAPELINE_STATE_TABLE",
  /** A table: keys `stage`, `at`. Every function puts items, one at a time; none has `expires`, so that they stay. */
  deadLettersTable: "TAPELINE_DEAD_LETTERS_TABLE",
  /** A table: keys `stage_symbol`, `day_partition`. Every function adds to items. */
  ledgerTable: "TAPELINE_LEDGER_TABLE",
  /** A bucket with components that were pushed; what is not there reads as 404. Every function. */
  componentsBucket: "TAPELINE_COMPONENTS_BUCKET",
  /** The queue that feeds the function. Every function; the first one may send there. */
  inQueueUrl: "TAPELINE_IN_QUEUE_URL",
  /** The queue that feeds the next function. All but the last. */
  outQueueUrl: "TAPELINE_OUT_QUEUE_URL",
  /**
   * A table: keys `table_symbol`, `at`. The last function puts items, one at a time. With `rows_expire` they have
   * `expires`, a number of seconds since the epoch: they may go then.
   */
  rowsTable: "TAPELINE_ROWS_TABLE",
  /** A duration: after so long a row may go. The last function, and only with `rows_expire`. */
  rowsExpire: "TAPELINE_ROWS_EXPIRE",
  /** A bucket for files. The last function puts any there, the first one only below `raw/`: records as they came. */
  objectsBucket: "TAPELINE_OBJECTS_BUCKET",
  /** A topic. The last function. */
  alarmsTopicArn: "TAPELINE_ALARMS_TOPIC_ARN",
  /** The secret with the token that callers over HTTP must show. Every function, and only with authorization "token". */
  adminTokenSecretArn: "TAPELINE_ADMIN_TOKEN_SECRET_ARN",
} as const;

export type Variable = (typeof VARIABLES)[keyof typeof VARIABLES];

/** What Lambda allows, for names and values as a JSON object. */
export const ENVIRONMENT_BYTES_MAX = 4096;

/**
 * Letters of an address without the stack's name: up to 64 of
 * `arn:aws-us-gov:secretsmanager:us-gov-east-1:123456789012:secret:`, and what CloudFormation puts behind the stack's
 * name to make it unique.
 */
const ADDRESS_BYTES = 112;

/** The variables of one function, as far as they are known before it is deployed. */
export class Environment {
  readonly #texts = new Map<Variable, string>();
  readonly #addresses = new Set<Variable>();

  tell(variable: Variable, text: string): void {
    this.#texts.set(variable, text);
  }

  /** Notes a value that only CloudFormation will know. */
  address(variable: Variable): void {
    this.#addresses.add(variable);
  }

  /** Refuses what is too large, and says how large it is. */
  check(functionName: string, stackName: string): void {
    const address = "x".repeat(ADDRESS_BYTES + stackName.length);
    const values = [...this.#texts, ...[...this.#addresses].map((variable) => [variable, address] as const)];
    const bytes = jsonBytes(Object.fromEntries(values));
    if (bytes > ENVIRONMENT_BYTES_MAX) {
      const stages = jsonBytes(this.#texts.get(VARIABLES.stages) ?? "");
      throw new Wrong(
        `function ${functionName}: ${bytes} bytes of environment instead of at most ${ENVIRONMENT_BYTES_MAX}, ` +
          `${stages} of them in ${VARIABLES.stages}: shorten the settings of its stages, or fuse fewer of them`,
      );
    }
  }
}

function jsonBytes(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}
