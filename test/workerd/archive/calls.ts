// The calls that the archive makes, each by a name; a test decides what they come to.
import { env } from "cloudflare:workers";
import { vi } from "vitest";
import { eventsDatabases } from "../../../src/catalog/databases.ts";
import { HostileD1, type Query } from "../hostile-d1.ts";

/** What each statement of the archive is called: the first whose pattern is in it. */
const STATEMENTS: readonly (readonly [name: string, pattern: RegExp])[] = [
  ["the seal", /SET state = 'sealed'/],
  ["the drop", /DROP TABLE/],
  ["the move", /SET state = /],
  ["a waiting letter", /FROM dead_letters/],
  ["the slices", /SELECT slice, state/],
  ["the lease", /INSERT INTO leases/],
  ["the lease's end", /DELETE FROM leases/],
  ["the record of shards", /FROM deployment/],
  ["the keys' names", /FROM api_keys/],
  ["the meters", /FROM meters/],
  ["the file's row", /INSERT INTO archive_files/],
  ["the file's mark", /UPDATE archive_files SET checked/],
  ["the last file", /FROM archive_files[^)]*ORDER BY file DESC/],
  ["the next file", /FROM archive_files.*LIMIT 3/s],
  ["the files", /FROM archive_files/],
  ["the names in the slice", /AS own ON own.id/],
  ["what is stored", /COUNT\(\*\) AS stored/],
  ["the next segment", /SELECT MIN\(\(/],
  ["the rows", /json\(payload\)/],
  ["the bases", /INSERT INTO survivors/],
  ["the recount", /COUNT\(\*\) AS rows/],
  ["the recount's note", /SET recounted/],
];

/** A call: its name, "" when it is not the archive's, and what tells it from others of the name. */
export type ArchiveCall = { readonly name: string; readonly what: string };

/** What a call comes to. */
export type Meeting = <T>(call: () => Promise<T>, made: ArchiveCall) => Promise<T>;

/** Stands before all that the archive calls until mocks are restored. */
export class ArchiveCalls {
  #meeting: Meeting | undefined;

  constructor() {
    const d1 = new HostileD1([env.DB, ...eventsDatabases(env, true).map(({ db }) => db)]);
    d1.fate = (call, queries) => this.#meeting?.(call, ofStatements(queries)) ?? call();
    this.#stand(env.ARCHIVE, "put", "the object");
    this.#stand(env.ARCHIVE, "get", "the object read");
    this.#stand(env.ARCHIVE, "head", "the object's head");
    this.#stand(env.ARCHIVE, "list", "the list of objects");
    this.#stand(env.ARCHIVE, "delete", "the deletion");
    const getByName = env.EVENT_LOG.getByName.bind(env.EVENT_LOG);
    vi.spyOn(env.EVENT_LOG, "getByName").mockImplementation((shard, options) => {
      const log = getByName(shard, options);
      const status = () => this.#meet(async () => log.status(), { name: "a shard's word", what: shard });
      return { status } as unknown as typeof log;
    });
  }

  /** Does something meanwhile that makes no other calls. */
  async meeting<T>(meeting: Meeting, work: () => Promise<T>): Promise<T> {
    this.#meeting = meeting;
    try {
      return await work();
    } finally {
      this.#meeting = undefined;
    }
  }

  #meet<T>(call: () => Promise<T>, made: ArchiveCall): Promise<T> {
    return this.#meeting?.(call, made) ?? call();
  }

  #stand(target: object, method: string, name: string): void {
    const methods = target as Record<string, (...args: unknown[]) => unknown>;
    const original = methods[method];
    const meet = (call: () => Promise<unknown>, what: string) => this.#meet(call, { name, what });
    vi.spyOn(methods, method).mockImplementation(function (this: object, ...args) {
      return meet(async () => original?.apply(this, args), typeof args[0] === "string" ? args[0] : "");
    });
  }
}

function ofStatements(queries: readonly Query[]): ArchiveCall {
  const sql = queries.map((query) => query.sql).join(";");
  const [name = ""] = STATEMENTS.find(([, pattern]) => pattern.test(sql)) ?? [];
  return { name, what: JSON.stringify(queries.map(({ values }) => values)) };
}
