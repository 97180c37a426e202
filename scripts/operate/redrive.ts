import { z } from "zod";
import { errorOf, type Server } from "../http.ts";
import { get, tryPost } from "./call.ts";

const PATH = "/v1/edgemeter/dead_letters";

const Page = z.object({ data: z.array(z.object({ id: z.string() })), has_more: z.boolean() });

/** Redrives one dead letter, or all of the key's mode; prints what became of each, and says whether none is left. */
export async function redrive(server: Server, id: string | undefined, print: (line: string) => void): Promise<boolean> {
  const ids = id === undefined ? await allLetters(server) : [id];
  let stored = 0;
  for (const letter of ids) {
    const answer = await tryPost(server, `${PATH}/${encodeURIComponent(letter)}/redrive`);
    // Gone since it was listed: another run, or a lost answer to this one, was first.
    if (answer.ok || (id === undefined && answer.status === 404)) stored++;
    else print(`${letter}  ${errorOf(answer).message}`);
  }
  print(`${ids.length} dead letters: ${stored} stored, ${ids.length - stored} left`);
  return stored === ids.length;
}

async function allLetters(server: Server): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const after = ids.at(-1);
    const page = await get(server, `${PATH}?limit=100${after === undefined ? "" : `&starting_after=${after}`}`, Page);
    ids.push(...page.data.map(({ id }) => id));
    if (!page.has_more) return ids;
  }
}
