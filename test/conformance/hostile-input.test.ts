// What no client library sends: broken HTTP, bodies that lie about their length, dribble in or break off.
// Much of it is refused by the runtime's HTTP server before the Worker sees a request; then the answer, if
// there is any, is the runtime's and not JSON. What must hold either way: nothing is stored, no answer is
// worse than a 4xx, one that is JSON has the error object, and the server goes on serving.
import { connect } from "node:net";
import { beforeAll, describe, expect, it } from "vitest";
import { LOCAL_KEYS } from "../../scripts/local-keys.ts";
import { createMeter, raw, unique, url } from "./client.ts";

const PATH = "/v2/billing/meter_events";
const V1_PATH = "/v1/billing/meter_events";

/** How long an answer is waited for that need not come (ms): a server may wait for the rest of a body. */
const PATIENCE_MS = 1_500;

/** How long one is waited for that must come (ms). */
const LONG_PATIENCE_MS = 30_000;

let eventName: string;

beforeAll(async () => {
  eventName = (await createMeter()).event_name;
});

type Answer = { readonly status: number; readonly headers: string; readonly body: string };

type Manner = {
  /** Waits this long after each part (ms). */
  readonly pause?: number;
  /** Ends its own side after the last part, or breaks the connection off. */
  readonly finally?: "end" | "destroy";
  readonly patience?: number;
};

/** Sends parts over a socket of their own; gives the answer, or nothing when none came. */
function speak(parts: readonly (string | Uint8Array)[], manner: Manner = {}): Promise<Answer | undefined> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(url).port), "127.0.0.1");
    let received = Buffer.alloc(0);
    const finish = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(toAnswer(received.toString("latin1")));
    };
    const timer = setTimeout(finish, manner.patience ?? PATIENCE_MS);
    socket.on("error", finish);
    socket.on("close", finish);
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (isWhole(received.toString("latin1"))) finish();
    });
    socket.on("connect", async () => {
      for (const part of parts) {
        if (socket.destroyed) return;
        socket.write(part);
        if (manner.pause !== undefined) await new Promise((later) => setTimeout(later, manner.pause));
      }
      if (manner.finally === "end") socket.end();
      if (manner.finally === "destroy") socket.destroy();
    });
  });
}

/** Whether the answer is there to its end. */
function isWhole(text: string): boolean {
  const [head = "", body] = text.split(/\r\n\r\n(.*)/s);
  if (body === undefined) return false;
  const length = /^content-length: (\d+)/im.exec(head)?.[1];
  return length === undefined ? body.endsWith("0\r\n\r\n") : body.length >= Number(length);
}

function toAnswer(text: string): Answer | undefined {
  const [head = "", body = ""] = text.split(/\r\n\r\n(.*)/s);
  const status = /^HTTP\/1\.1 (\d{3})/.exec(head)?.[1];
  // What comes behind it is the answer to whatever the server took for a second request.
  const length = Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? body.length);
  return status === undefined ? undefined : { status: Number(status), headers: head, body: body.slice(0, length) };
}

const anEvent = (identifier: string): string =>
  JSON.stringify({ event_name: eventName, identifier, payload: { stripe_customer_id: "cus_1", value: "25" } });

/** The head of a POST, with these headers besides. */
const head = (headers: readonly string[], path = PATH, type = "application/json"): string =>
  [
    `POST ${path} HTTP/1.1`,
    "host: 127.0.0.1",
    `authorization: Bearer ${LOCAL_KEYS.test}`,
    `content-type: ${type}`,
    ...headers,
    "\r\n",
  ].join("\r\n");

/** Whether the log has an event of this identifier. */
const isStored = async (identifier: string): Promise<boolean> => (await raw(`${V1_PATH}/${identifier}`)).status === 200;

/** The body of an event, as a form that could be cut anywhere. */
const aForm = (identifier: string): string =>
  `event_name=${eventName}&identifier=${identifier}&payload[stripe_customer_id]=cus_1&payload[value]=1`;

const FORM = "application/x-www-form-urlencoded";

const chunk = (text: string): string => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;

/** An answer is the Worker's own when it has its request-id; the others are the runtime's, or of the local server around it. */
function expectNothingWorseThan4xx(answer: Answer | undefined): void {
  if (answer === undefined || !/^request-id: req_/im.test(answer.headers)) return;
  expect(answer.status).toBeGreaterThanOrEqual(400);
  expect(answer.status).toBeLessThan(500);
  expect(answer.headers).toMatch(/^content-type: application\/json/im);
  expect(JSON.parse(answer.body).error).toMatchObject({ message: expect.any(String) });
}

