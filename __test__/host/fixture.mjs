/**
 * Starts stock OpenClaw in a scratch home and ends it surely.
 *
 * Every process runs under a small shell that holds a lifeline: one end of a pipe whose other end only this process
 * has. When this process ends, however it ends (SIGKILL included), the shell kills the whole tree and removes the home.
 * The shell also reports the CPU time of everything that was waited for under it, by the kernel's own account.
 *
 *     const home = await createHome({ config: "{ gateway: { mode: 'local' } }" });
 *     const { code, stdout, cpuMs } = await home.openclaw(["config", "get", "gateway.mode"], { core: { mode: "require" } });
 *     const gateway = await home.startGateway();
 *     await gateway.stop();
 *     await home.remove();
 */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { hostNode, openclawEntry } from "../../scripts/setup.mjs";
import { freePort } from "../free-port.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const registerFile = join(root, "dist", "register.js");
const shell = existsSync("/bin/bash") ? "/bin/bash" : "/bin/sh";
const hasProc = existsSync("/proc/self/environ");

/** In the environment of everything that one run starts: finds what has left the process group. */
const RUN_VARIABLE = "FIXTURE_RUN";

/** fd 3: the report. fd 4: the lifeline. $1: the scratch home. $2: the run. The rest: the command. */
const guard = `
dir=$1; mark=$2; shift 2
trap : TERM INT HUP
(
  trap '' TERM INT HUP
  while read -r _; do :; done
  others() {
    for file in $(grep -lsaF "$mark" /proc/[0-9]*/environ); do
      pid=\${file#/proc/}; echo "\${pid%/environ}"
    done
  }
  kill -TERM -- -$$
  tries=0
  while [ -n "$(others)" ] && [ $tries -lt 30 ]; do sleep 0.1; tries=$((tries + 1)); done
  for pid in $(others); do kill -KILL "$pid"; done
  rm -rf -- "$dir"
  kill -KILL -- -$$
) <&4 3>&- >/dev/null 2>&1 &
watcher=$!
env "$mark" "$@" 3>&- 4<&-
code=$?
times >&3
exec 2>/dev/null # bash would tell of the watcher's end
kill -KILL $watcher
exit $code
`;

const homes = new Set();
// The guards end the processes; this removes homes in which nothing runs any more.
process.on("exit", () => {
  for (const home of homes) rmSync(home.dir, { recursive: true, force: true });
});

