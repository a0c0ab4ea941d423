// `Config.load` against the functions with which OpenClaw reads its config.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: configs refer to variables as templates do.
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import core from "../../index.js";
import { stockFunction, stockRoot, stockValue } from "../host/stock.mjs";

const { Config } = core;
// What the schema says is another test's matter.
const loadSync = (options) => Config.loadSync({ schema: false, ...options });
const JSON5 = createRequire(path.join(stockRoot, "package.json"))("json5");
const REDACTED = "__OPENCLAW_REDACTED__";

const helpers = "src/config/io.read-helpers.ts";
const stock = {
  parse: await stockFunction("src/utils/parse-json-compat.ts", "parseJsonWithJson5Fallback"),
  includes: await stockFunction(helpers, "resolveConfigIncludesForRead"),
  environment: await stockFunction(helpers, "resolveConfigForRead"),
  revision: await stockFunction("src/config/io.snapshot.ts", "hashConfigRevision"),
  substitute: await stockFunction("src/config/env-substitution.ts", "resolveConfigEnvVars"),
  configPath: await stockFunction("src/config/paths.ts", "resolveConfigPath"),
  stateDir: await stockFunction("src/config/state-dir.ts", "resolveStateDir"),
  path: await stockFunction("src/shared/dot-path.ts", "parseConcreteConfigPath"),
  formatPath: await stockFunction("src/shared/dot-path.ts", "appendConfigPathSegment"),
  get: await stockFunction("src/cli/config-cli-path.ts", "getAtPath"),
  redact: await stockFunction("src/config/redact-snapshot.ts", "redactConfigObject"),
  isSensitive: await stockFunction("src/config/sensitive-paths.ts", "isSensitiveConfigPath"),
  redactUrl: await stockFunction(
    "packages/net-policy/src/redact-sensitive-url.ts",
    "redactSensitiveUrlLikeString",
  ),
};
const buildSchema = await stockFunction("src/config/schema.ts", "buildConfigSchemaCore");
const { uiHints } = buildSchema();

const scratch = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "openclaw-core-load-")));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));

/** Reads as OpenClaw does, from the file to the value before its migrations. */
function readStock(configPath, env) {
  const raw = fs.readFileSync(configPath, "utf-8");
  const deps = { env: { ...env }, homedir: os.homedir, fs, json5: JSON5 };
  const source = stock.parse(raw, JSON5);
  const hashes = {};
  const targets = {};
  const included = stock.includes(source, configPath, deps, hashes, targets, new Set());
  const { resolvedConfigRaw, envWarnings } = stock.environment(included, deps.env);
  return {
    source,
    value: resolvedConfigRaw,
    env: deps.env,
    revision: stock.revision(raw, hashes, targets),
    warnings: envWarnings.map(({ varName, configPath: at }) => ({
      path: at,
      message: `Missing env var "${varName}" - feature using this value will be unavailable`,
    })),
  };
}

const outcome = (read) => {
  try {
    return { value: read() };
  } catch (error) {
    return { error };
  }
};

/** Own properties, key order and every kind of number, as text. */
const show = (value) =>
  JSON.stringify(value, (_key, child) =>
    typeof child === "number" && (!Number.isFinite(child) || Object.is(child, -0))
      ? `number ${Object.is(child, -0) ? "-0" : child}`
      : child,
  );

const textAt = (file, line, column) =>
  fs
    .readFileSync(file, "utf8")
    .split("\n")
    [line - 1].slice(column - 1);

function* stringsOf(value, at = "") {
  if (typeof value === "string") yield [at, value];
  else if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) yield* stringsOf(item, stock.formatPath(at, index));
  } else if (value !== null && typeof value === "object") {
    for (const [key, child] of Object.entries(value)) yield* stringsOf(child, stock.formatPath(at, key));
  }
}

