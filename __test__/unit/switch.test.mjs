import assert from "node:assert/strict";
import { test } from "node:test";
import { MODULE_NAMES, MODULES, swapTargets } from "../../dist/modules.js";
import { MODES, SwitchError, Switches, unknownSwitches, variableOf } from "../../dist/switch.js";

test("without any switch every module is auto", () => {
  const switches = Switches.read({});
  for (const name of MODULE_NAMES) {
    assert.equal(switches.mode(name), "auto");
    assert.equal(switches.source(name), "default");
  }
});

test("a module's variable beats OPENCLAW_CORE, and both beat the plugin's config, in every combination", () => {
  const values = [undefined, "", ...MODES];
  for (const own of values) {
    for (const all of values) {
      for (const plugin of [undefined, ...MODES]) {
        const switches = Switches.read(
          { OPENCLAW_CORE: all, OPENCLAW_CORE_CONFIG: own },
          plugin === undefined ? {} : { config: plugin },
        );
        assert.equal(switches.mode("config"), own || all || plugin || "auto", `${own} ${all} ${plugin}`);
        assert.equal(switches.mode("events"), all || "auto");
      }
    }
  }
});

test("a value that is none of the four is refused with the variable, the value and the four named", () => {
  for (const [env, where] of [
    [{ OPENCLAW_CORE: "on" }, "OPENCLAW_CORE"],
    [{ OPENCLAW_CORE_CONFIG: "Auto" }, "OPENCLAW_CORE_CONFIG"],
    [{ OPENCLAW_CORE: "off", OPENCLAW_CORE_TOOLS: "1" }, "OPENCLAW_CORE_TOOLS"],
  ]) {
    assert.throws(
      () => Switches.read(env),
      (error) => {
        assert.ok(error instanceof SwitchError);
        assert.ok(error.message.startsWith(`${where} is "${env[where]}"`), error.message);
        for (const mode of MODES) assert.ok(error.message.includes(mode));
        return true;
      },
    );
  }
  assert.throws(() => Switches.read({}, { config: true }), SwitchError);
  assert.throws(() => Switches.read({}, { confg: "auto" }), /confg names no module.*config/);
});

test("a misspelt switch is found, and the core's other variables are not taken for one", () => {
  const env = {
    OPENCLAW_CORE_CONFGI: "off",
    OPENCLAW_CORE_STATS_DIR: "x",
    OPENCLAW_CORE_RUN_ID: "x",
    PATH: "",
  };
  for (const name of MODULE_NAMES) env[variableOf(name)] = "auto";
  assert.deepEqual(unknownSwitches(env), ["OPENCLAW_CORE_CONFGI"]);
});

test("the table has the modules of the plan in its order, and a shape for whatever is swapped", () => {
  assert.deepEqual(
    MODULES.map(({ name }) => name),
    [...MODULE_NAMES],
  );
  const targets = swapTargets([...MODULE_NAMES]);
  assert.ok(targets.length >= 3);
  for (const target of targets) {
    assert.ok(target.kind === "package" || target.shape instanceof RegExp, target.name);
  }
  for (const { name, attaches, note } of MODULES) {
    assert.ok(attaches !== "library" || note, `${name} is not attached and does not say why`);
  }
});