/** Calls `probe` until it gives something truthy; throws what `timeoutMessage` says when the time is up. */
export async function until(probe, { timeoutMs = 10_000, everyMs = 50, timeoutMessage }) {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const result = await probe();
    if (result) return result;
    if (performance.now() > end)
      throw new Error(typeof timeoutMessage === "function" ? timeoutMessage() : timeoutMessage);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/**
 * A scratch home: `dir` is HOME, `stateDir` OpenClaw's state, `workspace` the agent's folder.
 * `config` (an object or JSON5 text) becomes openclaw.json; `files` maps further paths under the state dir to text.
 */
export async function createHome({ config, files = {} } = {}) {
  if (process.platform === "win32")
    throw new Error("The OpenClaw fixture needs a POSIX system: run the host tests on Linux or macOS.");
  const home = new Home(realpathSync(await mkdtemp(join(tmpdir(), "openclaw-core-home-"))), await freePort());
  homes.add(home);
  await mkdir(home.stateDir, { mode: 0o700 });
  await mkdir(home.workspace);
  for (const [path, text] of Object.entries({
    ...(config === undefined ? {} : { "openclaw.json": config }),
    ...files,
  })) {
    await home.write(path, text);
  }
  return home;
}

class Home {
  #runs = new Set();

  constructor(dir, port) {
    this.dir = dir;
    this.stateDir = join(dir, "state");
    this.workspace = join(dir, "workspace");
    this.configPath = join(this.stateDir, "openclaw.json");
    this.port = port;
    /** The token of the home's gateway, for a config to name. */
    this.token = randomUUID();
  }

  /** Writes a file under the state dir; a value that is not text is written as JSON. */
  async write(path, content) {
    const target = join(this.stateDir, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, typeof content === "string" ? content : `${JSON.stringify(content, null, 2)}\n`, {
      mode: 0o600,
    });
    return target;
  }

  /**
   * The environment OpenClaw gets: nothing of the caller's but what a program needs to run at all, so that a developer's
   * own keys and settings change no test.
   */
  env({ core, env } = {}) {
    const kept = [
      "LANG",
      "LC_ALL",
      "TZ",
      "TMPDIR",
      "TERM",
      "SSL_CERT_FILE",
      "SSL_CERT_DIR",
      "HTTP_PROXY",
      "HTTPS_PROXY",
      "NO_PROXY",
    ];
    const base = Object.fromEntries(
      Object.entries(process.env).filter(
        ([name]) =>
          kept.includes(name.toUpperCase()) ||
          /^npm_config_(registry|cafile|proxy|https_proxy|cache)$/i.test(name),
      ),
    );
    return {
      ...base,
      // HOME moves, so npm's own settings and cache are named where they are.
      npm_config_userconfig: process.env.npm_config_userconfig ?? join(homedir(), ".npmrc"),
      npm_config_cache: base.npm_config_cache ?? join(homedir(), ".npm"),
      PATH: [dirname(hostNode()), process.env.PATH].join(delimiter),
      HOME: this.dir,
      OPENCLAW_STATE_DIR: this.stateDir,
      ...coreEnv(core),
      ...env,
    };
  }

  /**
   * Runs one OpenClaw command to its end.
   * `core`: undefined for plain stock, or `{ mode, modules: { config: "shadow" }, statsDir, timing, runId, preload: "env" | "argv", register }`.
   * Gives `{ code, timedOut, stdout, stderr, cpuMs, wallMs, maxRssKb, leftBehind }`; `leftBehind` lists what outlived the command.
   */
  async openclaw(args, { core, env, input, timeoutMs = 120_000, nodeArgs = [], cwd } = {}) {
    return this.#start([hostNode(), ...launchArgs(core, nodeArgs), openclawEntry(), ...args], {
      core,
      env,
      input,
      cwd,
    }).end(timeoutMs);
  }

  /** The same for a script of one's own under OpenClaw's Node. */
  async node(args, { core, env, input, timeoutMs = 60_000, cwd } = {}) {
    return this.#start([hostNode(), ...args], { core, env, input, cwd }).end(timeoutMs);
  }

  /** Starts a gateway and gives it once `/healthz` answers. */
  async startGateway({ core, env, args = [], nodeArgs = [], timeoutMs = 120_000 } = {}) {
    const command = [
      "gateway",
      "run",
      "--port",
      String(this.port),
      "--bind",
      "loopback",
      "--allow-unconfigured",
      ...args,
    ];
    const run = this.#start([hostNode(), ...launchArgs(core, nodeArgs), openclawEntry(), ...command], {
      core,
      env,
    });
    const url = `http://127.0.0.1:${this.port}`;
    const started = performance.now();
    let readyMs;
    try {
      await until(
        async () => {
          if (run.exited)
            throw new Error(`The gateway ended with code ${run.code} before it was ready.\n${run.tail()}`);
          const answer = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(2_000) }).catch(
            () => undefined,
          );
          await answer?.body?.cancel();
          return answer?.ok;
        },
        {
          timeoutMs,
          everyMs: 100,
          timeoutMessage: () => `The gateway was not ready after ${timeoutMs} ms.\n${run.tail()}`,
        },
      );
      readyMs = performance.now() - started;
    } catch (error) {
      await run.stop();
      throw error;
    }
    return {
      url,
      port: this.port,
      readyMs,
      pid: run.pid,
      /** Everything printed so far, both streams. */
      log: () => run.stdout + run.stderr,
      /** Settles when it has ended, whatever ended it, with the same record as `openclaw`. */
      done: run.done,
      /** CPU milliseconds and resident bytes of the living tree, now. */
      usage: () => treeUsage(run.pid),
      /** SIGTERM, then SIGKILL after `graceMs`; throws if anything outlives it. Gives the same record as `openclaw`. */
      stop: (graceMs) => run.stop(graceMs),
    };
  }

  #start(command, { core, env, input, cwd }) {
    const run = new Run(this.dir, command, {
      env: this.env({ core, env }),
      input,
      cwd: cwd ?? this.workspace,
    });
    this.#runs.add(run);
    run.done.finally(() => this.#runs.delete(run));
    return run;
  }

  /** Ends whatever still runs here and deletes the home. */
  async remove() {
    for (const run of this.#runs) await run.stop();
    await endAll(() => living({ dir: this.dir }), this.dir);
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 });
    homes.delete(this);
  }
}

