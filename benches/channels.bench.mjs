// Channels against the platforms' own clients, on simulated platforms in processes of their own. A client's CPU is that of
// its process, the core's threads included. Times are the wall clock's, on both sides: a message bears the moment at which
// the simulator sent it, or the client called `send`.
import { execFile, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { simulatorBinary, startSimulator } from "../__test__/sim/channels/simulator.mjs";
import { OTHERS, OURS } from "./channels.mjs";
import { quantile, row } from "./measure.mjs";

export const title = "Channels";
export const node = "24";

const script = fileURLToPath(new URL("./channels.mjs", import.meta.url));
const TURNS = 3;

let bots = 0;
/** A bot of its own: at most one process of a machine receives for a bot. */
const newToken = (platform) => {
  const id = process.pid * 1000 + bots++;
  return platform === "telegram" ? `${id}:bench-token` : `bench-token-${id}`;
};

/** A client and a simulator, each in a process of its own. */
async function contestant(name, platform, folder) {
  const token = newToken(platform);
  const sim = await startSimulator(platform, {
    token,
    flood: false,
    limits: false,
    identify_ms: 0,
  });
  const { chats, vary } = await people(platform, sim);
  const child = fork(script, [name, platform, sim.url, token, folder], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const ended = once(child, "exit").then(([code]) => {
    throw new Error(`${name} ended with ${code}`);
  });
  ended.catch(() => {});
  const said = () => Promise.race([once(child, "message").then(([message]) => message), ended]);
  await said();
  return {
    async turn({ mode, count, perSecond }) {
      await sim.delays();
      const ready = said();
      child.send({ mode, count, perSecond, chats });
      await ready;
      const result = said();
      if (mode !== "out")
        await sim.load({
          action: "message",
          text: "text",
          vary: [vary, chats],
          count,
          per_second: perSecond,
        });
      const { cpuUs, tookMs, delays, disorder } = await result;
      if (disorder > 0) throw new Error(`${name}: ${disorder} of ${count} messages came out of order`);
      const out = (await sim.delays()).map((delayUs) => delayUs / 1000);
      if (mode !== "in" && out.length !== count) throw new Error(`${name} sent ${out.length} of ${count}`);
      return { cpu: cpuUs / count, perSecond: (count * 1000) / tookMs, in: delays, out };
    },
    async close() {
      child.kill();
      await sim.close();
    },
  };
}

/** So many that no chat hears from a bot more often than its platform allows. */
const CHATS = { telegram: 1000, discord: 100 };

/** The chats of a platform, and which argument of a message names them. */
async function people(platform, sim) {
  if (platform === "telegram")
    return { chats: Array.from({ length: CHATS[platform] }, (_, n) => 5000 + n), vary: "from" };
  const chats = Array.from({ length: CHATS[platform] }, (_, n) => String(5000 + n));
  await sim.do("guild", { id: "1", name: "Guild" });
  for (const id of chats) await sim.do("channel", { id, guild: "1", name: `channel-${id}` });
  return { chats, vary: "channel" };
}

/** Turns of several plans, the contenders after each other in each: all of them, or those that the plan names. */
async function compared(platform, plans, names) {
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-bench-channels-"));
  const running = {};
  const results = Object.fromEntries(
    Object.keys(plans).map((plan) => [plan, Object.fromEntries(names.map((name) => [name, []]))]),
  );
  try {
    for (const name of names) running[name] = await contestant(name, platform, folder);
    for (const [plan, how] of Object.entries(plans)) {
      // The first is not counted: what lives for days is compiled.
      for (let turn = -1; turn < TURNS; turn++)
        for (const name of turn % 2 ? (how.names ?? names) : [...(how.names ?? names)].reverse()) {
          const result = await running[name].turn(how);
          if (turn >= 0) results[plan][name].push(result);
        }
    }
    return results;
  } finally {
    for (const one of Object.values(running)) await one.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Of two contenders, by what `value` makes of a turn. */
const each = (results, names, value) =>
  Object.fromEntries(names.map((name) => [name, results[name].map(value)]));

function cpuRow(platform, what, results, ours = "core") {
  const other = OTHERS[platform];
  return row({
    title: `${OURS[platform]}: CPU a message, ${what}`,
    unit: "µs",
    samples: each(results, [ours, other], ({ cpu }) => cpu),
    target: { text: `≤ a third of ${other}'s`, met: ({ ratios }) => ratios[other].value >= 3 },
  });
}

function delayRow(platform, what, results, way, most) {
  const all = results.core.flatMap((turn) => turn[way]);
  return row({
    title: `${OURS[platform]}: ${what}, p99`,
    unit: "ms",
    samples: each(results, ["core", OTHERS[platform]], (turn) => quantile(turn[way], 0.99)),
    target: most && { text: `p99 ≤ ${most} ms`, met: () => quantile(all, 0.99) <= most },
    note: `p50 ${quantile(all, 0.5).toFixed(1)} ms`,
  });
}

function paceRow(platform, what, results, perSecond) {
  return row({
    title: `${OURS[platform]}: ${what}, in order`,
    unit: "messages/s",
    samples: each(results, ["core", OTHERS[platform]], (turn) => turn.perSecond),
    smallerIsBetter: false,
    target: {
      text: `≥ ${perSecond} messages/s`,
      // The last are still on the way when the time is over.
      met: ({ contenders }) => contenders.core.median >= perSecond * 0.98,
    },
  });
}

/** Memory of a bot that waits for messages. */
export async function idleRows() {
  const BOTS = 24;
  const sims = [];
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-bench-idle-"));
  const rss = { core: [], grammY: [] };
  const held = [];
  try {
    for (let n = 0; n < BOTS; n++) {
      const token = newToken("telegram");
      sims.push({ token, ...(await startSimulator("telegram", { token })) });
    }
    const list = JSON.stringify(sims.map(({ url, token }) => [url, token]));
    for (let turn = 0; turn < 3; turn++)
      for (const name of Object.keys(rss)) {
        const { stdout } = await promisify(execFile)(
          process.execPath,
          ["--expose-gc", script, "idle", name, join(folder, `${turn}`), list],
          { timeout: 60_000 },
        );
        const bytes = JSON.parse(stdout);
        rss[name].push(bytes.rss / 1048576);
        if (bytes.held !== undefined) held.push(bytes.held / 1048576);
      }
  } finally {
    for (const sim of sims) await sim.close();
    rmSync(folder, { recursive: true, force: true });
  }
  const target = { text: "≤ 4 MiB", met: ({ contenders }) => contenders.core.median <= 4 };
  return [
    row({ title: "memory of an idle TelegramChannel, resident", unit: "MiB", samples: rss, target }),
    row({
      title: "memory of an idle TelegramChannel, by the core's own accounts",
      unit: "MiB",
      samples: { core: held },
      target,
    }),
  ];
}

export async function telegramRows() {
  const lax = "core, durability: 'interval'";
  const names = ["core", OTHERS.telegram];
  const plans = {
    in: { mode: "in", count: 200, perSecond: 100, names },
    out: { mode: "out", count: 200, perSecond: 100, names },
    answer: { mode: "answer", count: 200, perSecond: 100, names },
    fast: { mode: "in", count: 2500, perSecond: 1000 },
    busy: { mode: "answer", count: 750, perSecond: 500 },
  };
  const results = await compared("telegram", plans, [...names, lax]);
  return [
    delayRow("telegram", "from the simulator to the handler, 100 messages/s", results.in, "in", 10),
    delayRow("telegram", "from `send` to the simulator, 100 messages/s", results.out, "out", 10),
    paceRow("telegram", "received at 1,000 messages/s", results.fast, 1000),
    delayRow("telegram", "from the simulator to the handler, 1,000 messages/s", results.fast, "in"),
    cpuRow("telegram", "received at 100/s", results.in),
    cpuRow("telegram", "received at 1,000/s", results.fast),
    cpuRow("telegram", "sent at 100/s", results.out),
    cpuRow("telegram", "received and answered at 100/s", results.answer),
    cpuRow("telegram", "received and answered at 500/s", results.busy),
    cpuRow("telegram", "received at 1,000/s", results.fast, lax),
    cpuRow("telegram", "received and answered at 500/s", results.busy, lax),
  ];
}

/** discord.js sends at most 50 messages a second, as Discord allows. */
export async function discordRows() {
  const plans = {
    in: { mode: "in", count: 200, perSecond: 100 },
    answer: { mode: "answer", count: 100, perSecond: 40 },
    fast: { mode: "in", count: 2500, perSecond: 1000 },
  };
  const results = await compared("discord", plans, ["core", OTHERS.discord]);
  return [
    delayRow("discord", "from the simulator to the handler, 100 messages/s", results.in, "in", 10),
    delayRow("discord", "from `send` to the simulator, 40 messages/s", results.answer, "out", 10),
    paceRow("discord", "received at 1,000 messages/s", results.fast, 1000),
    cpuRow("discord", "received at 100/s", results.in),
    cpuRow("discord", "received at 1,000/s", results.fast),
    cpuRow("discord", "received and answered at 40/s", results.answer),
  ];
}

export async function run() {
  await simulatorBinary("quick");
  return [...(await telegramRows()), ...(await discordRows()), ...(await idleRows())];
}
