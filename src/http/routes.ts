// Which endpoint a path leads to.
import type { Endpoint } from "./endpoint.ts";
import { endpointsOf, RESOURCES } from "./endpoints.ts";

/** An endpoint of a path, and the path's values for its parameters. */
export type Match = { readonly endpoint: Endpoint; readonly params: Record<string, string> };

/** The matches of paths without parameters that were asked for. */
const known = new Map<string, readonly Match[]>();

/** The endpoints of a path, one for each method. At once when the path is known, since every event comes this way. */
export const matchesOf = (path: string): readonly Match[] | Promise<readonly Match[]> => known.get(path) ?? find(path);

async function find(path: string): Promise<readonly Match[]> {
  const near = RESOURCES.filter(([, ...starts]) =>
    starts.some((start) => path === start || path.startsWith(`${start}/`)),
  );
  const matches = (await endpointsOf(near)).flatMap((endpoint) => {
    const params = paramsOf(endpoint.path, path);
    return params === undefined ? [] : [{ endpoint, params }];
  });
  if (matches.some(({ endpoint }) => endpoint.path === path)) known.set(path, matches);
  return matches;
}

/** What a path has for the parameters of an endpoint's; nothing when it is not that endpoint's. */
function paramsOf(pattern: string, path: string): Record<string, string> | undefined {
  const [expected, given] = [pattern.split("/"), path.split("/")];
  if (expected.length !== given.length) return undefined;
  const params: Record<string, string> = {};
  for (const [place, part] of given.entries()) {
    const name = /^\{(\w+)\}$/.exec(expected[place] ?? "")?.[1];
    if (name === undefined ? part !== expected[place] : part === "") return undefined;
    if (name !== undefined) params[name] = decoded(part, decodeURIComponent);
  }
  return params;
}

/** The path of a URL. As every router does, it takes a letter for the same however it is encoded. */
export function pathOf(url: string): string {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  const end = url.slice(start).search(/[?#]/);
  const path = start === -1 ? "/" : end === -1 ? url.slice(start) : url.slice(start, start + end);
  // An encoded % stays as it is until a parameter is decoded, which would else be decoded twice.
  return path.includes("%") ? decoded(path, (text) => decodeURI(text.replaceAll("%25", "%2525"))) : path;
}

/** Text that cannot be decoded stands for itself. */
function decoded(text: string, decode: (text: string) => string): string {
  try {
    return decode(text);
  } catch {
    return text;
  }
}
