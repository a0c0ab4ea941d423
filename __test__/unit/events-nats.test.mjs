// The `nats` option of EventStore, against a real nats-server where there is one.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { EventStore } from "../../index.js";
import { freePort } from "../free-port.mjs";

const scratch = mkdtempSync(join(tmpdir(), "openclaw-core-nats-"));
after(() => rmSync(scratch, { recursive: true, force: true }));

const unpacked = fileURLToPath(new URL("../../.cache/nats/usr/sbin", import.meta.url));
const binary = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", unpacked]
  .map((folder) => join(folder, "nats-server"))
  .find((file) => existsSync(file));

/** A server on this port; resolves when it greets. */
async function start(port) {
  const config = join(scratch, "server.conf");
  writeFileSync(
    config,
    `listen: "127.0.0.1:${port}"\njetstream { store_dir: "${join(scratch, "jetstream")}" }\n`,
  );
  const server = spawn(binary, ["-c", config], { stdio: "ignore" });
  after(() => server.kill("SIGKILL"));
  for (;;) {
    assert.equal(server.exitCode, null, "nats-server does not start");
    const greeted = await new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("data", (data) => resolve(String(data).startsWith("INFO")));
      socket.once("error", () => resolve(false));
      socket.once("close", () => resolve(false));
    });
    if (greeted) return server;
    await wait(20);
  }
}

const event = (text) => ({
  sessionKey: "agent:main:telegram:group:-100*:>",
  agentId: "main",
  kind: "message_received",
  data: { text },
});

test("options that cannot be right are refused by name, and without repeating a password", async () => {
  const cases = [
    [{ servers: [], stream: "s" }, /nats\.servers/],
    [{ servers: ["http://u:s3cret@host"], stream: "s" }, /nats\.servers\[0\]/],
    [{ servers: ["nats://u:s3cret@host:99999"], stream: "s" }, /nats\.servers\[0\]/],
    [{ servers: ["nats://h"], stream: "a.b" }, /nats\.stream/],
    [{ servers: "nats://h", stream: "s" }, /nats\.servers.*array/],
    [{ servers: [1], stream: "s" }, /nats\.servers/],
    [{ servers: ["nats://h"], stream: 5 }, /nats\.stream/],
    [{ servers: ["nats://h"], stream: "s", credentials: 5 }, /nats\.credentials/],
    [{ stream: "s" }, /servers/],
    [{ servers: ["nats://h"] }, /stream/],
    ["nats://h", /`nats` must be an object/],
  ];
  for (const [nats, message] of cases) {
    await assert.rejects(
      async () => EventStore.open(join(scratch, "refused"), { nats }),
      (error) => {
        assert.equal(error.code, "VALIDATION", String(error));
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /s3cret/);
        return true;
      },
    );
  }
});

test("a store without the option has no link", async () => {
  const store = await EventStore.open(join(scratch, "alone"));
  assert.equal((await store.stats()).nats, undefined);
  await store.close();
});

test("stores converge once there is a server, and need none before", async (t) => {
  if (!binary) return t.skip("there is no nats-server: `node scripts/setup.mjs --only nats` brings it");
  const port = await freePort();
  const nats = { servers: [`nats://127.0.0.1:${port}`], stream: "log" };
  const stores = [];
  for (const replica of ["a", "b"])
    stores.push(await EventStore.open(join(scratch, replica), { replica, nats }));
  for (const store of stores) await store.append(event(store.replica));
  const early = (await stores[0].stats()).nats;
  assert.equal(early.state, "connecting");
  assert.equal(early.server, null);

  await start(port);
  const read = async (store) =>
    (await store.read(event().sessionKey)).map(({ origin, hash }) => `${origin.replica} ${hash}`).sort();
  const deadline = Date.now() + 30_000;
  for (;;) {
    const [mine, theirs] = await Promise.all(stores.map(read));
    const links = (await Promise.all(stores.map((store) => store.stats()))).map(({ nats }) => nats);
    if (mine.length === 2 && theirs.length === 2 && links.every(({ state }) => state === "live")) {
      assert.deepEqual(mine, theirs);
      const { server, stream, sent, unsent, pending, gap, rejected, conflict, error } = links[0];
      assert.deepEqual([server, stream, sent, unsent, pending], [`127.0.0.1:${port}`, "log", 1, 0, 0]);
      assert.deepEqual([gap, rejected, conflict, error], [null, 0, null, null]);
      break;
    }
    assert.ok(Date.now() < deadline, JSON.stringify(links));
    await wait(20);
  }
  const [one, other] = await Promise.all(stores.map((store) => store.projection(event().sessionKey)));
  assert.deepEqual(one, other);
  for (const store of stores) await store.close();
});
