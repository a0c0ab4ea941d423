// What redaction takes and gives. What it equals is shown in __test__/differential/redact.test.mjs.
import assert from "node:assert/strict";
import { test } from "node:test";
import core from "../../index.js";

test("masks keep what tells secrets apart, and no half of a character", () => {
  for (const [text, redacted] of [
    ["", ""],
    ["nothing to hide", "nothing to hide"],
    ["ghp_0123456789abcdefghij", "ghp_01…ghij"],
    ["?code=a\u{1f600}", "?code=***"],
    ["?code=12345\u{1f600}abcdefghijklm\u{1f600}89", "?code=12345…\u{1f600}89"],
    ["lone \ud800 ?code=a\udc00b&c=\ud800", "lone \ud800 ?code=***&c=\ud800"],
    [
      "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
      "-----BEGIN PRIVATE KEY-----\n…redacted…\n-----END PRIVATE KEY-----",
    ],
  ]) {
    assert.equal(core.redact(text), redacted);
    assert.ok(core.mightContainSecret(text) || redacted === text);
  }
});

test("a long text in pieces, a rope and a slice are texts", () => {
  const secret = "ghp_0123456789abcdefghij";
  let rope = "";
  for (let index = 0; index < 20_000; index++) rope += `${index} `;
  assert.equal(core.redact(rope), rope);
  assert.equal(core.redact(rope + secret), `${rope}ghp_01…ghij`);
  assert.equal(core.redact((rope + secret).slice(5)), `${rope}ghp_01…ghij`.slice(5));
  // The buffer of one call is not in the next one's text.
  assert.equal(core.redact("x"), "x");
});

test("patterns take the place of the built-in ones; none are the built-in ones", () => {
  const text = "ticket AB-1234 by token=abcdef";
  assert.equal(core.redact(text, { patterns: ["[A-Z]{2}-\\d+"] }), "ticket *** by token=abcdef");
  assert.equal(
    core.redact(text, { patterns: ["/by (tok)(en)=/g", "(", "(a+)+", " "] }),
    "ticket AB-1234 by tok***=abcdef",
  );
  for (const options of [undefined, {}, { patterns: undefined }, { patterns: [] }]) {
    assert.equal(core.redact(text, options), "ticket AB-1234 by token=***");
    assert.equal(core.mightContainSecret("plain", options), false);
  }
  assert.equal(core.mightContainSecret("plain", { patterns: ["x"] }), true);
  for (const pattern of ["x", "a*", "^", "(?:)"]) {
    assert.equal(core.mightContainSecret("", { patterns: [pattern] }), false);
    assert.equal(core.redact("", { patterns: [pattern] }), "");
  }
});

test("arguments of another kind are refused, and no error holds the text", () => {
  const refused = (run) => assert.throws(run, { code: "VALIDATION" });
  for (const redact of [core.redact, core.mightContainSecret]) {
    refused(() => redact());
    refused(() => redact(5));
    refused(() => redact(new String("token=abcdef")));
    refused(() => redact("x", "y"));
    refused(() => redact("x", { patterns: "y" }));
    refused(() => redact("x", { patterns: [/y/] }));
    refused(() => redact("x", { patterns: ["y", undefined] }));
  }
});
