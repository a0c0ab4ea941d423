// Config validation against stock OpenClaw: the same verdict, at the same paths.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { hostNode, openclawEntry } from "../../scripts/setup.mjs";
import { createHome } from "../host/fixture.mjs";
import { GOOD, variations } from "./configs.mjs";
import { RULES } from "./rule-configs.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const seed = Number(process.env.SEED ?? 20260921);
const count = Number(process.env.CONFIGS ?? 700);

/**
 * What still differs, each with its reason in docs/config-validation.md. Each tells whether it explains an issue that
 * only one side has: `{ side: "stock" | "core", path, message }`; `perOwner` counts stock's failures for each channel
 * or plugin, `stock` holds its issues.
 */
const KNOWN_DIFFERENCES = {
  // Where the eighth is the first half of "no such property", stock shows that half.
  "stock lists at most eight failures of one channel or plugin": ({ side, path, message }, { perOwner }) =>
    (side === "core" || /schema is false$/.test(message)) && perOwner.get(ownerOf(path)) >= 8,
  "names of web search providers, known to installed plugins": ({ side, path, message }) =>
    side === "stock" &&
    path === "tools.web.search.provider" &&
    /^(?:unknown )?web_search provider/.test(message),
  "models that a plugin's catalog retired": ({ side, message }) =>
    side === "stock" && /^Unknown model: /.test(message),
  "kinds of secret providers against references to them": ({ side, message }) =>
    side === "stock" && /has source ".*" but ref requests/.test(message),
  "secret references where a channel takes plain text alone": ({ path }, { stock }) =>
    path.startsWith("channels.") &&
    stock.some(({ message }) => /^SecretRef objects are not supported/.test(message)),
};

/** The channel or plugin that a path belongs to. */
function ownerOf(path) {
  return path.match(/^(?:channels|plugins\.entries)\.[^.]+/)?.[0];
}

let home;
let schemaFile;
let schema;
const lists = {};
const verdicts = new Map();

before(async () => {
  execFileSync("cargo", ["build", "--quiet", "--example", "validate"], { cwd: root, stdio: "inherit" });
  home = await createHome();
  const printed = await home.openclaw(["config", "schema"]);
  assert.equal(printed.code, 0, printed.stderr);
  schemaFile = join(home.dir, "schema.json");
  writeFileSync(schemaFile, printed.stdout);
  schema = JSON.parse(printed.stdout);
  await validateAll();
});

after(() => home?.remove());

async function stockVerdicts(configs) {
  const script = fileURLToPath(new URL("./stock-validate.mjs", import.meta.url));
  const run = await home.node([script], {
    env: { OPENCLAW_CONFIG_PATH: home.configPath },
    input: configs.map((config) => `${JSON.stringify(config)}\n`).join(""),
    timeoutMs: 300_000,
  });
  assert.equal(run.code, 0, run.stderr);
  return run.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

function runCore(configs, args, env = process.env) {
  const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
  const run = spawnSync(join(target, "debug", "examples", "validate"), args, {
    input: configs.map((config) => `${JSON.stringify(config)}\n`).join(""),
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env,
  });
  assert.equal(run.status, 0, run.stderr);
  return {
    issues: run.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line)),
    log: run.stderr,
  };
}

const coreIssues = (configs) => runCore(configs, [schemaFile]).issues;

function onlyIn(side, issues, others) {
  const paths = new Set(others.map((issue) => issue.path));
  return issues.filter((issue) => !paths.has(issue.path)).map((issue) => ({ side, ...issue }));
}

/** Stock's and the core's issues for every config of every test, in two processes. */
async function validateAll() {
  lists.good = Object.entries(GOOD);
  lists.rules = Object.entries(RULES);
  lists.varied = variations(schema, count, seed);
  const named = Object.values(lists).flat();
  const configs = named.map(([, config]) => config);
  const [stock, core] = [await stockVerdicts(configs), coreIssues(configs)];
  assert.equal(stock.length, configs.length);
  assert.equal(core.length, configs.length);
  for (const [index, pair] of named.entries()) verdicts.set(pair, { stock: stock[index], core: core[index] });
}

