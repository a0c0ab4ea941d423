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

  test("what its config requires: a gateway does not start without it, commands do, and one that has it says so", async () => {
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

    const gateway = await home.startGateway({ core: { register: fileURLToPath(register.stdout.trim()) } });
    await until(
      () => /the preload is active: config native, validation native, providers native/.test(gateway.log()),
      {
        timeoutMs: 60_000,
        timeoutMessage: () => gateway.log(),
      },
    );
    await gateway.stop();
  });
});
