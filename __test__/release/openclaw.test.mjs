// The package in stock OpenClaw, from its installation out of a registry to its removal. Other versions come in between with
// RELEASE_REHEARSAL=complete.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createHome } from "../host/fixture.mjs";
import { connectGateway } from "../host/gateway-client.mjs";
import { manifest, platform } from "../package/packed.mjs";
import { complete, startReleased } from "./registry.mjs";

const { version } = manifest;
const newer = version.replace(/\d+$/, (patch) => String(Number(patch) + 1));

describe("stock OpenClaw, with a registry that has the package", () => {
  let released;
  let home;

  before(async () => {
    // OpenClaw installs with npm, which is content with the package of this platform.
    released = await startReleased({ [version]: { others: false } });
    home = await createHome();
    await home.write("openclaw.json", {
      // The port is for `doctor`, which looks where the config says.
      gateway: { mode: "local", port: home.port, auth: { mode: "token", token: home.token } },
    });
  });
  after(async () => {
    await home?.remove();
    await released?.stop();
  });

  async function openclaw(...args) {
    const { npm_config_userconfig, npm_config_registry, npm_config_cache } = released.environment();
    // No proxy: there is nothing outside that is asked.
    const env = {
      npm_config_userconfig,
      npm_config_registry,
      npm_config_cache,
      HTTP_PROXY: "",
      HTTPS_PROXY: "",
    };
    const result = await home.openclaw(args, { env, timeoutMs: 600_000 });
    return { ...result, output: `openclaw ${args.join(" ")}\n${result.stdout}\n${result.stderr}` };
  }
  async function succeeds(...args) {
    const result = await openclaw(...args);
    assert.equal(result.code, 0, result.output);
    return result;
  }
  /** OpenClaw's npm projects that still have the package. */
  const left = () => {
    const projects = join(home.stateDir, "npm", "projects");
    return (existsSync(projects) ? readdirSync(projects) : [])
      .map((name) => join(projects, name))
      .filter((folder) => existsSync(join(folder, "node_modules", manifest.name)));
  };
  const config = () => JSON.parse(readFileSync(home.configPath, "utf8"));

  /** What `openclaw core` says, which the plugin itself answers. */
  async function status() {
    return JSON.parse((await succeeds("core", "status", "--json")).stdout);
  }

  /** A gateway starts, is in good health, and so finds `openclaw doctor`. */
  async function healthy() {
    const gateway = await home.startGateway({ timeoutMs: 600_000 });
    try {
      const client = await connectGateway(gateway, home.token);
      const health = await client.request("health", {});
      client.close();
      assert.equal(health.ok, true, JSON.stringify(health));
      const { output } = await succeeds("doctor", "--non-interactive");
      assert.doesNotMatch(output, /Health check failed|Gateway not running/);
      for (const line of `${output}\n${gateway.log()}`
        .split("\n")
        .filter((line) => /@openclaw.core|plugin.*\bcore\b/.test(line)))
        assert.doesNotMatch(line, /error|fail|warn|missing|stale|incomplete/i);
      return { log: gateway.log(), doctor: output };
    } finally {
      await gateway.stop();
    }
  }

  const isNative = (modules) =>
    modules.filter(({ attached }) => attached === "native").map(({ name }) => name);

  test("plugins install brings it, with the package of this platform, and modules are native", async () => {
    await succeeds("plugins", "install", manifest.name, "--force", "--accept-capabilities");
    const { core, modules } = await status();
    assert.deepEqual([core.version, core.addon], [version, "loads"]);
    assert.ok(isNative(modules).includes("config") && isNative(modules).includes("events"));
    const folder = dirname(dirname(fileURLToPath(core.register)));
    assert.ok(folder.startsWith(home.stateDir), folder);
    assert.ok(existsSync(join(dirname(folder), `core-${platform}`, `core.${platform}.node`)));
    const { log } = await healthy();
    assert.match(log, /\bcore\b/);
  });

  if (complete) {
    test("plugins update brings the newer version", async () => {
      await released.publish(newer, { others: false });
      await succeeds("plugins", "update", "core");
      const { core, modules } = await status();
      assert.deepEqual([core.version, core.addon], [newer, "loads"]);
      assert.ok(isNative(modules).includes("config"));
      await healthy();
    });

    test("plugins update with a version goes back to it", async () => {
      await succeeds("plugins", "update", `${manifest.name}@${version}`);
      const { core, modules } = await status();
      assert.deepEqual([core.version, core.addon], [version, "loads"]);
      assert.ok(isNative(modules).includes("config"));
      await healthy();
    });
  }

  test("plugins uninstall leaves nothing of it in the config or where OpenClaw loads plugins from", async () => {
    await succeeds("plugins", "uninstall", "core", "--force");
    // OpenClaw's own mark of a removal, so that no repair brings the plugin back.
    assert.deepEqual(config().plugins, { entries: { core: { enabled: false } } });
    const { plugins, diagnostics } = JSON.parse((await succeeds("plugins", "list", "--json")).stdout);
    assert.deepEqual(
      plugins.filter(({ id }) => id === "core"),
      [],
    );
    assert.doesNotMatch(JSON.stringify(diagnostics ?? []), /"core"|@openclaw.core/);
    // Earlier versions stay until a gateway has time to delete them, marked as what is no plugin any more.
    for (const folder of left()) {
      const marks = join(folder, ".openclaw-retained-npm-installs");
      assert.ok(existsSync(marks) && readdirSync(marks).length > 0, folder);
    }
    assert.ok(!existsSync(join(home.stateDir, "extensions", "core")));
    const { stdout } = await openclaw("core", "status");
    assert.doesNotMatch(stdout, /addon loads/);
    if (complete) {
      const { log, doctor } = await healthy();
      assert.doesNotMatch(log + doctor, /@openclaw.core|core-(telegram|anthropic)/);
    }
    // What the plugin wrote for its user stays.
    assert.ok(existsSync(join(home.stateDir, "core", "events", "store.json")));
  });
});
