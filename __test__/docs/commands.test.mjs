// The shell of the pages that a reader follows from top to bottom: each ```sh block is run as it stands, in order, by one
// bash in the home of a stock OpenClaw with a model. What a block prints is held against the ```text block behind it, in
// which `…` stands for anything, and alone on its line for any lines. A ```json5 block is set in the config.
//
// What is not as it is for a reader: the package is packed here in place of the registry's; chat platforms are the
// simulated ones; a gateway runs in the background, and `gateway start` and `stop` are no service manager's.
import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, describe, test } from "node:test";
import core from "../../index.js";
import { packPlugin } from "../../scripts/pack-plugin.mjs";
import { openclawEntry } from "../../scripts/setup.mjs";
import { CASES } from "../host/channel-cases.mjs";
import { createHome, until } from "../host/fixture.mjs";
import { modelProvider, turnConfig } from "../host/model-turn.mjs";
import { startSimulator } from "../sim/channels/simulator.mjs";
import { startModelApis } from "../sim/models/server.mjs";
import { blocksOf, FOLLOWED, runnerOf } from "./pages.mjs";

const { parseJson5 } = core;
/** What takes longer on a busy machine does not come any more. */
const HANGS_MS = 600_000;
/** Pages at once: most of a command of OpenClaw's is its start, on one processor. */
const AT_ONCE = 2;

/** The config of a reader who has a model, and a key of Anthropic's. */
function readersConfig(home, models) {
  // The key is in the environment.
  const { apiKey: _, ...anthropic } = modelProvider(
    models,
    "anthropic-messages",
    { fixture: "text", models: ["claude-sonnet-4-5"] },
    ["claude-sonnet-4-5"],
  );
  const config = turnConfig(home, {
    primary: "loopback/text",
    providers: {
      loopback: modelProvider(models, "openai-completions", {}, ["text"]),
      anthropic,
    },
  });
  config.agents.entries = { main: {} };
  return config;
}

/** Whether the lines of `output` are those of the pattern. */
function matches(output, pattern) {
  const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const line = (text) => (text === "…" ? "(?:.*\\n)*?" : `${text.split("…").map(literal).join(".*")}\\n`);
  const source = pattern.trimEnd().split("\n").map(line).join("");
  return new RegExp(`^${source}$`).test(`${output.trimEnd()}\n`);
}

test("the pattern of a page tells outputs apart", () => {
  assert.ok(matches("a 1 b\nx\ny\nend\n", "a … b\n…\nend\n"));
  assert.ok(matches("a 1 b\nend\n", "a … b\n…\nend\n"));
  assert.ok(!matches("a 1 c\nend\n", "a … b\n…\nend\n"));
  assert.ok(!matches("a 1 b\nx\nend\n", "a … b\nend\n"));
});

/** The commands that set a part of the config: down to what holds more than one thing, or a plain value. */
function setting(json5, added) {
  const paths = [];
  const walk = (value, path) => {
    const keys = Object.keys(value);
    const descends = path.length === 0 || (keys.length === 1 && typeof value[keys[0]] === "object");
    if (descends) for (const key of keys) walk(value[key], [...path, key]);
    else paths.push([path.join("."), value]);
  };
  walk(parseJson5(json5), []);
  return paths
    .map(([path, value]) => {
      const extra = added[path.replace("channels.", "")];
      return `openclaw config set '${path}' '${JSON.stringify({ ...value, ...extra })}'\n`;
    })
    .join("");
}

/** In place of OpenClaw's command: a gateway that runs does not keep the reader from going on. */
const shell = `
set -e -o pipefail
gateway=
stop() {
  if [ -n "$gateway" ]; then kill $gateway 2>/dev/null || true; wait $gateway || true; gateway=; fi
}
openclaw() {
  case "\${1-} \${2-}" in
    "gateway run" | "gateway start")
      stop
      command openclaw gateway run >"$HOME/gateway.log" 2>&1 &
      gateway=$!
      until curl -fs -o /dev/null "$GATEWAY/healthz"; do
        kill -0 $gateway || { cat "$HOME/gateway.log" >&2; return 1; }
        sleep 0.2
      done ;;
    "gateway stop") stop ;;
    *) command openclaw "$@" ;;
  esac
}
npm() { command npm "$@" --offline --ignore-scripts --no-audit --no-fund; }
`;

/** What is done before a block, by what stands in it, as somebody who has come that far would have. */
const BEFORE = [
  // The page's own backup is what brings all of it back.
  [/tar -C ~ -xzf/, "rm -r ~/.openclaw/core ~/.config/openclaw-core\n"],
];

