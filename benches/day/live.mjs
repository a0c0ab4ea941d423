// Lives through a day with one side, and gives what was measured.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../../__test__/host/fixture.mjs";
import { readTotals } from "../../dist/shadow.js";
import { quantile } from "../measure.mjs";
import { createSide, holding } from "./gateway.mjs";
import { startModel } from "./model.mjs";
import { fileOf, PLATFORMS } from "./script.mjs";
import { floors } from "./soak.mjs";
import { outOfOrder, startWorld } from "./world.mjs";

const TICK_MS = 20;

/**
 * `side`: "native", "stock" or "shadow". Resolves with the record of the day. After its end, answers count as lost when none has
 * come for `graceMs`; by default that is longer than Slack's last try. Into the folder `keep` go what each message met and the
 * gateway's log.
 */
export async function live(side, script, { graceMs, keep, say = () => {}, during } = {}) {
  const began = performance.now();
  const log = (text) => say(`${side} ${((performance.now() - began) / 1000).toFixed(1)}s: ${text}`);
  const stall = script.events.find((event) => event.do === "stall");
  const model = await startModel(script);
  // Not below a third: a gateway takes as long to start on a short day.
  const share = Math.max(0.3, Math.min(1, script.lengthMs / 600_000));
  const world = await startWorld({ share });
  // Slack tries for the last time after five minutes, and as long is what OpenClaw was about to send somebody's who was killed.
  const patience = graceMs ?? 360_000;
  const gateway = await createSide(side, {
    ...{ world, model, log, stallMs: stall?.forMs ?? 0 },
    fullDisk: script.events.some((event) => event.do === "disk"),
  });
  const wall = Date.now() - performance.now();
  const notes = { disk: gateway.disk, done: [] };
  try {
    await gateway.start();
    // Everybody is there when each channel has answered once.
    const first = PLATFORMS.map((platform, index) => ({
      platform,
      person: 1,
      number: 9001 + index,
      ask: "plain",
    }));
    await world.connected();
    await Promise.all(first.map(world.write));
    await until(() => first.every(({ number }) => world.answered(number)), {
      timeoutMs: 300_000,
      timeoutMessage: () =>
        `no first answer on ${first.filter(({ number }) => !world.answered(number)).map(({ platform }) => platform)}\n${gateway.log().slice(-6000)}`,
    });
    for (const { number } of first) world.ledger.delete(number);
    log("all channels answer");
    const before = { ...(await counts(gateway)), cpuMs: gateway.usageNow().cpuMs };

    const start = performance.now();
    const pending = [];
    const after = (ms, run) => pending.push(sleep(ms).then(run));
    const watching = during?.({ gateway, until: start + script.lengthMs });
    let strikes = Promise.resolve();
    /** What is done to the process waits for one that has started, and for what was done before: a machine may be slow. */
    async function strike(event, done) {
      await until(gateway.up, { timeoutMs: 600_000, timeoutMessage: "the gateway did not come back" });
      // What an ended process left is taken up before the next one ends.
      if (performance.now() > done.atMs + 1000) await sleep(15_000);
      done.atMs = performance.now();
      log(event.do);
      if (event.do === "disk") {
        done.did = await gateway.fill();
        await sleep(event.forMs);
        gateway.free();
      } else if (event.do === "config") await gateway.edit(event);
      else done.did = event.do === "stall" ? gateway.stall() : gateway.kill();
    }
    for (const event of script.events) {
      await sleep(Math.max(0, start + event.atMs - performance.now()));
      if (event.do === "message") {
        pending.push(world.write(event));
        continue;
      }
      const done = { ...event, atMs: performance.now() };
      notes.done.push(done);
      if (["outage", "limits"].includes(event.do)) log(event.do);
      if (event.do === "outage") {
        model.weather.outage = true;
        after(event.forMs, () => {
          model.weather.outage = false;
        });
      } else if (event.do === "limits") {
        model.weather.limited = 6;
        await world.limit();
      } else {
        strikes = strikes.then(() => strike(event, done));
        pending.push(strikes);
      }
    }
    await sleep(Math.max(0, start + script.lengthMs - performance.now()));
    await Promise.all(pending);
    log("the day is over");
    const open = () => [...world.ledger.values()].filter(({ endedMs }) => endedMs === undefined);
    const latest = performance.now() + 1_200_000;
    for (let left = open().length, since = performance.now(); left > 0; left = open().length) {
      await sleep(250);
      if (open().length < left || !gateway.up()) since = performance.now();
      if (performance.now() > Math.min(since + patience, latest)) break;
    }
    log(`${open().length} of ${world.ledger.size} are not answered`);
    await watching;
    // What comes twice comes soon.
    await sleep(5_000);

    const end = { ...(await counts(gateway)) };
    let verified;
    if (side !== "stock") verified = await verify(gateway);
    await gateway.stop();
    const account = await world.account();
    if (keep)
      writeFileSync(join(keep, `${side}.json`), JSON.stringify({ account, lives: gateway.lives, notes }));
    return report({ side, script, gateway, model, account, notes, start, wall, before, end, verified });
  } finally {
    await gateway.stop().catch(() => {});
    if (keep) writeFileSync(join(keep, `${side}.log`), gateway.log());
    await gateway.remove();
    await world.close();
    await model.close();
  }
}

