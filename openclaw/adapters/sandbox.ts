// The sandbox backend `bwrap` of OpenClaw: commands in bubblewrap, files in this process, no container and no daemon.
import { createHash, randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Sandbox, SandboxPolicy } from "../../index.js";
import { loadAddon } from "../addon.js";
import type { Core } from "../swap.js";
import type { Mode } from "../switch.js";
import { FileBridge, type Mount } from "./sandbox-files.js";

/** `plugins.entries.core.config.sandbox`. */
export interface SandboxConfig {
  network?: "none" | "host";
  mounts?: { host: string; mount: string; access: "ro" | "rw" }[];
  env?: Record<string, string>;
  limits?: SandboxPolicy["limits"];
  /** `openclaw`: its own, which runs several commands in the sandbox for each file. */
  fileBridge?: "core" | "openclaw";
}

/** The part of OpenClaw's plugin API that is used here. */
export interface SandboxApi {
  registrationMode?: string;
  logger?: { warn(text: string): void };
  lifecycle?: {
    registerRuntimeLifecycle(lifecycle: {
      id: string;
      cleanup(context: { reason?: string; sessionKey?: string; runId?: string }): void | Promise<void>;
    }): void;
  };
}

/** What OpenClaw asks a backend for. */
export interface Request {
  scopeKey: string;
  workspaceDir: string;
  agentWorkspaceDir: string;
  skillsWorkspaceDir?: string;
  readOnlyResourceMounts?: readonly { hostPath: string; containerPath: string }[];
  assertRuntimeCurrent?(): void;
  cfg: {
    workspaceAccess: "none" | "ro" | "rw";
    browser?: { enabled?: boolean };
    docker: {
      workdir?: string;
      env?: Record<string, string>;
      binds?: readonly string[];
      memory?: string | number;
      pidsLimit?: number;
    };
  };
}
interface ShellCommand {
  script: string;
  args?: readonly string[];
  stdin?: Buffer | string;
  allowFailure?: boolean;
  signal?: AbortSignal;
}

/** The part of `openclaw/plugin-sdk/sandbox` that is used here. */
export interface Sdk {
  registerSandboxBackend?(id: string, registration: unknown): () => void;
  resolveReadOnlyWorkspaceSkillMounts?(request: {
    workspaceDir: string;
    agentWorkspaceDir: string;
    skillsWorkspaceDir?: string;
    workdir: string;
    workspaceAccess: string;
  }): { hostPath: string; containerPath: string }[];
}

const BACKEND = "bwrap";
const MODULE = "sandbox";
const WORKDIR = "/workspace";
const AGENT_MOUNT = "/agent";
/** OpenClaw ends commands itself, when it wants to. */
const LONGEST_MS = 7 * 86_400_000;
/** What a command of OpenClaw's own may print; more is an error, as a part of it would be wrong. */
const SHELL_OUTPUT_BYTES = 64 << 20;
/** In the environment of a command that OpenClaw may want to end from outside. */
const MARKER = "OPENCLAW_CORE_EXEC_ID";

interface Runtime {
  sandbox: Promise<Sandbox>;
  policy: string;
}

/** OpenClaw registers a plugin several times in a process, from more than one copy of this file. */
interface Shared {
  runtimes: Map<string, Runtime>;
  restore?: (() => void) | undefined;
}
const SHARED = Symbol.for("openclaw.core.sandbox");
function shared(): Shared {
  const global = globalThis as Record<symbol, unknown>;
  global[SHARED] ??= { runtimes: new Map() };
  return global[SHARED] as Shared;
}

/**
 * Registers the backend, at once: a first message may come before any promise is settled. Nothing native is loaded
 * before a session needs a sandbox.
 */
