import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { Client } from "../http.ts";

const PATH = "/v1/edgemeter/dead_letters";

const Letter = z.object({ id: z.string() });

type RedriveOptions = {
  /** One dead letter; all of the key's mode unless given. */
  readonly id?: string;
  /** Its prefix says the mode. */
  readonly key: string;
};

/** Stores dead letters after all; prints why any is still refused, and says whether none is left. */
export async function redrive(
  client: Client,
  { id, key }: RedriveOptions,
  print: (line: string) => void,
): Promise<boolean> {
  // All are listed before the first is stored, which would move the pages.
  const letters = id === undefined ? await Array.fromAsync(client.list(`${PATH}?`, Letter)) : [{ id }];
  let stored = 0;
  for (const letter of letters) {
    // With a key of its own, a letter's retry is told what its lost first attempt became.
    const path = `${PATH}/${encodeURIComponent(letter.id)}/redrive`;
    const { ok, message } = await client.send({ path, form: {}, idempotencyKey: randomUUID() });
    if (ok) stored++;
    else print(`${letter.id}  ${message}`);
  }
  const mode = /^[rs]k_live_/.test(key) ? "live" : "test";
  print(`${letters.length} ${mode} dead letters: ${stored} stored, ${letters.length - stored} left`);
  return stored === letters.length;
}
