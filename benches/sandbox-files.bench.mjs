// OpenClaw's file bridge over `SandboxFs`, against OpenClaw's own on the same backend: each method, and how many commands
// each runs in the sandbox.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stockFunction, stockRoot } from "../__test__/host/stock.mjs";
import { createBackend } from "../dist/adapters/sandbox.js";
import { median, row } from "./measure.mjs";

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
    // Alone first: the other one's processes and writes keep the disk busy for a while.
    const alone = [];
    for (let turn = 0; turn < TURNS; turn++)
      alone.push(await timed(() => call(bridges.core, "core", `a${turn}`)));
    const samples = { core: [], openclaw: [] };
    const ran = { core: 0, openclaw: 0 };
    for (let turn = 0; turn < OTHER_TURNS; turn++) {
      for (const [name, bridge] of Object.entries(bridges)) {
        const before = commands;
        samples[name].push(await timed(() => call(bridge, name, turn)));
        ran[name] += commands - before;
      }
    }
    const p50 = median(alone);
    rows.push(
      row({
        title: method,
        unit: "ms",
        samples,
        target: { text: "p50 ≤ 1 ms alone", met: () => p50 <= 1 },
        note: `core alone: ${p50.toFixed(2)} ms; commands in the sandbox: core ${ran.core / OTHER_TURNS}, openclaw ${ran.openclaw / OTHER_TURNS}`,
      }),
    );
  }
  rows.push(await durable(base, bridges.core));
  rows.push(...(await wholeTools(workspaceDir, bridges, () => commands)));
  return rows;
}

async function timed(call) {
  const start = performance.now();
  await call();
  return performance.now() - start;
}

/** OpenClaw's own tools, over one bridge and over the other. */
async function wholeTools(root, bridges, commands) {
  const region = "src/agents/agent-tools.read.ts";
  const make = {
    write: await stockFunction(region, "createSandboxedWriteTool"),
    edit: await stockFunction(region, "createSandboxedEditTool"),
    read: await stockFunction(region, "createSandboxedReadTool"),
  };
  const args = (tool, name, turn) => ({
    path: `${name}/tool.txt`,
    ...(tool === "write" && { content: `${"x".repeat(4096)}\nturn none\n` }),
    ...(tool === "edit" && {
      edits: [{ oldText: turn ? `turn ${turn - 1}` : "turn none", newText: `turn ${turn}` }],
    }),
  });
  const rows = [];
  for (const tool of Object.keys(make)) {
    const samples = { core: [], openclaw: [] };
    const ran = { core: 0, openclaw: 0 };
    for (let turn = 0; turn < OTHER_TURNS; turn++) {
      for (const [name, bridge] of Object.entries(bridges)) {
        const { execute } = make[tool]({ root, bridge });
        const before = commands();
        samples[name].push(await timed(() => execute(`call-${turn}`, args(tool, name, turn))));
        ran[name] += commands() - before;
      }
    }
    const note = `commands in the sandbox: core ${ran.core / OTHER_TURNS}, openclaw ${ran.openclaw / OTHER_TURNS}`;
    rows.push(row({ title: `whole tool: ${tool}`, unit: "ms", samples, note }));
  }
  return rows;
}

/** A durable write as Node makes one: a file of 4 KB, synced and renamed. */
async function durable(base, bridge) {
  const samples = { core: [], "Node: write, sync, rename": [] };
  for (let turn = 0; turn < TURNS; turn++) {
    samples.core.push(await timed(() => bridge.writeFile({ filePath: "core/durable", data: DATA })));
    samples["Node: write, sync, rename"].push(
      await timed(async () => {
        const file = await open(join(base, "draft"), "w");
        await file.writeFile(DATA);
        await file.sync();
        await file.close();
        await rename(join(base, "draft"), join(base, "final"));
      }),
    );
  }
  return row({ title: "a durable write", unit: "ms", samples });
}
