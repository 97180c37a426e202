// Ends with one line that says why, where nothing of this project can run.

/** Ends with one line that says why nothing can run here. */
export function fail(why) {
  console.error(`edgemeter: ${why}`);
  process.exit(1);
}

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 11))
  fail(`Node 20.11 or newer is needed; this is ${process.versions.node}.`);
if (process.platform === "win32") fail("Windows is supported inside WSL only: https://learn.microsoft.com/windows/wsl");
if (!["linux", "darwin"].includes(process.platform) || !["x64", "arm64"].includes(process.arch)) {
  fail(`Linux and macOS on x64 and arm64 are supported; this is ${process.platform} on ${process.arch}.`);
}
