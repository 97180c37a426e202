import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** What a server of a test does with a request: `undefined` loses the response with its connection. */
export type Answer = (request: Request) => Response | undefined | Promise<Response | undefined>;

/** A server on a free port of this computer. */
export type Listening = { readonly url: string; readonly close: () => Promise<void> };

/** Serves what `answer` responds. An error of it is given to `onError`, and loses the response. */
export async function listen(answer: Answer, onError: (error: unknown) => void = console.error): Promise<Listening> {
  const server = createServer((request, response) => {
    serve(request, response, answer).catch((error: unknown) => {
      onError(error);
      response.destroy();
    });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function serve(request: IncomingMessage, response: ServerResponse, answer: Answer): Promise<void> {
  const body = await buffer(request);
  const headers = new Headers(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
  const { url = "", method = "GET" } = request;
  const answered = await answer(
    new Request(`http://test${url}`, { method, headers, body: method === "GET" ? null : body }),
  );
  if (answered === undefined) return void response.destroy();
  response.writeHead(answered.status, Object.fromEntries(answered.headers));
  response.end(await answered.text());
}
