// Redaction against OpenClaw's own functions.
import assert from "node:assert/strict";
import { test } from "node:test";
import core from "../../index.js";
import { stockFunction, stockValue } from "../host/stock.mjs";
import { Texts } from "./redact-texts.mjs";

const REDACT = "src/logging/redact.ts";
const redactSensitiveText = await stockFunction(REDACT, "redactSensitiveText");
const getDefaultRedactPatterns = await stockFunction(REDACT, "getDefaultRedactPatterns");
const couldMatch = await stockFunction(REDACT, "couldMatchDefaultRedactPatterns");
const redactText = await stockFunction(REDACT, "redactText");
const resolveRedactOptions = await stockFunction(REDACT, "resolveRedactOptions");

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
