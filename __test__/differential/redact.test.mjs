// Redaction against OpenClaw's own functions.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import core from "../../index.js";
import { stockFunction, stockValue } from "../host/stock.mjs";
import { Texts } from "./redact-texts.mjs";

const REDACT = "src/logging/redact.ts";
const redactSensitiveText = await stockFunction(REDACT, "redactSensitiveText");
const getDefaultRedactPatterns = await stockFunction(REDACT, "getDefaultRedactPatterns");
const couldMatch = await stockFunction(REDACT, "couldMatchDefaultRedactPatterns");

const stock = (text) => redactSensitiveText(text, { mode: "tools" });
const sources = getDefaultRedactPatterns();

const seed = Number(process.env.SEED ?? 20261121);
const numTexts = Number(process.env.TEXTS ?? 60_000);

/** Both sides on one text. */
function hold(text) {
  assert.equal(core.redact(text), stock(text), `redact of ${JSON.stringify(text)}`);
  assert.equal(core.mightContainSecret(text), couldMatch(text), `pre-filter on ${JSON.stringify(text)}`);
}

test(`${numTexts} generated texts (seed ${seed})`, () => {
  const texts = new Texts(seed);
  let redacted = 0;
  for (let count = 0; count < numTexts; count++) {
    const text = texts.text(sources);
    hold(text);
    if (stock(text) !== text) redacted++;
  }
  // Texts that nothing is found in show little.
  assert.ok(redacted > numTexts / 2, `only ${redacted} of ${numTexts} texts had something to redact`);
});

test("what the pre-filter lets pass, the patterns leave alone, but for what OpenClaw's own filter misses", () => {
  const texts = new Texts(seed + 4);
  let passed = 0;
  for (let count = 0; count < numTexts; count++) {
    const text = texts.text(sources, 1 + texts.below(2));
    if (core.mightContainSecret(text)) continue;
    passed++;
    // The filter takes ſ and K for letters, and the patterns do not.
    if (/x-pomerium-jwt-assertion|[\u017f\u212a]/i.test(text)) continue;
    // With patterns of one's own, which these are here, there is no filter.
    assert.equal(core.redact(text, { patterns: sources }), text, JSON.stringify(text));
  }
  assert.ok(passed > numTexts / 20, `only ${passed} of ${numTexts} texts were let pass`);
  const missed = "x-pomerium-jwt-assertion: 142lidjgb99ikb0j97";
  assert.equal(core.mightContainSecret(missed), false);
  assert.notEqual(core.redact(missed, { patterns: sources }), missed);
  hold(missed);
});

const PATTERNS = "src/logging/redact-patterns.ts";
const written = (name) =>
  readFileSync(new URL(`../../src/redact/${name}`, import.meta.url), "utf8").trimEnd();

test("the patterns are OpenClaw's, with what it does with each", async () => {
  const shell = await stockValue(PATTERNS, "SHELL_REFERENCE_PRESERVING_PATTERN_SOURCES");
  const form = await stockValue(PATTERNS, "FORM_AWARE_EQUALS_ASSIGNMENT_PATTERN_SOURCES");
  const unsafe = await stockValue(PATTERNS, "CHUNK_UNSAFE_PATTERN_SOURCES");
  const boundaries = [
    await stockValue(PATTERNS, "BASE64_SAFE_TOKEN_BOUNDARY"),
    await stockValue(PATTERNS, "IDENTIFIER_SAFE_TOKEN_BOUNDARY"),
  ];
  const lines = sources.map((source) => {
    const whole = unsafe.has(source) || boundaries.some((boundary) => source.startsWith(boundary));
    return `${shell.has(source) ? "s" : ""}${form.has(source) ? "f" : ""}${whole ? "w" : ""}\t${source}`;
  });
  assert.deepEqual(written("patterns.txt").split("\n"), lines);
  const header = await stockValue(
    "packages/acp-core/src/structured-auth-redaction.ts",
    "STRUCTURED_AUTH_HEADER_RE",
  );
  assert.equal(written("auth-header.txt"), header.source);
  const filter = (await stockValue(REDACT, "DEFAULT_REDACT_PREFILTER_SOURCES")).flatMap(alternatives);
  assert.deepEqual(written("filter.txt").split("\n"), filter.slice(0, -3));
});

/** The alternatives of a source that stand in no group. */
function alternatives(source) {
  const parts = [""];
  let depth = 0;
  for (const token of source.match(/\\.|\[(?:\\.|[^\]\\])*\]|[^\\[]/gsu)) {
    if (token === "(") depth++;
    if (token === ")") depth--;
    if (token === "|" && depth === 0) parts.push("");
    else parts[parts.length - 1] += token;
  }
  return parts;
}

test("texts of all sizes up to 120 KB, with something at each place where OpenClaw cuts", () => {
  const texts = new Texts(seed + 1);
  const cut = 16_384;
  for (let count = 0; count < 150; count++) {
    let text = texts.prose(1000 + texts.below(120_000));
    for (let at = cut; at < text.length + cut; at += cut) {
      const piece = texts.text(sources, 1 + texts.below(3));
      const start = Math.max(0, at - texts.below(piece.length + 2));
      text = text.slice(0, start) + piece + text.slice(start + piece.length);
    }
    // Around the length from which on it cuts.
    if (count % 5 === 0) text = text.slice(0, 32_766 + texts.below(5));
    hold(text);
  }
});

test("many secrets in one text, each changing what the next pattern sees", () => {
  const texts = new Texts(seed + 2);
  for (let count = 0; count < 300; count++) hold(texts.text(sources, 100 + texts.below(200)));
});

