// The programs of the channels' pages as a reader has them: saved as bot.mjs, the package installed, started by the page's own
// command. The tokens are the simulated platform's, and each page's program has a variable that leads there.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import core from "../../index.js";
import { packPlugin } from "../../scripts/pack-plugin.mjs";
import { freePort } from "../free-port.mjs";
import { CASES } from "../host/channel-cases.mjs";
import { until } from "../host/fixture.mjs";
import { startSimulator } from "../sim/channels/simulator.mjs";
import { BOTS, blocksOf } from "./pages.mjs";

/** What takes longer on a busy machine does not come any more. */
const HANGS_MS = 600_000;

/** What the programs are given, by the name of the page. */
const VARIABLES = {
  discord: ({ token }, url) => ({ DISCORD_BOT_TOKEN: token, DISCORD_BASE_URL: `${url}/api/v10` }),
  matrix: (_, url, [owner]) => ({ MATRIX_URL: url, MATRIX_OWNER: owner }),
  signal: ({ account }, url) => ({ SIGNAL_ACCOUNT: account, SIGNAL_URL: url }),
  slack: ({ bot_token, app_token }, url) => ({
    ...{ SLACK_BOT_TOKEN: bot_token, SLACK_APP_TOKEN: app_token, SLACK_BASE_URL: `${url}/api` },
  }),
  whatsapp: ({ token }, url) => ({
    ...{ WHATSAPP_TOKEN: token, WHATSAPP_BASE_URL: url, WHATSAPP_PHONE_NUMBER_ID: "100000000000001" },
    ...{ WHATSAPP_VERIFY_TOKEN: "sim-verify", WHATSAPP_APP_SECRET: "sim-secret" },
  }),
};

/** Runs shell in a folder; `ended` gives its code and what it printed. */
function shell(text, cwd, env) {
  const npm = 'npm() { command npm "$@" --offline --ignore-scripts --no-audit --no-fund; }';
  const child = spawn("bash", ["-c", `set -e -o pipefail\n${npm}\n${text}`], {
    cwd,
    env: { ...process.env, ...env },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (more) => {
      output += more;
    });
  const ended = once(child, "close").then(([code]) => ({ code, output }));
  const end = () => child.exitCode === null && process.kill(-child.pid, "SIGKILL");
  return { ended, end, output: () => output };
}

let scratch;
let tarball;
before(() => {
  scratch = mkdtempSync(join(tmpdir(), "openclaw-core-bots-"));
  tarball = packPlugin(scratch);
});
after(() => rmSync(scratch, { recursive: true, force: true }));

for (const page of BOTS) {
  const name = page.match(/(\w+)\.md$/)[1];
  const { options, people, prepare, ready, write, said } = CASES[`core-${name}`];
  const blocks = blocksOf(page);

  describe(page, { timeout: HANGS_MS }, () => {
    let sim;
    let cwd;
    let variables;

    before(async () => {
      sim = await startSimulator(name, { ...options, password: "the password" });
      await prepare?.(sim, people);
      cwd = join(scratch, name);
      mkdirSync(cwd);
      writeFileSync(join(cwd, "package.json"), '{ "name": "bot", "version": "1.0.0", "private": true }\n');
      variables = { ...VARIABLES[name](options, sim.url, people), WHATSAPP_PORT: String(await freePort()) };
    });
    after(() => sim?.close());

    /** A command of the page, with the simulator's tokens in place of the examples. */
    const command = (code) =>
      Object.entries(variables)
        .reduce(
          (text, [variable, value]) =>
            text.replace(new RegExp(`\\b${variable}=\\S+`), `${variable}=${value}`),
          code,
        )
        .replace("npm install @openclaw/core", `npm install ${tarball}`)
        .replace("https://matrix.example.org", sim.url)
        // The name that the simulator has given the bot.
        .replace(`"user": "bot"`, `"user": "sim"`);

    const login = blocks.find(({ code }) => code.includes("/login "));
    if (login)
      test(`${page}:${login.line} gives a token`, async () => {
        const { code, output } = await shell(command(login.code), cwd).ended;
        assert.equal(code, 0, output);
        const { access_token: token } = JSON.parse(output);
        assert.match(token, /^syt_/);
        variables.MATRIX_TOKEN = token;
      });

    const program = blocks.find(({ language }) => language === "js");
    const start = blocks.find(({ code }) => code.includes("node bot.mjs"));
    test(`${page}:${program.line}, started as in line ${start.line}, answers`, async () => {
      writeFileSync(join(cwd, "bot.mjs"), program.code);
      const bot = shell(command(start.code), cwd, variables);
      let stopped;
      bot.ended.then((result) => {
        stopped = result;
      });
      try {
        await until(
          async () => {
            assert.equal(stopped, undefined, JSON.stringify(stopped));
            // A person tries again, and so does Meta: nobody knows when a bot is up.
            const webhook = { webhookPort: Number(variables.WHATSAPP_PORT), webhookPath: "/whatsapp" };
            if (name === "whatsapp") await ready(sim, webhook).catch(() => {});
            await write(sim, people[0], "hello");
            return said(await sim.state(), people[0]).find(({ text }) => text.includes("hello"));
          },
          { timeoutMs: HANGS_MS / 2, everyMs: 500, timeoutMessage: () => `no answer\n${bot.output()}` },
        );
      } finally {
        bot.end();
        await bot.ended;
      }
    });

    for (const { language, code, line } of blocks) {
      if (language !== "json") continue;
      test(`${page}:${line} is taken`, async () => {
        const value = JSON.parse(code);
        // The manifest, which goes into Slack's own page.
        if (!value.extra) return assert.ok(value.oauth_config.scopes.bot.includes("chat:write"));
        const store = await core.EventStore.open(join(cwd, "templates"));
        const channel = new core.WhatsAppChannel({
          ...{ token: options.token, phoneNumberId: "100000000000001", baseUrl: sim.url, store },
          ...{ verifyToken: "sim-verify", webhook: { port: await freePort(), secret: "sim-secret" } },
        });
        try {
          await channel.send(value);
          const { sent } = await sim.state();
          assert.equal(sent.at(-1).template.name, "hello_world");
        } finally {
          await channel.close();
          await store.close();
        }
      });
    }
  });
}
