// What `npm start` runs before a first start, and after a change: in a process of its own, which takes its memory along.
import { run } from "./command.ts";
import { prepareLocal } from "./local.ts";
import { stateDir } from "./wrangler.ts";

await run("edgemeter", 1, () => prepareLocal(stateDir));
