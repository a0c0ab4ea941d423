// The pages of the documentation, their blocks, and who runs each of them.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../", import.meta.url));

/** What the site's build brings and makes in docs/ is not ours. */
const OTHERS = /^(?:node_modules|api|\.vitepress)(?:[\\/]|$)/;

/** Every page, by its path from the root of the repository. */
export const PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
  .concat(
    readdirSync(join(root, "docs"), { recursive: true })
      .map((page) => String(page).replaceAll("\\", "/"))
      .filter((page) => page.endsWith(".md") && !OTHERS.test(page))
      .map((page) => `docs/${page}`)
      .sort(),
  )
  .filter((page) => existsSync(join(root, page)));

export const readPage = (page) => readFileSync(join(root, page), "utf8");

/**
 * The fenced blocks of a page, also those within lists. `output` is what the ```text block right behind it holds; such a
 * block is of its own, too.
 */
export function blocksOf(page) {
  const text = readPage(page);
  const found = [...text.matchAll(/^( *)```([^\n]*)\n([\s\S]*?)^\1```$/gm)];
  const blocks = found.map(({ index, 0: whole, 1: indent, 2: language, 3: code }) => ({
    page,
    line: text.slice(0, index).split("\n").length,
    end: index + whole.length,
    start: index,
    indented: indent !== "",
    language,
    code: code.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
  }));
  for (const [at, block] of blocks.entries()) {
    const next = blocks[at + 1];
    if (next?.language === "text" && text.slice(block.end, next.start).trim() === "")
      block.output = next.code;
  }
  return blocks;
}

/** Blocks in these are shown: outputs, diagrams. */
export const SHOWN = ["text", ""];

/** Pages whose reader types one block after the other: commands.test.mjs does. */
export const FOLLOWED = [
  "README.md",
  "docs/start.md",
  "docs/library.md",
  "docs/migration.md",
  "docs/operating.md",
  "docs/secrets.md",
  "docs/sandbox-openclaw.md",
  "docs/providers.md",
  "docs/channels/openclaw.md",
  "docs/channels/telegram.md",
  "docs/channels/discord.md",
];

/** Pages with a program, `bot.mjs`, and the commands around it: bots.test.mjs runs them against the simulated platforms. */
export const BOTS = ["discord", "matrix", "signal", "slack", "whatsapp"].map(
  (name) => `docs/channels/${name}.md`,
);

/** Blocks, by what is in them, that none of the tests here can run as they stand, and why. Keep it short. */
export const ELSEWHERE = [
  ["README.md", "npm test", "is what this test is part of; `npm start` is run by start.test.mjs"],
  ["CONTRIBUTING.md", "npm test", "the same two"],
  ["CONTRIBUTING.md", "release-targets", "builds releases for an hour; the parts are tests of their own"],
  ["docs/benchmarks/README.md", "npm run bench", "measures for minutes, and writes the page anew"],
  [
    "docs/benchmarks/day.md",
    "npm run bench day",
    "measures for up to an hour; __test__/day runs a short day",
  ],
  ["docs/channels/signal.md", "signal-cli link", "wants a phone that scans a code"],
  ["docs/channels/signal.md", "signal-cli -a +15550000000 register", "wants a telephone number"],
  [
    "docs/channels/signal.md",
    "signal-cli -a +15550000000 daemon",
    "wants an account of Signal's; the simulator is one",
  ],
  ["docs/channels/whatsapp.md", "cloudflared tunnel", "opens this machine to the internet"],
  [
    "docs/channels/slack.md",
    '"display_information"',
    "is pasted into Slack's own page; bots.test.mjs reads it as JSON",
  ],
  [
    "docs/channels/simulators.md",
    "a_lost_answer_is_asked_for_again",
    "is a sketch: its middle is the reader's",
  ],
];

/** Who runs a block: the name of the test, or the reason why none does; undefined: nobody. */
export function runnerOf(block) {
  const { page, language, code, indented } = block;
  if (SHOWN.includes(language)) return "shown";
  const listed = ELSEWHERE.find(([where, text]) => where === page && code.includes(text));
  if (listed) return listed[2];
  if (page.startsWith("docs/extending/")) return "extending.test.mjs";
  if (language === "js") return indented ? BOTS.includes(page) && "bots.test.mjs" : "docs.test.mjs";
  if (BOTS.includes(page) && /bot\.mjs|\/login |"template"/.test(code)) return "bots.test.mjs";
  if (FOLLOWED.includes(page) && (language === "sh" || language === "json5")) return "commands.test.mjs";
  return undefined;
}
