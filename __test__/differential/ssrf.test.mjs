// checkUrl against OpenClaw's own guard: what OpenClaw refuses, it refuses; where it is stricter, a table says so.
//
// Names need a resolver: the Rust tests give each row of ssrf-urls.json to the same code with the addresses that are
// given to OpenClaw here, so the table ties both together. What needs none is asked of checkUrl itself.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, test } from "node:test";
import { random } from "../../benches/measure.mjs";
import core from "../../index.js";
import { stockFunction } from "../host/stock.mjs";

const RUNS = Number(process.env.SSRF_FUZZ_RUNS ?? 50_000);
const { hostile, good } = JSON.parse(readFileSync(new URL("ssrf-urls.json", import.meta.url), "utf8"));
const PUBLIC = "93.184.215.14";

let resolvePinned;
before(async () => {
  resolvePinned = await stockFunction("src/infra/net/ssrf.ts", "resolvePinnedHostnameWithPolicy");
});

/** OpenClaw's verdict, with the steps of its guarded fetch: the URL, its scheme, its host. */
async function stock(text, addresses = [PUBLIC]) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return "blocked";
  }
  if (!["http:", "https:"].includes(url.protocol)) return "blocked";
  const literal = url.hostname.replace(/^\[|\]$/g, "");
  const isLiteral = literal.includes(":") || /^\d+\.\d+\.\d+\.\d+$/.test(literal);
  const found = (isLiteral ? [literal] : addresses).map((address) => ({
    address,
    family: address.includes(":") ? 6 : 4,
  }));
  try {
    await resolvePinned(url.hostname, { lookupFn: async () => found });
    return "admitted";
  } catch (error) {
    assert.ok(error.name === "SsrFBlockedError" || error.message === "Invalid hostname", error);
    return "blocked";
  }
}

/** Ours, for a URL whose host is an address. */
const ours = (text) =>
  core.checkUrl(text).then(
    () => "admitted",
    ({ code }) => (["SSRF_BLOCKED", "VALIDATION"].includes(code) ? "blocked" : code),
  );

test("OpenClaw refuses each hostile URL too, but for those that the table marks as stricter", async () => {
  assert.ok(hostile.length >= 300);
  for (const { url, addresses, stricter } of hostile) {
    assert.equal(await stock(url, addresses), stricter ? "admitted" : "blocked", url);
  }
});

test("OpenClaw admits each good URL", async () => {
  assert.ok(good.length >= 100);
  for (const { url, addresses } of good) assert.equal(await stock(url, addresses), "admitted", url);
});

test("checkUrl itself refuses each hostile URL that it can judge without asking DNS, and admits each good one", async () => {
  let asked = 0;
  for (const { url, addresses, stricter } of hostile) {
    // A host that is a public name leads where its row says, which only the Rust tests can arrange.
    if (addresses) continue;
    asked++;
    assert.equal(await ours(url), "blocked", `${url} ${stricter ?? ""}`);
  }
  for (const { url, addresses } of good) {
    const { hostname } = new URL(url);
    if (hostname !== addresses?.[0] && hostname !== `[${addresses?.[0]}]`) continue;
    asked++;
    assert.equal(await ours(url), "admitted", url);
  }
  assert.ok(asked > 400, `only ${asked}`);
});

/** Addresses about the edges of every range that either side knows, and anywhere. */
function* addressesOf(next) {
  const byte = () => Math.floor(next() * 256);
  const firsts = [0, 10, 100, 127, 168, 169, 172, 192, 198, 203, 224, 240, 255];
  const groups = [
    "0",
    "1",
    "64",
    "100",
    "2001",
    "2002",
    "3fff",
    "5f00",
    "fc00",
    "fd00",
    "fe80",
    "fec0",
    "ff02",
    "2a00",
    "ff9b",
    "db8",
    "5efe",
    "200",
    "ffff",
    "7f00",
    "a00",
    "a9fe",
    "c0a8",
  ];
  const group = () =>
    next() < 0.6 ? groups[Math.floor(next() * groups.length)] : Math.floor(next() * 65536).toString(16);
  for (let n = 0; n < RUNS; n++) {
    if (n % 2) {
      const first = next() < 0.8 ? firsts[Math.floor(next() * firsts.length)] : byte();
      yield `${first}.${next() < 0.3 ? [0, 16, 31, 63, 64, 88, 100, 127, 168, 254][Math.floor(next() * 10)] : byte()}.${byte()}.${byte()}`;
    } else {
      const zeros = next() < 0.5 ? Math.floor(next() * 6) : 0;
      const parts = Array.from({ length: 8 }, (_, at) => (at > 0 && at <= zeros ? "0" : group()));
      yield parts.join(":");
    }
  }
}

test("no address that OpenClaw refuses is admitted, and each one that only we refuse is of a kind that is listed", async () => {
  const extra = new Map();
  const next = random(20261121);
  for (const address of addressesOf(next)) {
    const url = address.includes(":") ? `http://[${address}]/` : `http://${address}/`;
    const [theirs, mine] = [await stock(url), await ours(url)];
    if (theirs === mine) continue;
    assert.deepEqual([theirs, mine], ["admitted", "blocked"], address);
    const { message } = await core.checkUrl(url).catch((error) => error);
    const kind = message.replace(/.*, which is /, "");
    extra.set(kind, (extra.get(kind) ?? 0) + 1);
  }
  // docs/validation.md gives the reasons.
  const listed = [
    "6to4",
    "IPv4-compatible IPv6",
    "IPv4-mapped IPv6",
    "IPv4-translated IPv6",
    "ISATAP",
    "NAT64",
    "Teredo",
    "a cloud's metadata service",
    "an anycast service's",
    "for documentation",
    "for protocols (RFC 2928)",
    "not assigned as global unicast",
  ];
  assert.deepEqual(
    [...extra.keys()].filter((kind) => !listed.includes(kind)),
    [],
  );
  assert.ok(extra.size >= 4, `the addresses reach only ${[...extra.keys()]}`);
});
