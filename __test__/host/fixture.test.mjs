// The fixture itself: what it starts, it ends.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { createHome, living, until } from "./fixture.mjs";

const config = "{ gateway: { mode: 'local', auth: { mode: 'token', token: 'x' } } } // scratch";

async function home(t, options) {
  const created = await createHome(options);
  t.after(() => created.remove());
  return created;
}

test("a command's answer, exit code, CPU time and memory come back", async (t) => {
  const scratch = await home(t, { config });
  const good = await scratch.openclaw(["config", "get", "gateway.mode"]);
  assert.deepEqual([good.code, good.stdout, good.stderr], [0, "local\n", ""]);
  assert.ok(good.cpuMs > 100, `${good.cpuMs} ms of CPU`);
  assert.ok(good.maxRssKb > 50_000, `${good.maxRssKb} KiB`);
  assert.deepEqual(good.leftBehind, []);
  const bad = await scratch.openclaw(["config", "get", "gateway.nothing"]);
  assert.notEqual(bad.code, 0);
});

test("CPU time counts what the command's children used", async (t) => {
  const scratch = await home(t);
  const burn = "const end = process.cpuUsage().user + 600e3; while (process.cpuUsage().user < end);";
  const parent = `require("child_process").spawnSync(process.execPath, ["-e", ${JSON.stringify(burn)}]);`;
  const [idle, busy] = [await scratch.node(["-e", "0"]), await scratch.node(["-e", parent])];
  assert.ok(busy.cpuMs - idle.cpuMs > 550, `${idle.cpuMs} ms idle, ${busy.cpuMs} ms with a busy child`);
});

test("the caller's own keys and settings do not reach OpenClaw", async (t) => {
  process.env.OPENAI_API_KEY = "sk-of-the-developer";
  t.after(() => delete process.env.OPENAI_API_KEY);
  const scratch = await home(t);
  const { stdout } = await scratch.node(["-p", "JSON.stringify(process.env)"]);
  const env = JSON.parse(stdout);
  assert.equal(env.OPENAI_API_KEY, undefined);
  assert.equal(env.HOME, scratch.dir);
  assert.equal(env.OPENCLAW_STATE_DIR, scratch.stateDir);
});

test("input reaches the command", async (t) => {
  const { stdout } = await (await home(t)).node(["-e", "process.stdin.pipe(process.stdout)"], {
    input: "héllo",
  });
  assert.equal(stdout, "héllo");
});

test("a command that outstays its time is ended with its children, and says so", async (t) => {
  const scratch = await home(t);
  const script =
    'const { spawn } = require("child_process"); process.on("SIGTERM", () => {});' +
    'spawn(process.execPath, ["-e", "setInterval(() => {}, 1e3)"], { detached: true }); setInterval(() => {}, 1e3)';
  const result = await scratch.node(["-e", script], { timeoutMs: 1_500 });
  assert.equal(result.timedOut, true);
  assert.equal(result.code, null);
  assert.deepEqual(living({ dir: scratch.dir }), []);
});

test("a child that a command leaves behind is named and ended, even in a session of its own", async (t) => {
  const scratch = await home(t);
  const script =
    'require("child_process").spawn(process.execPath, ["-e", "setInterval(() => {}, 1e3)"], { detached: true, stdio: "ignore" }).unref()';
  const { code, leftBehind } = await scratch.node(["-e", script]);
  assert.equal(code, 0);
  assert.equal(leftBehind.length, 1);
  assert.match(leftBehind[0], /setInterval/);
  assert.deepEqual(living({ dir: scratch.dir }), []);
});

test("a gateway answers, survives a command beside it, and leaves no process, port or home", async (t) => {
  const scratch = await home(t, { config });
  const gateway = await scratch.startGateway();
  assert.equal((await fetch(`${gateway.url}/healthz`)).status, 200);
  assert.ok(living({ dir: scratch.dir }).length > 1);
  assert.ok(gateway.usage().cpuMs > 500);
  assert.equal((await scratch.openclaw(["config", "get", "gateway.mode"])).stdout, "local\n");
  assert.equal((await fetch(`${gateway.url}/healthz`)).status, 200, "the command's end is not the gateway's");

  const { leftBehind, cpuMs } = await gateway.stop();
  assert.deepEqual(leftBehind, []);
  assert.ok(cpuMs > 500);
  assert.deepEqual(living({ dir: scratch.dir }), []);
  const server = createServer().listen(gateway.port, "127.0.0.1");
  await once(server, "listening");
  await new Promise((resolve) => server.close(resolve));
  await scratch.remove();
  assert.equal(existsSync(scratch.dir), false);
});

test("a gateway that cannot start says why", async (t) => {
  const scratch = await home(t, { config: "{ gateway: { mode: 'local' }, nonsense: true }" });
  await assert.rejects(scratch.startGateway(), /nonsense/);
  assert.deepEqual(living({ dir: scratch.dir }), []);
});

for (const signal of ["SIGKILL", "SIGINT"]) {
  test(`a test process ended by ${signal} takes its gateway and its home with it`, async (t) => {
    const script = `
      import { createHome } from ${JSON.stringify(new URL("./fixture.mjs", import.meta.url).href)};
      const home = await createHome({ config: ${JSON.stringify(config)} });
      const gateway = await home.startGateway();
      console.log(JSON.stringify({ dir: home.dir, pid: gateway.pid }));
      setInterval(() => {}, 1000);
    `;
    const tester = spawn(process.execPath, ["--input-type=module", "-e", script], {
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      stdio: ["ignore", "pipe", "inherit"],
    });
    t.after(() => tester.kill("SIGKILL"));
    const [line] = await once(tester.stdout.setEncoding("utf8"), "data");
    const { dir, pid } = JSON.parse(line);
    assert.ok(living({ dir, group: pid }).length > 1);
    tester.kill(signal);
    await until(() => living({ dir, group: pid }).length === 0 && !existsSync(dir), {
      timeoutMs: 20_000,
      timeoutMessage: () =>
        `left: ${JSON.stringify(living({ dir, group: pid }))}, home ${existsSync(dir) ? "there" : "gone"}`,
    });
  });
}
