import { DatabaseSync } from "node:sqlite";

/** What a Worker is bound to, as wrangler uploads it. */
export type Binding = { readonly type: string; readonly name: string } & Readonly<Record<string, unknown>>;

export type Version = {
  readonly id: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly bindings: readonly Binding[];
  /** All that was uploaded beside the code. */
  readonly metadata: Readonly<Record<string, unknown>>;
};

export type Worker = {
  readonly name: string;
  /** The newest first; that one runs. */
  readonly versions: Version[];
  readonly secrets: Map<string, string>;
  crons: readonly string[];
  tags: readonly string[];
  /** Whether it has its workers.dev address. */
  isPublic: boolean;
  /** What it was sent and has counted: the sum of each customer. */
  readonly sums: Map<string, number>;
  /** How many more times the version before responds to GET /health. */
  staleResponses?: number;
};

export type Database = {
  readonly uuid: string;
  readonly name: string;
  readonly location: string | undefined;
  readonly jurisdiction: string | undefined;
  /** Whether it has read replicas. */
  replicated: boolean;
  readonly sql: DatabaseSync;
  /** Functions that SQLite has and this one does not. */
  lacks?: readonly string[];
};

export type Bucket = {
  readonly name: string;
  readonly location: string | undefined;
  /** "default" for none. */
  readonly jurisdiction: string;
};

export type Consumer = {
  readonly consumer_id: string;
  readonly type: string;
  readonly script: string;
  settings: Readonly<Record<string, unknown>>;
};

export type Queue = { readonly queue_id: string; readonly queue_name: string; readonly consumers: Consumer[] };

/** What an account on Cloudflare has, each by its name. */
export type Account = {
  /** The Worker behind each custom domain. */
  readonly domains: Map<string, string>;
  readonly workers: Map<string, Worker>;
  readonly databases: Map<string, Database>;
  readonly buckets: Map<string, Bucket>;
  readonly queues: Map<string, Queue>;
};

export const emptyAccount = (): Account => ({
  domains: new Map(),
  workers: new Map(),
  databases: new Map(),
  buckets: new Map(),
  queues: new Map(),
});

/** A Worker as it is before anything was uploaded to it. */
export const aWorker = (name: string, more: Partial<Worker> = {}): Worker => ({
  ...{ name, versions: [], secrets: new Map(), crons: [], tags: [], isPublic: false, sums: new Map() },
  ...more,
});

/** A version that runs with nothing but text variables. */
export const aVersion = (vars: Readonly<Record<string, string>> = {}): Version => ({
  ...{ id: "version-1", annotations: {}, metadata: {} },
  bindings: Object.entries(vars).map(([name, text]) => ({ type: "plain_text", name, text })),
});

/** A queue, and the Worker that consumes it. */
export const aQueue = (queue_name: string, script?: string): Queue => ({
  ...{ queue_id: `queue-${queue_name}`, queue_name },
  consumers: script === undefined ? [] : [{ consumer_id: "consumer-1", type: "worker", script, settings: {} }],
});

/** A replicated database in Western Europe, with what a script makes in it. */
export function aDatabase(name: string, script = ""): Database {
  const sql = new DatabaseSync(":memory:");
  sql.exec(script);
  return { uuid: `database-${name}`, name, location: "weur", jurisdiction: undefined, replicated: true, sql };
}
