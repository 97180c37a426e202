import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import { describe, expect, it, onTestFinished } from "vitest";
import { Client } from "../../scripts/http.ts";
import { audit } from "../../scripts/operate/audit.ts";
import { redrive } from "../../scripts/operate/redrive.ts";
import { freePort } from "../support/node/server.ts";

/** A server that answers as told; gives its address. */
async function serve(answer: RequestListener): Promise<string> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const address = server.address();
  return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
}

const key = "sk_live_0123456789";

describe("redrive", () => {
  it("sends a letter again with the Idempotency-Key of its lost first attempt, and each letter with its own", async () => {
    const keys: unknown[] = [];
    const url = await serve((request, response) => {
      if (request.method === "GET") {
        response.end(JSON.stringify({ data: [{ id: "dl_2" }, { id: "dl_1" }], has_more: false }));
        return;
      }
      keys.push(request.headers["idempotency-key"]);
      if (keys.length === 1) request.socket.destroy();
      else response.end("{}");
    });
    const lines: string[] = [];
    expect(await redrive(new Client({ url, key }), { key }, (line) => lines.push(line))).toBe(true);
    expect(lines).toEqual(["2 live dead letters: 2 stored, 0 left"]);
    const [first, again, other] = keys;
    expect(keys).toEqual([expect.any(String), first, expect.any(String)]);
    expect(again).toBe(first);
    expect(other).not.toBe(first);
  });

  it("says of a letter why it is left", async () => {
    const url = await serve((_, response) => {
      response.statusCode = 404;
      response.end(JSON.stringify({ error: { message: "No such dead letter: 'dl_1'" } }));
    });
    const lines: string[] = [];
    const options = { id: "dl_1", key: "rk_test_0123456789" };
    expect(await redrive(new Client({ url, key }), options, (line) => lines.push(line))).toBe(false);
    expect(lines).toEqual(["dl_1  No such dead letter: 'dl_1'", "1 test dead letters: 0 stored, 1 left"]);
  });
});

describe("every command", () => {
  it("says after seconds that there is no server", async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const asked = audit(new Client({ url, key }), {}, () => {});
    await expect(asked).rejects.toThrow(`gave up on ${url} after 3 s: `);
  });
});
