import fc from "fast-check";
import { expect, test } from "vitest";
import { workInLanes } from "../../scripts/import/lanes.ts";

type Item = { readonly lane: number; readonly number: number };

const items = (lanes: readonly number[]): Item[] => lanes.map((lane, number) => ({ lane, number }));

async function* feed(list: readonly Item[], onTaken = () => {}): AsyncGenerator<Item, void, undefined> {
  for (const item of list) {
    onTaken();
    yield item;
  }
}

/** Works on items, of which ten are held unless told otherwise. */
function run(
  source: AsyncIterable<Item>,
  work: (item: Item) => Promise<void>,
  { window = 10, stop = new AbortController() } = {},
): Promise<void> {
  return workInLanes(source, { laneOf: ({ lane }) => lane, work, window, stop });
}

test("every item is worked on once, those of a lane in sequence, and no more are held than allowed", async () => {
  const lane = fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.constantFrom(1, 2, 3, 4));
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(lane, { maxLength: 40 }),
      fc.integer({ min: 1, max: 10 }),
      async (scheduler, lanes, window) => {
        const list = items(lanes);
        const done: Item[] = [];
        const busy = new Set<number>();
        let taken = 0;
        const work = async (item: Item): Promise<void> => {
          expect(busy).not.toContain(item.lane);
          busy.add(item.lane);
          await scheduler.schedule(Promise.resolve());
          busy.delete(item.lane);
          done.push(item);
        };
        // One item is in the hand while it waits for room.
        const source = feed(list, () => expect(++taken - done.length).toBeLessThanOrEqual(window + 1));
        await scheduler.waitFor(run(source, work, { window }));

        for (const name of new Set(lanes)) {
          const ofLane = (all: readonly Item[]) => all.filter((item) => item.lane === name).map(({ number }) => number);
          expect(ofLane(done)).toEqual(ofLane(list));
        }
        expect(done).toHaveLength(list.length);
      },
    ),
  );
});

test("other lanes go on while one is held up", async () => {
  const gate = Promise.withResolvers<void>();
  const [slow, last] = [0, 3];
  const done: number[] = [];
  const work = async ({ lane }: Item): Promise<void> => {
    if (lane === slow) await gate.promise;
    done.push(lane);
    if (lane === last) gate.resolve();
  };
  await run(feed(items([slow, slow, 1, 2, last])), work);
  expect(done).toEqual([1, 2, last, slow, slow]);
});

test("the first error ends the work, after what is under way has ended", async () => {
  const stop = new AbortController();
  const failed = Promise.withResolvers<void>();
  const [good, bad] = [0, 1];
  const done: number[] = [];
  const work = async ({ lane, number }: Item): Promise<void> => {
    if (lane === bad) {
      failed.resolve();
      throw new Error("lost");
    }
    await failed.promise;
    done.push(number);
  };
  await expect(run(feed(items([good, bad, good, 2])), work, { stop })).rejects.toThrow("lost");
  expect(done).toEqual([0]);
  expect(stop.signal.aborted).toBe(true);
});

test.each([
  ["an error of the items is thrown", { fails: true, stops: false }],
  ["a stop starts nothing more and is no error, also when it finds the window full,", { fails: false, stops: true }],
])("%s after what is under way has ended", async (_, { fails, stops }) => {
  async function* source(): AsyncGenerator<Item, void, undefined> {
    yield* items(stops ? [0, 0, 0, 1] : [0]);
    if (fails) throw new Error("unreadable");
  }
  const stop = new AbortController();
  const done: number[] = [];
  const work = async ({ number }: Item): Promise<void> => {
    if (stops) stop.abort();
    await Promise.resolve();
    done.push(number);
  };
  const worked = run(source(), work, { window: 2, stop });
  await (fails ? expect(worked).rejects.toThrow("unreadable") : worked);
  expect(done).toEqual([0]);
});