export function registerSandbox(
  api: SandboxApi,
  mode: Mode,
  folder: string,
  config: SandboxConfig = {},
): void {
  if (mode === "off" || api.registrationMode !== "full") return;
  const sdk = loadSdk(folder);
  shared().restore?.();
  const restore = (sdk.registerSandboxBackend ?? registerByHand)(BACKEND, {
    factory: (request: Request) => createBackend(request, config, sdk),
    manager: managerOf(config),
    resolveWorkdir: ({ cfg }: Request) => cfg.docker.workdir ?? WORKDIR,
    capabilities: { browser: false, readOnlyResourceMounts: true },
  });
  shared().restore = restore;
  api.lifecycle?.registerRuntimeLifecycle({
    id: "core-sandbox",
    async cleanup({ sessionKey, runId }) {
      // Of the plugin as a whole, not of a session.
      if (sessionKey !== undefined || runId !== undefined) return;
      restore();
      await Promise.all([...shared().runtimes.keys()].map(closeRuntime));
    },
  });
}

/** The SDK of the OpenClaw that runs this, without waiting for it. */
function loadSdk(folder: string): Sdk {
  for (const from of [join(folder, "package.json"), process.argv[1] ?? folder]) {
    try {
      return createRequire(from)("openclaw/plugin-sdk/sandbox") as Sdk;
    } catch {
      // Looked for from elsewhere, or not there any more.
    }
  }
  return {};
}

/** As OpenClaw does it, for one whose SDK no longer shows how. */
function registerByHand(id: string, registration: unknown): () => void {
  const global = globalThis as Record<symbol, unknown>;
  const key = Symbol.for("openclaw.sandboxBackendFactories");
  global[key] ??= new Map();
  const factories = global[key] as Map<string, unknown>;
  const previous = factories.get(id);
  const own = { registration, previous, retired: false };
  factories.set(id, own);
  return () => {
    own.retired = true;
    if (factories.get(id) !== own) return;
    if (previous) factories.set(id, previous);
    else factories.delete(id);
  };
}

/** What the sandbox of a request sees. The rules are OpenClaw's own; what it has no rule for is refused. */
export function mountsOf(request: Request, workdir: string, sdk: Sdk): Mount[] {
  const { cfg, workspaceDir, agentWorkspaceDir, skillsWorkspaceDir } = request;
  const readOnly = cfg.workspaceAccess === "ro";
  const mounts: Mount[] = [{ hostPath: workspaceDir, containerPath: workdir, readOnly }];
  if (cfg.workspaceAccess !== "none" && workspaceDir !== agentWorkspaceDir)
    mounts.push({ hostPath: agentWorkspaceDir, containerPath: AGENT_MOUNT, readOnly });
  const skills = sdk.resolveReadOnlyWorkspaceSkillMounts?.({
    workspaceDir,
    agentWorkspaceDir,
    ...(skillsWorkspaceDir === undefined ? {} : { skillsWorkspaceDir }),
    workdir,
    workspaceAccess: cfg.workspaceAccess,
  });
  if (!skills)
    throw new Error(
      "This OpenClaw does not say which skills a sandbox must not write: it is not known to the core.",
    );
  for (const mount of [...skills, ...(request.readOnlyResourceMounts ?? [])]) {
    const at = mounts.findIndex(({ containerPath }) => containerPath === mount.containerPath);
    if (at >= 0) mounts.splice(at, 1);
    mounts.push({ ...mount, readOnly: true });
  }
  return mounts;
}

function policyOf(request: Request, config: SandboxConfig, workdir: string, mounts: Mount[]): SandboxPolicy {
  const { docker, browser } = request.cfg;
  if (docker.binds?.length)
    throw new Error(
      "The sandbox backend bwrap takes no docker.binds: name them in plugins.entries.core.config.sandbox.mounts.",
    );
  if (browser?.enabled)
    throw new Error("The sandbox backend bwrap has no browser: set sandbox.browser.enabled to false.");
  const [workspace, ...rest] = mounts.map(({ hostPath, containerPath, readOnly }) => ({
    host: hostPath,
    mount: containerPath,
    access: readOnly ? ("ro" as const) : ("rw" as const),
  }));
  if (!workspace || workspace.mount !== workdir) throw new Error("The sandbox has no workspace.");
  const memoryBytes = bytesOf(docker.memory);
  return {
    workspace,
    mounts: [...rest, ...(config.mounts ?? [])],
    network: config.network ?? "none",
    env: { ...docker.env, ...config.env },
    limits: {
      wallMs: LONGEST_MS,
      outputBytes: SHELL_OUTPUT_BYTES,
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      ...(docker.pidsLimit && docker.pidsLimit > 0 ? { pids: docker.pidsLimit } : {}),
      ...config.limits,
    },
    // No other: a weaker one would have to be asked for by name.
    backend: BACKEND,
  };
}

