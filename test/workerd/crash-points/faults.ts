// The ways to break an object at one place, once.
import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { vi } from "vitest";
import { CustomerMeter, EventLog } from "../../../src/index.ts";

/** What befalls an object: a call of it fails, it is evicted once its calls are done, or it dies at once. */
export type Fault = "error" | "eviction" | "abort";

/** Where in a call: before it does anything, in the turn that wrote and before the disk has it, or once the disk has it. */
export type Place = "before" | "unsaved" | "after";

export const A_FAILURE = "Network connection lost.";

type Method = (...args: unknown[]) => unknown;

/** Breaks the next call of a method of any log, at a place. Gives how often that happened. */
export const strikeLog = (
  method: "append" | "cancel" | "confirm",
  place: Place,
  fault: Fault,
  skip = 0,
): (() => number) => strike(EventLog.prototype, method, place, fault, skip);

/** Breaks the next call of a CustomerMeter. Gives how often that happened. */
export const strikeLock = (place: Place, fault: Fault): (() => number) =>
  strike(CustomerMeter.prototype, "record", place, fault, 0);

function strike(prototype: object, method: string, place: Place, fault: Fault, skip: number): () => number {
  const target = prototype as Record<string, Method>;
  const original = target[method] as Method;
  let calls = 0;
  let struck = 0;
  vi.spyOn(target, method).mockImplementation(function (this: unknown, ...args) {
    if (calls++ !== skip) return underWay(async () => original.apply(this, args));
    struck++;
    return broken(this as object, () => original.apply(this, args), place, fault);
  });
  return () => struck;
}

/** Calls that were not struck, and may outlive the request that made them. */
let unfinished = 0;

export const callsUnderWay = (): number => unfinished;

/** For a new story: calls of objects that died are never finished. */
export function forgetCalls(): void {
  unfinished = 0;
}

async function underWay<T>(call: () => Promise<T>): Promise<T> {
  unfinished++;
  try {
    return await call();
  } finally {
    unfinished--;
  }
}

async function broken(object: object, work: () => unknown, place: Place, fault: Fault): Promise<unknown> {
  if (place === "before") befall(object, fault);
  const result = work();
  if (place === "unsaved") befall(object, fault);
  const value = await result;
  if (place === "after") {
    await contextOf(object).storage.sync();
    befall(object, fault);
  }
  return value;
}

/**
 * Breaks a log's next transaction: before its work, after its work and before it ends, or when it
 * has ended and the disk does not have it yet. Gives how often that happened.
 */
export async function strikeTransaction(
  log: DurableObjectStub<EventLog>,
  place: "before" | "inside" | "unsaved",
  fault: Fault,
): Promise<() => number> {
  let struck = 0;
  await runInDurableObject(log, (object, { storage }) => {
    const transact = storage.transactionSync.bind(storage);
    const at = (here: typeof place) => {
      if (here !== place) return;
      struck++;
      befall(object, fault);
    };
    vi.spyOn(storage, "transactionSync").mockImplementationOnce((work) => {
      at("before");
      const result = transact(() => {
        const done = work();
        at("inside");
        return done;
      });
      at("unsaved");
      return result;
    });
  });
  return () => struck;
}

/** Breaks a log at a statement, by a part of its text, before it runs. Gives how often that happened. */
export async function strikeStatement(
  log: DurableObjectStub<EventLog>,
  text: string,
  fault: Fault,
  skip = 0,
): Promise<() => number> {
  let calls = 0;
  await runInDurableObject(log, (object, { storage }) => {
    const exec = storage.sql.exec.bind(storage.sql);
    vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
      if (query.includes(text) && calls++ === skip) befall(object, fault);
      return exec(query, ...bindings);
    }) as typeof exec);
  });
  return () => Math.min(1, Math.max(0, calls - skip));
}

/** To be called inside the object. */
export function befall(object: object, fault: Fault): void {
  if (fault === "error") throw new Error(A_FAILURE);
  fallen.add(object);
  if (fault === "abort") contextOf(object).abort(A_FAILURE);
  if (fault === "eviction") toEvict.push(object);
}

// Tests stop the clock of `scheduler`.
const wait = scheduler.wait.bind(scheduler);

/** Objects that are to be evicted; only a test can do it, from outside. */
const toEvict: object[] = [];

/** Does something, and evicts what is to be evicted meanwhile; an eviction waits for the calls that are under way. */
export async function watched<T>(work: Promise<T>): Promise<T> {
  let isDone = false;
  const settled = work.finally(() => {
    isDone = true;
  });
  settled.catch(() => {});
  while (!isDone || toEvict.length > 0) {
    for (const object of toEvict.splice(0)) {
      const { id } = contextOf(object);
      await evictDurableObject(object instanceof EventLog ? env.EVENT_LOG.get(id) : env.CUSTOMER_METER.get(id));
    }
    await wait(1);
  }
  return settled;
}

/** What the platform gave an object. */
export const contextOf = (object: object): DurableObjectState => (object as { ctx: DurableObjectState }).ctx;

/** Breaks a log from outside. */
export async function end(log: DurableObjectStub<EventLog>, fault: "eviction" | "abort"): Promise<void> {
  // Only what runs can be stopped; this starts it.
  await runInDurableObject(log, (object) => fallen.add(object));
  if (fault === "eviction") return evictDurableObject(log);
  await runInDurableObject(log, (_, context) => context.abort(A_FAILURE)).catch(() => {});
}

/** Instances that should be gone. */
const fallen = new WeakSet<object>();

/** Whether an instance was to die or to be evicted. */
export const isFallen = (object: object): boolean => fallen.has(object);
