import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { MODULE_NAMES } from "../../dist/modules.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const cli = join(root, "dist/cli.js");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

describe("openclaw-core", () => {
  let base;
  let fake;

  before(() => {
    base = mkdtempSync(join(tmpdir(), "openclaw-core-cli-"));
    fake = join(base, "node_modules/openclaw");
    mkdirSync(join(fake, "dist"), { recursive: true });
    mkdirSync(join(base, "state"), { mode: 0o700 });
    writeFileSync(join(fake, "package.json"), '{ "name": "openclaw", "version": "2030.1.1" }');
    writeFileSync(join(fake, "dist/entry.mjs"), "export {};");
  });
  after(() => rmSync(base, { recursive: true, force: true }));

  function run(args, env = {}, cwd = base) {
    return spawnSync(process.execPath, [cli, ...args], {
      cwd,
      encoding: "utf8",
      timeout: 60_000,
      env: { PATH: "", HOME: base, OPENCLAW_STATE_DIR: join(base, "state"), ...env },
    });
  }

  test("--version prints the package's version and --help every command and switch", () => {
    assert.equal(run(["--version"]).stdout, `${version}\n`);
    const help = run(["--help"]);
    assert.equal(help.status, 0);
    for (const word of ["status", "doctor", "register", "--json", "--openclaw", "OPENCLAW_CORE"]) {
      assert.ok(help.stdout.includes(word), word);
    }
  });

  test("a wrong command, option or switch is one clear line and exit code 2", () => {
    for (const [args, env, words] of [
      [[], {}, /a command is needed/],
      [["stats"], {}, /unknown command "stats"/],
      [["status", "extra"], {}, /unexpected argument "extra"/],
      [["status", "--jsn"], {}, /--jsn/],
      [
        ["status"],
        { OPENCLAW_CORE: "yes" },
        /OPENCLAW_CORE is "yes"; it must be one of auto, require, shadow, off/,
      ],
    ]) {
      const result = run(args, env);
      assert.equal(result.status, 2, `${args}`);
      assert.equal(result.stdout, "");
      assert.match(result.stderr, words);
      assert.doesNotMatch(result.stderr, /\n\s+at /);
    }
  });

  test("status --json tells of every module in order, in the OpenClaw of the project", () => {
    const result = run(["status", "--json"]);
    assert.equal(result.status, 0, result.stderr);
    const status = JSON.parse(result.stdout);
    assert.deepEqual(
      status.modules.map(({ name }) => name),
      [...MODULE_NAMES],
    );
    assert.equal(status.openclaw.version, "2030.1.1");
    assert.equal(status.core.version, version);
    assert.equal(status.preload, "none");
  });

  test("status says of an OpenClaw without the functions that config stays TypeScript, and which are missing", () => {
    const status = JSON.parse(run(["status", "--json"]).stdout);
    const config = status.modules.find(({ name }) => name === "config");
    assert.equal(config.attached, "typescript");
    assert.match(config.reason, /parseJsonWithJson5Fallback/);
    assert.match(config.reason, /2030\.1\.1/);
  });

  test("status shows each switch and where it was set", () => {
    const status = JSON.parse(
      run(["status", "--json"], { OPENCLAW_CORE: "shadow", OPENCLAW_CORE_CONFIG: "off" }).stdout,
    );
    const row = (name) => status.modules.find((module) => module.name === name);
    assert.deepEqual(
      [row("config").mode, row("config").modeSource, row("config").attached],
      ["off", "OPENCLAW_CORE_CONFIG", "off"],
    );
    assert.deepEqual([row("events").mode, row("events").modeSource], ["shadow", "OPENCLAW_CORE"]);
  });

  test("status without an OpenClaw says so; one named in vain is exit code 1", () => {
    const nowhere = run(["status"], {}, tmpdir());
    assert.equal(nowhere.status, 0);
    assert.match(nowhere.stdout, /no OpenClaw found here/);
    const wrong = run(["status", "--openclaw", join(base, "state")]);
    assert.equal(wrong.status, 1);
    assert.match(wrong.stderr, /there is no OpenClaw at/);
  });

  test("there is no colour where the output is not a terminal", () => {
    for (const command of ["status", "doctor"]) {
      assert.ok(!run([command], { TERM: "xterm-256color", FORCE_COLOR: "1" }).stdout.includes("\x1b"));
    }
  });

  test("doctor fails with a remedy for each thing in the way", () => {
    const result = run(["doctor", "--json"], { OPENCLAW_CORE_CONFGI: "off" });
    assert.equal(result.status, 1);
    const { ok, checks } = JSON.parse(result.stdout);
    assert.equal(ok, false);
    const failed = checks.filter((check) => !check.ok).map(({ name }) => name);
    assert.ok(failed.includes("index") && failed.includes("switches"), failed.join());
    for (const check of checks) assert.equal(check.ok, check.remedy === undefined, check.name);
    assert.ok(checks.find(({ name }) => name === "addon").ok);
  });

  test("doctor sees a state folder and a config that others may read, and a config that is not JSON5", (t) => {
    if (process.platform === "win32") return t.skip("Windows has no file modes");
    const state = join(base, "open");
    mkdirSync(state);
    chmodSync(state, 0o755);
    writeFileSync(join(state, "openclaw.json"), "{ a: }", { mode: 0o644 });
    const { checks } = JSON.parse(run(["doctor", "--json"], { OPENCLAW_STATE_DIR: state }).stdout);
    const get = (name) => checks.find((check) => check.name === name);
    assert.match(get("state").detail, /0755/);
    assert.match(get("state").remedy, /chmod 700/);
    assert.match(get("config mode").remedy, /chmod 600/);
    assert.equal(get("config").ok, false);
    assert.match(get("config").detail, /1:6/);
  });

  test("register prints a preload that exists", () => {
    const url = run(["register"]).stdout.trim();
    assert.ok(readFileSync(fileURLToPath(url)).length > 0);
  });
});
