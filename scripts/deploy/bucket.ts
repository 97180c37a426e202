import { z } from "zod";
import { CommandError } from "../command-error.ts";
import type { Cloudflare } from "./cloudflare.ts";
import { regionFor } from "./region.ts";
import type { Target, TargetBucket } from "./target.ts";

/** Where R2 looks for a bucket, or makes it. */
const within = ({ jurisdiction }: TargetBucket): Readonly<Record<string, string>> =>
  jurisdiction === "" ? {} : { "cf-r2-jurisdiction": jurisdiction };

const Bucket = z.object({ name: z.string() });

/** Whether the account has a bucket. Throws a CommandError that says what to do when the account has no R2. */
export async function hasBucket(cloudflare: Cloudflare, bucket: TargetBucket): Promise<boolean> {
  const path = `/r2/buckets/${encodeURIComponent(bucket.name)}`;
  return (await withR2(cloudflare, cloudflare.find(path, Bucket, within(bucket)))) !== undefined;
}

/**
 * Makes a bucket where a target's databases are to be, or in the region of one (as Cloudflare names it) when the target
 * leaves that open.
 */
export async function createBucket(
  cloudflare: Cloudflare,
  { locationHint }: Target,
  bucket: TargetBucket,
  beside?: string | null,
): Promise<void> {
  const region = regionFor(locationHint, beside);
  // R2 takes a jurisdiction or a hint.
  const place = bucket.jurisdiction === "" && region !== undefined ? { locationHint: region } : {};
  const body = { name: bucket.name, ...place };
  await withR2(cloudflare, cloudflare.post("/r2/buckets", body, z.unknown(), within(bucket)));
}

/** What Cloudflare says for an account without R2. */
const NO_R2 = "[10042]";

async function withR2<T>({ account }: Cloudflare, asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof CommandError && error.message.includes(NO_R2))) throw error;
    throw new CommandError(
      `R2 is not enabled on account ${account}: enable it at https://dash.cloudflare.com/${account}/r2/overview, or delete the block of ARCHIVE in wrangler.toml, which keeps everything in D1.`,
    );
  }
}
