// Config.load against the functions with which OpenClaw reads the same tree: the file, its includes, ${ENV}. Neither side
// validates here; the cold row does.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: configs refer to variables as templates do.
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stockFunction, stockRoot } from "../__test__/host/stock.mjs";
import { document } from "./documents.mjs";
import { compare, compareAsync, fresh, row } from "./measure.mjs";

export const title = "Loading a config";
export const node = "24";

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL("..", import.meta.url));

/** A config of about 6 KB, or one whose parts are in `includes` files of 6 KB each. */
function writeTree(folder, includes) {
  fs.mkdirSync(folder, { recursive: true });
  const path = join(folder, "openclaw.json");
  if (includes === 0) {
    fs.writeFileSync(path, document(6_000));
    return path;
  }
  const names = Array.from({ length: includes }, (_, index) => `part-${index}.json5`);
  for (const [index, name] of names.entries())
    fs.writeFileSync(join(folder, name), document(6_000, index + 1));
  fs.writeFileSync(
    path,
    `{ $include: [${names.map((name) => `'./${name}'`).join(", ")}], note: '\${TOKEN}' }\n`,
  );
  return path;
}

async function stockReader(env) {
  const helpers = "src/config/io.read-helpers.ts";
  const parse = await stockFunction("src/utils/parse-json-compat.ts", "parseJsonWithJson5Fallback");
  const includes = await stockFunction(helpers, "resolveConfigIncludesForRead");
  const environment = await stockFunction(helpers, "resolveConfigForRead");
  const revision = await stockFunction("src/config/io.snapshot.ts", "hashConfigRevision");
  const json5 = createRequire(join(stockRoot, "package.json"))("json5");
  return (path) => {
    const raw = fs.readFileSync(path, "utf-8");
    const deps = { env: { ...env }, homedir: os.homedir, fs, json5 };
    const hashes = {};
    const targets = {};
    const included = includes(parse(raw, json5), path, deps, hashes, targets, new Set());
    const { resolvedConfigRaw } = environment(included, deps.env);
    return { value: resolvedConfigRaw, revision: revision(raw, hashes, targets) };
  };
}

export async function run() {
  const { Config } = require("../index.js");
  if (!Config) throw new Error("the core has no Config yet");
  const scratch = fs.realpathSync(fs.mkdtempSync(join(os.tmpdir(), "openclaw-core-bench-")));
  try {
    const env = { HOME: scratch, TOKEN: "a-token" };
    const stock = await stockReader(env);
    const rows = [];
    for (const [size, includes] of [
      ["6 KB, one file", 0],
      ["11 files of 6 KB", 10],
    ]) {
      const path = writeTree(join(scratch, String(includes)), includes);
      const ours = Config.loadSync({ path, env, schema: false });
      const theirs = stock(path);
      assert.deepEqual(ours.value, theirs.value);
      assert.equal(ours.revision, theirs.revision);
      const samples = compare({
        "Config.loadSync and value": () => Config.loadSync({ path, env, schema: false }).value,
        "OpenClaw's own functions": () => stock(path).value,
      });
      rows.push(row({ title: size, unit: "µs", samples }));
      const awaited = await compareAsync({
        "await Config.load and value": async () => (await Config.load({ path, env, schema: false })).value,
        "OpenClaw's own functions": async () => stock(path).value,
      });
      rows.push(
        row({
          title: `${size}, awaited`,
          unit: "ms",
          samples: awaited,
          note: "native work off the JS thread",
        }),
      );
    }
    rows.push(await cold(Config, scratch, env));
    return rows;
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

/** A fresh process that imports the core, and loads and validates a config; the schema was stored before. */
async function cold(Config, scratch, env) {
  const path = join(scratch, "cold.json5");
  // One mistake, so that it shows whether the schema was applied.
  fs.writeFileSync(
    path,
    document(6_000, 1, { valid: true }).replace("level: 'info'", "level: 'no such level'"),
  );
  const options = { path, env: { ...env, OPENCLAW_STATE_DIR: scratch }, openclaw: stockRoot };
  await Config.refreshSchema(options);
  const code = `
    const start = performance.now();
    const { Config } = require(${JSON.stringify(join(root, "index.js"))});
    Config.load(${JSON.stringify(options)}).then((config) => {
      config.value;
      const ms = performance.now() - start;
      process.stdout.write(JSON.stringify({ ms, issues: config.issues.map(({ path }) => path) }));
    });`;
  const runs = Array.from({ length: 25 }, () => fresh(code));
  for (const { issues } of runs) assert.deepEqual(issues, ["logging.level"]);
  return row({
    title: "cold: import, load and validate 6 KB",
    unit: "ms",
    samples: { "fresh process": runs.slice(5).map(({ ms }) => ms) },
    note: "schema stored before; five unmeasured runs first",
    target: { text: "≤ 50 ms", met: ({ contenders }) => contenders["fresh process"].median <= 50 },
  });
}