/** What an idle gateway holds. Node's cache of compiled code, which is there to stay, is no temporary file. */
async function counts(gateway) {
  const last = gateway.samples.at(-1) ?? {};
  const temporary = readdirSync(gateway.tmp, { recursive: true }).filter(
    (name) => !name.startsWith("node-compile-cache"),
  );
  return { files: last.files, threads: last.threads, temporary };
}

async function verify({ home }) {
  const run = await home.openclaw(["core", "events", "verify", "--json"], { timeoutMs: 300_000 });
  return { code: run.code, text: `${run.stdout}${run.stderr}`.slice(-2000) };
}

function report({ side, script, gateway, model, account, notes, start, wall, before, end, verified }) {
  const { entries } = account;
  const answered = entries.filter(({ endedMs }) => endedMs !== undefined);
  // What never came was later than all that came: null.
  const spread = (what) => {
    const delays = entries.map((entry) => (entry[what] ?? Number.POSITIVE_INFINITY) - entry.askedMs);
    const at = (q) => (Number.isFinite(quantile(delays, q)) ? quantile(delays, q) : null);
    return { p50: at(0.5), p99: at(0.99), max: at(1) };
  };
  const edits = entries.filter(({ ask }) => ask === "edit");
  const journal = read(join(gateway.home.workspace, "journal.txt"));
  const written = edits.map(({ number }) => ({
    number,
    file: read(join(gateway.home.workspace, fileOf(number))) === `final ${number}\n`,
    lines: journal.split("\n").filter((line) => line === `final ${number}`).length,
  }));
  const lines = probeLines(gateway.measured, wall);
  const stall = notes.done.find((event) => event.do === "stall");
  const ready = gateway.lives.filter(({ readyMs }) => readyMs).map(({ readyMs, endMs }) => [readyMs, endMs]);
  const serving = lines.filter(
    ({ atMs }) =>
      atMs >= start &&
      ready.some(([from, to]) => atMs - 1000 >= from && atMs <= (to ?? Number.POSITIVE_INFINITY)) &&
      !(stall && atMs > stall.atMs && atMs - 2000 < stall.atMs + stall.forMs),
  );
  const during = gateway.samples.filter(({ atMs }) => atMs >= start);
  const core = lines.filter((line) => line.core && line.atMs >= start);
  const brief = ({ number, platform, ask, askedMs }) => ({
    ...{ number, platform, ask, askedMs: Math.round(askedMs - start) },
    asked: model.asked.get(number) ?? 0,
    answered: model.answered.get(number) ?? 0,
  });
  const peak = (list, pickOf) => list.reduce((most, one) => Math.max(most, pickOf(one) ?? 0), 0);
  return {
    side,
    minutes: script.lengthMs / 60_000,
    seed: script.seed,
    messages: entries.length,
    lost: entries.filter(({ whole }) => whole === 0).map(brief),
    doubled: entries.filter(({ whole }) => whole > 1).map(brief),
    torn: entries.filter(({ torn }) => torn > 0).map(brief),
    outOfOrder: outOfOrder(entries),
    reply: spread("endedMs"),
    firstWords: spread("begunMs"),
    edits: {
      asked: edits.length,
      missing: written.filter(({ file, lines }) => !file || lines === 0).map(({ number }) => number),
      doubled: written.filter(({ lines }) => lines > 1).map(({ number }) => number),
    },
    modelRequests: model.count(),
    loop: loopDelay(serving),
    cpuSeconds: gateway.lives.reduce((sum, { cpuMs }) => sum + (cpuMs ?? 0), 0) / 1000,
    cpuSecondsToStart: before.cpuMs / 1000,
    rss: {
      mainMiB: peak(during, ({ mainKb }) => mainKb) / 1024,
      treeMiB: peak(during, ({ treeKb }) => treeKb) / 1024,
      medianMiB:
        during.length > 0
          ? quantile(
              during.map(({ mainKb }) => mainKb),
              0.5,
            ) / 1024
          : 0,
    },
    core: core.length > 0 && {
      peakBytes: peak(core, ({ core }) => Object.values(core).reduce((a, b) => a + b, 0)),
      owners: Object.fromEntries(
        Object.keys(core[0].core).map((name) => [name, peak(core, ({ core }) => core[name])]),
      ),
      floors: Object.fromEntries(
        Object.keys(core[0].core).map((name) => [
          name,
          floors(core.map(({ atMs, core }) => [(atMs - start) / 1000, core[name]])),
        ]),
      ),
    },
    spawned: spawned(gateway.measured, wall, start),
    secrets: holding(gateway.home.dir, gateway.secrets).map(({ path, names }) => ({
      path,
      names: names.length,
    })),
    starts: gateway.lives.map(({ startMs, readyMs, asked, error, code }) => ({
      ...{ tookMs: readyMs ? Math.round(readyMs - startMs) : null, asked, code, error },
    })),
    leftBehind: gateway.lives.filter(({ code }) => code === 0).flatMap(({ leftBehind }) => leftBehind ?? []),
    disk: notes.disk,
    did: notes.done.map(({ do: what, did }) => ({ what, did })),
    platformRules: account.broken,
    otherTexts: account.others,
    held: {
      before: { ...before, temporary: before.temporary.length },
      end: { ...end, temporary: end.temporary.length, new: kinds(end.temporary, before.temporary) },
    },
    ...(verified && { verified }),
    ...(side === "shadow" && shadowCounts(join(gateway.home.stateDir, "openclaw-core"))),
    series: series(core, start),
    delays: answered.map(({ askedMs, endedMs }) => [
      Math.round(askedMs - start),
      Math.round(endedMs - askedMs),
    ]),
  };
}

