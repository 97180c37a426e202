// A log that grows from four shards to eight: a shard gives keys up, another asks it about them for a day. Whoever dies
// meanwhile, an event counts once, and edges that know of the growth and edges that do not are told the same.
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
import { uniqueKey } from "../../../src/domain/identifiers.ts";
import { ownerOf } from "../../../src/domain/shards.ts";
import { EventLog } from "../../../src/index.ts";
import { appendAll, cancelIn, retrieveFrom } from "../../../src/log/calls.ts";
import type { EventAppend } from "../../../src/log/entries.ts";
import { unique } from "../../support/builders.ts";
import { again, aNewEvent } from "../support.ts";
import { A_FAILURE, befall, type Fault, type Place, replaceCall, strikeLog, strikeNow, watched } from "./faults.ts";
import { Story } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

const [FEW, MANY] = [[4], [4, 8]];

/** What an edge knows of live mode's log. */
const edge = (shards: readonly number[]) => ({ livemode: true, placement: [{ databases: 4, since: 0 }], shards });

/** An event whose key moves to a new shard. */
function aMovingEvent(story: Story): EventAppend {
  for (;;) {
    const identifier = unique("moving");
    const key = uniqueKey(true, identifier);
    if (ownerOf(key, MANY) >= 4) return aNewEvent({ identifier, key, keyDigest: "key", meter: story.meter.id });
  }
}

/** Reports an event through an edge; gives the id that it was accepted with. */
async function report(event: EventAppend, shards: readonly number[]): Promise<string | undefined> {
  const outcome = (await appendAll(env, edge(shards), [event])).get(event);
  return outcome?.outcome === "accepted" ? outcome.id : undefined;
}

/** Sets a fault for the shard that takes a key over; what it gives is called once the first try has failed. */
type Strike = (story: Story, newShard: number) => unknown;

/** A story of an event that came before the growth, if it `isKnown`, and of calls about it in which something fails. */
async function begin(strike: Strike, fails: boolean, isKnown = true) {
  const story = await Story.begin();
  const event = aMovingEvent(story);
  if (isKnown) expect(await report(event, FEW)).toBe(event.id);
  const end = await strike(story, ownerOf(event.key, MANY));
  /** What a call comes to that is tried again where the first try fails. */
  const come = async <T>(call: () => Promise<T>): Promise<T> => {
    if (fails) await expect(watched(call())).rejects.toThrow();
    if (typeof end === "function") end();
    return watched(call());
  };
  return { story, event, come };
}

/** An event that came before the growth and one that did not, each reported while something fails. */
const reported = (strike: Strike, fails: boolean): Crash => [
  fails ? "the client tries again, and the event counts once" : "the client is answered, and the event counts once",
  async () => {
    for (const isKnown of [true, false]) {
      const { story, event, come } = await begin(strike, fails, isKnown);
      const accepted = await come(() => report(isKnown ? again(event) : event, MANY));
      expect(accepted).toBe(event.id);
      for (const shards of [FEW, MANY]) expect(await report(again(event), shards)).toBe(accepted);
      await story.comesTo(1);
    }
  },
];

const answered = (strike: Strike): Crash => reported(strike, false);
const retried = (strike: Strike): Crash => reported(strike, true);

const cancelled = (strike: Strike, fails: boolean): Crash => [
  fails ? "the client tries again, and the event is cancelled once" : "the event is cancelled once",
  async () => {
    const { story, event, come } = await begin(strike, fails);
    const cancel = (keyDigest: string) => {
      const request = { key: event.key, id: unique("adj"), meters: [story.meter.id], apiKey: 1, keyDigest };
      return cancelIn(env, edge(MANY), { ...request, requestDigest: "request" });
    };
    const first = await come(() => cancel("key"));
    expect(first).toMatchObject({ outcome: "cancelled" });
    expect(await cancel("key")).toEqual(first);
    expect(await cancel("another")).toEqual({ outcome: "already_cancelled" });
    await story.comesTo(0);
  },
];

const found = (strike: Strike, fails: boolean): Crash => [
  fails ? "the client tries again, and the event is found" : "the event is found",
  async () => {
    const { story, event, come } = await begin(strike, fails);
    const retrieve = () => retrieveFrom(env, edge(MANY), event.key);
    expect(await come(retrieve)).toMatchObject({ event: { id: event.id } });
    await story.comesTo(1);
  },
];

