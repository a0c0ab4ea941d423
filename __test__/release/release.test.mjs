// A release, rehearsed on this machine: published to a registry of our own, and installed from it as users do.
//
// Every folder has spaces and letters beyond ASCII in its name. Each package manager installs for one Node, and each Node is
// installed for; with RELEASE_REHEARSAL=complete, each manager for each Node.
import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { hostNode } from "../../scripts/setup.mjs";
import { manifest, platform } from "../package/packed.mjs";
import { complete, emptyApp, lacks, nodes, startReleased } from "./registry.mjs";

const { version } = manifest;
// What is there when publishing stopped half-way: the package of this platform and the main one.
const half = `${version}-half.1`;
const bubblewrap = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"].find((file) => existsSync(file));

/** How each package manager is told, and the Node it is used with; Yarn 4 cannot leave optional packages out. */
const managers = {
  npm: {
    node: "24",
    add: ["install"],
    again: ["ci", "--offline"],
    lock: "package-lock.json",
    ignoreScripts: { args: ["--ignore-scripts"] },
    noOptional: "--omit=optional",
  },
  pnpm: {
    node: "22",
    add: ["add"],
    again: ["install", "--offline", "--frozen-lockfile"],
    lock: "pnpm-lock.yaml",
    ignoreScripts: { args: ["--ignore-scripts"] },
    noOptional: "--no-optional",
  },
  yarn: {
    node: "20",
    add: ["add"],
    again: ["install", "--offline", "--frozen-lockfile"],
    lock: "yarn.lock",
    ignoreScripts: { args: ["--ignore-scripts"] },
    noOptional: "--ignore-optional",
  },
  berry: {
    node: "26",
    add: ["add"],
    again: ["install", "--immutable"],
    lock: "yarn.lock",
    offline: { YARN_ENABLE_NETWORK: "0", YARN_ENABLE_IMMUTABLE_INSTALLS: "true" },
    ignoreScripts: { env: { YARN_ENABLE_SCRIPTS: "0" } },
  },
};

