// A deployment, and the making and deleting of a preview, that fail at any one of their calls and are run again.
import fc from "fast-check";
import { describe, expect, inject, test } from "vitest";
import { CommandError } from "../../scripts/command-error.ts";
import { secretsLeftIn, useCloudflare } from "../support/node/cloudflare/fixture.ts";
import { changesOf, deployed, describeAccount, keysIn, secretsOf } from "../support/node/cloudflare/inspect.ts";
import { operationsOn } from "../support/node/cloudflare/operations.ts";
import type { Outage } from "../support/node/cloudflare/server.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** At how many of its calls a deployment is made to fail: DEPLOY_FAILURES. */
    deployFailures: number;
  }
}

const BRANCH = "fails/and is run again";

const { cloudflare, folder } = await useCloudflare();
const operations = await operationsOn(cloudflare, folder);

/** Something that is run, from an empty account or one as `prepare` leaves it. */
type Operation = { readonly prepare?: () => Promise<void>; readonly run: () => Promise<unknown> };

async function begin({ prepare }: Operation, outage?: Outage): Promise<void> {
  cloudflare.reset();
  await prepare?.();
  cloudflare.begin(outage);
}

/** Every call of a run that goes through, failing in both ways; and the account that it comes to. */
async function outagesOf(operation: Operation): Promise<{ outages: Outage[]; account: object }> {
  await begin(operation);
  await operation.run();
  const kinds = ["refused", "unanswered"] as const;
  const outages = cloudflare.calls.flatMap((_, from) => kinds.map((kind) => ({ from, kind })));
  return { outages, account: describeAccount(cloudflare.account) };
}

const someOf = (outages: readonly Outage[], count: number): Outage[] => {
  const length = Math.min(count, outages.length);
  const subsets = fc.shuffledSubarray([...outages], { minLength: length, maxLength: length });
  return fc.sample(subsets, { numRuns: 1, seed: inject("seed") }).flat();
};

/** Runs it into an outage, then again: it ends as if nothing had been, and a third run has nothing to do. */
async function survives(operation: Operation, outage: Outage, account: object): Promise<void> {
  const message = `call ${outage.from}, ${outage.kind}`;
  await begin(operation, outage);
  await expect(operation.run(), message).rejects.toThrow(CommandError);
  expect(await secretsLeftIn(folder), message).toEqual([]);
  const secrets = secretsOf(cloudflare.account);

  cloudflare.begin(undefined);
  await operation.run();
  expect(describeAccount(cloudflare.account), message).toEqual(account);
  // A secret that went up stays, though its run failed: tokens may be signed with it.
  if (secrets.length > 0) expect(secretsOf(cloudflare.account), message).toEqual(secrets);

  cloudflare.begin(undefined);
  await operation.run();
  expect(changesOf(cloudflare), message).toEqual([]);
}

test("a deployment whose events are not counted fails each time, until they are; then it is not uploaded again", async () => {
  cloudflare.reset();
  cloudflare.countsEvents = false;
  const problem = "the self-test failed: an event was accepted and not counted within 2 s, its sum is 0, not 25";
  await expect(operations.deploy()).rejects.toThrow(problem);
  await expect(operations.deploy()).rejects.toThrow(problem);
  cloudflare.countsEvents = true;
  await operations.deploy();
  const { worker, database } = deployed(cloudflare.account);
  expect(worker.versions).toHaveLength(1);
  expect(keysIn(database)).toEqual([]);
  cloudflare.begin(undefined);
  await operations.deploy();
  expect(changesOf(cloudflare)).toEqual([]);
});

describe("while the version before still responds, a deployment", () => {
  /** A Worker of another version, and the record of the self-test that it passed. */
  async function deployedBefore() {
    cloudflare.reset();
    await operations.deploy();
    const { worker, running, sql } = deployed(cloudflare.account);
    const bindings = running.bindings.map((binding) =>
      binding.name === "DEPLOYED_VERSION" ? { ...binding, text: "before" } : binding,
    );
    worker.versions.unshift({ ...running, annotations: {}, bindings });
    sql.exec("UPDATE deployment SET value = 'before' WHERE name = 'self_test'");
    const passed = () => sql.prepare("SELECT value FROM deployment WHERE name = 'self_test'").get()?.value;
    return { worker, passed };
  }

  test("waits for its own before the self-test", async () => {
    const { worker, passed } = await deployedBefore();
    worker.staleResponses = 2;
    await operations.deploy();
    expect(worker.staleResponses).toBe(0);
    expect(passed()).toBe(worker.versions[0]?.annotations["workers/tag"]);
  });

  test("fails when its own does not come, and does not record that it passed", async () => {
    const { worker, passed } = await deployedBefore();
    worker.staleResponses = Number.POSITIVE_INFINITY;
    await expect(operations.deploy()).rejects.toThrow(/the version that responds is before, not [0-9a-f]{24}$/);
    expect(passed()).toBe("before");
  });
});

describe("whatever call it fails at, the next run finishes", () => {
  test.each([
    ["a deployment", () => operations.deploy()],
    ["a preview", () => operations.preview(BRANCH)],
  ])("%s", async (_, run) => {
    const { outages, account } = await outagesOf({ run });
    for (const outage of someOf(outages, inject("deployFailures"))) await survives({ run }, outage, account);
  });

  test("the deletion of a preview, which always leaves an empty account", async () => {
    const operation = { prepare: () => operations.plantPreview(BRANCH), run: () => operations.removePreview(BRANCH) };
    const { outages, account } = await outagesOf(operation);
    expect(account).toEqual({ domains: [], workers: [], databases: [], buckets: [], queues: [] });
    expect(outages.length).toBeGreaterThan(10);
    for (const outage of outages) await survives(operation, outage, account);
  });
});