describe("the pages, command by command", { concurrency: AT_ONCE }, () => {
  let models;
  let scratch;
  let tarball;

  before(async () => {
    models = await startModelApis();
    scratch = mkdtempSync(join(tmpdir(), "openclaw-core-docs-"));
    tarball = packPlugin(scratch);
  });
  after(async () => {
    await models?.close();
    if (scratch) rmSync(scratch, { recursive: true, force: true });
  });

  for (const page of FOLLOWED) {
    describe(page, { timeout: HANGS_MS }, () => {
      const blocks = blocksOf(page).filter((block) => runnerOf(block) === "commands.test.mjs");
      const channels = Object.keys(CASES).filter((id) => blocks.some(({ code }) => code.includes(id)));
      const sims = {};
      const results = [];
      let home;
      let helper;
      let ended;

      /** A stranger writes to the bot, and is told a code. */
      async function codeOf(id) {
        const { people, write, said } = CASES[id];
        const answer = await until(
          async () => {
            // Again: nobody knows when a bot is up, and what is written before is lost on some platforms.
            await write(sims[id], people[1], "hello");
            return said(await sims[id].state(), people[1]).at(-1)?.text;
          },
          { timeoutMs: HANGS_MS, everyMs: 1000, timeoutMessage: `${id} did not answer` },
        );
        return /pairing approve \S+ (\w+)/.exec(answer)[1];
      }

      before(
        async () => {
          home = await createHome();
          const at = (...path) => join(home.dir, ...path);
          for (const folder of ["bin", "project", ".openclaw", "elsewhere", "blocks"])
            mkdirSync(at(folder), { mode: 0o700 });
          writeFileSync(at(".openclaw/openclaw.json"), JSON.stringify(readersConfig(home, models), null, 2), {
            mode: 0o600,
          });
          writeFileSync(
            at("project/package.json"),
            '{ "name": "app", "version": "1.0.0", "private": true }\n',
          );
          // As npm links it: the core finds the OpenClaw on PATH by it.
          symlinkSync(openclawEntry(), at("bin/openclaw"));
          const added = {};
          for (const id of channels) {
            sims[id] = await startSimulator(id.replace("core-", ""), CASES[id].options);
            added[id] = await CASES[id].config(sims[id], CASES[id].people);
            await CASES[id].prepare?.(sims[id], CASES[id].people);
          }
          helper = createServer(async ({ url }, response) => {
            response.end(await codeOf(url.slice(1)).catch((error) => error.message));
          });
          await new Promise((resolve) => helper.listen(0, "127.0.0.1", resolve));
          const asks = `$(curl -fs "http://127.0.0.1:${helper.address().port}/$id")`;
          const env = Object.assign(
            { ANTHROPIC_API_KEY: models.apiKey },
            ...channels.map((id) => CASES[id].env),
          );

          const script = blocks.map(({ language, code }, index) => {
            const commands = (language === "json5" ? setting(code, added) : code)
              .replaceAll("npm:@openclaw/core", `npm-pack:${tarball}`)
              .replaceAll("npm install @openclaw/core", `npm install ${tarball}`)
              .replaceAll("/media/elsewhere", at("elsewhere"))
              .replaceAll(/^export (\w+)=.*$/gm, (line, name) =>
                name in env ? `export ${name}=${env[name]}` : line,
              )
              .replaceAll(/^(openclaw config set channels\.(core-\w+)) '\{/gm, (_, command, id) =>
                `${command} '{ ${JSON.stringify(added[id]).slice(1, -1)}, `.replace("{ , ", "{ "),
              )
              .replaceAll(
                /(pairing approve (core-\w+)) THE-CODE/g,
                (_, command, id) => `${command} ${asks.replace("$id", id)}`,
              );
            const preparing = BEFORE.filter(([pattern]) => pattern.test(code)).map(([, text]) => text);
            const out = at("blocks", String(index));
            return `${preparing.join("")}{\n${commands}} >'${out}' 2>'${out}.err'\ntouch '${out}.done'\n`;
          });
          writeFileSync(at("page.sh"), `${shell}${script.join("")}stop\n`);
          chmodSync(at("page.sh"), 0o700);
          // bash under a Node of the fixture's, which ends whatever is left.
          const run =
            "process.exitCode = child_process.spawnSync('bash', [process.argv[1]], { stdio: 'inherit' }).status ?? 1";
          ended = await home.node(["-e", run, at("page.sh")], {
            timeoutMs: HANGS_MS,
            cwd: at("project"),
            env: {
              PATH: [at("bin"), home.env().PATH].join(delimiter),
              // OpenClaw's own state folder is where the pages say that it is.
              ...{ OPENCLAW_STATE_DIR: undefined, NO_COLOR: "1", GATEWAY: `http://127.0.0.1:${home.port}` },
              ...env,
              NODE_EXTRA_CA_CERTS: process.env.NODE_EXTRA_CA_CERTS,
            },
          });
          const read = (path) => (existsSync(path) ? readFileSync(path, "utf8") : "");
          for (const index of blocks.keys()) {
            const out = at("blocks", String(index));
            results.push({ done: existsSync(`${out}.done`), stdout: read(out), stderr: read(`${out}.err`) });
          }
        },
        { timeout: HANGS_MS },
      );
      after(async () => {
        await home?.remove();
        helper?.closeAllConnections();
        helper?.close();
        for (const sim of Object.values(sims)) await sim.close();
      });

      for (const [index, { output, line }] of blocks.entries()) {
        test(`${page}:${line} works${output === undefined ? "" : ", and prints what the page says"}`, () => {
          const { done, stdout, stderr } = results[index];
          const failed = results.findIndex((result) => !result.done);
          if (!done && index > failed) assert.fail(`${page}:${blocks[failed].line} failed before it`);
          assert.ok(
            done,
            `code ${ended.code}, ${ended.timedOut ? "too slow" : "ended"}\n${stdout}\n${stderr}\n${ended.stderr}`,
          );
          if (output !== undefined) assert.ok(matches(stdout, output), `${stdout}\n${stderr}`);
        });
      }
    });
  }
});
