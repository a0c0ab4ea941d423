// `npm start`, and the picture of it in README.md.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { addonIsFresh } from "../../scripts/setup.mjs";
import { picture } from "../../scripts/terminal-picture.mjs";
import { blocksOf, root } from "./pages.mjs";

const file = (name) => readFileSync(join(root, "docs", name), "utf8");
/** What each module did, out of what `npm start` prints: its name, what it runs as, how it is attached. */
const rows = (output) =>
  [...stripVTControlCharacters(output).matchAll(/^ {2}(\w+) +(native|TypeScript) +(\(?\w+\)?) +\d/gm)].map(
    (match) => match.slice(1, 4).join(" "),
  );

test("the picture of a terminal is that of the output beside it, line by line", () => {
  const svg = file("start.svg");
  assert.equal(svg, picture(file("start.txt")));
  const text = svg.replace(/&#(\d+);/g, (_, code) => String.fromCharCode(code)).replace(/<[^>]*>/g, "");
  for (const line of stripVTControlCharacters(file("start.txt")).split("\n"))
    for (const word of line.split(/\s+/)) assert.ok(text.includes(word), word);
  assert.match(file("start.txt"), /✓/);
});

test("`npm start` works, and what it shows is what the picture shows", {
  // It would make a release build first, for minutes.
  skip: !addonIsFresh() && "the addon is not the release build of these sources: run `npm run build`",
  timeout: 600_000,
}, () => {
  assert.ok(blocksOf("README.md").some(({ code }) => /^npm start\b/m.test(code)));
  const { status, stdout, stderr } = spawnSync("npm", ["start", "--silent"], {
    ...{ cwd: root, encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } },
  });
  assert.equal(status, 0, `${stdout}\n${stderr}`);
  assert.ok(rows(stdout).length > 10, stdout);
  // Stale, if not: run scripts/terminal-picture.mjs.
  assert.deepEqual(rows(file("start.txt")), rows(stdout));
});
