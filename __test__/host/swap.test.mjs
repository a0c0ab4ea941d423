// The core inside stock OpenClaw: the same answers with it on and off, and proof that native code gave them.
import assert from "node:assert/strict";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createHome } from "./fixture.mjs";
import { stockRoot, stockVersion } from "./stock.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const CONFIG = `// written by hand
{
  gateway: { mode: 'local', port: 0x4A51, auth: { mode: 'token', token: 'sk-very-secret-4711', }, },
  agents: { defaults: { workspace: '~/workspace', }, },
}
`;

/** Every process's counts, and their sums by function. */
function readStats(folder) {
  const processes = existsSync(folder)
    ? readdirSync(folder)
        .filter((name) => name.endsWith(".json") && !name.startsWith("."))
        .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")))
    : [];
  const sums = {};
  for (const { modules } of processes) {
    for (const [name, counts] of Object.entries(modules.config.functions)) {
      sums[name] ??= {
        calls: 0,
        native: 0,
        passed: 0,
        original: 0,
        timed: 0,
        bytes: 0,
        nativeNs: 0,
        originalNs: 0,
      };
      for (const key of Object.keys(sums[name])) sums[name][key] += counts[key];
    }
  }
  return { processes, sums };
}

/** The package as it would be with another addon: dist/ beside an index.js of the test's own. */
function withAddon(folder, source) {
  mkdirSync(folder, { recursive: true });
  cpSync(join(root, "dist"), join(folder, "dist"), { recursive: true });
  writeFileSync(join(folder, "package.json"), '{ "name": "@openclaw/core", "version": "0.0.0" }');
  writeFileSync(join(folder, "index.js"), source);
  return join(folder, "dist/register.js");
}

describe("stock OpenClaw with the core", () => {
  let scratch;
  let home;
  const stats = () => mkdtempSync(join(scratch, "stats-"));

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), "openclaw-core-swap-"));
    home = await createHome({ config: CONFIG });
  });
  beforeEach(() => home.write("openclaw.json", CONFIG));
  after(async () => {
    await home?.remove();
    rmSync(scratch, { recursive: true, force: true });
  });

  const shown = ({ code, stdout, stderr }) => ({ code, stdout, stderr });

  test("prints the same bytes for config get and validate, good config and bad, and native code read it", async () => {
    const commands = [
      ["config", "get", "gateway.port"],
      ["config", "get", "gateway", "--json"],
      ["config", "get", "no.such.path"],
      ["config", "validate"],
    ];
    const configs = {
      json5: CONFIG,
      strict: '{ "gateway": { "mode": "local" } }\n',
      broken: "{ gateway: { mode: 'local', port: } }\n",
    };
    const folder = stats();
    for (const [name, config] of Object.entries(configs)) {
      for (const args of name === "json5" ? commands : commands.slice(2)) {
        await home.write("openclaw.json", config);
        const off = await home.openclaw(args);
        await home.write("openclaw.json", config);
        const on = await home.openclaw(args, { core: { mode: "require", statsDir: join(folder, name) } });
        assert.deepEqual(shown(on), shown(off), `${name}: ${args.join(" ")}`);
      }
    }
    const { processes, sums } = readStats(join(folder, "json5"));
    assert.ok(processes.length >= commands.length);
    for (const { openclawVersion, modules } of processes) {
      assert.equal(openclawVersion, stockVersion);
      assert.equal(modules.config.attached, "native");
      assert.equal(modules.config.how, "swap");
      assert.equal(modules.events.attached, "native");
      assert.equal(modules.gateway.attached, "typescript");
    }
    assert.ok(sums.parseConfigJson5.native >= commands.length, JSON.stringify(sums));
    assert.ok(sums.parseConfigJson5.bytes >= CONFIG.length);
    assert.ok(sums.parseConfigJson5.nativeNs > 0);
    assert.ok(sums.parseJsonWithJson5Fallback.passed > 0, "strict JSON goes by JSON.parse");
    const broken = readStats(join(folder, "broken")).sums;
    assert.ok(broken.parseConfigJson5.original > 0, "the original words the errors");
  });

  test("config set prints the same bytes and writes the same file, its times aside", async () => {
    const results = [];
    for (const core of [undefined, { mode: "require" }]) {
      const own = await createHome({ config: CONFIG });
      try {
        const result = await own.openclaw(["config", "set", "gateway.port", "19555"], { core });
        assert.equal(result.code, 0, result.stderr);
        const file = readFileSync(own.configPath, "utf8");
        assert.equal(JSON.parse(file).gateway.port, 19555);
        // Each run has its own scratch home and its own time.
        const level = (text) =>
          text.replaceAll(own.dir, "<home>").replace(/\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)/g, "<time>");
        results.push({ file: level(file), stdout: level(result.stdout), stderr: level(result.stderr) });
      } finally {
        await own.remove();
      }
    }
    assert.deepEqual(results[1], results[0]);
  });

  test("config set reads the value on its command line by native json5", async () => {
    const folder = stats();
    const { code, stderr } = await home.openclaw(["config", "set", "gateway.port", "+0x4A52"], {
      core: { mode: "require", statsDir: folder },
    });
    assert.equal(code, 0, stderr);
    const { sums } = readStats(folder);
    assert.ok(sums["json5.parse"].native > 0, JSON.stringify(sums));
  });

  test("json5 is native by import and by require; a reviver, U+2028, stringify and errors are the original's", async () => {
    const package_ = join(mkdtempSync(join(scratch, "json5-")), "node_modules/openclaw");
    mkdirSync(package_, { recursive: true });
    cpSync(join(stockRoot, "package.json"), join(package_, "package.json"));
    cpSync(join(stockRoot, "../json5"), join(package_, "../json5"), { recursive: true });
    writeFileSync(
      join(package_, "main.mjs"),
      String.raw`import JSON5, * as namespace from "json5"; import { createRequire } from "node:module";
       const required = createRequire(import.meta.url)("json5");
       const failure = (text) => { try { return required.parse(text); } catch (e) { return [e.name, e.message, e.lineNumber, e.columnNumber]; } };
       console.log(JSON.stringify([
         JSON5.parse("{a:+1}"), required.parse("{b:.5}"), required === JSON5, Object.keys(JSON5), Object.keys(namespace),
         JSON5.parse.name, JSON5.parse.length, JSON5.parse("[1,2]", (k, v) => (v === 1 ? 7 : v)),
         JSON5.parse("'\u2028'").length, JSON5.stringify({ a: "b" }), failure("{a:\n}"), failure("")]));`,
    );
    const stock = await home.node([join(package_, "main.mjs")]);
    const folder = stats();
    const core = await home.node([join(package_, "main.mjs")], {
      env: {
        NODE_OPTIONS: `--import=${pathToFileURL(join(root, "dist/register.js"))}`,
        OPENCLAW_CORE_STATS_DIR: folder,
      },
    });
    assert.equal(stock.code, 0, stock.stderr);
    assert.match(stock.stderr, /in strings is not valid ECMAScript/, "npm json5 warns of U+2028");
    assert.equal(core.stdout, stock.stdout);
    // The core has one word to say: this package has none of the functions it looks for.
    assert.equal(core.stderr.replace(/^openclaw-core: .*\n/, ""), stock.stderr);
    const { calls, native, original } = readStats(folder).sums["json5.parse"];
    // Two answers, two refusals; the reviver and U+2028 never reach the module.
    assert.deepEqual({ calls, native, original }, { calls: 4, native: 2, original: 2 });
  });

  test("works through --import and OpenClaw's own respawn", async () => {
    const folder = stats();
    const register = pathToFileURL(join(root, "dist/register.js")).href;
    const { code, stdout, stderr } = await home.node(
      [`--import=${register}`, join(stockRoot, "openclaw.mjs"), "config", "get", "gateway.port"],
      { env: { OPENCLAW_CORE: "require", OPENCLAW_CORE_STATS_DIR: folder, OPENCLAW_CORE_RUN_ID: "run 1" } },
    );
    assert.equal(code, 0, stderr);
    assert.equal(stdout, "19025\n");
    const { processes, sums } = readStats(folder);
    assert.equal(processes.length, 2, "the launcher and its child");
    assert.ok(processes.every(({ runId }) => runId === "run 1"));
    assert.ok(sums.parseConfigJson5.native > 0);
  });

  test("leaves OpenClaw as many listeners as Node grants it without a warning", async () => {
    const package_ = join(scratch, "listeners/openclaw");
    mkdirSync(join(package_, "dist"), { recursive: true });
    cpSync(join(stockRoot, "package.json"), join(package_, "package.json"));
    writeFileSync(
      join(package_, "main.mjs"),
      `for (let i = 0; i < Number(process.env.COUNT); i++) process.on("exit", () => {});
       console.log(Symbol.for("openclaw.core") in globalThis);`,
    );
    const warns = async (COUNT, core) => {
      const { stdout, stderr } = await home.node([join(package_, "main.mjs")], {
        env: { COUNT, NODE_OPTIONS: core ? `--import=${pathToFileURL(join(root, "dist/register.js"))}` : "" },
      });
      assert.equal(stdout, `${core}\n`, stderr);
      return /MaxListenersExceededWarning/.test(stderr);
    };
    for (const core of [false, true]) {
      assert.deepEqual([await warns("10", core), await warns("11", core)], [false, true], `core: ${core}`);
    }
  });

  test("a worker thread started without execArgv has it through NODE_OPTIONS", async () => {
    const folder = stats();
    const chunk = readdirSync(join(stockRoot, "dist")).find((name) => name.startsWith("parse-json-compat-"));
    // A worker whose file lies in OpenClaw is one of OpenClaw's; this one only loads the chunk and uses it.
    const package_ = join(scratch, "node_modules/openclaw");
    mkdirSync(join(package_, "dist"), { recursive: true });
    cpSync(join(stockRoot, "package.json"), join(package_, "package.json"));
    for (const name of readdirSync(join(stockRoot, "dist")).filter((name) =>
      /^(parse-json-compat|sealed-runtime-registry)-/.test(name),
    )) {
      cpSync(join(stockRoot, "dist", name), join(package_, "dist", name));
    }
    cpSync(join(stockRoot, "../json5"), join(scratch, "node_modules/json5"), { recursive: true });
    writeFileSync(
      join(package_, "dist/worker.mjs"),
      `import { t as parse } from "./${chunk}"; import { parentPort } from "node:worker_threads";
       parentPort.postMessage([parse("{a:+1}"), parse.name, parse.length]);`,
    );
    writeFileSync(
      join(package_, "main.mjs"),
      `import { Worker } from "node:worker_threads";
       new Worker(new URL("dist/worker.mjs", import.meta.url), { execArgv: [] }).on("message", (m) => console.log(JSON.stringify(m)));`,
    );
    const { stdout, stderr } = await home.node([join(package_, "main.mjs")], {
      env: {
        NODE_OPTIONS: `--import=${pathToFileURL(join(root, "dist/register.js"))}`,
        OPENCLAW_CORE_STATS_DIR: folder,
      },
    });
    assert.equal(stdout, '[{"a":1},"parseJsonWithJson5Fallback",2]\n', stderr);
    const { processes, sums } = readStats(folder);
    assert.ok(processes.some(({ threadId }) => threadId > 0));
    assert.equal(sums.parseJsonWithJson5Fallback.native, 1);
  });

  test("timing runs the original on the same inputs, off the hot path", async () => {
    const folder = stats();
    const { code, stdout } = await home.openclaw(["config", "get", "gateway.port"], {
      core: { mode: "require", statsDir: folder, timing: true },
    });
    assert.deepEqual([code, stdout], [0, "19025\n"]);
    const { sums } = readStats(folder);
    const { native, timed, originalNs } = sums.parseConfigJson5;
    assert.ok(native > 0);
    assert.equal(timed, native);
    assert.ok(originalNs > 0);
  });

  test("with everything off nothing is hooked, and with counts asked for they say off", async () => {
    const folder = stats();
    const { code, stdout, stderr } = await home.openclaw(["config", "get", "gateway.port"], {
      core: { mode: "off", statsDir: folder },
    });
    assert.deepEqual([code, stdout, stderr], [0, "19025\n", ""]);
    const { processes, sums } = readStats(folder);
    assert.ok(processes.length > 0);
    assert.deepEqual(sums, {});
    for (const { modules, addonLoadNs } of processes) {
      assert.equal(addonLoadNs, 0);
      for (const { attached } of Object.values(modules)) assert.equal(attached, "off");
    }
  });

  test("a switch set wrongly stops the start with one sentence", async () => {
    const { code, stdout, stderr } = await home.openclaw(["config", "get", "gateway.port"], {
      core: { mode: "on" },
    });
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.equal(
      stderr,
      'openclaw-core: OPENCLAW_CORE is "on"; it must be one of auto, require, shadow, off\n',
    );
  });

  test("require refuses to start where the module is not built or the addon is missing; auto warns once and goes on", async () => {
    const run = (core) => home.openclaw(["config", "get", "gateway.port"], { core });
    const unbuilt = await run({ mode: "auto", modules: { gateway: "require" } });
    assert.equal(unbuilt.code, 1);
    assert.match(unbuilt.stderr, /^openclaw-core: refusing to start, as required: gateway: .*not built.*\n$/);

    const register = withAddon(join(scratch, "broken"), 'throw new Error("no binary for this machine");');
    const required = await run({ mode: "require", register });
    assert.equal(required.code, 1);
    assert.equal(required.stdout, "");
    assert.equal(
      required.stderr,
      "openclaw-core: refusing to start, as required: config: no binary for this machine; " +
        "events: no binary for this machine; secrets: no binary for this machine; " +
        "validation: no binary for this machine; providers: no binary for this machine; " +
        "sandbox: no binary for this machine; channels: no binary for this machine\n",
    );
    const auto = await run({ mode: "auto", register });
    assert.deepEqual([auto.code, auto.stdout], [0, "19025\n"]);
    assert.equal(auto.stderr, "openclaw-core: config stays TypeScript: no binary for this machine\n");
  });

  test("shadow gives OpenClaw's own answer and reports a wrong native one, with no secret in the report", async () => {
    const register = withAddon(
      join(scratch, "wrong"),
      `exports.parseJson5 = (text) => { const value = (0, eval)("(" + text + ")"); value.gateway.port = 666; return value; };`,
    );
    const reports = join(home.stateDir, "openclaw-core");
    rmSync(reports, { recursive: true, force: true });
    const folder = stats();
    const run = (core) => home.openclaw(["config", "get", "gateway.port"], { core });
    assert.equal(
      (await run({ mode: "auto", register })).stdout,
      "666\n",
      "the test's addon is the one in use",
    );

    const { code, stdout, stderr } = await run({ mode: "shadow", register, statsDir: folder });
    assert.deepEqual([code, stdout, stderr], [0, "19025\n", ""]);
    const file = join(reports, "shadow-config.jsonl");
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const text = readFileSync(file, "utf8");
    const lines = text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const difference = lines.find(({ kind }) => kind === "difference");
    assert.equal(difference.function, "parseConfigJson5");
    assert.equal(difference.what, "value");
    assert.match(difference.input, /^\/\/ xxxxxxx xx xxxx\n\{\n {2}xxxxxxx: \{ xxxx: 'xxxxx'/);
    for (const secret of ["very", "secret", "4711", "666", "19025"])
      assert.ok(!text.includes(secret), secret);
    const summary = lines.find(({ kind }) => kind === "summary");
    assert.ok(summary.differences >= 1 && summary.distinct >= 1 && summary.bytes >= CONFIG.length);
    const { processes } = readStats(folder);
    assert.ok(processes.every(({ modules }) => modules.config.attached === "shadow"));
    assert.ok(processes.some(({ modules }) => modules.config.shadow.differences >= 1));
  });

  test("shadow with the real addon compares and finds no difference", async () => {
    rmSync(join(home.stateDir, "openclaw-core"), { recursive: true, force: true });
    const { code, stdout } = await home.openclaw(["config", "validate"], { core: { mode: "shadow" } });
    assert.equal(code, 0, stdout);
    const text = readFileSync(join(home.stateDir, "openclaw-core/shadow-config.jsonl"), "utf8");
    const lines = text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.deepEqual([...new Set(lines.map(({ kind }) => kind))], ["summary"]);
    assert.ok(lines.reduce((sum, { compared }) => sum + compared, 0) > 0);
    assert.equal(
      lines.reduce((sum, { differences }) => sum + differences, 0),
      0,
    );
  });

  test("a process that is not OpenClaw is left alone, wrong switches and all", async () => {
    const script = join(scratch, "plain.mjs");
    writeFileSync(script, 'console.log(globalThis[Symbol.for("openclaw.core")] === undefined);');
    const folder = stats();
    const env = {
      NODE_OPTIONS: `--import=${pathToFileURL(join(root, "dist/register.js"))}`,
      OPENCLAW_CORE: "nonsense",
      OPENCLAW_CORE_STATS_DIR: folder,
    };
    for (const args of [
      [script],
      ["-e", 'console.log(globalThis[Symbol.for("openclaw.core")] === undefined)'],
    ]) {
      const { code, stdout, stderr } = await home.node(args, { env });
      assert.deepEqual([code, stdout, stderr], [0, "true\n", ""]);
    }
    assert.deepEqual(readdirSync(folder), []);
  });

  test("a cache folder that cannot be written changes nothing but the scan", async () => {
    const file = join(scratch, "not-a-folder");
    writeFileSync(file, "");
    chmodSync(file, 0o400);
    const { code, stdout, stderr } = await home.openclaw(["config", "get", "gateway.port"], {
      core: { mode: "require" },
      env: { OPENCLAW_CORE_CACHE_DIR: join(file, "cache") },
    });
    assert.deepEqual([code, stdout, stderr], [0, "19025\n", ""]);
  });

  test("a gateway comes to healthz without the core and with it, and reads its config natively", async () => {
    const folder = stats();
    for (const core of [undefined, { mode: "require", statsDir: folder }]) {
      const own = await createHome({ config: "{ gateway: { mode: 'local', auth: { mode: 'none' }, }, }\n" });
      try {
        const gateway = await own.startGateway({ core });
        const health = await (await fetch(`${gateway.url}/healthz`)).json();
        assert.equal(health.ok, true);
        await gateway.stop();
      } finally {
        await own.remove();
      }
    }
    const { processes, sums } = readStats(folder);
    assert.ok(processes.length > 0);
    assert.ok(sums.parseConfigJson5.native > 0, JSON.stringify(sums));
  });
});
