// A stream's request, of which one log may have its part and another not: the retry completes it, and
// another body under its key changes nothing.
import { expect } from "vitest";
import { LOCAL_KEYS } from "../../../scripts/local-keys.ts";
import { unique } from "../../support/builders.ts";
import { aToken } from "../support.ts";
import { type Fault, type Place, strikeLog } from "./faults.ts";
import { Story } from "./story.ts";
import { type Crash, crashPoints } from "./table.ts";

/** Events in a request: enough for several logs. */
const EVENTS = 12;

/** Two requests to one meter, with another value under the same key, and how to send them. */
async function aStream(identified: boolean) {
  const story = await Story.begin();
  const key = unique("crash_key");
  const send = (value: string) => {
    const events = Array.from({ length: EVENTS }, () => ({
      event_name: story.meter.event_name,
      payload: { stripe_customer_id: "cus_1", value },
      ...(identified ? { identifier: unique("crash") } : {}),
    }));
    // The clock turns too far for one session.
    return async () => story.ask("/v2/billing/meter_event_stream", key, { events }, await aToken(LOCAL_KEYS.live));
  };
  return { story, send: send("25"), sendOther: send("26") };
}

/**
 * A request that fails: another body under its key is refused where the key was noted, and the retry
 * completes it, with identifiers and without.
 */
async function failedOnce(strike: () => void, { isNoted, isStored }: { isNoted: boolean; isStored: boolean }) {
  for (const identified of [true, false]) {
    const { story, send, sendOther } = await aStream(identified);
    strike();
    const first = await send();
    expect(first).toMatchObject({ status: 503, body: { error: { code: "service_unavailable" } } });
    expect(first.headers.get("stripe-should-retry")).toBe("true");
    await story.rest();
    const before = await story.counted();
    expect(before > 0).toBe(isStored);
    if (isNoted) {
      expect(await sendOther()).toMatchObject({ status: 409, body: { error: { code: "idempotency_error" } } });
      await story.comesTo(before);
    }
    for (const _ of ["the retry", "and one more"]) expect(await send()).toMatchObject({ status: 200 });
    await story.comesTo(EVENTS);
  }
}

// The first append of a request notes its key; those of its events follow, one to each log.
const claim = (place: Place, fault: Fault) => () => strikeLog("append", place, fault);
const part = (place: Place, fault: Fault) => () => strikeLog("append", place, fault, 2);

const notNoted = (strike: () => void): Crash => [
  "nothing is kept, and the retry counts each event once",
  () => failedOnce(strike, { isNoted: false, isStored: false }),
];

const noted = (strike: () => void, { isStored }: { isStored: boolean }): Crash => [
  "another body is refused, and the retry counts each event once",
  () => failedOnce(strike, { isNoted: true, isStored }),
];

const answered: Crash = [
  "the stream is answered, and each event counts once",
  async () => {
    for (const identified of [true, false]) {
      const { story, send } = await aStream(identified);
      strikeLog("append", "after", "eviction", 2);
      for (const _ of ["the request", "and again"]) expect(await send()).toMatchObject({ status: 200 });
      await story.comesTo(EVENTS);
    }
  },
];

crashPoints("crash-points/stream.test.ts", {
  "before a stream's key is noted": {
    "the call to the log fails": notNoted(claim("before", "error")),
    "the log dies": notNoted(claim("before", "abort")),
  },
  "after a stream's key is noted": {
    "the log's answer is lost": noted(claim("after", "error"), { isStored: false }),
    "the log dies": noted(claim("after", "abort"), { isStored: false }),
  },
  "between the shards of a stream": {
    "the call to the second log fails": noted(part("before", "error"), { isStored: true }),
    "the second log dies": noted(part("before", "abort"), { isStored: true }),
    "the second log dies before its disk has it": noted(part("unsaved", "abort"), { isStored: true }),
  },
  "after the commits of a stream": {
    "one log's answer is lost": noted(part("after", "error"), { isStored: true }),
    "one log dies before it answers": noted(part("after", "abort"), { isStored: true }),
    "one log is evicted": answered,
  },
});
