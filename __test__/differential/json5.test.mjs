// parseJson5 against npm json5 2.2.3: the same value, or the same message, line and column.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import JSON5 from "json5";
import core from "../../index.js";
import { cases } from "./json5-cases.mjs";

const RUNS = Number(process.env.JSON5_FUZZ_RUNS ?? 100_000);
const SEED = Number(process.env.JSON5_FUZZ_SEED ?? 20260921);

// A million refusals are compared: their stacks are of no interest.
Error.stackTraceLimit = 0;
// npm json5 warns on the console about U+2028 in strings.
console.warn = () => {};

/** A value as text that tells apart all that JavaScript can: -0, NaN, key order, own __proto__, lone surrogates. */
function show(value) {
  if (Array.isArray(value)) return `[${value.map(show).join()}]`;
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  return `{${Object.entries(value)
    .map(([key, item]) => `${JSON.stringify(key)}:${show(item)}`)
    .join()}}`;
}

function outcome(parse, text) {
  try {
    return show(parse(text));
  } catch (error) {
    const line = error.line ?? error.lineNumber;
    const column = error.column ?? error.columnNumber;
    return `${error.message} [${line}:${column}]`;
  }
}

/** A lone surrogate in a message cannot cross as UTF-8; the place says which character it is. */
const wellFormed = (text) =>
  text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");

function same(text) {
  const expected = outcome(JSON5.parse, text);
  const actual = outcome(core.parseJson5, text);
  if (actual !== expected && actual !== wellFormed(expected)) {
    assert.fail(`${JSON.stringify(text)}\n  npm json5: ${expected}\n  core:      ${actual}`);
  }
}

test("each case of the json5 corpus is a document, or not, as npm json5 has it", () => {
  for (const [name, text, valid] of cases) {
    assert.equal(
      !outcome(JSON5.parse, text).startsWith("JSON5: "),
      valid,
      `the table is wrong about: ${name}`,
    );
    same(text);
  }
});

test("every character is white space, identifier start or part, or neither, as npm json5 has it", () => {
  for (let code = 0; code <= 0x10ffff; code++) {
    const character = String.fromCodePoint(code);
    // As the start of a key, and within one; white space and punctuation show in both.
    same(`{${character}:1}`);
    same(`{a${character}:1}`);
  }
});

test("nesting to 10,000 gives npm's value; one more is CONFIG_PARSE with a place", () => {
  const nested = {
    "[": (depth) => "[".repeat(depth) + "]".repeat(depth),
    "{a:": (depth) => `${"{a:".repeat(depth)}1${"}".repeat(depth)}`,
  };
  for (const [open, text] of Object.entries(nested)) {
    let native = core.parseJson5(text(10_000));
    let expected = JSON5.parse(text(10_000));
    while (typeof expected === "object" && expected !== null && Object.keys(expected).length > 0) {
      assert.deepEqual(Object.keys(native), Object.keys(expected));
      [native] = Object.values(native);
      [expected] = Object.values(expected);
    }
    assert.deepEqual(native, expected);
    assert.throws(() => core.parseJson5(text(10_001)), {
      code: "CONFIG_PARSE",
      line: 1,
      column: 10_000 * open.length + 1,
    });
  }
  assert.throws(() => core.parseJson5("[".repeat(5_000_000)), {
    code: "CONFIG_PARSE",
    line: 1,
    column: 10_001,
  });
});

test("what is not a string is refused by name", () => {
  for (const wrong of [undefined, null, 1, {}, [], Symbol("x"), Buffer.from("{}")]) {
    assert.throws(() => core.parseJson5(wrong), {
      code: "VALIDATION",
      message: /^`text` must be a string, not \w+$/,
    });
  }
});

