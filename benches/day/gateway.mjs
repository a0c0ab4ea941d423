// One side of the day: a stock OpenClaw in a scratch home, as it is or with every module native, kept running as a service
// manager would, and watched from outside.
import { spawnSync } from "node:child_process";
import { existsSync, globSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { CASES } from "../../__test__/host/channel-cases.mjs";
import { createHome, until } from "../../__test__/host/fixture.mjs";
import { installPlugin } from "../../__test__/host/installed-plugin.mjs";
import { modelProvider } from "../../__test__/host/model-turn.mjs";
import { LATE, PLATFORMS } from "./script.mjs";
import { people } from "./world.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const STATE_MIB = 1024;
const own = fileURLToPath(new URL(".", import.meta.url));

/** OpenClaw's own Slack and Discord are packages of their own, which it trusts only where it installed them itself. */
async function installStockChannels(home) {
  const { version } = JSON.parse(text(join(root, "__test__/host/node_modules/openclaw/package.json")));
  for (const name of ["slack", "discord"]) {
    const { code, stdout, stderr } = await home.openclaw(
      ["plugins", "install", `npm:@openclaw/${name}@${version}`, "--force", "--accept-capabilities"],
      { timeoutMs: 600_000, env: { NODE_EXTRA_CA_CERTS: process.env.NODE_EXTRA_CA_CERTS } },
    );
    if (code !== 0) throw new Error(`OpenClaw could not install @openclaw/${name}: ${stdout}\n${stderr}`);
  }
}

/** `side`: "native", "shadow", or "stock". */
export async function createSide(side, { world, model, stallMs, fullDisk, log = () => {} }) {
  const home = await createHome();
  const core = side !== "stock";
  const nativeChannels = side === "native";
  const measured = join(home.dir, "measured");
  const tmp = join(home.dir, "tmp");
  for (const folder of [measured, tmp]) mkdirSync(folder);
  const disk = fullDisk ? mountDisk(home.stateDir) : { error: "not asked for" };
  const secrets = Object.assign({}, ...PLATFORMS.map((name) => CASES[`core-${name}`].env), {
    LOOPBACK_MODEL_KEY: model.apiKey,
  });
  const names = {
    CORE_TELEGRAM_TOKEN: "TELEGRAM_BOT_TOKEN",
    CORE_DISCORD_TOKEN: "DISCORD_BOT_TOKEN",
    CORE_SLACK_BOT_TOKEN: "SLACK_BOT_TOKEN",
    CORE_SLACK_APP_TOKEN: "SLACK_APP_TOKEN",
  };
  const { sims } = world;

  const ref = (name) =>
    nativeChannels
      ? { source: "exec", provider: "core", id: `day/${name}` }
      : { source: "env", provider: "default", id: names[name] ?? name };
  /** What is edited while all runs; the outside writer changes it and writes the file anew. */
  const edited = { late: false, acks: false };
  function config() {
    const channel = (platform, more) => ({
      ...{ enabled: true, dmPolicy: "allowlist" },
      allowFrom: people(platform).slice(0, edited.late ? undefined : LATE),
      ...more,
    });
    const provider = (api, id) => ({
      ...modelProvider({ url: () => (id === "sim-1" ? model.openaiUrl : model.anthropicUrl) }, api, {}, [id]),
      apiKey: ref("LOOPBACK_MODEL_KEY"),
    });
    const providers = {
      loopback: provider("openai-completions", "sim-1"),
      backup: provider("anthropic-messages", "sim-2"),
    };
    for (const { models } of Object.values(providers)) models[0].reasoning = false;
    return {
      gateway: {
        mode: "local",
        bind: "loopback",
        port: home.port,
        auth: { mode: "token", token: home.token },
      },
      agents: {
        defaults: {
          model: { primary: "loopback/sim-1", fallbacks: ["backup/sim-2"] },
          ...{ workspace: home.workspace, skipBootstrap: true, heartbeat: { every: "0m" } },
          maxConcurrent: 8,
          ...(core && {
            sandbox: { mode: "all", backend: "bwrap", scope: "agent", workspaceAccess: "rw" },
          }),
        },
      },
      models: { providers },
      logging: { file: join(tmp, "openclaw.log") },
      session: { dmScope: "per-channel-peer" },
      tools: { toolSearch: false, ...(!core && { exec: { host: "gateway", security: "full", ask: "off" } }) },
      ...(edited.acks && { messages: { ackReactionScope: "group-mentions" } }),
      ...(nativeChannels && {
        secrets: {
          providers: {
            core: { source: "exec", pluginIntegration: { pluginId: "core", integrationId: "secrets" } },
          },
        },
      }),
      plugins: {
        entries: {
          ...(core && { core: { enabled: true } }),
          ...(!nativeChannels && {
            telegram: { enabled: true },
            slack: { enabled: true },
            discord: { enabled: true },
          }),
        },
      },
      channels: nativeChannels
        ? {
            "core-telegram": channel("telegram", {
              apiRoot: sims.telegram.url,
              botToken: ref("CORE_TELEGRAM_TOKEN"),
            }),
            "core-discord": channel("discord", {
              apiRoot: `${sims.discord.url}/api/v10`,
              botToken: ref("CORE_DISCORD_TOKEN"),
            }),
            "core-slack": channel("slack", {
              apiRoot: `${sims.slack.url}/api`,
              botToken: ref("CORE_SLACK_BOT_TOKEN"),
              appToken: ref("CORE_SLACK_APP_TOKEN"),
            }),
          }
        : {
            telegram: channel("telegram", {
              apiRoot: sims.telegram.url,
              botToken: ref("CORE_TELEGRAM_TOKEN"),
            }),
            discord: channel("discord", { token: ref("CORE_DISCORD_TOKEN") }),
            slack: channel("slack", {
              ...{
                mode: "socket",
                botToken: ref("CORE_SLACK_BOT_TOKEN"),
                appToken: ref("CORE_SLACK_APP_TOKEN"),
              },
            }),
          },
    };
  }
  /** As people write it: with a comment, which JSON.parse alone cannot read; replaced whole, as editors do. */
  async function writeConfig() {
    await home.write("openclaw.json.new", `// The day.\n${JSON.stringify(config(), null, 2)}\n`);
    renameSync(join(home.stateDir, "openclaw.json.new"), home.configPath);
  }

  const env = {
    ...{
      TMPDIR: tmp,
      DAY_PROBE: measured,
      DAY_STALL_MS: String(stallMs),
      SPAWN_LOG: join(measured, "spawns"),
    },
    ...(!nativeChannels && {
      SLACK_API_URL: `${sims.slack.url}/api/`,
      DISCORD_API_URL: `${sims.discord.url}/api/v10`,
    }),
  };
  if (core) await installPlugin(home);
  if (!nativeChannels) await installStockChannels(home);
  log("installed");
  // The installed package's own preload, so that one copy of the addon serves functions and plugin.
  const register =
    core &&
    globSync("npm/projects/*/node_modules/@openclaw/core/dist/register.js", { cwd: home.stateDir })[0];
  if (core && !register) throw new Error("the installed plugin has no preload");
  await writeConfig();
  // Where each side's manual puts what is secret.
  if (nativeChannels)
    for (const [name, value] of Object.entries(secrets)) {
      const stored = await home.node([join(root, "dist/cli.js"), "secret", "set", `day/${name}`, "--stdin"], {
        input: value,
      });
      if (stored.code !== 0) throw new Error(stored.stderr);
    }
  else {
    const lines = Object.entries(secrets).map(([name, value]) => `${names[name] ?? name}=${value}\n`);
    await home.write(".env", lines.join(""));
  }

  /** Each start of the gateway: when it was ready, when it ended, and what it cost. */
  const statsDir = join(measured, "stats");
  const lives = [];
  const samples = [];
  let gateway;
  let wanted = false;
  let keeper;
  const preload = (file) => ["--import", pathToFileURL(file).href];
  const attached = {
    ...(core && {
      core: {
        mode: side === "shadow" ? "shadow" : "auto",
        register: join(home.stateDir, register),
        statsDir,
      },
    }),
    env,
  };

  async function keep() {
    while (wanted) {
      const life = { startMs: performance.now() };
      lives.push(life);
      try {
        gateway = await home.startGateway({
          ...{ ...attached, timeoutMs: 300_000 },
          nodeArgs: [...preload(join(own, "probe.mjs")), ...preload(join(root, "__test__/host/spawns.mjs"))],
        });
        life.readyMs = performance.now();
        log(`ready after ${Math.round(life.readyMs - life.startMs)} ms`);
        const record = await gateway.done;
        Object.assign(life, { cpuMs: record.cpuMs, code: record.code, leftBehind: record.leftBehind });
      } catch (error) {
        life.error = error.message.slice(0, 2000);
        log(`no start: ${life.error}`);
        await sleep(2000);
      }
      life.endMs = performance.now();
      life.output = gateway?.log().slice(-200_000);
      life.asked ??= !wanted;
      gateway = undefined;
    }
  }

  /** The process that has the JavaScript thread: the probe in it says so. */
  function pid() {
    if (!gateway) return undefined;
    return readdirSync(measured)
      .map((name) => Number(/^probe-(\d+)\.jsonl$/.exec(name)?.[1]))
      .find((number) => number > 0 && existsSync(`/proc/${number}`));
  }

  const sampler = setInterval(() => {
    const main = pid();
    if (main === undefined || !gateway) return;
    const { rssKb } = gateway.usage();
    const status = text(`/proc/${main}/status`);
    const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
    samples.push({
      atMs: performance.now(),
      ...{ life: lives.length, treeKb: rssKb, mainKb: field("VmRSS"), threads: field("Threads") },
      files: count(`/proc/${main}/fd`),
    });
  }, 1000);

  return {
    home,
    secrets,
    lives,
    samples,
    measured,
    tmp,
    disk: disk.error ?? `a filesystem of its own, ${STATE_MIB} MiB`,
    async start() {
      wanted = true;
      keeper = keep();
      await until(() => gateway || lives.at(-1)?.error, { timeoutMs: 400_000, timeoutMessage: "no gateway" });
      if (!gateway) throw new Error(lives.at(-1).error);
    },
    /** OpenClaw's command line, with what the gateway has. */
    openclaw: (...args) => home.openclaw(args, attached),
    up: () => gateway !== undefined && lives.at(-1)?.asked === undefined,
    usageNow: () => gateway?.usage() ?? { cpuMs: 0 },
    log: () => gateway?.log() ?? lives.at(-1)?.output ?? "",
    kill() {
      const main = pid();
      const life = lives.at(-1);
      if (main === undefined) return false;
      life.asked = "kill -9";
      process.kill(main, "SIGKILL");
      return true;
    },
    stall() {
      const main = pid();
      if (main !== undefined) process.kill(main, "SIGURG");
      return main !== undefined;
    },
    async edit({ lets, acks = false }) {
      if (lets === "late") edited.late = true;
      edited.acks ||= acks;
      await writeConfig();
    },
    /** Leaves no byte. */
    async fill() {
      if (disk.error) return false;
      const block = Buffer.alloc(1 << 20);
      const file = join(home.stateDir, "filler");
      for (let size = block.length; size >= 1; )
        await appendFile(file, block.subarray(0, size)).catch(() => {
          size = Math.floor(size / 16);
        });
      return true;
    },
    free: () => rmSync(join(home.stateDir, "filler"), { force: true }),
    async stop() {
      wanted = false;
      const life = lives.at(-1);
      if (life) life.asked ??= true;
      await gateway?.stop(30_000);
      await keeper;
      clearInterval(sampler);
    },
    async remove() {
      clearInterval(sampler);
      disk.unmount?.();
      await home.remove();
    },
  };
}

function mountDisk(folder) {
  const run = (...args) => spawnSync(args[0], args.slice(1), { encoding: "utf8" });
  const { status, stderr, error } = run(
    "mount",
    "-t",
    "tmpfs",
    "-o",
    `size=${STATE_MIB}m,mode=700`,
    "tmpfs",
    folder,
  );
  if (status !== 0)
    return { error: `no filesystem of its own for the state: ${error?.message ?? stderr.trim()}` };
  const unmount = () => run("umount", "--lazy", folder);
  process.once("exit", unmount);
  return { unmount };
}

function text(file) {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // it ended meanwhile
  }
}

function count(folder) {
  try {
    return readdirSync(folder).length;
  } catch {
    return 0;
  }
}

/** Files below that hold one of these, with which. */
export function holding(folder, secrets) {
  const found = [];
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    let bytes;
    try {
      bytes = readFileSync(path);
    } catch {
      continue; // went away meanwhile
    }
    const names = Object.keys(secrets).filter((name) => bytes.includes(secrets[name]));
    if (names.length > 0) found.push({ path: path.slice(folder.length + 1), names });
  }
  return found;
}
