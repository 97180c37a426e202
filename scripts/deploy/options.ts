import { InvalidArgumentError, Option } from "commander";

/** `--url`: where the Worker is reached. */
export const addressOption = (): Option =>
  new Option("--url <url>", "where it is reached (default: its workers.dev address)").argParser((text: string) => {
    if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
      throw new InvalidArgumentError("It must be a URL like https://meter.example.com.");
    }
    return text.replace(/\/+$/, "");
  });

/** `--wait`: how long its address may take to answer, in ms. */
export const waitOption = (): Option =>
  new Option("--wait <seconds>", "how long its address may take to answer")
    .default(120_000, "120")
    .argParser((text: string) => {
      if (!/^\d{1,4}$/.test(text)) throw new InvalidArgumentError("It must be a number of seconds.");
      return Number(text) * 1_000;
    });
