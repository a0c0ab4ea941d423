// The examples of the documentation, run as they stand: a ```js block as a module of its own in an empty folder, its
// output held against the ```text block behind it. And its links and file names lead to something.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { blocksOf, PAGES, readPage, root, runnerOf } from "./pages.mjs";

/** What the pages under docs/extending have their reader make. */
const EXAMPLES = /bulletin|parrot|unshare|^openclaw\/adapters\/types\.ts$|^__test__\/host\/types\.test\.mjs$/;

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

for (const page of PAGES) {
  for (const block of blocksOf(page)) {
    if (runnerOf(block) !== "docs.test.mjs") continue;
    test(`the example at ${page}:${block.line} runs and prints what the page says`, () => {
      const cwd = folder();
      writeFileSync(join(cwd, "example.mjs"), block.code);
      const { status, stdout, stderr } = run(process.execPath, ["example.mjs"], cwd);
      assert.equal(status, 0, stderr);
      if (block.output !== undefined) assert.equal(stdout, block.output);
    });
  }
  test(`the links of ${page} lead somewhere`, () => {
    for (const [, target] of readPage(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:|^#/.test(target)) continue;
      assert.ok(existsSync(join(root, dirname(page), target.split("#")[0])), `${page} links to ${target}`);
    }
  });
}

for (const page of PAGES.filter((page) => /ARCHITECTURE|extending/.test(page))) {
  test(`the files that ${page} names are there`, () => {
    const text = readPage(page).replace(/^```[\s\S]*?^```$/gm, "");
    const named = [
      ...text.matchAll(/`((?:src|openclaw|scripts|sim|docs|__test__)\/[\w./-]+|[\w-]+\.(?:rs|ts|js|cjs))`/g),
    ].map(([, path]) => path);
    assert.ok(named.length > 5, "no file names were found");
    for (const path of named.filter((path) => path.includes("/") && !EXAMPLES.test(path)))
      assert.ok(existsSync(join(root, path)), `${page} names ${path}`);
  });
}