/** Environment variables that turn the core on in a process, and in the children it starts. */
export function coreEnv(core) {
  if (!core) return {};
  const register = core.register ?? registerFile;
  if (!existsSync(register))
    throw new Error(`The core is not built: ${register} is missing. Run: npm run build`);
  return {
    ...(core.preload === "argv" ? {} : { NODE_OPTIONS: `--import=${pathToFileURL(register)}` }),
    OPENCLAW_CORE: core.mode ?? "auto",
    ...Object.fromEntries(
      Object.entries(core.modules ?? {}).map(([name, mode]) => [`OPENCLAW_CORE_${name.toUpperCase()}`, mode]),
    ),
    ...(core.statsDir ? { OPENCLAW_CORE_STATS_DIR: core.statsDir } : {}),
    ...(core.timing ? { OPENCLAW_CORE_STATS: "timing" } : {}),
    ...(core.runId ? { OPENCLAW_CORE_RUN_ID: core.runId } : {}),
  };
}

// The launcher starts a second Node unless this warning is off already.
function launchArgs(core, nodeArgs) {
  const preload =
    core?.preload === "argv" ? [`--import=${pathToFileURL(core.register ?? registerFile)}`] : [];
  return ["--disable-warning=ExperimentalWarning", ...preload, ...nodeArgs];
}

class Run {
  stdout = "";
  stderr = "";
  exited = false;
  code = null;
  #report = "";
  #maxRssKb = 0;
  #timedOut = false;

