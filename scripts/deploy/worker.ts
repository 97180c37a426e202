import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { ARCHIVE, type TargetBucket } from "./target.ts";

/** A Worker as it is on the account. */
export type Worker = {
  /** Of the version that all requests go to; `undefined` when there is none, or it carries none. */
  readonly fingerprint: string | undefined;
  readonly vars: ReadonlyMap<string, string>;
  /** The ids of the databases that it is bound to, by binding. They may not exist any more. */
  readonly databases: ReadonlyMap<string, string>;
  /** The bucket that it is bound to as its archive. It may not exist any more. */
  readonly bucket: TargetBucket | undefined;
  readonly secrets: readonly string[];
  readonly crons: readonly string[];
  /** Whether its workers.dev address works. */
  readonly isPublic: boolean;
};

const Settings = z.object({
  bindings: z
    .array(
      z.object({
        type: z.string(),
        name: z.string(),
        text: z.string().optional(),
        id: z.string().optional(),
        database_id: z.string().optional(),
        bucket_name: z.string().optional(),
        jurisdiction: z.string().nullish(),
      }),
    )
    .default([]),
});
const Secrets = z.array(z.object({ name: z.string() }));
const Crons = z.object({ schedules: z.array(z.object({ cron: z.string() })) });
const Publicity = z.object({ enabled: z.boolean().default(false) });
const Deployments = z.object({
  deployments: z.array(
    z.object({ versions: z.array(z.object({ version_id: z.string(), percentage: z.number() })).default([]) }),
  ),
});
const Version = z.object({ annotations: z.record(z.string(), z.unknown()).nullish() });
const Domains = z.array(z.object({ hostname: z.string(), service: z.string() }));

const path = (name: string): string => `/workers/scripts/${encodeURIComponent(name)}`;

type Bindings = z.output<typeof Settings>["bindings"];

const bindingsOf = async (cloudflare: Cloudflare, name: string): Promise<Bindings | undefined> =>
  (await cloudflare.find(`${path(name)}/settings`, Settings))?.bindings;

const varsOf = (bindings: Bindings): Worker["vars"] =>
  new Map(bindings.flatMap(({ type, name, text = "" }) => (type === "plain_text" ? [[name, text]] : [])));

const databasesOf = (bindings: Bindings): Worker["databases"] =>
  new Map(
    bindings.flatMap(({ type, name, id, database_id = id }) =>
      type === "d1" && database_id !== undefined ? [[name, database_id]] : [],
    ),
  );

function bucketOf(bindings: Bindings): Worker["bucket"] {
  const { bucket_name: name, jurisdiction } = bindings.find((binding) => binding.name === ARCHIVE) ?? {};
  if (name === undefined) return undefined;
  // A bucket without a jurisdiction is in Cloudflare's "default".
  return { name, jurisdiction: jurisdiction === "default" ? "" : (jurisdiction ?? "") };
}

/** The text variables of a Worker, or nothing when there is no such Worker. */
export async function findVars(cloudflare: Cloudflare, name: string): Promise<Worker["vars"] | undefined> {
  const bindings = await bindingsOf(cloudflare, name);
  return bindings && varsOf(bindings);
}

export async function findWorker(cloudflare: Cloudflare, name: string): Promise<Worker | undefined> {
  const bindings = await bindingsOf(cloudflare, name);
  if (bindings === undefined) return undefined;
  const [secrets = [], crons, publicity, fingerprint] = await Promise.all([
    cloudflare.find(`${path(name)}/secrets`, Secrets),
    cloudflare.find(`${path(name)}/schedules`, Crons),
    cloudflare.find(`${path(name)}/subdomain`, Publicity),
    runningFingerprint(cloudflare, name),
  ]);
  return {
    fingerprint,
    vars: varsOf(bindings),
    databases: databasesOf(bindings),
    bucket: bucketOf(bindings),
    secrets: secrets.map((secret) => secret.name),
    crons: crons?.schedules.map(({ cron }) => cron) ?? [],
    isPublic: publicity?.enabled ?? false,
  };
}

async function runningFingerprint(cloudflare: Cloudflare, name: string): Promise<string | undefined> {
  const found = await cloudflare.find(`${path(name)}/deployments`, Deployments);
  const [running, ...others] = found?.deployments[0]?.versions ?? [];
  if (running === undefined || others.length > 0) return undefined;
  const version = await cloudflare.find(`${path(name)}/versions/${running.version_id}`, Version);
  const tag = version?.annotations?.["workers/tag"];
  return typeof tag === "string" ? tag : undefined;
}

/** The Worker that a custom domain leads to, if it leads to one. */
export async function workerBehind(cloudflare: Cloudflare, domain: string): Promise<string | undefined> {
  const domains = await cloudflare.find(`/workers/domains?hostname=${encodeURIComponent(domain)}`, Domains);
  return domains?.find(({ hostname }) => hostname === domain)?.service;
}

/** Deletes a Worker, and what its Durable Objects store. */
export const deleteWorker = (cloudflare: Cloudflare, name: string): Promise<void> =>
  cloudflare.remove(`/workers/services/${encodeURIComponent(name)}?force=true`);

/** Where a Worker answers on workers.dev. Throws a CommandError when the account has no part of it. */
export async function workersDevAddress(cloudflare: Cloudflare, name: string): Promise<string> {
  const account = await cloudflare.find("/workers/subdomain", z.object({ subdomain: z.string() }));
  if (account === undefined) {
    throw new CommandError(
      `the account has no workers.dev subdomain yet: https://dash.cloudflare.com/${cloudflare.account}/workers/onboarding`,
    );
  }
  return `https://${name}.${account.subdomain}.workers.dev`;
}
