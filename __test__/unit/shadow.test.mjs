import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Background, firstDifference, mask, readTotals, reportFile, Shadow } from "../../dist/shadow.js";

function reported(run) {
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-shadow-"));
  try {
    const queue = new Background();
    const shadow = new Shadow("config", queue, () => folder, { pid: 1 });
    run(shadow, queue);
    queue.finish();
    shadow.report();
    const file = reportFile(folder, "config");
    if (process.platform !== "win32") assert.equal(statSync(file).mode & 0o777, 0o600);
    const text = readFileSync(file, "utf8");
    return {
      text,
      lines: text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
      counts: shadow.counts,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test("two values differ by kind, -0, key order, prototype, holes and own __proto__, and by nothing else", () => {
  const same = [
    [{ a: [1, { b: Number.NaN }] }, { a: [1, { b: Number.NaN }] }],
    [JSON.parse('{"__proto__":1}'), JSON.parse('{"__proto__":1}')],
    ["", ""],
  ];
  for (const [left, right] of same) assert.equal(firstDifference(left, right), undefined);
  const different = [
    [0, -0, "/"],
    [1, "1", "/"],
    [null, {}, "/"],
    [[], {}, "/"],
    [{ a: 1, b: 2 }, { b: 2, a: 1 }, "/"],
    [{ a: 1 }, { a: 1, b: undefined }, "/"],
    [{ a: [1, 2, { c: "x" }] }, { a: [1, 2, { c: "y" }] }, "/0/2/0"],
    [JSON.parse('{"__proto__":1}'), {}, "/"],
    [{}, Object.create(null), "/"],
  ];
  for (const [left, right, at] of different) assert.equal(firstDifference(left, right)?.at, at);
});

test("values nested deeper than the stack goes are compared", () => {
  const nest = (leaf) => {
    let value = leaf;
    for (let depth = 0; depth < 50_000; depth++) value = [value];
    return value;
  };
  assert.equal(firstDifference(nest(1), nest(1)), undefined);
  assert.notEqual(firstDifference(nest(1), nest(2)), undefined);
});

test("equal answers are counted, with how many of the inputs were different ones", () => {
  const { counts, lines } = reported((shadow) => {
    for (const text of ["{a:1}", "{a:1}", "{b:2}"]) {
      shadow.observe(
        "parse",
        text,
        () => ({ text }),
        () => ({ text }),
      );
    }
  });
  assert.deepEqual(counts, { calls: 3, bytes: 15, distinct: 2, compared: 3, differences: 0, dropped: 0 });
  assert.equal(lines.length, 1);
  assert.equal(new Set(lines[0].inputs).size, 2);
  // The first calls of a process say nothing of what a call takes.
  assert.deepEqual(lines[0].pairs, []);
  assert.equal(lines[0].kind, "summary");
  assert.equal(lines[0].calls, 3);
});

test("equal inputs of several processes are one, by hashes whose key is in no report", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-shadow-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  assert.equal(readTotals(folder, "config"), undefined);
  for (const pid of [1, 2, 3]) {
    const queue = new Background();
    const shadow = new Shadow("config", queue, () => folder, { pid });
    for (const text of ["{a:1}", `{b:${pid}}`])
      shadow.observe(
        "parse",
        text,
        () => text,
        () => text,
      );
    queue.finish();
    shadow.report();
  }
  const { nativeNs, ...totals } = readTotals(folder, "config");
  assert.deepEqual(totals, { calls: 6, bytes: 30, distinct: 4, compared: 6, differences: 0, dropped: 0 });
  assert.equal(nativeNs, undefined, "six cold calls say nothing of what a call takes");
  const file = join(folder, "shadow.key");
  if (process.platform !== "win32") assert.equal(statSync(file).mode & 0o777, 0o600);
  const key = readFileSync(file);
  assert.equal(key.length, 32);
  for (const encoding of ["hex", "base64", "base64url"])
    assert.ok(!readFileSync(reportFile(folder, "config"), "utf8").includes(key.toString(encoding)));
});

test("a line that a full disk cut off costs no other one", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-shadow-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const shadow = new Shadow("config", { add: (_bytes, job) => job() ?? true }, () => folder, { pid: 1 });
  const same = () => 1;
  for (const text of ["{a:1}", "{a:2}"]) {
    shadow.observe("parse", text, same, same);
    shadow.report();
    appendFileSync(reportFile(folder, "config"), '{"kind":"summary","inputs":["cut');
  }
  shadow.observe("parse", "{a:3}", same, same);
  shadow.report();
  assert.deepEqual([readTotals(folder, "config").compared, readTotals(folder, "config").distinct], [3, 3]);
});

test("what a call takes is a median, without a process's first calls", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "openclaw-core-shadow-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const spin = (ns) => {
    for (const end = process.hrtime.bigint() + BigInt(ns); process.hrtime.bigint() < end; );
  };
  const shadow = new Shadow("config", { add: (_bytes, job) => job() ?? true }, () => folder, { pid: 1 });
  for (let n = 0; n < 60; n++)
    shadow.observe(
      "parse",
      String(n),
      () => spin(20_000),
      // Cold, and then once interrupted: neither moves the median.
      () => spin(n < 10 || n === 30 ? 3_000_000 : 5_000),
    );
  shadow.report();
  for (let n = 0; n < 60; n++)
    shadow.observe(
      "read",
      String(n),
      () => spin(100),
      () => spin(4_000_000),
      { isTimed: false },
    );
  shadow.report();
  const { nativeNs, originalNs, compared } = readTotals(folder, "config");
  assert.equal(compared, 120);
  assert.ok(nativeNs >= 5_000 && nativeNs < 3_000_000 && originalNs >= 20_000, `${nativeNs} ${originalNs}`);
});