test("every code unit, and every code point at the edge of what is invisible", () => {
  const contexts = [
    (char) => `a${char}token=value1`,
    (char) => `x=1&to${char}ken=value2`,
    (char) => `${char}sk_abcdefghijklmnop${char}`,
    (char) => `body:${char}token=value3`,
    (char) => `body:${char}-token=value4`,
    (char) => `form_body = "${char}ey=value5`,
    (char) => `body:to${char}en=value6`,
    (char) => `token${char}=${char}abcdefghijklmnopqrstuvwxyz`,
    (char) => `?p${char}ass=abcdefghijklmnopqr${char}xyz`,
    (char) => `Bear${char}er abc pa${char}${char}wd jw${char}t:`,
    (char) => `Authorization: Haw${char} id=1, mac=2`,
    (char) => `dis${char}cord: abcdefghijklmnopqrstuvwx.abcdef.abcdefghijklmnopqrstuvwxyz0`,
  ];
  const chars = Array.from({ length: 0x10000 }, (_, unit) => String.fromCharCode(unit));
  const invisible = /\p{C}/u;
  for (let point = 0x10001; point < 0x110000; point++) {
    const [before, char] = [point - 1, point].map((at) => String.fromCodePoint(at));
    if (invisible.test(before) !== invisible.test(char)) chars.push(before, char);
  }
  for (const context of contexts) {
    // A few at a time: a line of its own for each.
    for (let at = 0; at < chars.length; at += 64)
      hold(
        chars
          .slice(at, at + 64)
          .map(context)
          .join("\n"),
      );
  }
});

test("texts made to be slow or to confuse", () => {
  const repeated = [
    "://a:",
    "%41",
    "%41=",
    "\t",
    "\t=",
    "\ta=",
    "a=",
    "&",
    "a&",
    "?",
    "?a=",
    "=+a",
    "token",
    'token="',
    "token=",
    "KEY",
    "KEY_",
    "KEY =",
    "sk-",
    "eyJa.",
    "/ATATT",
    "/ATATTa=",
    "-AKIA",
    "+AKIA",
    ";base64,/AKIA",
    "\\",
    "\\n",
    "\\nAuthorization:",
    "Authorization: Digest ",
    "Authorization: a b=c, ",
    "Authorization: Digest a='",
    "Authorization:\\t",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
    "-----BEGIN ",
    "discord",
    "--token ",
    "1234567",
    "1234567:",
    "bot1234567:",
    "Bearer ",
    "aB1+".repeat(10),
    `${"aB1+".repeat(10)}/`,
    "https://x:y@",
    "(https://(",
    "pass ",
    "a.password=",
    "a-pass=",
    " ",
    "\n",
    "\u200b",
    "\ud800",
    "***",
    "body:",
    "body:\ta",
  ];
  for (const piece of repeated) {
    for (const end of ["", "=", "a", " ", "'", ".x", "\n&token=abc"]) {
      hold(piece.repeat(Math.ceil(3000 / piece.length)) + end);
    }
  }
  for (const piece of repeated.slice(0, 20)) hold(piece.repeat(Math.ceil(40_000 / piece.length)));
});

test("patterns of users, and built-in ones that users name", () => {
  const texts = new Texts(seed + 3);
  const own = [
    "secret-[a-z]+",
    "(?:id|ref)=(\\w+)",
    "(?<name>user)=(?<value>\\S+)",
    "/Token/g",
    "/token/",
    "/tok(e)n/gimsu",
    "/^a/m",
    "/./gs",
    "/[a-z]+/y",
    "(['\"])(.*?)\\1",
    "(a|b)\\1",
    "(?<=key=)\\S+",
    "(?<!x)abc",
    "\\p{L}+",
    "/\\p{L}{5,}/gu",
    "",
    "   ",
    " abc ",
    "/ab c /g",
    "(",
    "[",
    "(a+)+",
    "(?:a|bc)*d",
    "(?:a|b)*d",
    "(?:x{2}){3}y{2,}",
    "/x/gx",
    "//",
    "a*",
    "(z)?",
    "x|",
    "\\d{4,}",
    "-----BEGIN [A-Z ]*PRIVATE KEY-----[\\s\\S]+?-----END [A-Z ]*PRIVATE KEY-----",
    "-----BEGIN[\\s\\S]+?END [A-Z ]*PRIVATE KEY-----",
    "(\\w+)=(\\w+)=(\\1)",
    "\ud83d",
    "(a)(b)?",
    "(^|[^A-Za-z0-9_])(zz[a-z]+)",
    "***",
  ];
  for (let count = 0; count < 4000; count++) {
    const patterns = Array.from({ length: 1 + texts.below(4) }, () =>
      texts.below(3) ? texts.pick(own) : texts.pick(sources),
    );
    let text = texts.text(sources);
    if (count % 400 === 0) text += texts.prose(40_000) + texts.text(sources);
    assert.equal(
      core.redact(text, { patterns }),
      redactSensitiveText(text, { mode: "tools", patterns }),
      `${JSON.stringify(patterns)} on ${JSON.stringify(text)}`,
    );
    assert.equal(core.mightContainSecret(text, { patterns }), text !== "");
  }
  for (const pattern of own) {
    const patterns = [pattern];
    assert.equal(
      core.redact("", { patterns }),
      redactSensitiveText("", { mode: "tools", patterns }),
      pattern,
    );
  }
  assert.equal(
    core.redact("token=abcdefgh", { patterns: [] }),
    stock("token=abcdefgh"),
    "none are the built-in ones",
  );
});
