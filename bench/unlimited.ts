// Rate limiters that count nothing and never refuse, as a plugin of Miniflare. Its own count each call in a Durable Object,
// which takes as long as the event itself, while Cloudflare counts in the memory of the machine that runs the Worker.
import type { Plugin } from "miniflare";

const MODULE = "edgemeter-bench:unlimited";

/** Runs in the Worker's isolate: a call of it is a call of JavaScript. */
const CODE = "export default () => ({ limit: async () => ({ success: true }) });";

/** What makes a limit of a wrangler.toml such a binding (`unsafeBindings`). */
export const unlimited = (name: string) => ({
  name,
  type: "unlimited",
  plugin: { package: import.meta.filename, name: "unlimited" },
  options: {},
});

/** @public By the name that Miniflare looks for. */
export const plugins: Readonly<Record<string, Plugin>> = {
  unlimited: {
    getBindings: ({ config }) =>
      Object.entries(config.env ?? {})
        .filter(([, { type }]) => type === "unsafe:unlimited")
        .map(([name]) => ({ name, wrapped: { moduleName: MODULE } })),
    getNodeBindings: () => ({}),
    getServices: () => {},
    getExtensions: () => [{ modules: [{ name: MODULE, esModule: CODE, internal: true }] }],
  },
};