/** Docker's notation: "512m", "2g", or bytes. */
function bytesOf(memory: string | number | undefined): number | undefined {
  if (memory === undefined || memory === "") return undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([bkmg]?)b?$/i.exec(String(memory).trim());
  if (!match) throw new Error(`docker.memory is ${JSON.stringify(memory)}: write it as "512m" or "2g".`);
  const unit = { "": 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }[(match[2] ?? "").toLowerCase()] ?? 1;
  return Math.floor(Number(match[1]) * unit);
}

const runtimeIdOf = (scopeKey: string) =>
  `core-bwrap-${createHash("sha256").update(scopeKey).digest("hex").slice(0, 16)}`;
const labelOf = (config: SandboxConfig) => `bwrap network=${config.network ?? "none"}`;

/** The backend of one request of OpenClaw's. */
export async function createBackend(request: Request, config: SandboxConfig, sdk: Sdk) {
  const workdir = request.cfg.docker.workdir ?? WORKDIR;
  const mounts = mountsOf(request, workdir, sdk);
  const policy = policyOf(request, config, workdir, mounts);
  const runtimeId = runtimeIdOf(request.scopeKey);
  const sandbox = await runtimeOf(runtimeId, policy);
  request.assertRuntimeCurrent?.();
  const extra = (config.mounts ?? []).map(({ host, mount, access }) => ({
    hostPath: host,
    containerPath: mount,
    readOnly: access === "ro",
  }));
  return {
    id: BACKEND,
    runtimeId,
    runtimeLabel: runtimeId,
    workdir,
    env: request.cfg.docker.env,
    configLabel: labelOf(config),
    configLabelKind: "Policy",
    capabilities: { browser: false, readOnlyResourceMounts: true },
    async buildExecSpec(spec: {
      command: string;
      workdir?: string;
      env: Record<string, string>;
      usePty: boolean;
    }) {
      request.assertRuntimeCurrent?.();
      counter()?.answered(MODULE, "exec");
      const { argv, env } = await sandbox.launch(["/bin/sh", "-c", spec.command], {
        cwd: spec.workdir ?? workdir,
        env: variables(spec.env),
        pty: spec.usePty,
      });
      return { argv, env, stdinMode: spec.usePty ? "pipe-open" : "pipe-closed" };
    },
    async runShellCommand({ script, args = [], stdin, allowFailure, signal }: ShellCommand) {
      request.assertRuntimeCurrent?.();
      const command = ["/bin/sh", "-c", script, "openclaw-sandbox-fs", ...args];
      const result = await sandbox.run(command, {
        ...(stdin === undefined ? {} : { stdin: typeof stdin === "string" ? Buffer.from(stdin) : stdin }),
        ...(signal ? { signal } : {}),
      });
      const { stdout, stderr } = result;
      const code = result.exitCode ?? 1;
      if (result.truncated)
        throw new Error(`The command in the sandbox printed more than ${SHELL_OUTPUT_BYTES} bytes.`);
      if (code !== 0 && !allowFailure) {
        const message =
          stderr.toString("utf8").trim() || `The command in the sandbox ended with code ${code}.`;
        throw Object.assign(new Error(message), { code, stdout, stderr });
      }
      return { stdout, stderr, code };
    },
    prepareProcessCleanup: (env: Record<string, string>) => processCleanup(env),
    ...(config.fileBridge === "openclaw"
      ? {}
      : { createFsBridge: () => counted(new FileBridge(sandbox.fs, workdir, [...mounts, ...extra])) }),
  };
}

