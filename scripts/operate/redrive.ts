import { randomUUID } from "node:crypto";
import { z } from "zod";
import { CommandError } from "../command-error.ts";
import { errorOf } from "../http.ts";
import type { Caller } from "./caller.ts";

const PATH = "/v1/edgemeter/dead_letters";

const Page = z.object({ data: z.array(z.object({ id: z.string() })), has_more: z.boolean() });

type RedriveOptions = {
  /** One dead letter; all of the key's mode unless given. */
  readonly id?: string;
  /** Its prefix says the mode. */
  readonly key: string;
};

/** Stores dead letters after all; prints why any is refused still, and says whether none is left. */
export async function redrive(
  caller: Caller,
  { id, key }: RedriveOptions,
  print: (line: string) => void,
): Promise<boolean> {
  const ids = id === undefined ? await allLetters(caller) : [id];
  let stored = 0;
  for (const letter of ids) {
    // With a key of its own, a letter's retry is told what its lost first attempt became.
    const headers = { "idempotency-key": randomUUID() };
    const answer = await caller.tryPost(`${PATH}/${encodeURIComponent(letter)}/redrive`, {}, headers);
    // No other letter would fare better.
    if (answer.status === 403) throw new CommandError(errorOf(answer).message);
    if (answer.ok) stored++;
    else print(`${letter}  ${errorOf(answer).message}`);
  }
  const mode = /^[rs]k_live_/.test(key) ? "live" : "test";
  print(`${ids.length} ${mode} dead letters: ${stored} stored, ${ids.length - stored} left`);
  return stored === ids.length;
}

async function allLetters(caller: Caller): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const after = ids.at(-1);
    const page = await caller.get(`${PATH}?limit=100${after === undefined ? "" : `&starting_after=${after}`}`, Page);
    ids.push(...page.data.map(({ id }) => id));
    if (!page.has_more) return ids;
  }
}
