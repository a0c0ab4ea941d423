// The examples of the documentation, run as they stand: a ```js block as a module of its own in an empty folder, its
// output held against the ```text block behind it; `npx openclaw-core …` lines of ```sh blocks as commands.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
  .map((page) => join(root, page))
  .concat(
    readdirSync(join(root, "docs"), { recursive: true }).map((page) => join(root, "docs", String(page))),
  )
  .filter((page) => page.endsWith(".md") && existsSync(page));

const scratch = mkdtempSync(join(tmpdir(), "openclaw-core-docs-"));
after(() => rmSync(scratch, { recursive: true, force: true }));

function folder() {
  const path = mkdtempSync(join(scratch, "example-"));
  mkdirSync(join(path, "node_modules/@openclaw"), { recursive: true });
  symlinkSync(root, join(path, "node_modules/@openclaw/core"));
  symlinkSync(join(root, "__test__/host/node_modules/openclaw"), join(path, "node_modules/openclaw"));
  // What an example finds if it looks for the reader's own config.
  mkdirSync(join(path, ".openclaw"), { mode: 0o700 });
  writeFileSync(join(path, ".openclaw/openclaw.json"), "{\n  gateway: {port: 18789},\n}\n", { mode: 0o600 });
  return path;
}

function run(command, args, cwd) {
  const env = { PATH: process.env.PATH, HOME: cwd, NO_COLOR: "1" };
  return spawnSync(command, args, { cwd, env, encoding: "utf8", timeout: 60_000 });
}

let ran = 0;
for (const page of pages) {
  const text = readFileSync(page, "utf8");
  const name = relative(root, page);
  for (const match of text.matchAll(/^```(js|sh)\n([\s\S]*?)^```\n(?:\n```text\n([\s\S]*?)^```\n)?/gm)) {
    const [, language, code, output] = match;
    const line = text.slice(0, match.index).split("\n").length;
    if (language === "js") {
      ran++;
      test(`the example at ${name}:${line} runs and prints what the page says`, () => {
        const cwd = folder();
        writeFileSync(join(cwd, "example.mjs"), code);
        const { status, stdout, stderr } = run(process.execPath, ["example.mjs"], cwd);
        assert.equal(status, 0, stderr);
        if (output !== undefined) assert.equal(stdout, output);
      });
      continue;
    }
    for (const [, args] of code.matchAll(/^npx openclaw-core ([^#\n]*)/gm)) {
      ran++;
      test(`\`npx openclaw-core ${args.trim()}\` of ${name}:${line} works`, () => {
        const { status, stderr } = run(
          process.execPath,
          [join(root, "dist/cli.js"), ...args.trim().split(/\s+/)],
          folder(),
        );
        assert.equal(status, 0, stderr);
      });
    }
  }
  test(`the links of ${name} lead somewhere`, () => {
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:|^#/.test(target)) continue;
      assert.ok(existsSync(join(dirname(page), target.split("#")[0])), `${name} links to ${target}`);
    }
  });
}

test("the documentation has examples", () => assert.ok(ran >= 5, `only ${ran} examples were found`));
