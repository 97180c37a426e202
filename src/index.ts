import { consume } from "./aggregate/consumer.ts";
import type { Env } from "./env.ts";
import { createApp } from "./http/app.ts";
import { maintain } from "./scheduled.ts";

export { Archiver } from "./archive/archiver.ts";
export { CustomerMeter } from "./ingest/customer-meter.ts";
export { EventLog } from "./log/event-log.ts";

const app = createApp();

export default {
  fetch: (request, env, execution) => app.fetch(request, env, execution),
  queue: (batch, env) => consume(batch, env),
  scheduled: (_, env) => maintain(env, Date.now()),
} satisfies ExportedHandler<Env>;
