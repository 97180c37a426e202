// A stream's request, of which one log may have its part and another not: the retry completes it, and
// another body under its key changes nothing.
import { afterEach, expect, vi } from "vitest";
import { unique } from "../../support/builders.ts";
import { answerOf } from "../support.ts";
import { type Fault, type Place, strikeLog } from "./faults.ts";
import { Story } from "./story.ts";
import { agreesWithReadme, crash } from "./table.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Events in a request: enough for several logs. */
const EVENTS = 12;

type Request = { readonly key: string; readonly events: readonly object[] };

/** Streams to a story's meter. */
async function aStream(): Promise<{
  story: Story;
  request: (identified: boolean, value?: string) => Request;
  stream: (request: Request) => ReturnType<typeof answerOf>;
}> {
  const story = await Story.begin();
  const request = (identified: boolean, value = "25"): Request => ({
    key: unique("crash_key"),
    events: Array.from({ length: EVENTS }, () => ({
      event_name: story.meter.event_name,
      payload: { stripe_customer_id: "cus_1", value },
      ...(identified ? { identifier: unique("crash") } : {}),
    })),
  });
  const stream = async ({ key, events }: Request) => {
    // The clock turns too far for one session.
    const session = await answerOf("/v2/billing/meter_event_session", { body: {} });
    return story.ask("/v2/billing/meter_event_stream", key, { events }, String(session.body.authentication_token));
  };
  return { story, request, stream };
}

/** What D1 gets of a request that failed. */
type Kept = "nothing" | "a part or all";

/**
 * A request that fails: another body under its key is refused where the key was noted, and the retry
 * completes it, with identifiers and without.
 */
async function failedOnce(strike: () => () => number, { isNoted, kept }: { isNoted: boolean; kept: Kept }) {
  for (const identified of [true, false]) {
    const { story, request, stream } = await aStream();
    const mine = request(identified);
    const struck = strike();
    expect(await stream(mine)).toMatchObject({ status: 503 });
    expect(struck()).toBe(1);
    await story.rest();
    const before = await story.counted();
    expect(before === 0 ? "nothing" : "a part or all").toBe(kept);
    if (isNoted) {
      const other = { ...request(identified, "26"), key: mine.key };
      expect(await stream(other)).toMatchObject({ status: 409, body: { error: { code: "idempotency_error" } } });
      await story.rest();
      expect(await story.counted()).toBe(before);
    }
    for (const _ of ["the retry", "and one more"]) expect(await stream(mine)).toMatchObject({ status: 200 });
    await story.rest();
    expect(await story.counted()).toBe(EVENTS);
  }
}

// The first append of a request notes its key; those of its events follow, one to each log.
const claim = (place: Place, fault: Fault) => () => strikeLog("append", place, fault);
const part = (place: Place, fault: Fault) => () => strikeLog("append", place, fault, 2);

const NOTHING = "nothing is kept, and the retry counts each event once";
const NOTED = "another body is refused, and the retry counts each event once";

crash("before a stream's key is noted", "the call to the log fails", NOTHING, () =>
  failedOnce(claim("before", "error"), { isNoted: false, kept: "nothing" }),
);
crash("before a stream's key is noted", "the log dies", NOTHING, () =>
  failedOnce(claim("before", "abort"), { isNoted: false, kept: "nothing" }),
);
crash("after a stream's key is noted", "the log's answer is lost", NOTED, () =>
  failedOnce(claim("after", "error"), { isNoted: true, kept: "nothing" }),
);
crash("after a stream's key is noted", "the log dies", NOTED, () =>
  failedOnce(claim("after", "abort"), { isNoted: true, kept: "nothing" }),
);
crash("between the shards of a stream", "the call to the second log fails", NOTED, () =>
  failedOnce(part("before", "error"), { isNoted: true, kept: "a part or all" }),
);
crash("between the shards of a stream", "the second log dies", NOTED, () =>
  failedOnce(part("before", "abort"), { isNoted: true, kept: "a part or all" }),
);
crash("between the shards of a stream", "the second log dies before its disk has it", NOTED, () =>
  failedOnce(part("unsaved", "abort"), { isNoted: true, kept: "a part or all" }),
);
crash("after the commits of a stream", "one log's answer is lost", NOTED, () =>
  failedOnce(part("after", "error"), { isNoted: true, kept: "a part or all" }),
);
crash("after the commits of a stream", "one log dies before it answers", NOTED, () =>
  failedOnce(part("after", "abort"), { isNoted: true, kept: "a part or all" }),
);
crash(
  "after the commits of a stream",
  "one log is evicted",
  "the stream is answered, and each event counts once",
  async () => {
    for (const identified of [true, false]) {
      const { story, request, stream } = await aStream();
      const struck = part("after", "eviction")();
      const mine = request(identified);
      for (const _ of ["the request", "and again"]) expect(await stream(mine)).toMatchObject({ status: 200 });
      expect(struck()).toBe(1);
      await story.rest();
      expect(await story.counted()).toBe(EVENTS);
    }
  },
);

agreesWithReadme("crash-points/stream.test.ts");