type Call = "handOver" | "holdersOf" | "earlierInherited" | "cancelInherited" | "retrieveInherited";

/** Breaks the ancestor once, at a place in a call of it. */
const ancestor = (call: Call, place: Place, fault: Fault) => () => strikeLog(call, place, fault);

/** The ancestor answers no call, until the first try has failed. */
const away = (call: Call) => () => {
  const calls = vi.spyOn(EventLog.prototype, call).mockRejectedValue(new Error(A_FAILURE));
  return () => {
    expect(calls.mock.calls.length).toBeGreaterThan(1);
    calls.mockRestore();
  };
};

/** Breaks the new shard while it waits for its ancestor, before that does anything or once it has answered. */
const asker =
  (call: Call, place: "before" | "after", fault: Fault) =>
  (story: Story, newShard: number): void =>
    replaceCall(EventLog.prototype, call, async (goOn) => {
      const answer = place === "after" ? await goOn() : undefined;
      await strikeNow(story.logOfShard(newShard), fault);
      return place === "after" ? answer : goOn();
    });

/** Breaks the new shard when it has been answered and notes so. */
const noting = (fault: Fault) => async (story: Story, newShard: number) =>
  runInDurableObject(story.logOfShard(newShard), (log, { storage: { kv } }) => {
    const put = kv.put.bind(kv);
    vi.spyOn(kv, "put").mockImplementation((name, value) => {
      if (name !== "ancestors") return put(name, value);
      vi.mocked(kv.put).mockRestore();
      befall(log, fault);
    });
  });

crashPoints("crash-points/growth.test.ts", {
  "before a shard gives its keys up": {
    "the call to it fails": answered(ancestor("handOver", "before", "error")),
    "no call reaches it": retried(away("handOver")),
    "it dies": answered(ancestor("handOver", "before", "abort")),
    "it is evicted": answered(ancestor("handOver", "before", "eviction")),
    "the new shard dies": retried(asker("handOver", "before", "abort")),
  },
  "after a shard has given its keys up": {
    "it dies before its disk has it": answered(ancestor("handOver", "unsaved", "abort")),
    "its answer is lost": answered(ancestor("handOver", "after", "error")),
    "it dies before it answers": answered(ancestor("handOver", "after", "abort")),
    "the new shard dies": retried(asker("handOver", "after", "abort")),
    "the new shard is evicted": answered(asker("handOver", "after", "eviction")),
  },
  "when the new shard notes that": {
    "its disk fails": retried(noting("error")),
    "it dies": retried(noting("abort")),
  },
  "while a commit asks who holds its keys": {
    "the call fails": answered(ancestor("holdersOf", "before", "error")),
    "no call reaches the earlier shard": retried(away("holdersOf")),
    "the earlier shard dies": answered(ancestor("holdersOf", "before", "abort")),
    "the earlier shard is evicted": answered(ancestor("holdersOf", "before", "eviction")),
    "the answer is lost": answered(ancestor("holdersOf", "after", "error")),
    "the new shard dies": retried(asker("holdersOf", "after", "abort")),
    "the new shard is evicted": answered(asker("holdersOf", "after", "eviction")),
  },
  "while a cancellation asks whether it is a retry": {
    "no call reaches the earlier shard": cancelled(away("earlierInherited"), true),
    "the answer is lost": cancelled(ancestor("earlierInherited", "after", "error"), false),
  },
  "while a cancellation asks the earlier shard": {
    "the call fails": cancelled(ancestor("cancelInherited", "before", "error"), false),
    "no call reaches it": cancelled(away("cancelInherited"), true),
    "it dies before its disk has it": cancelled(ancestor("cancelInherited", "unsaved", "abort"), false),
    "its answer is lost": cancelled(ancestor("cancelInherited", "after", "error"), false),
    "it dies before it answers": cancelled(ancestor("cancelInherited", "after", "abort"), false),
    "the new shard dies before": cancelled(asker("cancelInherited", "before", "abort"), true),
    "the new shard dies after": cancelled(asker("cancelInherited", "after", "abort"), true),
  },
  "while a retrieval asks the earlier shard": {
    "the call fails": found(ancestor("retrieveInherited", "before", "error"), false),
    "no call reaches it": found(away("retrieveInherited"), true),
    "it dies": found(ancestor("retrieveInherited", "before", "abort"), false),
    "the new shard dies": found(asker("retrieveInherited", "after", "abort"), true),
  },
});