test("a wrong, a missing and an uncalled-for native answer are each reported; two errors agree", () => {
  const fail = () => {
    throw new Error("no");
  };
  const { counts, lines } = reported((shadow) => {
    shadow.observe(
      "parse",
      "{a:1}",
      () => ({ a: 1 }),
      () => ({ a: 2 }),
    );
    shadow.observe("parse", "{a:2}", () => 1, fail);
    shadow.observe("parse", "{a:3}", fail, () => 1);
    shadow.observe("parse", "{a:4}", fail, fail);
  });
  assert.equal(counts.compared, 4);
  assert.equal(counts.differences, 3);
  assert.deepEqual(
    lines.filter(({ kind }) => kind === "difference").map(({ what }) => what),
    ["value", "native refused", "native accepted"],
  );
});

test("no letter, digit or key of a secret is in the report", () => {
  const secrets = ["sk-ant-Zq81xYw", "hunter2", "491701234567", "geheim-ä-Ø", "p\\u0041ssw0rd"];
  const input = `{ // ${secrets[1]}\n "${secrets[2]}": '${secrets[0]}', x: '${secrets[3]}', y: "${secrets[4]}" }`;
  const { text, lines } = reported((shadow) => {
    shadow.observe(
      "parse",
      input,
      () => ({ [secrets[2]]: secrets[0] }),
      () => ({ [secrets[2]]: secrets[3] }),
    );
    shadow.observe(
      "parse",
      `'${secrets[0]}'`,
      () => secrets[0],
      () => `${secrets[0]}!`,
    );
    shadow.observe(
      "parse",
      secrets[2],
      () => Number(secrets[2]),
      () => Number(secrets[2]) + 1,
    );
  });
  assert.equal(lines.filter(({ kind }) => kind === "difference").length, 3);
  for (const secret of secrets) {
    for (const piece of secret.match(/[A-Za-z0-9äØ]{3,}/g)) assert.ok(!text.includes(piece), piece);
  }
  assert.ok(lines[0].input.includes("{ // xxxxxx9\n"), lines[0].input);
});

test("masking keeps the syntax that a difference may hang on", () => {
  assert.equal(
    mask("{a: -Infinity, /*b*/ 'c\\\n': 0x1F, \\u0041}"),
    "{x: -Infinity, /*x*/ 'x\\\n': 9x9x, \\u9999}",
  );
});

test("a full queue drops comparisons and counts them, and holds no more than its bound", () => {
  const { counts } = reported((shadow) => {
    for (let call = 0; call < 1000; call++)
      shadow.observe(
        "parse",
        "x",
        () => 1,
        () => 1,
      );
  });
  assert.equal(counts.calls, 1000);
  assert.equal(counts.compared, 256);
  assert.equal(counts.dropped, 744);
});

test("a thousand differences leave twenty samples and the right count", () => {
  const { counts, lines } = reported((shadow, queue) => {
    for (let round = 0; round < 10; round++) {
      for (let call = 0; call < 100; call++)
        shadow.observe(
          "parse",
          "x",
          () => 1,
          () => 2,
        );
      queue.finish();
    }
  });
  assert.equal(counts.differences, 1000);
  assert.equal(lines.filter(({ kind }) => kind === "difference").length, 20);
});

test("what is queued runs by itself, and keeps no process alive", async () => {
  const queue = new Background();
  const ran = new Promise((resolve) => queue.add(1, () => resolve(true)));
  // The queue's own turn is unreferenced; this timer stands for the host's work.
  const keepAlive = setTimeout(() => {}, 10_000);
  assert.equal(await ran, true);
  clearTimeout(keepAlive);
});