/** What is new, without what makes names unique: how many of each. */
function kinds(names, before) {
  const known = new Set(before);
  const counts = {};
  for (const name of names.filter((name) => !known.has(name))) {
    const kind = name.replace(/[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12,}|\d+/gi, "*");
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return Object.fromEntries(
    Object.entries(counts)
      .sort(([, a], [, b]) => b - a)
      .slice(0, 20),
  );
}

/** What all processes compared, and where they differed. */
function shadowCounts(folder) {
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const modules = new Set(names.flatMap((name) => /^shadow-(\w+)\.jsonl/.exec(name)?.[1] ?? []));
  const shadow = Object.fromEntries(Array.from(modules, (name) => [name, readTotals(folder, name)]));
  const shadowSamples = names
    .filter((name) => /^shadow-\w+\.jsonl/.test(name))
    .flatMap((name) => read(join(folder, name)).split("\n"))
    // Others may be cut off: the disk was full.
    .filter((line) => line.includes('"kind":"difference"') && line.endsWith("}"))
    .map(JSON.parse);
  return { shadow, shadowSamples };
}

function read(file) {
  return existsSync(file) ? readFileSync(file, "utf8") : "";
}

function probeLines(folder, wall) {
  return readdirSync(folder)
    .filter((name) => name.startsWith("probe-"))
    .flatMap((name) => read(join(folder, name)).split("\n").filter(Boolean).map(JSON.parse))
    .map((line) => ({ ...line, atMs: line.atMs - wall }))
    .sort((a, b) => a.atMs - b.atMs);
}

/** How late a timer was. One that was late for long stands for those that were not even set meanwhile. */
function loopDelay(lines) {
  const values = [];
  let ticks = 0;
  for (const line of lines) {
    ticks += line.ticks - line.late.length;
    for (let rest of line.late) for (; rest > 0; rest -= TICK_MS) values.push(rest);
  }
  for (let tick = 0; tick < ticks; tick++) values.push(0);
  if (values.length === 0) return null;
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99), max: quantile(values, 1) };
}

function spawned(folder, wall, start) {
  const all = read(join(folder, "spawns")).split("\n").filter(Boolean).map(JSON.parse);
  return all.filter(({ kind, atMs }) => kind === "spawn" && atMs - wall >= start).length;
}

/** A line every five seconds of what the core held. */
function series(lines, start) {
  return lines
    .filter((_, index) => index % 5 === 0)
    .map(({ atMs, core }) => [
      Math.round((atMs - start) / 1000),
      Object.values(core).reduce((a, b) => a + b, 0),
    ]);
}