/** Compares both sides on all configs; fails on what no known difference explains. Gives counts. */
function compare(named) {
  const counts = { configs: named.length, invalid: 0, equal: 0, issues: 0 };
  const unexplained = [];
  for (const pair of named) {
    const [name, config] = pair;
    const { stock, core } = verdicts.get(pair);
    const expected = stock.issues;
    counts.invalid += stock.valid ? 0 : 1;
    counts.issues += expected.length;
    const different = [...onlyIn("stock", expected, core), ...onlyIn("core", core, expected)];
    if (different.length === 0) {
      counts.equal += 1;
      continue;
    }
    const perOwner = new Map();
    for (const { path, message } of expected) {
      // Typebox counts each unknown property as a failure of its own; stock then folds them into one issue.
      const folded = /must not have additional properties: (.*)/.exec(message)?.[1].split('", "').length ?? 0;
      perOwner.set(ownerOf(path), (perOwner.get(ownerOf(path)) ?? 0) + 1 + folded);
    }
    const classes = new Set();
    for (const issue of different) {
      const known = Object.keys(KNOWN_DIFFERENCES).find((title) =>
        KNOWN_DIFFERENCES[title](issue, { perOwner, stock: expected }),
      );
      if (known) classes.add(known);
      else unexplained.push({ name, ...issue, config: JSON.stringify(config).slice(0, 2_000) });
    }
    for (const title of classes) counts[title] = (counts[title] ?? 0) + 1;
  }
  console.log(counts);
  assert.deepEqual(unexplained, []);
  return counts;
}

test("realistic configs are good to both", () => {
  const counts = compare(lists.good);
  assert.equal(counts.invalid, 0);
});

test("each rule beyond the schema is broken at the same path", () => {
  const counts = compare(lists.rules);
  assert.ok(counts.invalid > 80, `only ${counts.invalid} of the rules were broken`);
});

test("varied configs have the same verdict and the same paths", () => {
  const counts = compare(lists.varied);
  console.log(`seed ${seed}`);
  assert.ok(counts.invalid > count / 3, `only ${counts.invalid} configs are bad`);
  assert.ok(counts.configs - counts.invalid > count / 6, "too few configs are good");
  assert.ok(counts.equal > count * 0.98, `only ${counts.equal} are equal`);
});

test("the schema of the installed OpenClaw is fetched once, and again when a plugin comes", async () => {
  const cache = join(home.dir, "cache");
  const args = [dirname(openclawEntry()), home.stateDir, hostNode(), cache];
  const validate = (config) => runCore([config], args, home.env());
  const config = { plugins: { entries: { late: { config: { x: "no number" } } } } };
  // An invalid config on disk makes OpenClaw leave plugins out of its schema; ours has them all the same.
  await home.write("openclaw.json", { bogus: 1 });
  const first = validate({ plugins: { entries: { webhooks: { config: { bogus: 1 } } } } });
  assert.match(first.log, /^generated$/m);
  assert.deepEqual(
    first.issues[0].map(({ path }) => path),
    ["plugins.entries.webhooks.config"],
  );
  await home.write("openclaw.json", {});
  const again = validate(config);
  assert.match(again.log, /^cached$/m);
  assert.deepEqual(again.issues, [[]]);

  await home.write("extensions/late/package.json", {
    name: "late",
    version: "1.0.0",
    type: "module",
    openclaw: { extensions: ["./index.js"] },
  });
  await home.write("extensions/late/index.js", "export default { id: 'late', register() {} };");
  const configSchema = { type: "object", properties: { x: { type: "integer" } } };
  await home.write("extensions/late/openclaw.plugin.json", { id: "late", name: "Late", configSchema });
  const after = validate(config);
  assert.match(after.log, /^generated$/m);
  assert.deepEqual(
    after.issues[0].map(({ path }) => path),
    ["plugins.entries.late.config.x"],
  );

  for (const file of readdirSync(cache)) truncateSync(join(cache, file), 1_000);
  assert.match(validate(config).log, /^generated$/m, "a damaged file is not used");
});

test("the verdict of one process for many is that of the command", async () => {
  const broken = ["channel and core", "roster: two defaults", "memory plugin that is unknown"];
  const chosen = [
    ...lists.good.filter(([name]) => ["personal", "minimal"].includes(name)),
    ...lists.rules.filter(([name]) => broken.includes(name)),
  ];
  assert.equal(chosen.length, 5);
  for (const pair of chosen) {
    const [name, config] = pair;
    const { stock } = verdicts.get(pair);
    await home.write("openclaw.json", config);
    const run = await home.openclaw(["config", "validate", "--json"]);
    const printed = JSON.parse(run.stdout);
    assert.equal(printed.valid, stock.valid, name);
    const paths = (issues) => (issues ?? []).map((issue) => issue.path || "<root>").sort();
    assert.deepEqual(paths(printed.issues), paths(stock.issues), name);
  }
});