describe("a release", () => {
  let released;

  before(async () => {
    released = await startReleased({ [half]: { others: false }, [version]: {} });
  });
  after(() => released?.stop());

  const app = (name) => emptyApp(join(released.folder, name));
  const fresh = () => mkdtempSync(join(released.folder, "made "));

  /** Installs into an app of this name; gives its folder. */
  async function install(manager, name, { spec = "@openclaw/core", args = [], ...options } = {}) {
    const cwd = app(name);
    const { code, output } = await released.manage(manager, [...managers[manager].add, ...args, spec], {
      cwd,
      ...options,
    });
    assert.equal(code, 0, output);
    return cwd;
  }

  /** What the probe says, run in the app as the package manager's users run Node. */
  async function probe(manager, cwd, { node, args } = {}) {
    copyFileSync(fileURLToPath(new URL("probe.cjs", import.meta.url)), join(cwd, "probe.cjs"));
    const command = ["probe.cjs", ...(args ?? [fresh()])];
    const { code, stdout, stderr } =
      manager === "berry"
        ? await released.manage("berry", ["node", ...command], { cwd, node })
        : await released.execute(node ?? hostNode(), command, { cwd, node });
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    return JSON.parse(stdout);
  }
  const works = (node) => ({ major: Number(node), events: 1, tokens: [16, 1] });
  const name = (manager, major = managers[manager].node) => `${manager} – Node ${major}`;
  /** Where the first test installed it with this manager. */
  const installed = (manager) => join(released.folder, name(manager));

  for (const manager of Object.keys(managers)) {
    describe(`with ${manager}`, { concurrency: 2, skip: lacks(manager) }, () => {
      const wanted = ([major]) => complete || major === managers[manager].node;
      for (const [major, node] of Object.entries(nodes).filter(wanted)) {
        // Scripts are the same for every Node: there are none, and one install in four is told to run none.
        const quiet = major === "22";
        test(`installs into an empty folder${quiet ? " without scripts" : ""} and works on Node ${major}`, async () => {
          const options = quiet ? managers[manager].ignoreScripts : {};
          const cwd = await install(manager, name(manager, major), { node, ...options });
          assert.deepEqual(await probe(manager, cwd, { node }), works(major));
        });
      }

      if (managers[manager].noOptional)
        test("without optional packages it installs, and loading it is one clear error", async () => {
          const args = [managers[manager].noOptional];
          const cwd = await install(manager, `${manager} – none`, { args });
          const code =
            'try { require("@openclaw/core") } catch (error) { console.log(error.code + ": " + error.message) }';
          const { stdout, stderr } = await released.execute(hostNode(), ["-e", code], { cwd });
          assert.equal(stderr, "");
          assert.match(
            stdout,
            new RegExp(
              `^CORE_BINARY_MISSING: @openclaw/core needs the package @openclaw/core-${platform}, which is not installed: .*npm install @openclaw/core-${platform}@${version}`,
            ),
          );
        });
    });
  }

  test("npm puts the package of this machine there, and none of another", () => {
    const folder = join(installed("npm"), "node_modules", "@openclaw");
    assert.deepEqual(readdirSync(folder).sort(), ["core", `core-${platform}`]);
  });

  test("asks the registry for nothing but our own packages", () => {
    const asked = released.registry
      .log()
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line).request?.url)
      .filter(Boolean);
    assert.ok(asked.length > 10);
    const others = asked.filter((url) => !/^\/(@openclaw(%2f|\/)core\b|-\/)/i.test(url));
    // What npm asks for, to see whether an optional peer would fit.
    assert.deepEqual(
      [...new Set(others)].filter((url) => url !== "/openclaw"),
      [],
    );
  });

  for (const manager of ["npm", "pnpm"])
    test(`where other platforms' packages are not published, ${manager} installs what there is`, {
      skip: lacks(manager),
    }, async () => {
      const cwd = await install(manager, `${manager} – half`, { spec: `@openclaw/core@${half}` });
      assert.deepEqual(await probe(manager, cwd), works(24));
    });

  for (const manager of ["yarn", "berry"])
    test(`and ${manager} refuses it, which is why the main package is published last`, async () => {
      const cwd = app(`${manager} – half`);
      const { code, output } = await released.manage(manager, ["add", `@openclaw/core@${half}`], { cwd });
      assert.notEqual(code, 0);
      assert.match(output, /@openclaw\/core-(darwin|linux|win32)-/);
    });

  test("worker threads use it at once", async () => {
    const cwd = installed("npm");
    const { code, stdout, stderr } = await released.execute(hostNode(), ["probe.cjs", "--workers", fresh()], {
      cwd,
    });
    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: "3 workers\n", stderr: "" });
  });

  test("two copies from two folders work in one process", async () => {
    const other = installed("yarn");
    for (const [major, node] of Object.entries(nodes)) {
      const said = await probe("npm", installed("npm"), { node, args: [fresh(), other] });
      const { major: _, ...used } = works(major);
      assert.deepEqual(said, { ...works(major), copy1: used });
    }
  });

  test("it works where its folder, and all others but the store's, cannot be written to", {
    skip: !bubblewrap && "needs bubblewrap",
  }, async () => {
    const cwd = installed("npm");
    const store = fresh();
    const readOnly = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", store, store];
    const inside = (args) => released.execute(bubblewrap, [...readOnly, hostNode(), ...args], { cwd });
    const writing = await inside(["-e", 'require("node:fs").writeFileSync("node_modules/x", "")']);
    assert.match(writing.stderr, /EROFS/);
    const { code, stdout, stderr } = await inside(["probe.cjs", store]);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    assert.deepEqual(JSON.parse(stdout), works(24));
  });

  describe("when the registry is gone", { concurrency: 2 }, () => {
    before(() => released.registry.stop());

    for (const [manager, { again, lock, offline }] of Object.entries(managers)) {
      test(`${manager} installs from its cache what its lock file says`, {
        skip: lacks(manager),
      }, async () => {
        const from = installed(manager);
        const cwd = app(`${manager} – offline`);
        for (const file of ["package.json", lock, "pnpm-workspace.yaml"])
          if (existsSync(join(from, file))) copyFileSync(join(from, file), join(cwd, file));
        const { code, output } = await released.manage(manager, again, { cwd, env: offline });
        assert.equal(code, 0, output);
        assert.deepEqual(await probe(manager, cwd), works(24));
        assert.equal(readFileSync(join(cwd, lock), "utf8"), readFileSync(join(from, lock), "utf8"));
      });
    }
  });
});
