import { DurableObject } from "cloudflare:workers";

/** HTTP in, one RPC to one of many objects, no storage, no framework. */
export class Echo extends DurableObject {
  echo(value: string): string {
    return value;
  }
}

export default {
  async fetch(request, env) {
    const name = new URL(request.url).pathname;
    const body = await request.text();
    return new Response(await env.ECHO.getByName(name).echo(body));
  },
} satisfies ExportedHandler<{ ECHO: DurableObjectNamespace<Echo> }>;
