// edgemeter itself, of whatever commit, with everything counted that Cloudflare bills. It answers as the real one does,
// and under /counted the bench. It knows the platform's interfaces alone, and of edgemeter's own that a log's binding
// has LOG in its name, and that logs write groups into tables named so.
import type { DurableObject } from "cloudflare:workers";
import { busy, counts, NO_COUNTS, queueUnits, uncounted } from "./counting.ts";
import { countBindings, countStorage, type Env } from "./platform.ts";

type ObjectClass = new (
  ctx: DurableObjectState,
  env: Env,
) => DurableObject<Env> & { alarm?(info?: AlarmInvocationInfo): Promise<void> };

/** A class of Durable Objects, counted. */
export function countedObject(Real: ObjectClass): ObjectClass {
  return class extends Real {
    constructor(ctx: DurableObjectState, env: Env) {
      countStorage(ctx);
      countBindings(env);
      super(ctx, env);
    }

    /** The object may call it itself, but that tells nothing about an alarm. */
    override async alarm(info?: AlarmInvocationInfo): Promise<void> {
      const run = async (): Promise<void> => super.alarm?.(info);
      if (info === undefined) return run();
      counts().alarms++;
      return busy("logBusyMs", this.ctx.id.name ?? "", run);
    }
  };
}

type RealWorker = {
  readonly fetch: (request: Request, env: Env, execution: ExecutionContext) => Response | Promise<Response>;
  readonly queue: (batch: MessageBatch, env: Env, execution: ExecutionContext) => unknown;
  readonly scheduled: (controller: ScheduledController, env: Env, execution: ExecutionContext) => unknown;
};

/** The Worker, counted. */
export const countedWorker = (real: RealWorker) => ({
  async fetch(request: Request, env: Env, execution: ExecutionContext): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    countBindings(env);
    if (pathname === "/counted/reset") Object.assign(counts(), NO_COUNTS);
    if (pathname === "/counted/clock") setClock(Number(searchParams.get("ahead")));
    if (pathname === "/counted/minute") await aMinute(real, env, execution, Number(searchParams.get("ahead")));
    if (pathname.startsWith("/counted/")) return Response.json(counts());
    // How the pipeline is doing is what the bench wants to know.
    if (pathname === "/v1/edgemeter/pipeline") return uncounted(() => real.fetch(request, env, execution));
    counts().httpRequests++;
    return real.fetch(request, env, execution);
  },

  queue(batch: MessageBatch, env: Env, execution: ExecutionContext): unknown {
    countBindings(env);
    counts().consumerRuns++;
    // Read and deleted, each.
    for (const { body } of batch.messages) counts().queueOperations += 2 * queueUnits(body);
    return real.queue(batch, env, execution);
  },
});

const realNow = Date.now;

/** From now on it is so much later (ms), for the Worker and its objects alike. Alarms that are set then do not come. */
function setClock(ahead: number): void {
  Date.now = () => realNow.call(Date) + ahead;
}

/** What happens each minute, as if it were so much later (ms), for the Worker and its objects alike. */
async function aMinute(real: RealWorker, env: Env, execution: ExecutionContext, ahead: number): Promise<void> {
  const now = Date.now;
  Date.now = () => now.call(Date) + ahead;
  try {
    const controller = { scheduledTime: Date.now(), cron: "* * * * *", noRetry: () => {} };
    await real.scheduled(controller as ScheduledController, env, execution);
  } finally {
    Date.now = now;
  }
}
