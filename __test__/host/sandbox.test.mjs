// Stock OpenClaw with the sandbox backend `bwrap`: one agent turn whose model uses every tool, and what became of it.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { startModelServer } from "../sim/model/server.mjs";
import { createHome } from "./fixture.mjs";
import { installPlugin } from "./installed-plugin.mjs";
import { configureTurn } from "./turn.mjs";

const { Sandbox } = createRequire(import.meta.url)("../../index.js");
const spawns = pathToFileURL(fileURLToPath(new URL("spawns.mjs", import.meta.url))).href;
/** Found in the command line of whatever is still alive. */
const SURVIVOR = "31415.92";
const PATCH = `*** Begin Patch
*** Add File: patched.txt
+hello
*** Update File: notes/a.txt
@@
-one
+eins
*** End Patch`;

const CALLS = {
  exec: {
    name: "exec",
    arguments: {
      command:
        "pwd; echo from-exec > made.txt; cat /etc/shadow; ls /root /home; env | grep -c HOST_ONLY_SECRET; cat /proc/net/dev | wc -l",
    },
  },
  write: { name: "write", arguments: { path: "notes/a.txt", content: "one\ntwo\n" } },
  read: { name: "read", arguments: { path: "notes/a.txt" } },
  edit: { name: "edit", arguments: { path: "notes/a.txt", edits: [{ oldText: "two", newText: "zwei" }] } },
  ls: { name: "ls", arguments: { path: "notes" } },
  apply_patch: { name: "apply_patch", arguments: { input: PATCH } },
  escape: { name: "write", arguments: { path: "out/stolen.txt", content: "stolen" } },
  timeout: {
    name: "exec",
    arguments: {
      command: `(setsid sleep ${SURVIVOR} &); echo begun; sleep ${SURVIVOR}`,
      timeoutSeconds: 2,
      yieldMs: 20_000,
    },
  },
};
const FILE_TOOLS = ["write", "read", "edit", "ls", "apply_patch", "escape"];

const probe = await Sandbox.probe();
const works =
  probe.checks.some(({ name, ok }) => name.startsWith("bwrap") && ok) && probe.backend === "bwrap";
const skip = !works && `bubblewrap does not work here: ${JSON.stringify(probe.checks.find(({ ok }) => !ok))}`;

