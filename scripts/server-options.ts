import { InvalidArgumentError, Option } from "commander";

/** `--url`: which server; the local one unless given. */
export const urlOption = (): Option =>
  new Option("--url <url>", "server").default("http://127.0.0.1:8787").argParser(serverUrl);

/** `--key`: an API key of that server; also from the environment, where other users do not see it. */
export const keyOption = (local: string): Option =>
  new Option("--key <key>", "API key").env("EDGEMETER_API_KEY").default(local).argParser(apiKey);

function serverUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new InvalidArgumentError("It must be a URL like http://127.0.0.1:8787.");
  }
  return url.origin + url.pathname.replace(/\/+$/, "");
}

function apiKey(text: string): string {
  if (!/^[\x21-\x7e]+$/.test(text)) throw new InvalidArgumentError("It must be an API key like sk_test_….");
  return text;
}
