import { describe, expect, it, onTestFinished } from "vitest";
import { Client } from "../../scripts/http.ts";
import { audit } from "../../scripts/operate/audit.ts";
import { redrive } from "../../scripts/operate/redrive.ts";
import { type Answer, listen } from "../support/node/listen.ts";
import { freePort } from "../support/node/server.ts";

/** A server that answers as told; gives its address. */
async function serve(answer: Answer): Promise<string> {
  const { url, close } = await listen(answer);
  onTestFinished(close);
  return url;
}

const key = "sk_live_0123456789";

describe("redrive", () => {
  it("sends a letter again with the Idempotency-Key of its lost first attempt, and each letter with its own", async () => {
    const keys: unknown[] = [];
    const url = await serve(({ method, headers }) => {
      if (method === "GET") return Response.json({ data: [{ id: "dl_2" }, { id: "dl_1" }], has_more: false });
      keys.push(headers.get("idempotency-key"));
      return keys.length === 1 ? undefined : Response.json({});
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
    const refusal = { error: { message: "No such dead letter: 'dl_1'" } };
    const url = await serve(() => Response.json(refusal, { status: 404 }));
    const lines: string[] = [];
    const options = { id: "dl_1", key: "rk_test_0123456789" };
    expect(await redrive(new Client({ url, key }), options, (line) => lines.push(line))).toBe(false);
    expect(lines).toEqual(["dl_1  No such dead letter: 'dl_1'", "1 test dead letters: 0 stored, 1 left"]);
  });
});

describe("redrive --discard", () => {
  it("gives up one letter, and only one that is named", async () => {
    const paths: string[] = [];
    const url = await serve((request) => {
      paths.push(new URL(request.url).pathname);
      return Response.json({});
    });
    const lines: string[] = [];
    const print = (line: string) => lines.push(line);
    const client = new Client({ url, key });
    expect(await redrive(client, { id: "dl_1", discard: true, key }, print)).toBe(true);
    expect(paths).toEqual(["/v1/edgemeter/dead_letters/dl_1/discard"]);
    expect(lines).toEqual(["1 live dead letters: 1 discarded, 0 left"]);
    await expect(redrive(client, { discard: true, key }, print)).rejects.toThrow("--discard needs the --id");
    expect(paths).toHaveLength(1);
  });
});

describe("audit", () => {
  const none = { missing: 0, altered: 0, summaries_repaired: 0, summaries_suspect: 0, portions_failed: 0 };
  const start = Date.UTC(2026, 0, 1);
  const counted = { start, end: start + 120_000 };
  const step = { ...none, ...{ checked: 0, summaries: 0, entries_waiting: 0, accepted: {}, stored: {}, counted } };

  it.each([
    ["no difference", { stored: { [start]: 2 } }, []],
    ["1 differences", { stored: { [start]: 3 } }, ["            1 more in the databases than in the log, received in"]],
    [
      "5 differences",
      { stored: { [start]: 2 }, missing: 4, portions_failed: 1 },
      ["            1 portions could not be"],
    ],
  ])("adds its steps up: %s", async (end, second, lines) => {
    const steps = [
      { ...step, checked: 2, accepted: { [start]: 2 }, next: "a cursor" },
      { ...step, ...second, next: null },
    ];
    const url = await serve(() => Response.json(steps.shift()));
    const printed: string[] = [];
    const isSound = await audit(new Client({ url, key }), {}, (line) => printed.push(line));
    expect(isSound).toBe(end === "no difference");
    expect(printed[0]).toMatch(/^event log {3}2 entries compared/);
    expect(printed.at(-1)).toMatch(end);
    for (const line of lines) expect(printed.some((each) => each.startsWith(line))).toBe(true);
  });
});

describe("every command", () => {
  it("says after seconds that there is no server", async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const asked = audit(new Client({ url, key }), {}, () => {});
    await expect(asked).rejects.toThrow(`gave up on ${url} after 3 s: `);
  });
});