describe("one turn of stock OpenClaw in the sandbox", { skip }, () => {
  let home, server, run, results, windows, offered, again;

  before(async () => {
    let names = Object.keys(CALLS);
    results = {};
    windows = {};
    let current;
    again = (...more) => {
      names = more;
      current = undefined;
      results = {};
    };
    server = await startModelServer({
      script: (turn) => {
        offered ??= turn.tools;
        if (current !== undefined) {
          windows[current].endMs = Date.now();
          results[current] = turn.toolResults[0];
        }
        current = names.shift();
        if (current === undefined) return { text: "done" };
        windows[current] = { startMs: Date.now() };
        return { toolCalls: [CALLS[current]] };
      },
    });
    home = await createHome();
    await installPlugin(home);
    await configureTurn(home, server);
    // The installation has written its own parts into the config by now; these are added by OpenClaw's own command.
    const sandbox = { mode: "all", backend: "bwrap", scope: "agent", workspaceAccess: "rw" };
    for (const [path, value] of [
      ["agents.defaults.sandbox", sandbox],
      ["plugins.entries.core.enabled", true],
      ["tools.sandbox.tools.alsoAllow", ["ls"]],
    ]) {
      const set = await home.openclaw(["config", "set", path, JSON.stringify(value)]);
      assert.equal(set.code, 0, set.stderr);
    }
    mkdirSync(join(home.dir, "outside"));
    symlinkSync(join(home.dir, "outside"), join(home.workspace, "out"));
    const log = join(home.dir, "spawns.jsonl");
    run = await home.openclaw(["agent", "--local", "--agent", "main", "--message", "Do it.", "--json"], {
      timeoutMs: 300_000,
      env: { SPAWN_LOG: log, NODE_OPTIONS: `--import=${spawns}`, HOST_ONLY_SECRET: "not-for-the-sandbox" },
    });
    run.log = existsSync(log)
      ? readFileSync(log, "utf8")
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line))
      : [];
  });
  after(async () => {
    await home?.remove();
    await server?.close();
  });

  const during = (name) =>
    run.log.filter(({ atMs }) => atMs >= windows[name].startMs && atMs <= windows[name].endMs);
  /** Without the processes in which OpenClaw reads its own databases. */
  const started = (name) =>
    during(name).filter(
      ({ kind, what }) => kind === "spawn" && !what.includes("--openclaw-sqlite-readonly-child"),
    );

  test("ends well, and every tool was on offer", () => {
    assert.equal(run.code, 0, `${run.stdout}\n${run.stderr}`.slice(-4000));
    for (const { name } of Object.values(CALLS)) assert.ok(offered.includes(name), `${name} of ${offered}`);
    assert.deepEqual(Object.keys(results), Object.keys(CALLS));
  });

  test("the command ran in the sandbox, and saw nothing of this machine", () => {
    const { text } = results.exec;
    assert.match(text, /^\/workspace$/m);
    assert.match(text, /\/etc\/shadow: No such file/);
    assert.match(text, /\/root.*No such file/);
    assert.match(text, /^0$/m, "a variable of the gateway reached the sandbox");
    assert.equal(readFileSync(join(home.workspace, "made.txt"), "utf8"), "from-exec\n");
  });

  test("the file tools' outputs are right, and so is what lies on the disk", () => {
    assert.match(results.read.text, /one\ntwo/);
    assert.match(results.ls.text, /a\.txt/);
    assert.match(results.apply_patch.text, /A patched\.txt[\s\S]*M notes\/a\.txt/);
    for (const name of ["write", "read", "edit", "ls", "apply_patch"])
      assert.notEqual(results[name].isError, true, `${name}: ${results[name].text}`);
    assert.equal(readFileSync(join(home.workspace, "notes/a.txt"), "utf8"), "eins\nzwei\n");
    assert.equal(readFileSync(join(home.workspace, "patched.txt"), "utf8"), "hello\n");
    assert.deepEqual(
      readdirSync(join(home.workspace, "notes")).filter((name) => name !== "a.txt"),
      [],
    );
  });

  test("a link out of the workspace leads nowhere", () => {
    assert.deepEqual(readdirSync(join(home.dir, "outside")), []);
    assert.doesNotMatch(results.escape.text, /Successfully|Wrote \d+ bytes/i);
  });

  test("the file tools started no process, where a command starts one", () => {
    assert.ok(started("exec").length > 0, "the count counts nothing");
    for (const name of FILE_TOOLS) {
      assert.deepEqual(started(name), [], name);
      if (name !== "escape") {
        const calls = during(name).filter(({ kind }) => kind === "files");
        assert.ok(calls.length > 0, `${name} did not go through SandboxFs`);
      }
    }
  });

  test("a command that takes too long is ended, and nothing of it survives", () => {
    assert.match(results.timeout.text, /timed out/i);
    const alive = readdirSync("/proc").filter((id) => {
      try {
        return /^\d+$/.test(id) && readFileSync(`/proc/${id}/cmdline`, "utf8").includes(SURVIVOR);
      } catch {
        return false;
      }
    });
    assert.deepEqual(alive, []);
    assert.deepEqual(run.leftBehind, []);
  });

  // Backends of plugins were missing at the first message of a gateway that had loaded them too late.
  test("a gateway's first message finds the backend", async () => {
    again("exec", "read");
    const gateway = await home.startGateway();
    try {
      const args = [
        "agent",
        "--agent",
        "main",
        "--session-key",
        "agent:main:first",
        "--message",
        "Go.",
        "--json",
      ];
      const first = await home.openclaw(args, { timeoutMs: 180_000 });
      assert.equal(first.code, 0, `${first.stdout}\n${first.stderr}\n${gateway.log()}`.slice(-4000));
      assert.match(results.exec.text, /^\/workspace$/m);
      assert.match(results.read.text, /eins\nzwei/);
    } finally {
      await gateway.stop();
    }
  });
});
