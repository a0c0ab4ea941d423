// A process that resolves a profile: `node resolver.mjs <store> <key file> <provider> <tasks>`. Says "ready", waits for a
// line, then lets all tasks ask at once and prints what they got.
import { createInterface } from "node:readline";
import core from "../../../index.js";

const [dir, keyFile, provider, tasks] = process.argv.slice(2);
const profiles = await core.AuthProfiles.open(await core.CredentialStore.open(dir, { keyFile }));
process.stdout.write("ready\n");
await new Promise((resolve) => createInterface(process.stdin).once("line", resolve));
const outcomes = await Promise.allSettled(
  Array.from({ length: Number(tasks) }, () => profiles.resolve(provider)),
);
const keys = new Set(outcomes.filter((o) => o.value).map((o) => o.value.key.expose()));
const errors = outcomes.filter((o) => o.reason).map((o) => `${o.reason.code}: ${o.reason.message}`);
process.stdout.write(`${JSON.stringify({ count: outcomes.length, keys: [...keys], errors })}\n`);
process.exit(0);
