// The binaries of a release for Linux with glibc, as scripts/build.mjs makes them with zig: what they ask of a system, and
// that they load. Those for arm64 run in an emulator where the processor is another.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { arm64Nodes, nodeBinary } from "../../scripts/setup.mjs";
import { install, packMain, packPlatform, root, scratch } from "../package/packed.mjs";

const FLOOR = [2, 17];
const loadTests = fileURLToPath(new URL("../load/load.test.mjs", import.meta.url));
const probe = fileURLToPath(new URL("../release/probe.cjs", import.meta.url));

/** What glibc has been since the floor: other libraries may be missing on a machine. */
const ofTheSystem =
  /^(?:lib(?:c|m|dl|rt|pthread)\.so\.[0-9]|libgcc_s\.so\.1|ld-linux-(?:x86-64|aarch64)\.so\.[0-9])$/;

const targets = [
  {
    platform: "linux-x64-gnu",
    machine: /X86-64/,
    nodes: ["20", "22", "24", "26"]
      .map((major) => ({ major, node: nodeBinary(major), environment: {} }))
      .filter(({ node }) => process.arch === "x64" && node),
  },
  { platform: "linux-arm64-gnu", machine: /AArch64/, nodes: arm64Nodes() },
];

function readelf(...args) {
  const { status, stdout, stderr } = spawnSync("readelf", ["--wide", ...args], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return stdout;
}

/** Runs a program as `of` says: under its emulator, if it has one. */
function execute({ emulator, environment }, [command, ...args], { cwd = root } = {}) {
  const line = [...(emulator ? [emulator] : []), command, ...args];
  const result = spawnSync(line[0], line.slice(1), {
    cwd,
    encoding: "utf8",
    timeout: 600_000,
    // Without the last, what runs here would take itself for a part of this test, and report in its binary format.
    env: {
      ...process.env,
      ...environment,
      ...(emulator && { LOAD_UNDER: emulator }),
      NODE_TEST_CONTEXT: undefined,
    },
  });
  assert.equal(result.error, undefined);
  return result;
}

for (const { platform, machine, nodes } of targets)
  describe(platform, () => {
    const binary = join(root, `core.${platform}.node`);
    const init = join(root, "npm", platform, "openclaw-core-init");
    const skip = !existsSync(binary) && "is not built: node scripts/test.mjs --only release-targets";

    test(`is for this processor, and asks for no glibc newer than ${FLOOR.join(".")}`, { skip }, () => {
      assert.match(readelf("--file-header", binary), machine);
      const versions = [...readelf("--version-info", binary).matchAll(/\bGLIBC_([0-9.]+)/g)].map(
        ([, version]) => version.split(".").map(Number),
      );
      assert.ok(versions.length > 0);
      const newer = versions.filter(
        ([major, minor]) => major > FLOOR[0] || (major === FLOOR[0] && minor > FLOOR[1]),
      );
      assert.deepEqual(newer, []);
    });

    test("needs no library but those of the C library and the compiler", { skip }, () => {
      const needed = [...readelf("--dynamic", binary).matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(
        ([, name]) => name,
      );
      assert.ok(needed.includes("libc.so.6"));
      assert.deepEqual(
        needed.filter((name) => !ofTheSystem.test(name)),
        [],
      );
    });

    test("the launcher of the sandbox needs nothing of the system, and runs", { skip }, () => {
      assert.match(readelf("--file-header", init), machine);
      assert.doesNotMatch(readelf("--program-headers", "--dynamic", init), /INTERP|NEEDED/);
      if (nodes.length === 0) return;
      const { status, stdout, stderr } = execute(nodes[0], [init, "observe"]);
      assert.equal(status, 0, stderr);
      assert.equal(typeof JSON.parse(stdout), "object");
    });

    for (const of of nodes)
      test(`passes the load tests under Node ${of.major}${of.emulator ? ", emulated" : ""}`, { skip }, () => {
        const { status, stdout, stderr } = execute(of, [of.node, "--test-reporter=tap", loadTests]);
        assert.equal(status, 0, stdout + stderr);
        assert.match(stdout, /^# pass [1-9]/m);
      });

    describe("packed, and installed into an empty folder as npm does on such a machine", {
      skip: skip || (nodes.length === 0 && "no Node for it runs here"),
    }, () => {
      const app = scratch("app – größer 東京");
      let packed;
      before(() => {
        packed = packPlatform(app.folder, platform);
        // For another machine npm installs only what is optional, as a platform's package is.
        const machineFlags = ["--save-optional", `--cpu=${platform.split("-")[1]}`, "--libc=glibc"];
        install(app.folder, [packMain(app.folder).path, packed.path], machineFlags);
      });
      after(app.remove);

      test("it holds the binary and the launcher", () => {
        const files = packed.files.map(({ path }) => path);
        assert.ok(files.includes(`core.${platform}.node`) && files.includes("openclaw-core-init"));
        assert.equal(packed.files.find(({ path }) => path === "openclaw-core-init").mode & 0o111, 0o111);
      });

      for (const of of nodes)
        test(`it keeps events under Node ${of.major}`, () => {
          copyFileSync(probe, join(app.folder, "probe.cjs"));
          const { status, stdout, stderr } = execute(of, [of.node, "probe.cjs", `store ${of.major}`], {
            cwd: app.folder,
          });
          assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
          assert.deepEqual(JSON.parse(stdout), { major: Number(of.major), events: 1, tokens: [16, 1] });
        });
    });
  });
