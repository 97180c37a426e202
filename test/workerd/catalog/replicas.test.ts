// Replicas that lag, as the simulator has none: what a session says is written here.
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { loaderOf, type Queryable } from "../../../src/catalog/queries.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

/** Who was asked for which keys, by a load that finds what its database has. */
function aLoad(rows: ReadonlyMap<Queryable, readonly string[]>) {
  const asked: (readonly [Queryable, readonly string[]])[] = [];
  const load = async (db: Queryable, keys: readonly string[]) => {
    asked.push([db, keys]);
    return new Map(keys.filter((key) => rows.get(db)?.includes(key)).map((key) => [key, `value of ${key}`]));
  };
  return { asked, load };
}

describe("a look-up", () => {
  const replica = { prepare: () => undefined } as unknown as D1DatabaseSession;

  it("is answered by the nearest replica, without a word to the primary", async () => {
    const session = vi.spyOn(env.DB, "withSession").mockReturnValue(replica);
    const { asked, load } = aLoad(new Map([[replica, ["a", "b"]]]));
    expect([...(await loaderOf(env.DB, load)(["a", "b"], "nearest")).keys()]).toEqual(["a", "b"]);
    expect(asked).toEqual([[replica, ["a", "b"]]]);
    expect(session).toHaveBeenCalledWith("first-unconstrained");
  });

  it("asks the primary for what the replica has not, since that may lag", async () => {
    vi.spyOn(env.DB, "withSession").mockReturnValue(replica);
    const { asked, load } = aLoad(
      new Map<Queryable, readonly string[]>([
        [replica, ["a"]],
        [env.DB, ["a", "new"]],
      ]),
    );
    const found = await loaderOf(env.DB, load)(["a", "new", "none"], "nearest");
    expect([...found.keys()]).toEqual(["a", "new"]);
    expect(asked).toEqual([
      [replica, ["a", "new", "none"]],
      [env.DB, ["new", "none"]],
    ]);
  });

  it("is the primary's word alone when what is known is looked up again", async () => {
    const session = vi.spyOn(env.DB, "withSession").mockReturnValue(replica);
    const { asked, load } = aLoad(new Map([[env.DB as Queryable, ["a"]]]));
    expect([...(await loaderOf(env.DB, load)(["a", "gone"], "primary")).keys()]).toEqual(["a"]);
    expect(asked).toEqual([[env.DB, ["a", "gone"]]]);
    expect(session).not.toHaveBeenCalled();
  });
});
