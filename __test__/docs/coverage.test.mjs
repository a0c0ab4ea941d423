// Every command and every snippet of the documentation is run by a test, or is listed with its reason.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { blocksOf, ELSEWHERE, PAGES, root, runnerOf } from "./pages.mjs";

const blocks = PAGES.flatMap(blocksOf);

test("every block of the documentation has a test that runs it, or a reason", () => {
  const orphans = blocks.filter((block) => !runnerOf(block));
  assert.deepEqual(
    orphans.map(({ page, line, language, code }) => `${page}:${line} ${language}: ${code.split("\n")[0]}`),
    [],
  );
  const runners = new Set(blocks.map(runnerOf).filter((runner) => /^\w+\.test\.mjs$/.test(runner)));
  for (const runner of runners)
    assert.ok(existsSync(join(root, "__test__/docs", runner)), `${runner} is not there`);
  assert.ok(runners.size >= 4, `only ${[...runners]} run anything`);
});

test("what is listed as not to be run is still there, once", () => {
  for (const [page, text, why] of ELSEWHERE) {
    const found = blocks.filter((block) => block.page === page && block.code.includes(text));
    assert.equal(found.length, 1, `${page}: ${text}`);
    assert.ok(why.length > 10, `${page}: ${text} has no reason`);
  }
});
