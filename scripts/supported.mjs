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
if (process.platform === "linux") {
  // The C library that workerd is built against. Without the network, the report asks no name server.
  process.report.excludeNetwork = true;
  const { glibcVersionRuntime: glibc } = process.report.getReport().header;
  if (glibc === undefined)
    fail("Linux needs glibc; this system has musl (Alpine). A Debian or Ubuntu container works.");
  const [glibcMajor, glibcMinor] = glibc.split(".").map(Number);
  if (glibcMajor < 2 || (glibcMajor === 2 && glibcMinor < 35))
    fail(`glibc 2.35 or newer is needed (Ubuntu 22.04, Debian 12); this system has ${glibc}.`);
}