describe("C13.1 a request that is broken HTTP", () => {
  type Case = { parts: (identifier: string) => readonly (string | Uint8Array)[]; manner?: Manner };
  const CHUNKED = "transfer-encoding: chunked";
  const cases: Record<string, Case> = {
    "has a chunk whose size is no number": { parts: (id) => [head([CHUNKED]), `ZZ\r\n${anEvent(id)}\r\n0\r\n\r\n`] },
    "has a chunk shorter than it says": {
      parts: (id) => [head([CHUNKED]), `fff\r\n${anEvent(id)}\r\n0\r\n\r\n`],
      manner: { finally: "end" },
    },
    "has no last chunk": { parts: (id) => [head([CHUNKED]), chunk(anEvent(id))], manner: { finally: "end" } },
    "has no last chunk, and a caller who is gone": {
      parts: (id) => [head([CHUNKED]), chunk(anEvent(id))],
      manner: { finally: "destroy", pause: 20 },
    },
    "has two lengths": {
      parts: (id) => [head([`content-length: ${anEvent(id).length}`, "content-length: 5"]), anEvent(id)],
    },
    "has a negative length": { parts: (id) => [head(["content-length: -5"]), anEvent(id)] },
    "has a length that is no number": { parts: (id) => [head(["content-length: x"]), anEvent(id)] },
    "has a length beyond all numbers": { parts: (id) => [head([`content-length: ${"9".repeat(40)}`]), anEvent(id)] },
    "says it is shorter than it is": { parts: (id) => [head(["content-length: 5"]), anEvent(id)] },
    "says it is longer than it is": {
      parts: (id) => [head(["content-length: 5000"]), anEvent(id)],
      manner: { finally: "end" },
    },
    "says it is longer than it is, and waits": { parts: (id) => [head(["content-length: 5000"]), anEvent(id)] },
    "is a form that lacks its end": {
      parts: (id) => [head(["content-length: 500"], V1_PATH, FORM), aForm(id)],
      manner: { finally: "end" },
    },
    "is a form whose chunk lacks its end": {
      parts: (id) => [head([CHUNKED], V1_PATH, FORM), `fff\r\n${aForm(id)}`],
      manner: { finally: "end" },
    },
    "is a form whose caller is gone": {
      parts: (id) => [head(["content-length: 500"], V1_PATH, FORM), aForm(id)],
      manner: { finally: "destroy", pause: 20 },
    },
    "has binary garbage for a body": {
      parts: () => [head(["content-length: 256"]), Uint8Array.from({ length: 256 }, (_, i) => 255 - i)],
    },
    "has a NUL in a header": {
      parts: (id) => [head(["idempotency-key: a\0b", `content-length: ${anEvent(id).length}`]), anEvent(id)],
    },
    "has a header without a colon": {
      parts: (id) => [head(["nonsense", `content-length: ${anEvent(id).length}`]), anEvent(id)],
    },
    "has a NUL in its path": { parts: () => [head(["content-length: 0"], "/v1/a\0b")] },
    "has a path of 60,000 characters": {
      parts: () => [head(["content-length: 0"], `/v1/billing/meters/${"a".repeat(60_000)}`)],
    },
    "is no HTTP at all": { parts: () => ["GARBAGE\r\n\r\n"] },
    "is the start of TLS": {
      parts: () => [Uint8Array.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])],
      manner: { finally: "end" },
    },
    "ends within its head": { parts: () => [head([]).slice(0, 60)], manner: { finally: "destroy", pause: 20 } },
  };

  it.each(Object.entries(cases))("and %s stores nothing", async (_, { parts, manner }) => {
    const identifier = unique("broken");
    expectNothingWorseThan4xx(await speak(parts(identifier), manner));
    expect(await isStored(identifier)).toBe(false);
  });
});

describe("C13.2 a request that is odd, but whole", () => {
  it.each([
    ["dribbles in byte by byte", (body: string) => [head([`content-length: ${body.length}`]), ...body], 1],
    [
      "comes in many chunks",
      (body: string) => [head(["transfer-encoding: chunked"]), ...[...body].map(chunk), "0\r\n\r\n"],
      1,
    ],
    [
      "has a header of 200,000 characters",
      (body: string) => [head([`x-long: ${"x".repeat(200_000)}`, `content-length: ${body.length}`]), body],
    ],
    [
      "names the server in its request line",
      (body: string) => [head([`content-length: ${body.length}`], `http://elsewhere.test${PATH}`), body],
    ],
  ])("and %s is stored", async (_, parts, pause?: number) => {
    const identifier = unique("odd");
    const answer = await speak(parts(anEvent(identifier)), {
      ...(pause === undefined ? {} : { pause }),
      patience: LONG_PATIENCE_MS,
    });
    expect(answer?.status).toBe(200);
    expect(await isStored(identifier)).toBe(true);
  });

  it("and whose Idempotency-Key is not ASCII is answered like any other", async () => {
    const answer = await speak(
      [Buffer.from(head(["idempotency-key: \xff\x80☃", "content-length: 2"]), "latin1"), "{}"],
      { patience: LONG_PATIENCE_MS },
    );
    expect(answer?.status).toBe(400);
    expectNothingWorseThan4xx(answer);
  });
});

describe("C13.3 callers that leave in the middle of a body", () => {
  it("store nothing, wherever they leave, and hold up nobody", async () => {
    const slow = Array.from({ length: 20 }, () => speak([head(["content-length: 5000"]), "{"]));
    const left = Array.from({ length: 40 }, (_, i) => ({ identifier: unique("left"), part: i / 40 }));
    await Promise.all(
      left.map(({ identifier, part }) => {
        const form = aForm(identifier);
        const sent = form.slice(0, Math.floor(form.length * part));
        return speak([head([`content-length: ${form.length}`], V1_PATH, FORM), sent], { finally: "destroy", pause: 5 });
      }),
    );
    expect((await raw("/v1/billing/meters")).status).toBe(200);
    for (const { identifier } of left) expect(await isStored(identifier)).toBe(false);
    await Promise.all(slow);
  });
});