/** Every string can be found where `explain` says it was written. */
function checkPlaces(config, env, value) {
  let checked = 0;
  for (const [at, text] of stringsOf(value)) {
    // Paths that no one can write: OpenClaw's grammar refuses blank and prototype keys.
    if (outcome(() => stock.path(at)).error) continue;
    const found = config.explain(at);
    assert.ok(found, `${at} has no place`);
    const token = textAt(found.file, found.line, found.column).match(
      /^(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')/s,
    );
    assert.ok(token, `${at}: no string at ${found.file}:${found.line}:${found.column}`);
    const authored = JSON5.parse(token[0]);
    assert.equal(stock.substitute(authored, env, { onMissing: () => {} }), text, at);
    assert.equal(found.via[0], found.file === config.path ? "root" : "include", at);
    assert.equal(found.via.includes("env"), found.env !== undefined, at);
    if (found.env) assert.ok(authored.includes(`\${${found.env}}`), at);
    checked += 1;
  }
  return checked;
}

/** Loads the same tree with both and compares everything there is; returns what kind of end it came to. */
function compare(configPath, env) {
  const theirs = outcome(() => readStock(configPath, env));
  const ours = outcome(() => loadSync({ path: configPath, env }));
  if (theirs.error) {
    assert.ok(ours.error, `OpenClaw fails: ${theirs.error.message}`);
    const message = theirs.error.message;
    if (theirs.error.name === "SyntaxError") {
      assert.equal(ours.error.code, "CONFIG_PARSE", ours.error.message);
      assert.ok(ours.error.message.includes(message), `${ours.error.message} lacks ${message}`);
      assert.deepEqual(
        [ours.error.line, ours.error.column],
        [theirs.error.lineNumber, theirs.error.columnNumber],
      );
    } else {
      assert.equal(ours.error.message, message);
      assert.equal(ours.error.code, "CONFIG_INCLUDE");
      const at = textAt(ours.error.file, ours.error.line, ours.error.column);
      if (message.startsWith("Failed to parse")) assert.equal(typeof at, "string");
      else if (message.startsWith("Invalid")) assert.match(at, /^[^\s,:]/);
      else assert.match(at, /^["'[]/);
    }
    return message.replace(/[:(].*/s, "").trim();
  }
  const expected = theirs.value;
  const isObject =
    typeof expected.value === "object" && expected.value !== null && !Array.isArray(expected.value);
  if (!isObject) {
    assert.equal(ours.error?.code, "CONFIG_INVALID");
    return "not an object";
  }
  assert.ifError(ours.error);
  const config = ours.value;
  assert.equal(show(config.value), show(expected.value));
  assert.equal(show(config.source), show(expected.source));
  assert.equal(config.revision, expected.revision);
  const warnings = config.issues.map(({ path: at, message }) => ({ path: at, message }));
  assert.deepEqual(warnings, expected.warnings);
  for (const { file, line, column } of config.issues) assert.match(textAt(file, line, column), /\$\{/);
  checkPlaces(config, expected.env, expected.value);
  return warnings.length > 0 ? "warnings" : "value";
}

// ── generated trees ──────────────────────────────────────────────────────────────────────────────────────────────

function generator(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const random = {
    chance: (probability) => next() < probability,
    below: (n) => Math.floor(next() * n),
    pick: (list) => list[Math.floor(next() * list.length)],
  };
  return random;
}

const KEYS = [
  "a",
  "b",
  "list",
  "agents",
  "x.y",
  "10",
  "2",
  "a b",
  "é",
  "__proto__",
  "constructor",
  "prototype",
  "env",
  "toString",
  "",
  "-",
  "k:v",
];
const STRINGS = [
  "plain",
  "${SET}",
  "pre ${SET} post ${SET}",
  "$${SET}",
  "$$${SET}",
  "${MISSING}",
  "${EMPTY}",
  "${NESTED}",
  "${lower} ${1X} ${ ${}",
  "${SET}${MISSING}$${SET}",
  "$SET",
  "😀 ${EMOJI}",
  "",
  "${FROM_CONFIG}",
  "${ZAI_API_KEY}",
  "${PATH_LIKE}",
];
const ENV = {
  SET: "value",
  EMPTY: "",
  NESTED: "${SET}",
  EMOJI: "\u{1F600}",
  PATH_LIKE: "C:\\x",
  BLANK: "  ",
};

function value(random, depth, files) {
  const kind = random.below(depth > 3 ? 5 : 8);
  if (kind <= 2) return random.pick(STRINGS);
  if (kind === 3) return random.pick([0, -0, 1.5, 1e21, Number.POSITIVE_INFINITY, -7]);
  if (kind === 4) return random.pick([true, false, null]);
  if (kind === 5) return Array.from({ length: random.below(4) }, () => value(random, depth + 1, files));
  return object(random, depth + 1, files);
}

function object(random, depth, files) {
  const out = new Map();
  if (files.length > 0 && random.chance(depth === 1 ? 0.5 : 0.3))
    out.set("$include", directive(random, files));
  for (let count = random.below(5); count > 0; count -= 1) {
    const key = random.pick(KEYS);
    out.set(key, key === "env" ? envBlock(random) : value(random, depth, files));
  }
  return out;
}

function envBlock(random) {
  const out = new Map();
  const names = [
    "FROM_CONFIG",
    "SET",
    "BLANK",
    "LD_PRELOAD",
    "HOME",
    "Z_AI_API_KEY",
    "ZAI_API_KEY",
    " FROM_CONFIG ",
  ];
  const values = ["from config", "${SET}", "", " ", "$${SET}", 5, null];
  if (random.chance(0.7)) {
    const vars = new Map();
    for (let count = random.below(4); count > 0; count -= 1)
      vars.set(random.pick(names), random.pick(values));
    out.set("vars", vars);
  }
  for (let count = random.below(3); count > 0; count -= 1) out.set(random.pick(names), random.pick(values));
  if (random.chance(0.2)) out.set("shellEnv", new Map([["enabled", false]]));
  return out;
}

function directive(random, files) {
  if (random.chance(0.04)) return random.pick([5, null, true, new Map()]);
  if (random.chance(0.35)) {
    const list = Array.from({ length: random.below(4) }, () => random.pick(files));
    if (random.chance(0.06)) list.push(random.pick([1, null, []]));
    return list;
  }
  return random.pick(files);
}

/** A JSON5 spelling of a value, drawn too. */
function write(random, node, indent = "") {
  const quoted = (text) =>
    random.chance(0.5)
      ? JSON.stringify(text)
      : `'${JSON.stringify(text).slice(1, -1).replaceAll("'", "\\'").replaceAll('\\"', '"')}'`;
  const gap = random.pick(["", " ", `\n${indent}`, " /* c */ ", " // c\n"]);
  if (typeof node === "string") return quoted(node);
  if (Array.isArray(node))
    return `[${gap}${node.map((item) => write(random, item, `${indent} `)).join(`,${gap}`)}]`;
  if (node instanceof Map) {
    const pairs = [...node].map(([key, child]) => {
      const name = /^[a-z_$]+$/i.test(key) && random.chance(0.5) ? key : quoted(key);
      return `${name}:${gap}${write(random, child, `${indent} `)}`;
    });
    return `{${gap}${pairs.join(`,${gap}`)}${pairs.length > 0 && random.chance(0.3) ? "," : ""}}`;
  }
  return Object.is(node, -0) ? "-0" : String(node);
}

/** Puts links of every kind beside a config's files; returns includes that name them, and others that are odd. */
function makeOddities(base, dir) {
  const real = path.join(base, "config");
  fs.symlinkSync("c.json", path.join(real, "link.json"));
  fs.symlinkSync("../outside/o.json", path.join(real, "link-out.json"));
  fs.symlinkSync("loop.json", path.join(real, "loop.json"));
  fs.symlinkSync("nowhere.json", path.join(real, "dangling.json"));
  fs.symlinkSync("../outside/nowhere.json", path.join(real, "dangling-out.json"));
  fs.symlinkSync("sub", path.join(real, "linkdir"));
  fs.linkSync(path.join(real, "sub/d.json"), path.join(real, "hard.json"));
  return [
    "missing.json",
    "missing/x.json",
    "missing.json/",
    "../outside/o.json",
    path.join(base, "extra/e.json"),
    "sub",
    "sub/",
    "link.json",
    "link.json/",
    "link-out.json",
    "sub/d.json/",
    "b.json5/x",
    "hard.json",
    "loop.json",
    "dangling.json",
    "dangling-out.json",
    "nul\0.json",
    "linkdir/d.json",
    "linkdir/../c.json",
    "",
    ".",
    "openclaw.json",
    "./openclaw.json/",
    "n".repeat(300),
    `${"p/".repeat(2100)}x`,
    "../alias/c.json",
    "../config/c.json",
    path.join(dir, "c.json"),
    `${dir}/./sub//../c.json`,
    "~/c.json",
    "C:\\c.json",
    "file:///c.json",
  ];
}

/** Makes a config directory; returns the config's path and the environment. */
function makeTree(seed) {
  const random = generator(seed);
  const base = path.join(scratch, `tree-${seed}`);
  const real = path.join(base, "config");
  for (const dir of ["config/sub", "outside", "extra/deep"])
    fs.mkdirSync(path.join(base, dir), { recursive: true });
  const dir = random.chance(0.2) ? path.join(base, "alias") : real;
  if (dir !== real) fs.symlinkSync("config", dir);
  const put = (name, files, depth = 1) => {
    const content = random.chance(0.85) ? object(random, depth, files) : value(random, depth, files);
    const text = random.chance(0.03) ? "{ broken: " : write(random, content);
    fs.writeFileSync(path.join(base, name), (random.chance(0.05) ? "\uFEFF" : "") + text);
  };
  // Later files may be included by earlier ones; a few edges go back, which makes loops.
  const back = () => (random.chance(0.05) ? ["openclaw.json", "./b.json5"] : []);
  put("extra/deep/f.json", []);
  put("extra/e.json", ["deep/f.json"]);
  put("outside/o.json", []);
  put("config/sub/d.json", []);
  put("config/c.json", ["sub/d.json", "./sub/../sub/d.json", ...back()]);
  put("config/b.json5", ["c.json", "sub/d.json", ...back()]);
  put("config/sub/s.json", ["../c.json", "d.json"]);
  const odd = makeOddities(base, dir);
  // The hard link made two names; most trees read the other one.
  if (random.chance(0.8)) fs.rmSync(path.join(real, "hard.json"));
  const files = ["b.json5", "c.json", "sub/s.json", "sub/d.json", "link.json"];
  if (random.chance(0.35)) files.push(random.pick(odd), random.pick(odd));
  const root = object(random, 1, files);
  if (random.chance(0.4)) root.set("env", envBlock(random));
  fs.writeFileSync(path.join(real, "openclaw.json"), write(random, root));
  const env = { ...ENV };
  if (random.chance(0.5))
    env.OPENCLAW_INCLUDE_ROOTS = random.pick([
      path.join(base, "extra"),
      ` ${base}/nope : ${base}/extra/ `,
      base,
    ]);
  if (random.chance(0.3)) env.Z_AI_API_KEY = "zai";
  return { config: path.join(dir, "openclaw.json"), env, base };
}

test("600 generated config trees read as OpenClaw reads them: values, warnings, revisions, errors", () => {
  const ends = new Map();
  for (let seed = 1; seed <= 600; seed += 1) {
    const tree = makeTree(seed);
    try {
      const end = compare(tree.config, tree.env);
      ends.set(end, (ends.get(end) ?? 0) + 1);
    } catch (error) {
      const text = fs.readFileSync(tree.config, "utf8");
      error.message = `seed ${seed}: ${error.message}\n${text.slice(0, 2000)}`;
      throw error;
    }
    fs.rmSync(tree.base, { recursive: true });
  }
  console.log(
    `# ${[...ends]
      .sort((a, b) => b[1] - a[1])
      .map(([end, count]) => `${count} ${end}`)
      .join(", ")}`,
  );
  assert.ok(ends.get("value") >= 100 && ends.get("warnings") >= 30, "too few trees end well");
  assert.ok(ends.size >= 12, `only ${ends.size} kinds of end`);
});

test("every odd include ends alike: links, hard links, loops, folders, names too long, other roots", () => {
  const ends = new Set();
  for (const [root, alias] of [
    [undefined, false],
    [undefined, true],
    ["extra", false],
    ["extra", true],
    [".", true],
    ["outside/o.json", false],
    ["nowhere", false],
  ]) {
    const base = written({
      "config/c.json": "{c: 'c'}",
      "config/b.json5": "{$include: 'c.json', b: ['${SET}']}",
      "config/sub/d.json": "{$include: '../c.json'}",
      "outside/o.json": "{o: 'o'}",
      "extra/e.json": "{e: 'e', $include: 'deep/f.json'}",
      "extra/deep/f.json": "{f: 'f'}",
    });
    fs.symlinkSync("config", path.join(base, "alias"));
    const dir = path.join(base, alias ? "alias" : "config");
    const env = root === undefined ? { ...ENV } : { ...ENV, OPENCLAW_INCLUDE_ROOTS: path.join(base, root) };
    for (const odd of makeOddities(base, dir)) {
      const config = path.join(dir, "openclaw.json");
      fs.writeFileSync(config, JSON.stringify({ list: [{ $include: odd }] }));
      try {
        ends.add(compare(config, env));
      } catch (error) {
        error.message = `${JSON.stringify(odd).slice(0, 80)}, root ${root}, alias ${alias}: ${error.message}`;
        throw error;
      }
    }
  }
  for (const end of [
    "value",
    "Include path escapes config directory",
    "Include path resolves outside config directory",
    "Failed to resolve include file realpath",
    "Failed to read include file",
    "Include file failed security checks",
    "Include path must not contain null bytes",
    "Include path exceeds maximum length",
    "Circular include detected",
  ]) {
    assert.ok(ends.has(end), `no include ended with: ${end}`);
  }
});

function written(files) {
  const dir = fs.mkdtempSync(path.join(scratch, "case-"));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
    fs.writeFileSync(path.join(dir, name), text);
  }
  return dir;
}

test("each limit of includes holds on both sides of it", () => {
  const chain = (length) =>
    Object.fromEntries(
      Array.from({ length: length + 1 }, (_, index) => [
        index === 0 ? "openclaw.json" : `${index}.json`,
        index === length ? "{end: 'reached'}" : `{"$include": "${index + 1}.json"}`,
      ]),
    );
  const padded = (bytes) => `{a: 'x'}${" ".repeat(bytes - 8)}`;
  const named = (length) => `{$include: '${"./".repeat((length - 1) / 2)}a'}`;
  for (const [files, expected] of [
    [chain(10), "value"],
    [chain(11), "Maximum include depth"],
    [{ "openclaw.json": "{$include: 'a'}", a: padded(2097152) }, "value"],
    [{ "openclaw.json": "{$include: 'a'}", a: padded(2097153) }, "Include file failed security checks"],
    [{ "openclaw.json": named(4095), a: "{b: 'x'}" }, "value"],
    [{ "openclaw.json": named(4097), a: "{}" }, "Include path exceeds maximum length"],
  ]) {
    assert.equal(compare(path.join(written(files), "openclaw.json"), {}), expected);
  }
});

test("the root file fails or reads with the same words, line and column", () => {
  for (const text of [
    "",
    "{",
    "{a:1}{b:2}",
    "{a: 'x'}\n\n  {",
    "\uFEFF{a: 'x'}",
    "{\r\na: 'x',\r\n}",
    "[1]",
    "'x'",
    "{a: 1, a: 'b'}",
    "\0\0",
    "{a: '\u2028'}",
    "{a: tru}",
    "{'😀': '😀' 1}",
    "{a: \n\n '\n'}",
  ]) {
    compare(path.join(written({ "openclaw.json": text }), "openclaw.json"), {});
  }
  for (const bytes of [[0x7b, 0x61, 0x3a, 0x22, 0xff, 0xed, 0xa0, 0x80, 0x22, 0x7d]]) {
    const config = path.join(written({ "openclaw.json": Buffer.from(bytes) }), "openclaw.json");
    const ours = loadSync({ path: config, env: {} });
    const theirs = readStock(config, {});
    assert.deepEqual([show(ours.value), ours.revision], [show(theirs.value), theirs.revision]);
  }
});

test("the env block sets and drops the same names", async () => {
  const policy = "src/infra/host-env-security.ts";
  const names = new Set([
    "MY_TOKEN",
    "OPENCLAW_INCLUDE_ROOTS",
    "OPENCLAW_CONFIG_READONLY",
    "OPENCLAW_ALLOW_OLDER_BINARY_DESTRUCTIVE_ACTIONS",
  ]);
  for (const list of ["HOST_DANGEROUS_ENV_KEY_VALUES", "HOST_DANGEROUS_OVERRIDE_ENV_KEY_VALUES"]) {
    for (const name of await stockValue(policy, list)) names.add(name);
  }
  for (const list of ["HOST_DANGEROUS_ENV_PREFIXES", "HOST_DANGEROUS_OVERRIDE_ENV_PREFIXES"]) {
    for (const prefix of await stockValue(policy, list))
      names.add(prefix).add(`${prefix}X`).add(`X${prefix}`);
  }
  for (const name of [
    "CARGO_TARGET_X_LINKER",
    "CARGO_TARGET_X_RUNNER",
    "CARGO_TARGET_LINKER",
    "CARGO_TARGET_X_LINKERS",
  ]) {
    names.add(name);
  }
  for (const name of [...names]) names.add(`${name}_X`).add(name.slice(1));
  const vars = Object.fromEntries([...names].map((name) => [name, "v"]));
  const probe = Object.fromEntries([...names].map((name) => [name, `\${${name}}`]));
  const text = JSON.stringify({ env: { vars }, probe });
  const config = path.join(written({ "openclaw.json": text }), "openclaw.json");
  assert.equal(compare(config, {}), "warnings");
  assert.ok(Object.values(readStock(config, {}).value.probe).includes("v"));
});

test("the config file is found by the same rules", () => {
  const random = generator(7);
  const found = new Set();
  for (let round = 0; round < 400; round += 1) {
    const home = fs.mkdtempSync(path.join(scratch, "home-"));
    for (const name of [
      ".openclaw/openclaw.json",
      ".openclaw/clawdbot.json",
      ".clawdbot/openclaw.json",
      ".clawdbot/clawdbot.json",
      "state/clawdbot.json",
      "state/openclaw.json",
      "h2/.openclaw/openclaw.json",
    ]) {
      if (random.chance(0.3)) {
        fs.mkdirSync(path.join(home, path.dirname(name)), { recursive: true });
        if (random.chance(0.8)) fs.writeFileSync(path.join(home, name), "{}");
      }
    }
    const env = { HOME: random.pick([home, ` ${home} `, "undefined", "null", ""]), USERPROFILE: home };
    if (random.chance(0.3))
      env.OPENCLAW_HOME = random.pick([`${home}/h2`, "~/h2", "~", "undefined", " ", "~\\h2"]);
    if (random.chance(0.4))
      env.OPENCLAW_STATE_DIR = random.pick([
        `${home}/state`,
        " ~/state/ ",
        "~",
        "",
        "  ",
        `${home}/state/../state`,
      ]);
    if (random.chance(0.2))
      env.OPENCLAW_CONFIG_PATH = random.pick([
        `${home}/x.json`,
        "~/x.json",
        " ",
        "~user/x.json",
        "rel/x.json",
      ]);
    const expected = stock.configPath(env, stock.stateDir(env, os.homedir), os.homedir);
    const ours = outcome(() => loadSync({ env }));
    assert.equal(ours.error ? ours.error.file : ours.value.path, expected, JSON.stringify(env));
    if (ours.error) assert.equal(ours.error.code, "CONFIG_NOT_FOUND");
    found.add(
      `${ours.error ? "absent" : "present"} ${path.relative(home, expected).replace(/^(\.\.\/)+.*/, "elsewhere")}`,
    );
    fs.rmSync(home, { recursive: true });
  }
  assert.ok(found.size >= 10, [...found].join());
});

test("paths are read by the same grammar, and fail with the same words", () => {
  const dir = written({
    "openclaw.json": "{a: {b: [{c: 'x', '0': 1}, [2]], 'x.y': {'': 1, ' ': 2}}, '10': [], 'it\\'s': 3}",
  });
  const config = loadSync({ path: path.join(dir, "openclaw.json"), env: {} });
  const random = generator(11);
  const pieces = [
    "a",
    "b",
    "c",
    ".",
    ".",
    "[",
    "]",
    "0",
    "1",
    "'",
    '"',
    "\\",
    " ",
    "x.y",
    "['x.y']",
    "[0]",
    "it's",
    "__proto__",
    "\\x41",
    "\\u0061",
    "constructor",
    "[ 'b' ]",
    '["it\'s"]',
    "01",
    "-1",
    "100001",
  ];
  let read = 0;
  for (let round = 0; round < 30000; round += 1) {
    const text = Array.from({ length: random.below(8) }, () => random.pick(pieces)).join("");
    const theirs = outcome(() => stock.get(config.value, stock.path(text)).value);
    const ours = outcome(() => config.get(text));
    assert.equal(ours.error?.message, theirs.error?.message, text);
    if (theirs.error) assert.equal(ours.error.code, "CONFIG_PATH");
    else assert.deepEqual(ours.value, theirs.value, text);
    read += theirs.value === undefined ? 0 : 1;
  }
  assert.ok(read > 300, `only ${read} paths led to a value`);
});

// ── redaction ────────────────────────────────────────────────────────────────────────────────────────────────────

const redactedBy = (tree) => {
  const file = path.join(written({ "openclaw.json": JSON.stringify(tree) }), "openclaw.json");
  return loadSync({ path: file, env: {} }).redacted();
};

test("the table of secret paths is that of the installed schema", () => {
  const file = new URL("../../src/config/redact/secret-paths.txt", import.meta.url);
  const ours = fs.readFileSync(file, "utf8").trim().split("\n");
  const theirs = Object.keys(uiHints).filter((key) => uiHints[key].sensitive);
  assert.deepEqual(ours, theirs.sort());
  assert.deepEqual(
    Object.values(uiHints).filter((hint) => hint.sensitive === false),
    [],
    "a hint declares a path harmless, which the port does not know",
  );
});

test("secrets are replaced where OpenClaw replaces them, on every hinted path and beside it", () => {
  const random = generator(13);
  const leaves = [
    "secret",
    "",
    " ",
    "${REF}",
    " ${REF} ",
    "${a}b}",
    5,
    0,
    true,
    null,
    ["s", "${R}", 1, [["t"]]],
  ];
  leaves.push(
    { source: "env", provider: "p", id: "ID" },
    { source: "env", id: "${R}" },
    { a: "b", token: "t" },
    { id: "x" },
  );
  const plain = [
    "mode",
    "token",
    "maxTokens",
    "contexttokens",
    "password",
    "passwordFile",
    "apiKey",
    "api-key",
    "private_key",
    "serviceAccount",
    "x",
    "*",
    "0",
    "secrets",
    "TOKEN",
    "tokens",
  ];
  const roots = Object.keys(uiHints).filter((key) => uiHints[key].sensitive);
  let replaced = 0;
  for (let round = 0; round < 600; round += 1) {
    const tree = {};
    for (let count = 1 + random.below(4); count > 0; count -= 1) {
      const segments = random.pick(roots).split(".");
      if (random.chance(0.3)) segments.splice(random.below(segments.length), 1, random.pick(plain));
      if (random.chance(0.3)) segments.length = 1 + random.below(segments.length);
      if (random.chance(0.2)) segments.push(random.pick(plain));
      let node = tree;
      for (const [index, segment] of segments.entries()) {
        const list = segment.endsWith("[]");
        const key = segment === "*" ? random.pick(["one", "two", "10"]) : segment.replace("[]", "");
        const last = index === segments.length - 1;
        const child = last ? random.pick(leaves) : {};
        if (last || typeof node[key] !== "object" || node[key] === null || Array.isArray(node[key])) {
          node[key] = list ? [child] : child;
        }
        if (last) break;
        node = list && Array.isArray(node[key]) ? node[key][0] : node[key];
        if (typeof node !== "object" || node === null) break;
      }
    }
    const expected = stock.redact(tree, uiHints);
    assert.equal(show(redactedBy(tree)), show(expected), show(tree));
    replaced += JSON.stringify(expected).split(REDACTED).length - 1;
  }
  assert.ok(replaced > 500, `only ${replaced} secrets`);
});

test("names are judged alike", () => {
  const random = generator(17);
  const pieces = [
    "api",
    "key",
    "token",
    "s",
    "Secret",
    "pass",
    "word",
    "file",
    "max",
    "private",
    "encrypt",
    ".",
    "-",
    "_",
    "\u2028",
    "\u212A",
    "é",
    "😀",
    "serviceAccount",
    "Ref",
    "localService",
    "env",
    "count",
    "limit",
  ];
  const names = new Set();
  while (names.size < 4000)
    names.add(Array.from({ length: 1 + random.below(5) }, () => random.pick(pieces)).join(""));
  const tree = { plugins: { entries: { p: { config: {} } } } };
  for (const name of names) tree.plugins.entries.p.config[name] = "value";
  assert.equal(show(redactedBy(tree)), show(stock.redact(tree, uiHints)));
  assert.ok([...names].filter((name) => stock.isSensitive(name)).length > 500);
});

test("every URL in which OpenClaw finds credentials is replaced, and ordinary ones are not", () => {
  const urls = (list) => {
    const providers = Object.fromEntries(list.map((baseUrl, index) => [`p${index}`, { baseUrl }]));
    const out = redactedBy({ models: { providers } }).models.providers;
    return list.map((_, index) => out[`p${index}`].baseUrl === REDACTED);
  };
  const ordinary = [
    "https://api.openai.com/v1",
    "http://127.0.0.1:11434",
    "https://h:8443/a/b?model=x&n=1#top",
    "ws://[::1]:9222/devtools",
    "https://h/npm/@scope/x",
    "localhost:8080",
    "not a url",
    "https://h/a%20b",
    "${BASE_URL}",
  ];
  assert.deepEqual(
    urls(ordinary),
    ordinary.map((url) => stock.redactUrl(url) !== url),
  );
  assert.ok(urls(ordinary).every((replaced) => !replaced));

  const random = generator(19);
  const pieces = [
    "https",
    "http",
    "wss",
    "foo",
    ":",
    "//",
    "/",
    "\\",
    "@",
    "user",
    "pass",
    "host.com",
    ":8080",
    "?",
    "&",
    "#",
    "=",
    "token",
    "t%6fken",
    "X-Api-Key",
    "key",
    "api_key",
    "a",
    "1",
    "%40",
    "%3A",
    "%2F",
    "%3F",
    "%253F",
    "%2540",
    "%25",
    "%",
    "%zz",
    "[::1]",
    " ",
    "\t",
    "/bot123456:ABCDEFGHIJKLMNOPQRSTUV",
    "page_token",
    "_0123456789abcdef0",
    "\u3164",
    "+",
    ";",
    "é",
    "next=",
    "https://u:p@h",
    "https%3A%2F%2Fu%3Ap%40h",
  ];
  const list = Array.from({ length: 20000 }, () =>
    Array.from({ length: 2 + random.below(9) }, () => random.pick(pieces)).join(""),
  );
  const ours = urls(list);
  let theirs = 0;
  let more = 0;
  for (const [index, url] of list.entries()) {
    const found = stock.redactUrl(url) !== url;
    if (found) assert.ok(ours[index], `missed ${JSON.stringify(url)}: ${stock.redactUrl(url)}`);
    theirs += found ? 1 : 0;
    more += ours[index] && !found ? 1 : 0;
  }
  console.log(`# of ${list.length} random URLs OpenClaw redacts ${theirs}, the core ${more} more`);
  assert.ok(theirs > 3000, `only ${theirs} URLs hold credentials`);
});

// ── the class itself ─────────────────────────────────────────────────────────────────────────────────────────────

test("load() gives what loadSync() gives, and rejects with the same error", async () => {
  const file = path.join(written({ "openclaw.json": "{a: '${X}', n: NaN}" }), "openclaw.json");
  const config = await Config.load({ schema: false, path: file, env: { X: "1", Y: undefined } });
  assert.ok(config instanceof Config);
  assert.deepEqual(config.value, { a: "1", n: Number.NaN });
  assert.deepEqual(config.source, { a: "${X}", n: Number.NaN });
  assert.notEqual(config.value, config.value);
  assert.deepEqual(config.files, [file]);
  assert.equal(config.get("b"), undefined);
  assert.equal(config.explain("b"), null);
  await assert.rejects(Config.load({ path: `${file}.gone` }), {
    code: "CONFIG_NOT_FOUND",
    file: `${file}.gone`,
  });
  await assert.rejects(Config.load({ path: file, env: {}, missingEnv: "error" }), {
    code: "CONFIG_ENV",
    message: 'Missing env var "X" referenced at config path: a',
    file,
    line: 1,
    column: 5,
    path: "a",
  });
  const reason = new Error("mine");
  await assert.rejects(Config.load({ path: file, signal: AbortSignal.abort(reason) }), reason);
});

test("options of the wrong type are refused by name", () => {
  for (const [options, name] of [
    [{ path: 5 }, /`path`/],
    [{ env: { A: 5 } }, /`env`/],
    [{ env: 5 }, /`env`/],
    [{ env: ["x"] }, /`env`/],
    [{ includeRoots: "x" }, /`includeRoots`/],
    [{ missingEnv: "maybe" }, /`missingEnv`/],
  ]) {
    assert.throws(() => loadSync(options), { code: "VALIDATION", message: name });
  }
  const config = loadSync({ path: path.join(written({ "openclaw.json": "{}" }), "openclaw.json") });
  assert.throws(() => config.get(5), { code: "VALIDATION", message: /`path`/ });
  assert.throws(() => config.explain(), { code: "VALIDATION", message: /`path`/ });
});

test("a schema's issues come with the places of what they are about", async () => {
  const schema = {
    type: "object",
    properties: { logging: { type: "object", properties: { level: { enum: ["info", "debug"] } } } },
  };
  const file = path.join(written({ "openclaw.json": "{\n  logging: {level: 'loud'}}" }), "openclaw.json");
  const config = await Config.load({ path: file, env: {}, schema });
  const [issue] = config.issues;
  assert.deepEqual(
    { ...issue, message: typeof issue.message },
    {
      severity: "error",
      path: "logging.level",
      message: "string",
      file,
      line: 2,
      column: 20,
      allowedValues: ["info", "debug"],
    },
  );
});

test("process.env is the default environment, as it is at the time of the call", () => {
  const file = path.join(written({ "openclaw.json": "{a: '${OPENCLAW_CORE_LOAD_TEST}'}" }), "openclaw.json");
  process.env.OPENCLAW_CORE_LOAD_TEST = "now";
  try {
    assert.equal(loadSync({ path: file }).get("a"), "now");
  } finally {
    delete process.env.OPENCLAW_CORE_LOAD_TEST;
  }
  assert.equal(loadSync({ path: file }).issues.length, 1);
});

test("a config of 10 MB is read", () => {
  const entries = Array.from({ length: 100000 }, (_, index) => `"k${index}": {"text": "${"x".repeat(80)}"}`);
  const file = path.join(written({ "openclaw.json": `{${entries.join(",\n")}}` }), "openclaw.json");
  assert.ok(fs.statSync(file).size > 1e7);
  const config = loadSync({ path: file, env: {} });
  assert.equal(config.explain("k99999.text").line, 100000);
});
