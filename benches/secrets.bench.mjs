// Redaction against OpenClaw's own functions, messages against plain JavaScript, the credential store against a file.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { stockFunction, stockLocation, stockRoot } from "../__test__/host/stock.mjs";
import { installAt } from "../dist/install.js";
import { CORE, Core } from "../dist/swap.js";
import { Switches } from "../dist/switch.js";
import { compare, compareAsync, random, row } from "./measure.mjs";
import { rows as messageRows } from "./messages.mjs";

const require = createRequire(import.meta.url);

export const title = "Secrets";
// OpenClaw's functions are replaced as they load, which older ones cannot do.
export const node = "24";

const WORDS =
  "the gateway started a turn for session main with model and answered in 42 ms after 3 tries; result of read file was sent to channel general by agent on host build7 (status 200, 1.2 kB) [info]".split(
    " ",
  );

const SECRETS = [
  (letters) => `curl -H "Authorization: Bearer ${letters(40)}" https://api.example.com/v1/items?page=2`,
  (letters) => `export OPENAI_API_KEY=sk-${letters(32)}`,
  (letters) => `{"user":"ada","password":"${letters(16)}","apiKey":"${letters(24)}"}`,
  (letters) => `GET https://example.com/cb?code=${letters(20)}&state=${letters(8)} 302`,
  (letters) => `postgres://app:${letters(14)}@db.internal:5432/main`,
  (letters) => `grant_type=refresh&client_secret=${letters(30)}&refresh_token=${letters(30)}`,
];

/** Log lines: `secrets` of a thousand lines carry a credential. */
export function log(length, secrets, seed = 3) {
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  const letters = (count) =>
    Array.from({ length: count }, () => pick("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789")).join("");
  let text = "";
  while (text.length < length) {
    const words = Array.from({ length: 12 }, () => pick(WORDS)).join(" ");
    text += `2026-11-21T10:${Math.floor(next() * 60)}:07.123Z ${words}\n`;
    if (next() * 1000 < secrets) text += `${pick(SECRETS)(letters)}\n`;
  }
  return text.slice(0, length);
}

/** OpenClaw's redaction from a second copy of its chunk, with the native stage in it. */
async function swapped(region, name) {
  const { path, exported } = stockLocation(region, name);
  const warn = (message) => {
    throw new Error(message);
  };
  const core = new Core(installAt(stockRoot), Switches.read({ OPENCLAW_CORE_CONFIG: "off" }), {}, warn);
  globalThis[CORE] = core;
  const unhook = core.hook();
  try {
    return (await import(`${pathToFileURL(path)}?swapped`))[exported];
  } finally {
    unhook();
  }
}

/** One of 100 secrets, again and again, against what a plaintext file of them costs. */
async function storeRow() {
  const { CredentialStore } = require("../index.js");
  const dir = mkdtempSync(join(tmpdir(), "openclaw-core-bench-"));
  try {
    const plain = join(dir, "plain.json");
    const secrets = Object.fromEntries(
      Array.from({ length: 100 }, (_, index) => [`provider/key-${index}`, randomBytes(24).toString("hex")]),
    );
    const store = await CredentialStore.open(join(dir, "store"), { raw: randomBytes(32) }, { create: true });
    for (const [name, secret] of Object.entries(secrets)) await store.set(name, secret);
    writeFileSync(plain, JSON.stringify(secrets));
    const CALLS = 200;
    const times = (call) => async () => {
      for (let index = 0; index < CALLS; index++) await call(`provider/key-${index % 100}`);
    };
    const fromStore = async (name) => (await store.get(name)).expose();
    const fromFile = async (name) => JSON.parse(await readFile(plain, "utf8"))[name];
    assert.equal(await fromStore("provider/key-7"), await fromFile("provider/key-7"));
    const turns = await compareAsync({ get: times(fromStore), "a JSON file": times(fromFile) });
    const samples = Object.fromEntries(
      Object.entries(turns).map(([name, list]) => [name, list.map((ms) => (ms * 1000) / CALLS)]),
    );
    return row({
      title: "CredentialStore.get, warm, one of 100 secrets",
      unit: "µs",
      samples,
      target: { text: "≤ 50 µs", met: ({ contenders }) => contenders.get.median <= 50 },
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

export async function run() {
  const { redact, mightContainSecret } = require("../index.js");
  const region = "src/logging/redact.ts";
  const redactSensitiveText = await stockFunction(region, "redactSensitiveText");
  const couldMatch = await stockFunction(region, "couldMatchDefaultRedactPatterns");
  const stock = (text) => redactSensitiveText(text, { mode: "tools" });
  const sizes = [
    ["300 B", 300, "not slower than OpenClaw", 1],
    ["4 KB", 4_000, "≥ 5× OpenClaw", 5],
    ["100 KB", 100_000, "≥ 5× OpenClaw", 5],
  ];
  const rows = [];
  for (const [size, length, text, factor] of sizes) {
    const free = log(length, 0);
    assert.equal(mightContainSecret(free), false);
    assert.equal(couldMatch(free), false);
    const twenty = length === 100_000;
    rows.push(
      row({
        title: `mightContainSecret, ${size} without secrets`,
        unit: "µs",
        samples: compare({
          mightContainSecret: () => mightContainSecret(free),
          "OpenClaw's pre-filter": () => couldMatch(free),
        }),
        target: {
          text: twenty ? "≥ 20× OpenClaw's pre-filter" : "not slower than OpenClaw's pre-filter",
          met: ({ ratios }) => ratios["OpenClaw's pre-filter"].value >= (twenty ? 20 : 1),
        },
      }),
    );
    const mixed = log(length, length === 300 ? 1000 : 150);
    assert.equal(redact(mixed), stock(mixed));
    assert.notEqual(redact(mixed), mixed);
    rows.push(
      row({
        title: `redact, ${size} of log lines with secrets in some`,
        unit: "µs",
        samples: compare({ redact: () => redact(mixed), OpenClaw: () => stock(mixed) }),
        target: { text, met: ({ ratios }) => ratios.OpenClaw.value >= factor },
      }),
    );
  }
  const native = await swapped(region, "redactSensitiveText");
  const redacted = (text) => native(text, { mode: "tools" });
  // Three of four log lines hold no secret; a tool result now and then is long.
  const texts = Array.from({ length: 100 }, (_, index) =>
    log(index === 50 ? 100_000 : index % 10 === 5 ? 4_000 : 300, index % 4 === 0 ? 1000 : 0, index),
  );
  for (const text of texts) assert.equal(redacted(text), stock(text));
  const all = (redact) => () => texts.map((text) => redact(text).length);
  rows.push(
    row({
      title:
        "OpenClaw's redactSensitiveText over 100 texts of 300 B, 4 KB and 100 KB, a quarter with secrets",
      unit: "µs",
      samples: compare({ "with the native stage": all(redacted), "as it is": all(stock) }),
    }),
  );
  return [...rows, ...messageRows(), await storeRow()];
}
