// edgemeter itself, with everything counted that Cloudflare bills. It answers as the real one does, and
// under /counted the bench.

import { HOUR_MS } from "../../src/domain/window.ts";
import type { Env } from "../../src/env.ts";
import edgemeter from "../../src/index.ts";
import { CustomerMeter as RealCustomerMeter } from "../../src/ingest/customer-meter.ts";
import { EventLog as RealEventLog } from "../../src/log/event-log.ts";
import { LogStore } from "../../src/log/partitions.ts";
import { allShards } from "../../src/log/shards.ts";
import { maintain } from "../../src/scheduled.ts";
import { counts, queueUnits, reset } from "./counting.ts";
import { countingEnv, logBusy } from "./env.ts";
import { countStorage } from "./storage.ts";

/** By then every identifier of now has expired, and every slice with it (ms). */
const EXPIRED_MS = 40 * HOUR_MS;

export class CustomerMeter extends RealCustomerMeter {
  constructor(ctx: DurableObjectState, env: Env) {
    countStorage(ctx);
    super(ctx, countingEnv(env));
  }
}

export class EventLog extends RealEventLog {
  constructor(ctx: DurableObjectState, env: Env) {
    countStorage(ctx);
    super(ctx, countingEnv(env));
  }

  /** A nudge runs it too, but tells it nothing about an alarm. */
  override async alarm(info?: AlarmInvocationInfo): Promise<void> {
    if (info === undefined) return super.alarm();
    counts.alarms++;
    const ended = logBusy.start(this.ctx.id.name ?? "");
    try {
      await super.alarm();
    } finally {
      ended();
    }
  }

  /** Drops what has expired, as if it were that late; the log itself is of no use after it. */
  expire(): void {
    const { storage } = this.ctx;
    storage.transactionSync(() => new LogStore(storage.sql).dropExpired(Date.now() + EXPIRED_MS));
  }
}

/** What the bench asks for; `ahead`: as if it were so much later (ms). */
const CONTROLS: Record<string, (env: Env, ahead: number) => unknown> = {
  "/counted/reset": reset,
  "/counted/counts": () => {},
  "/counted/maintain": (env, ahead) => maintain(countingEnv(env), Date.now() + ahead),
  "/counted/expire": (env) => {
    const logs = env.EVENT_LOG as unknown as DurableObjectNamespace<EventLog>;
    return Promise.all(allShards(env).map((shard) => logs.getByName(`shard-${shard}`).expire()));
  },
};

export default {
  async fetch(request, env, execution) {
    const { pathname, searchParams } = new URL(request.url);
    const control = CONTROLS[pathname];
    if (control !== undefined) {
      await control(env, Number(searchParams.get("ahead") ?? 0));
      return Response.json(counts);
    }
    // How the pipeline is doing is what the bench wants to know.
    if (pathname === "/v1/edgemeter/pipeline") return edgemeter.fetch(request, env, execution);
    counts.httpRequests++;
    return edgemeter.fetch(request, countingEnv(env), execution);
  },

  queue(batch, env) {
    counts.consumerRuns++;
    // Read and deleted, each.
    for (const { body } of batch.messages) counts.queueOperations += 2 * queueUnits(String(body));
    return edgemeter.queue(batch, countingEnv(env));
  },
} satisfies ExportedHandler<Env>;
