// Starts a simulated platform (sim/channels) on a port of its own, and speaks to what is under its /_sim/.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("../../..", import.meta.url));
let built;

/** The binary; cargo builds it, by the profile of the first call, unless OPENCLAW_CHANNEL_SIM names one. */
export function simulatorBinary(profile = "dev") {
  built ??= process.env.OPENCLAW_CHANNEL_SIM
    ? Promise.resolve(process.env.OPENCLAW_CHANNEL_SIM)
    : promisify(execFile)(
        "cargo",
        [
          "build",
          "--quiet",
          "--package",
          "openclaw-channel-sim",
          "--profile",
          profile,
          "--message-format=json",
        ],
        { cwd: root, maxBuffer: 1 << 28 },
      ).then(({ stdout }) => {
        const lines = stdout.split("\n").filter(Boolean).map(JSON.parse);
        const found = lines.findLast(
          (line) => line.executable && line.target.name === "openclaw-channel-sim",
        );
        if (!found) throw new Error("cargo built no openclaw-channel-sim");
        return found.executable;
      });
  return built;
}

/** A simulated platform: `telegram`, `discord`, `slack`, `signal`, `matrix`, `whatsapp`. */
export async function startSimulator(platform, options = {}) {
  const child = spawn(await simulatorBinary(), [platform, JSON.stringify(options)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([
    once(lines, "line").then(([line]) => line),
    once(child, "exit").then(([code]) => {
      throw new Error(`the simulator ended with ${code}`);
    }),
  ]);
  const { url } = JSON.parse(first);

  const call = async (method, path, body) => {
    const response = await fetch(`${url}/_sim/${path}`, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const value = await response.json();
    if (!response.ok) throw new Error(`${method} /_sim/${path}: ${value.error}`);
    return value;
  };
  return {
    url,
    /** Makes somebody on the platform do something. */
    do: (action, body = {}) => call("POST", `do/${action}`, body),
    fault: (...faults) => call("POST", "faults", faults),
    clearFaults: () => call("DELETE", "faults"),
    state: () => call("GET", "state"),
    violations: () => call("GET", "violations"),
    rules: () => call("GET", "rules"),
    advance: (ms) => call("POST", "advance", { ms }),
    jump: (ms) => call("POST", "jump", { ms }),
    sockets: (what) => call("POST", "sockets", { do: what }),
    log: (after = 0) => call("GET", `log?after=${after}`),
    /** Does an action many times at a steady rate; done when the last was. */
    load: (load) => call("POST", "load", load),
    /** How long each request with a stamp (`sent` and 16 digits: µs since 1970) was on the way, in µs. */
    delays: () => call("GET", "load"),
    /** The log line that `matches`; waits for it. */
    async seen(matches, { after = 0, timeoutMs = 60_000 } = {}) {
      const deadline = Date.now() + timeoutMs;
      for (let next = after; ; ) {
        const lines = await call("GET", `log?after=${next}&wait=${Math.max(1, deadline - Date.now())}`);
        const found = lines.find(matches);
        if (found) return found;
        if (Date.now() > deadline) throw new Error(`the simulator never saw ${matches}`);
        if (lines.length > 0) next = lines.at(-1).n + 1;
      }
    },
    async close() {
      child.stdin.end();
      if (child.exitCode === null) await once(child, "exit");
    },
  };
}

/** Waits until something holds. */
export async function eventually(holds) {
  for (const end = Date.now() + PATIENCE_MS; !(await holds()); await delay(50))
    if (Date.now() > end) throw new Error(`for long, this did not hold: ${holds}`);
}

/** What has not come after this does not come: a test fails, and says so. */
export const PATIENCE_MS = 120_000;

/** A promise, and what settles it; it rejects when nothing has for long. */
export function deferred() {
  const one = Promise.withResolvers();
  const never = new Error("what this waits for did not come");
  const patience = setTimeout(() => one.reject(never), PATIENCE_MS).unref();
  one.promise.finally(() => clearTimeout(patience)).catch(() => {});
  return one;
}

/** Resolves as `promise` does, or rejects when it has not for long. */
export function within(promise) {
  const one = deferred();
  promise.then(one.resolve, one.reject);
  return one.promise;
}
