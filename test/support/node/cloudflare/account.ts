import type { DatabaseSync } from "node:sqlite";

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
};

export type Database = {
  readonly uuid: string;
  readonly name: string;
  readonly location: string | undefined;
  /** Whether it has read replicas. */
  replicated: boolean;
  readonly sql: DatabaseSync;
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
  readonly workers: Map<string, Worker>;
  readonly databases: Map<string, Database>;
  readonly queues: Map<string, Queue>;
};

export const emptyAccount = (): Account => ({ workers: new Map(), databases: new Map(), queues: new Map() });