/** The core that the preload put into this process, where somebody wants counts. */
function counter(): Core | undefined {
  const core = (globalThis as Record<symbol, unknown>)[Symbol.for("openclaw.core")] as Core | undefined;
  return core?.counting ? core : undefined;
}

/** The bridge, with every call counted that reaches a file. */
function counted(bridge: FileBridge): FileBridge {
  const core = counter();
  if (!core) return bridge;
  return new Proxy(bridge, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        // What only looks at a name reaches no file.
        if (typeof key === "string" && key !== "resolvePath") core.answered(MODULE, key);
        return value.apply(target, args);
      };
    },
  });
}

/** Names that a shell takes; OpenClaw hands over whatever it has. */
function variables(env: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter(([name]) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name)));
}

/** One sandbox a scope, for as long as its policy stays. It holds no process. */
async function runtimeOf(id: string, policy: SandboxPolicy): Promise<Sandbox> {
  const { runtimes } = shared();
  const text = JSON.stringify(policy);
  const known = runtimes.get(id);
  if (known?.policy === text) return known.sandbox;
  const loaded = loadAddon();
  if ("error" in loaded)
    throw new Error(`The sandbox backend bwrap cannot be loaded: ${loaded.error.message}`);
  const runtime = { policy: text, sandbox: loaded.addon.Sandbox.create(policy) };
  runtimes.set(id, runtime);
  runtime.sandbox.catch(() => {
    if (runtimes.get(id) === runtime) runtimes.delete(id);
  });
  // Whoever still uses the earlier one may end what it began.
  return runtime.sandbox;
}

async function closeRuntime(id: string): Promise<void> {
  const { runtimes } = shared();
  const runtime = runtimes.get(id);
  runtimes.delete(id);
  await runtime?.sandbox.then(
    (sandbox) => sandbox.close(),
    () => {},
  );
}

function managerOf(config: SandboxConfig) {
  return {
    async describeRuntime({ entry }: { entry: { containerName: string; image?: string } }) {
      return {
        running: shared().runtimes.has(entry.containerName),
        actualConfigLabel: entry.image,
        configLabelMatch: entry.image === labelOf(config),
      };
    },
    async removeRuntime({ entry }: { entry: { containerName: string } }) {
      await closeRuntime(entry.containerName);
    },
  };
}

/** Ends commands by a mark in their environment. From outside, where every process of a sandbox is seen. */
function processCleanup(env: Record<string, string>) {
  const marker = randomUUID();
  /** With the launcher, in whose one variable the command's are lines. */
  const owned = (launcher: boolean) => {
    const found: number[] = [];
    for (const name of readdirSync("/proc")) {
      if (!/^\d+$/.test(name)) continue;
      try {
        const text = readFileSync(`/proc/${name}/environ`, "utf8");
        const mark = `${MARKER}=${marker}`;
        if (launcher ? text.includes(mark) : text.split("\0").includes(mark)) found.push(Number(name));
      } catch {
        // It ended, or is somebody else's.
      }
    }
    return found;
  };
  const signal = (name: NodeJS.Signals, launcher: boolean) => {
    const processes = owned(launcher);
    for (const id of processes) {
      try {
        process.kill(id, name);
      } catch {
        // It ended.
      }
    }
    return processes.length;
  };
  return {
    env: { ...env, [MARKER]: marker },
    async interrupt() {
      return signal("SIGINT", false) > 0;
    },
    async terminate() {
      const end = performance.now() + 4_000;
      // A command can drop the mark. Its launcher cannot, and takes everything with it.
      while (signal("SIGKILL", true) > 0) {
        if (performance.now() > end)
          throw new Error(`Processes of a sandbox survived: ${owned(true).join(", ")}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
  };
}
