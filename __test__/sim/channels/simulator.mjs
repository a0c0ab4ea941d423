// Starts a simulated platform (sim/channels) on a port of its own, and speaks to what is under its /_sim/.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
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

/** A port that nobody listens on. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A promise, and what settles it. */
export function deferred() {
  return Promise.withResolvers();
}
