// What must stay in order goes by one lane: its items happen in sequence, while the lanes go side by side.
import PQueue from "p-queue";

type LaneOptions<T> = {
  readonly laneOf: (item: T) => number;
  /** Done with each item. When it throws, `stop` is aborted. */
  readonly work: (item: T) => Promise<void>;
  /** Items held at a time, waiting or being worked on. No more are taken meanwhile, however uneven the lanes. */
  readonly window: number;
  /** Once aborted no item is started any more; those being worked on are waited for. */
  readonly stop: AbortController;
};

/**
 * Works on all items, those of one lane in their order. Throws the first error of `work` or of the
 * items themselves, after everything under way has ended.
 */
export async function workInLanes<T>(
  items: AsyncIterable<T>,
  { laneOf, work, window, stop }: LaneOptions<T>,
): Promise<void> {
  const held = new PQueue({ concurrency: window });
  /** The last item of each lane that has any. */
  const lanes = new Map<number, Promise<void>>();
  let failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown): void => {
    if (stop.signal.aborted) return;
    failure = { error };
    stop.abort();
  };

  try {
    for await (const item of items) {
      if (stop.signal.aborted) break;
      const lane = laneOf(item);
      const before = lanes.get(lane);
      const done = held.add(async () => {
        await before;
        if (!stop.signal.aborted) await work(item).catch(fail);
        if (lanes.get(lane) === done) lanes.delete(lane);
      });
      lanes.set(lane, done);
      await held.onSizeLessThan(1);
    }
  } catch (error) {
    fail(error);
  }
  await held.onIdle();
  if (failure !== undefined) throw failure.error;
}
