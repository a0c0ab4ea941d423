// The packed package as a plugin of stock OpenClaw: installed from its tarball, listed, and answering.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { MODULE_NAMES } from "../../dist/modules.js";
import { MODES } from "../../dist/switch.js";
import { createHome, until } from "./fixture.mjs";
import { installPlugin } from "./installed-plugin.mjs";
import { stockRoot, stockVersion } from "./stock.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const json = (path) => JSON.parse(readFileSync(join(root, path), "utf8"));

test("the plugin's manifest agrees with package.json and the table of modules", () => {
  const manifest = json("openclaw.plugin.json");
  assert.equal(manifest.id, "core");
  assert.equal(manifest.version, json("package.json").version);
  const { properties } = manifest.configSchema.properties.modules;
  assert.deepEqual(Object.keys(properties), [...MODULE_NAMES]);
  for (const schema of Object.values(properties)) assert.deepEqual(schema.enum, [...MODES]);
});

describe("stock OpenClaw with the packed plugin", () => {
  let home;

  before(async () => {
    home = await createHome();
    await installPlugin(home);
  });
  after(() => home?.remove());

  test("lists it, loaded and without a complaint", async () => {
    const { code, stdout, stderr } = await home.openclaw(["plugins", "list", "--json"]);
    assert.equal(code, 0, stderr);
    const { plugins, diagnostics } = JSON.parse(stdout);
    const plugin = plugins.find(({ id }) => id === "core");
    assert.ok(plugin, stdout.slice(0, 2000));
    assert.equal(plugin.enabled, true);
    assert.equal(plugin.error, undefined);
    assert.deepEqual(
      (diagnostics ?? []).filter((line) => JSON.stringify(line).includes('"core"')),
      [],
    );
  });

  test("openclaw core shows each module, and that the addon loads from where the plugin lies", async () => {
    const { code, stdout, stderr } = await home.openclaw(["core", "--json"]);
    assert.equal(code, 0, stderr);
    const status = JSON.parse(stdout);
    assert.equal(status.core.addon, "loads");
    assert.ok(status.core.register.includes("/state/npm/projects/"), status.core.register);
    assert.equal(status.preload, "none");
    assert.equal(status.modules.find(({ name }) => name === "config").attached, "native");
    const text = await home.openclaw(["core"]);
    for (const name of MODULE_NAMES) assert.match(text.stdout, new RegExp(`^${name} `, "m"));
  });

  test("openclaw core schema asks OpenClaw once, and from then on doctor validates the config", async () => {
    const found = ({ stdout, stderr }) => {
      assert.ok(stdout, stderr);
      return JSON.parse(stdout).checks.find(({ name }) => name === "config");
    };
    const config = async () => found(await home.openclaw(["core", "doctor", "--json"]));
    const before = await config();
    assert.match(before.detail, /openclaw core schema/);
    const { code, stdout, stderr } = await home.openclaw(["core", "schema"]);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.equal(stdout, `the schema of OpenClaw ${stockVersion} and its plugins is kept\n`);
    const good = await config();
    assert.equal(good.ok, true, good.detail);
    assert.doesNotMatch(good.detail, /openclaw core schema/);
    const text = readFileSync(home.configPath, "utf8");
    await home.write("openclaw.json", { ...JSON.parse(text), gateway: { port: "many" } });
    // With a config like that, OpenClaw runs no command of a plugin.
    const cli = join(root, "dist/cli.js");
    const bad = found(await home.node([cli, "doctor", "--json", "--openclaw", stockRoot]));
    await home.write("openclaw.json", text);
    assert.equal(bad.ok, false);
    assert.match(bad.detail, /gateway\.port/);
  });

  test("its config may switch modules, and one with a wrong value is invalid", async () => {
    const set = (value) =>
      home.openclaw(["config", "set", "plugins.entries.core.config.modules.config", value]);
    assert.notEqual((await set("sometimes")).code, 0);
    const good = await set("shadow");
    assert.equal(good.code, 0, good.stderr);
    const core = { preload: "env", mode: undefined };
    const { stdout, code, stderr } = await home.openclaw(["core", "--json"], {
      core,
      env: { OPENCLAW_CORE: "" },
    });
    assert.equal(code, 0, stderr);
    const status = JSON.parse(stdout);
    assert.equal(status.preload, "active");
    assert.equal(status.modules.find(({ name }) => name === "config").mode, "shadow");
  });

  test("what its config requires: a gateway does not start without it, commands do, and one that has it says so, and follows the config", async () => {
    const good = await home.openclaw([
      "config",
      "set",
      "plugins.entries.core.config.modules.config",
      "require",
    ]);
    assert.equal(good.code, 0, good.stderr);
    const register = await home.openclaw(["core", "register"]);
    assert.deepEqual([register.code, register.stderr], [0, ""]);
    assert.match(register.stdout, /^file:\/\/\S+\/state\/npm\/projects\/\S+\/dist\/register\.js\n$/);
    const doctor = await home.openclaw(["core", "doctor", "--json"]);
    assert.deepEqual([doctor.code, JSON.parse(doctor.stdout).ok], [0, true], doctor.stdout);

    // It may end before or after it answers.
    const ended = await home.startGateway().then(
      async (gateway) => `${(await gateway.done).code} ${gateway.log()}`,
      ({ message }) => message,
    );
    assert.match(
      ended,
      /openclaw-core: refusing to start, as required: .*modules\.config is "require" and the preload is not active/,
    );

    // A variable would win over the config.
    const core = { register: fileURLToPath(register.stdout.trim()), mode: undefined };
    const gateway = await home.startGateway({ core, env: { OPENCLAW_CORE: "" } });
    const said = (text, times) =>
      until(() => gateway.log().split(text).length > times, {
        timeoutMs: 60_000,
        timeoutMessage: () => `not said ${times} times: ${text}\n${gateway.log()}`,
      });
    const native = "the preload is active: config native, validation native, providers native";
    await said(native, 1);
    // OpenClaw says that this takes no restart.
    const off = await home.openclaw(["config", "set", "plugins.entries.core.config.modules.config", "off"]);
    assert.equal(off.code, 0, off.stderr);
    await said("the preload is active: config off, validation native, providers native", 1);
    const unset = await home.openclaw(["config", "unset", "plugins.entries.core.config.modules"]);
    assert.equal(unset.code, 0, unset.stderr);
    await said(native, 2);
    await gateway.stop();
  });
});
