// OpenClaw's file bridge over `SandboxFs`, against OpenClaw's own on the same backend: each method, and how many commands
// each runs in the sandbox.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stockFunction, stockRoot } from "../__test__/host/stock.mjs";
import { createBackend } from "../dist/adapters/sandbox.js";
import { row } from "./measure.mjs";

export const title = "Files of a sandbox, 4 KB";
export const node = "24";

const TURNS = 60;
/** OpenClaw's own takes up to a second. */
const OTHER_TURNS = 12;
const DATA = Buffer.alloc(4096, "x");

export async function run() {
  const base = realpathSync(mkdtempSync(join(tmpdir(), "openclaw-core-bench-")));
  try {
    return await measure(base);
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}

async function measure(base) {
  const workspaceDir = join(base, "workspace");
  mkdirSync(join(workspaceDir, "dir"), { recursive: true });
  for (let n = 0; n < 20; n++) writeFileSync(join(workspaceDir, `dir/${n}`), "x");
  const cfg = { workspaceAccess: "rw", docker: {} };
  const request = { scopeKey: "bench", workspaceDir, agentWorkspaceDir: workspaceDir, cfg };
  const sdk = createRequire(join(stockRoot, "package.json"))("openclaw/plugin-sdk/sandbox");
  const backend = await createBackend(request, {}, sdk);
  let commands = 0;
  const counted = {
    ...backend,
    runShellCommand(command) {
      commands++;
      return backend.runShellCommand(command);
    },
  };
  const createSandboxFsBridge = await stockFunction(
    "src/agents/sandbox/fs-bridge.ts",
    "createSandboxFsBridge",
  );
  const sandbox = {
    workspaceDir,
    agentWorkspaceDir: workspaceDir,
    workspaceAccess: "rw",
    containerName: backend.runtimeId,
    containerWorkdir: backend.workdir,
    docker: {},
    backend: counted,
  };
  const bridges = { core: backend.createFsBridge({ sandbox }), openclaw: createSandboxFsBridge({ sandbox }) };
  for (const [name, bridge] of Object.entries(bridges))
    await bridge.writeFile({ filePath: `${name}/file`, data: DATA });
  const methods = {
    readFile: (bridge, name) => bridge.readFile({ filePath: `${name}/file` }),
    writeFile: (bridge, name) => bridge.writeFile({ filePath: `${name}/file`, data: DATA }),
    createFileExclusive: (bridge, name, n) =>
      bridge.createFileExclusive({ filePath: `${name}/new-${n}`, data: DATA }),
    stat: (bridge, name) => bridge.stat({ filePath: `${name}/file` }),
    readDirectory: (bridge) => bridge.readDirectory({ filePath: "dir" }),
    mkdirp: (bridge, name, n) => bridge.mkdirp({ filePath: `${name}/d-${n}/e` }),
    rename: (bridge, name, n) => bridge.rename({ from: `${name}/new-${n}`, to: `${name}/old-${n}` }),
    remove: (bridge, name, n) => bridge.remove({ filePath: `${name}/old-${n}` }),
    resolvePinnedMutationTarget: (bridge, name) =>
      bridge.resolvePinnedMutationTarget({ filePath: `${name}/file`, action: "write" }),
  };
  const rows = [];
  for (const [method, call] of Object.entries(methods)) {
    const samples = { core: [], openclaw: [] };
    const ran = { core: 0, openclaw: 0 };
    for (let turn = 0; turn < TURNS; turn++) {
      for (const [name, bridge] of Object.entries(bridges)) {
        if (name === "openclaw" && turn >= OTHER_TURNS) continue;
        commands = 0;
        const start = performance.now();
        await call(bridge, name, turn);
        samples[name].push(performance.now() - start);
        ran[name] += commands;
      }
    }
    const paired = { core: samples.core.slice(0, OTHER_TURNS), openclaw: samples.openclaw };
    const compared = row({
      title: method,
      unit: "ms",
      samples: paired,
      target: {
        text: "p50 ≤ 1 ms",
        met: () => row({ title: "", unit: "", samples: { core: samples.core } }).contenders.core.median <= 1,
      },
      note: `commands in the sandbox: core ${ran.core / TURNS}, openclaw ${ran.openclaw / OTHER_TURNS}`,
    });
    rows.push(compared);
  }
  rows.push(await durable(base));
  return rows;
}

/** What the disk takes for a durable write, whoever asks for it: a file of 4 KB, synced and renamed. */
async function durable(base) {
  const samples = { "write, fsync, rename by Node": [] };
  for (let turn = 0; turn < TURNS; turn++) {
    const start = performance.now();
    const file = await open(join(base, "draft"), "w");
    await file.writeFile(DATA);
    await file.sync();
    await file.close();
    await rename(join(base, "draft"), join(base, "final"));
    samples["write, fsync, rename by Node"].push(performance.now() - start);
  }
  return row({ title: "the disk's own part in a write", unit: "ms", samples });
}