  constructor(dir, command, { env, input, cwd }) {
    this.dir = dir;
    this.mark = `${RUN_VARIABLE}=${randomUUID()}`;
    const started = performance.now();
    // Detached: its own process group, so that one signal reaches the tree and Ctrl-C reaches only us.
    const child = spawn(shell, ["-c", guard, "guard", dir, this.mark, ...command], {
      env,
      cwd,
      detached: true,
      stdio: ["pipe", "pipe", "pipe", "pipe", "pipe"],
    });
    this.pid = child.pid;
    child.stdout.setEncoding("utf8").on("data", (text) => (this.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (this.stderr += text));
    child.stdio[3].setEncoding("utf8").on("data", (text) => (this.#report += text));
    child.stdio[4].on("error", () => {}); // closed from the other side at the end
    child.stdin.on("error", () => {}); // a command need not read its input
    child.stdin.end(input ?? "");
    const sampler = setInterval(
      () => (this.#maxRssKb = Math.max(this.#maxRssKb, treeUsage(this.pid).maxRssKb)),
      100,
    );
    sampler.unref();
    const exited = new Promise((resolve, reject) =>
      child.once("error", reject).once("exit", (code, signal) => resolve({ code, signal })),
    );
    const closed = new Promise((resolve) => child.once("close", resolve));
    this.done = (async () => {
      const { code } = await exited.finally(() => clearInterval(sampler));
      const wallMs = performance.now() - started;
      this.exited = true;
      this.code = code;
      const leftBehind = await endAll(() => living({ mark: this.mark, group: this.pid }), this.dir, 2_000);
      child.stdio[4].destroy();
      await closed;
      return {
        code: this.#timedOut ? null : code,
        timedOut: this.#timedOut,
        stdout: this.stdout,
        stderr: this.stderr,
        cpuMs: childrenCpuMs(this.#report),
        wallMs,
        maxRssKb: this.#maxRssKb,
        leftBehind,
      };
    })();
    this.done.catch(() => {});
  }

  async end(timeoutMs) {
    const timer = setTimeout(() => {
      this.#timedOut = true;
      this.stop(2_000).catch(() => {});
    }, timeoutMs);
    try {
      return await this.done;
    } finally {
      clearTimeout(timer);
    }
  }

  async stop(graceMs = 15_000) {
    signal(-this.pid, "SIGTERM");
    const timer = setTimeout(() => signal(-this.pid, "SIGKILL"), graceMs);
    try {
      return await this.done;
    } finally {
      clearTimeout(timer);
    }
  }

  tail(lines = 30) {
    return `${this.stdout}\n${this.stderr}`.trim().split("\n").slice(-lines).join("\n");
  }
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
    return true;
  } catch (error) {
    if (error.code === "ESRCH") return false;
    throw error;
  }
}

/**
 * Waits `graceMs` for processes to end by themselves, then kills them. Gives a line for each that had to be killed;
 * throws if one cannot be.
 */
async function endAll(find, dir, graceMs = 0) {
  const end = performance.now() + graceMs;
  let found = find();
  while (found.length && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 25));
    found = find();
  }
  const killed = found.map(({ pid, command }) => `${pid} ${command}`);
  for (const { pid } of found) signal(pid, "SIGKILL");
  await until(
    () => {
      found = find();
      for (const { pid } of found) signal(pid, "SIGKILL");
      return found.length === 0;
    },
    {
      timeoutMessage: () =>
        `Processes of ${dir} outlive SIGKILL: ${found.map(({ pid, command }) => `${pid} ${command}`).join("; ")}`,
    },
  );
  return killed;
}

/**
 * Living processes of one run (its process group, or its mark in their environment, for those that left the group) or
 * of a whole scratch home (named in their environment, or they work inside it).
 */
export function living({ dir, mark, group }) {
  if (!hasProc) return group && signal(-group, 0) ? [{ pid: -group, command: "process group" }] : [];
  const found = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const stat = processStat(pid);
    if (!stat || stat.state === "Z") continue;
    const environment = read(`/proc/${pid}/environ`);
    const ofRun = (group && stat.group === group) || (mark && environment.includes(mark));
    const ofHome = dir && (environment.includes(dir) || inside(dir, pid));
    if (ofRun || ofHome)
      found.push({ pid, command: read(`/proc/${pid}/cmdline`).replaceAll("\0", " ").slice(0, 200) });
  }
  return found;
}

function inside(dir, pid) {
  try {
    const cwd = readlinkSync(`/proc/${pid}/cwd`);
    return cwd === dir || cwd.startsWith(`${dir}/`);
  } catch {
    return false; // gone, or another user's
  }
}

function read(file) {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return ""; // the process ended meanwhile, or is another user's
  }
}

function processStat(pid) {
  const text = read(`/proc/${pid}/stat`);
  if (!text) return undefined;
  // The second field is the command in parentheses and may hold anything.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const ticks = (index) => Number(fields[index]);
  return { state: fields[0], group: Number(fields[2]), ticks: ticks(11) + ticks(12) + ticks(13) + ticks(14) };
}

/** CPU time and memory of a living tree; zeros where the system has no /proc. */
function treeUsage(pid) {
  const usage = { cpuMs: 0, rssKb: 0, maxRssKb: 0 };
  if (!hasProc) return usage;
  const queue = [pid];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const status = read(`/proc/${next}/status`);
    const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
    usage.cpuMs += (processStat(next)?.ticks ?? 0) * 10; // USER_HZ is 100 on every Linux that Node runs on
    usage.rssKb += field("VmRSS");
    usage.maxRssKb = Math.max(usage.maxRssKb, field("VmHWM"));
    try {
      for (const task of readdirSync(`/proc/${next}/task`)) {
        for (const child of read(`/proc/${next}/task/${task}/children`).split(" "))
          if (child.trim()) queue.push(Number(child));
      }
    } catch {
      // ended meanwhile
    }
  }
  return usage;
}

/** The second line of the shell's `times`: user and system time of all children that were waited for. */
function childrenCpuMs(report) {
  const line = report.trim().split("\n")[1];
  if (!line) return undefined; // the guard was killed before it could tell
  return line.split(/\s+/).reduce((sum, part) => {
    const [, minutes, seconds] = /^(\d+)m([\d.,]+)s$/.exec(part) ?? [];
    return sum + (Number(minutes) * 60 + Number(seconds?.replace(",", "."))) * 1000;
  }, 0);
}