const fragment = fc.constantFrom(
  ..."{}[]:,\"'\\/*+-.0123456789eExXaAbfnrtuvINy_$ \t\n\r#@".split(""),
  "\u2028",
  "\u2029",
  "\u00a0",
  "\ufeff",
  "\u200d",
  "é",
  "Σ",
  "中",
  "😀",
  "𐊧",
  "\ud800",
  "\udc00",
  "\u0000",
  "\u0007",
  "null",
  "true",
  "false",
  "NaN",
  "Infinity",
  "-0",
  "0x1F",
  "1e400",
  "5.",
  ".5",
  "'a'",
  '"b"',
  "__proto__",
  "a:",
  "'1':",
  "\\u0061",
  "\\ud83d",
  "\\x41",
  "\\0",
  "\\\n",
  "\\\r\n",
  "//",
  "/*",
  "*/",
  "[[",
  "]]",
  "{}",
  "[]",
  ",,",
);
const soup = fc.array(fragment, { maxLength: 24 }).map((parts) => parts.join(""));

const { document } = fc.letrec((tie) => ({
  space: fc.constantFrom("", "", "", " ", "\n", "\t", "/* c */", "// c\n", "\u2028", "\r\n"),
  key: fc.oneof(
    fc.constantFrom(
      "a",
      "b",
      "_c",
      "$",
      "ключ",
      "'a b'",
      '"q\'"',
      "'10'",
      "'2'",
      "__proto__",
      "\\u0061z",
      "while",
      "''",
    ),
    fc.string({ unit: "binary", maxLength: 4 }).map((text) => JSON.stringify(text)),
  ),
  scalar: fc.oneof(
    fc.constantFrom(
      "null",
      "true",
      "false",
      "NaN",
      "-Infinity",
      "+1",
      "-0",
      "0xFFFFFFFFFFFFFFFFF",
      "5.e-2",
      ".25",
      "'it\\'s'",
      '"\\ud83d\\ude00"',
      "'\\\n'",
    ),
    fc.double().map((number) => (Number.isFinite(number) ? String(number) : "1e999")),
    fc.string({ unit: "binary", maxLength: 6 }).map((text) => JSON.stringify(text)),
    fc.string({ unit: "grapheme", maxLength: 6 }).map((text) => `'${text.replace(/[\\'\n\r]/g, "\\$&")}'`),
  ),
  value: fc.oneof({ maxDepth: 4, depthSize: "small" }, tie("scalar"), tie("array"), tie("object")),
  array: fc
    .tuple(fc.array(fc.tuple(tie("space"), tie("value")), { maxLength: 4 }), fc.boolean())
    .map(
      ([items, comma]) =>
        `[${items.map((item) => item.join("")).join(",")}${comma && items.length ? "," : ""}]`,
    ),
  object: fc
    .tuple(
      fc.array(fc.tuple(tie("key"), tie("space"), tie("value")), { maxLength: 4 }),
      tie("space"),
      fc.boolean(),
    )
    .map(
      ([items, space, comma]) =>
        `{${items.map(([key, gap, value]) => `${gap}${key}${gap}:${value}`).join(`${space},`)}${comma && items.length ? "," : ""}}`,
    ),
  document: fc.tuple(tie("space"), tie("value"), tie("space")).map((parts) => parts.join("")),
}));

/** A document with one place replaced: mostly wrong, often only just. */
const damaged = fc
  .tuple(document, fc.nat(), fc.nat(3), fragment)
  .map(
    ([text, at, cut, put]) =>
      text.slice(0, at % (text.length + 1)) + put + text.slice((at % (text.length + 1)) + cut),
  );

for (const [name, texts, share] of [
  ["fragments", soup, 1],
  ["documents", document, 0.5],
  ["damaged documents", damaged, 0.5],
]) {
  const numRuns = Math.round(RUNS * share);
  test(`random ${name} give npm's value or npm's error (${numRuns} runs, seed ${SEED})`, () => {
    let valid = 0;
    fc.assert(
      fc.property(texts, (text) => {
        same(text);
        valid += outcome(JSON5.parse, text).startsWith("JSON5: ") ? 0 : 1;
      }),
      { numRuns, seed: SEED },
    );
    console.log(`# ${name}: ${numRuns} compared, ${valid} of them valid`);
    assert.ok(valid > numRuns / 100, "hardly any text was valid: the generator has gone wrong");
  });
}
