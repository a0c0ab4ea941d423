// The day in shadow mode: OpenClaw's own code answers, and the native code is compared on the same inputs. The splitter, which
// is compared nowhere inside OpenClaw, is held against OpenClaw's on what was said that day and on texts made of it.
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { connectGateway } from "../../__test__/host/gateway-client.mjs";
import { stockFunction } from "../../__test__/host/stock.mjs";
import { random } from "../measure.mjs";
import { live } from "./live.mjs";

/** So many comparisons there must be of ten minutes; of a shorter day, as many less. */
const FLOORS = { providers: 200, config: 1_000, validation: 10_000, channels: 2_000 };

export async function shadowed(script, { say }) {
  const record = await live("shadow", script, { say, during: operator });
  const modules = { ...record.shadow, channels: await splits(script) };
  const share = Math.min(1, record.minutes / 10);
  const rows = Object.entries(FLOORS).map(([name, ofTen]) => {
    const floor = name === "channels" ? ofTen : Math.ceil(ofTen * share);
    const found = modules[name] ?? { compared: 0, distinct: 0, differences: 0 };
    return { name, floor, ...found, met: found.compared >= floor && found.differences === 0 };
  });
  const table = [
    "| module | compared | distinct inputs | floor | differences | |",
    "| --- | --- | --- | --- | --- | --- |",
    ...rows.map(
      ({ name, compared, distinct, floor, differences, met }) =>
        `| ${name} | ${compared} | ${distinct} | ${floor} | ${differences} | ${met ? "met" : "**not met**"} |`,
    ),
  ].join("\n");
  return {
    table,
    rows,
    failures: rows.filter(({ met }) => !met).map(({ name }) => name),
    samples: record.shadowSamples,
    record,
  };
}

/** A gateway refuses to start on a config that changes meanwhile, and it goes on starting after it is ready. */
const STARTING_MS = 10_000;
/** Turns between two edits; each is read several times. */
const EDIT_TURNS = 8;

/** Somebody who has a dashboard and a terminal open, and an editor: reads the config and the log, and changes a comment. */
async function operator({ gateway, until }) {
  let client;
  let since;
  let command;
  for (let turn = 0; performance.now() < until; turn++) {
    try {
      since = gateway.up() ? (since ?? performance.now()) : undefined;
      if (since !== undefined) {
        client ??= await connectGateway({ port: gateway.home.port, log: gateway.log }, gateway.home.token);
        await client.request("config.get", {});
        await client.request("logs.tail", { limit: 200 });
        if (performance.now() - since > STARTING_MS) {
          if (turn % EDIT_TURNS === 0) await gateway.edit({});
          command ??= gateway
            .openclaw("config", "get", "gateway.port")
            .catch(() => {})
            .finally(() => {
              command = undefined;
            });
        }
      }
    } catch {
      client = undefined; // it was killed
    }
    await sleep(150);
  }
  client?.close();
  await command;
}

async function splits({ seed }) {
  const { chunkMarkdown } = createRequire(import.meta.url)("../../index.js");
  const stock = await stockFunction("src/auto-reply/chunk.ts", "chunkMarkdownTextWithMode");
  const next = random(seed);
  const pick = (list) => list[Math.floor(next() * list.length)];
  const parts = [
    "begin0001 the quick brown fox jumps over a lazy dog. ",
    "a line\n",
    "\n\n",
    "```js\nlet a = 1;\nlet b = 2;\n```\n",
    "- one\n- two\n",
    "**bold** and [a link](https://example.org/path?query=1) ",
    "世界は広い。",
    "👩‍👩‍👧‍👦",
    "x".repeat(50),
    "~~~\ncode\n~~~\n",
    "> a quote\n",
  ];
  const seen = new Set();
  const counts = { compared: 0, differences: 0 };
  for (let n = 0; n < 2_500; n++) {
    const text = Array.from({ length: 1 + Math.floor(next() * 40) }, () => pick(parts)).join("");
    const limit = pick([200, 500, 1000, 2000, 4000]);
    const mode = pick(["length", "newline"]);
    seen.add(`${limit}\0${mode}\0${text}`);
    counts.compared++;
    if (JSON.stringify(chunkMarkdown(text, { limit, mode })) !== JSON.stringify(stock(text, limit, mode)))
      counts.differences++;
  }
  return { ...counts, distinct: seen.size };
}
