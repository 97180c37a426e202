import pRetry from "p-retry";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { reasonOf } from "../http.ts";

const ANSWER_TIMEOUT_MS = 10_000;

const Healthy = z.object({ status: z.literal("ok"), version: z.string().optional() });

/**
 * Waits until a version of a Worker says that it is well: a new address takes a while to be known everywhere, and
 * the version before responds for a while after an upload. `fingerprint`: the version's.
 */
export async function awaitHealth(address: string, fingerprint: string, patienceMs: number): Promise<void> {
  const ask = async (): Promise<void> => {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    // Behind Cloudflare Access this is a redirect, and not the Worker's own answer.
    const response = await fetch(`${address}/health`, { signal, redirect: "manual" });
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    const { version = "without a name" } = Healthy.parse(await response.json());
    if (version !== fingerprint) throw new Error(`the version that responds is ${version}, not ${fingerprint}`);
  };
  try {
    await pRetry(ask, {
      retries: Number.POSITIVE_INFINITY,
      minTimeout: 250,
      maxTimeout: 5_000,
      maxRetryTime: patienceMs,
    });
  } catch (error) {
    throw new CommandError(`${address}/health does not say that it is well: ${reasonOf(error)}`);
  }
}
