// The ways to break an object at one place, once.
import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { vi } from "vitest";
import { Archiver, CustomerMeter, EventLog } from "../../../src/index.ts";

/** What befalls an object: a call of it fails, it is evicted once its calls are done, or it dies at once. */
export type Fault = "error" | "eviction" | "abort";

/** Where in a call: before it does anything, in the turn that wrote and before the disk has it, or once the disk has it. */
export type Place = "before" | "unsaved" | "after";

export const A_FAILURE = "Network connection lost.";

/** Faults that were set and have not come about. */
const ahead = new Set<object>();

/** How many faults have not come about since this was last asked: such a test would show nothing. */
export function missedFaults(): number {
  const { size } = ahead;
  ahead.clear();
  return size;
}

/** Sets a fault; gives what is to be called when it comes about. */
function setFault(): () => void {
  const fault = {};
  ahead.add(fault);
  return () => ahead.delete(fault);
}

/** Other calls of a method that a fault is set in; they may outlive the request that made them. */
let unfinished = 0;

export const callsUnderWay = (): number => unfinished;

/** For a new story: calls of objects that died are never finished. */
export function forgetCalls(): void {
  unfinished = 0;
}

/** Puts something in the place of one call of a method, the one after `skip` others. */
export function replaceCall(
  target: object,
  method: string,
  replacement: (call: () => Promise<unknown>, object: object) => Promise<unknown>,
  skip = 0,
): void {
  const methods = target as Record<string, (...args: unknown[]) => Promise<unknown>>;
  const original = methods[method];
  const comesAbout = setFault();
  let calls = 0;
  vi.spyOn(methods, method).mockImplementation(async function (this: object, ...args) {
    const call = async () => original?.apply(this, args);
    if (calls++ === skip) {
      comesAbout();
      return replacement(call, this);
    }
    unfinished++;
    return call().finally(() => unfinished--);
  });
}

/** Breaks the next call of a method of any log, at a place. */
export const strikeLog = (method: keyof EventLog & string, place: Place, fault: Fault, skip = 0): void =>
  replaceCall(EventLog.prototype, method, broken(place, fault), skip);

/** Breaks the next call of a CustomerMeter. */
export const strikeLock = (place: Place, fault: Fault): void =>
  replaceCall(CustomerMeter.prototype, "record", broken(place, fault));

const broken = (place: Place, fault: Fault) => async (call: () => Promise<unknown>, object: object) => {
  if (place === "before") befall(object, fault);
  const result = call();
  if (place === "unsaved") befall(object, fault);
  const value = await result;
  if (place === "after") {
    await contextOf(object).storage.sync();
    befall(object, fault);
  }
  return value;
};

/** Breaks a log's next transaction, of those that take back what they wrote, after its work and before it ends. */
export async function strikeTransaction(log: DurableObjectStub<EventLog>, fault: Fault): Promise<void> {
  const comesAbout = setFault();
  await runInDurableObject(log, (object, { storage }) => {
    const transact = storage.transactionSync.bind(storage);
    vi.spyOn(storage, "transactionSync").mockImplementationOnce((work) =>
      transact(() => {
        const done = work();
        comesAbout();
        befall(object, fault);
        return done;
      }),
    );
  });
}

/** Breaks a log at a statement, by a part of its text, before it runs. */
export async function strikeStatement(
  log: DurableObjectStub<EventLog>,
  text: string,
  fault: Fault,
  skip = 0,
): Promise<void> {
  const comesAbout = setFault();
  let calls = 0;
  await runInDurableObject(log, (object, { storage }) => {
    const exec = storage.sql.exec.bind(storage.sql);
    vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: never[]) => {
      if (query.includes(text) && calls++ === skip) {
        comesAbout();
        befall(object, fault);
      }
      return exec(query, ...bindings);
    }) as typeof exec);
  });
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
      if (object instanceof EventLog) await evictDurableObject(env.EVENT_LOG.get(id));
      else if (object instanceof Archiver) await evictDurableObject(env.ARCHIVER.get(id));
      else await evictDurableObject(env.CUSTOMER_METER.get(id));
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

/** Breaks an object while calls of it are under way. */
export const strikeNow = (object: DurableObjectStub<EventLog | CustomerMeter>, fault: Fault): Promise<void> =>
  runInDurableObject(object, (instance) => befall(instance, fault)).catch(() => {});

/** Instances that should be gone. */
const fallen = new WeakSet<object>();

/** Whether an instance was to die or to be evicted. */
export const isFallen = (object: object): boolean => fallen.has(object);
