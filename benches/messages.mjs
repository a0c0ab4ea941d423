// validateMessage against the same rules in plain JavaScript; part of the bench of secrets.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { compare, row } from "./measure.mjs";

const require = createRequire(import.meta.url);

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const ODD = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/;

/** The quickest that we know: a regex, and V8's own counts. It finds the first issue of each kind, without its text. */
function plain(text, { maxChars, maxBytes }) {
  const issues = [];
  if (text.length > maxChars) issues.push({ code: "TOO_LONG", offset: maxChars });
  if (Buffer.byteLength(text) > maxBytes) issues.push({ code: "TOO_MANY_BYTES" });
  const odd = text.search(ODD);
  if (odd >= 0) issues.push({ code: "ODD", offset: odd });
  if (!text.isWellFormed()) issues.push({ code: "LONE_SURROGATE" });
  return { ok: issues.length === 0, text, issues };
}

const ASCII = "Please read the file notes.md, sum up what it says on the plan, and send it to Ada Lovelace. ";
const MIXED =
  "Bitte lies die Datei „Übersicht.md“, fasse sie zusammen, und schick's an Ada 👩‍💻 — danke schön! ";

export function rows() {
  const { validateMessage } = require("../index.js");
  const limits = { maxChars: 100_000, maxBytes: 400_000 };
  return [
    ["90 characters of ASCII", ASCII.slice(0, 90)],
    ["90 characters with umlauts and emoji", MIXED.slice(0, 90)],
    ["10 KB of ASCII", ASCII.repeat(120).slice(0, 10_240)],
    ["10 KB with umlauts and emoji", MIXED.repeat(92)],
  ].map(([title, text]) => {
    assert.deepEqual(validateMessage(text, limits), plain(text, limits));
    return row({
      title: `validateMessage, ${title}`,
      unit: "µs",
      samples: compare({
        validateMessage: () => validateMessage(text, limits),
        "plain JavaScript": () => plain(text, limits),
      }),
      target: { text: "not slower", met: ({ ratios }) => ratios["plain JavaScript"].value >= 1 },
    });
  });
}
