// Session keys against OpenClaw's own functions.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import core from "../../index.js";
import { stockFunction } from "../host/stock.mjs";

const parseAgentSessionKey = await stockFunction(
  "packages/session-url-contract/src/session-key-normalization.ts",
  "parseAgentSessionKey",
);
const buildAgentPeerSessionKey = await stockFunction(
  "src/routing/session-key.ts",
  "buildAgentPeerSessionKey",
);
const resolveThreadSessionKeys = await stockFunction(
  "src/routing/session-key.ts",
  "resolveThreadSessionKeys",
);

const numRuns = 40_000;
const seed = 20260921;

const piece = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.constantFrom(
      "agent",
      "main",
      "signal",
      "matrix",
      "group",
      "channel",
      "thread",
      "direct",
      "telegram",
      "cron",
      "run",
      "Agent",
      "SIGNAL",
      "Matrix",
      "GROUP",
      "!Room",
      "AbC=",
      "",
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      " ",
      "\ufeff",
      "\u0085",
      "\u00a0",
      "İ",
      "ΣΑΣ",
      "ß",
      "ſ",
      "K",
      "\ud800",
      "😀",
      "\n",
    ),
  },
  { weight: 2, arbitrary: fc.string({ maxLength: 4 }) },
);
const name = fc.array(piece, { maxLength: 2 }).map((parts) => parts.join(""));
const key = fc
  .tuple(
    fc.constantFrom("agent:", "agent:", "Agent:a:", "", " agent:b:", "agent:a:agent:b::"),
    fc.array(name, { maxLength: 8 }),
  )
  .map(([head, parts]) => head + parts.join(":"));

test(`every key is read as OpenClaw reads it (${numRuns} keys, seed ${seed})`, () => {
  let read = 0;
  fc.assert(
    fc.property(key, (text) => {
      const expected = parseAgentSessionKey(text);
      assert.deepEqual(core.parseSessionKey(text), expected && { ...expected });
      if (expected) read++;
    }),
    { numRuns, seed },
  );
  assert.ok(read > numRuns / 10, `only ${read} keys were valid: the generator has gone wrong`);
});

test(`every key is built as OpenClaw builds it (${numRuns} keys, seed ${seed})`, () => {
  const parts = fc.record(
    {
      agentId: name,
      channel: name,
      accountId: fc.oneof(name, fc.constantFrom("__proto__", "constructor", "--x--", "x".repeat(80))),
      peer: fc.option(fc.record({ kind: fc.constantFrom("direct", "group", "channel"), id: name }), {
        nil: undefined,
      }),
      dmScope: fc.constantFrom("main", "per-peer", "per-channel-peer", "per-account-channel-peer"),
      threadId: name,
    },
    { requiredKeys: ["agentId"] },
  );
  fc.assert(
    fc.property(parts, ({ peer, threadId, ...rest }) => {
      const baseSessionKey = buildAgentPeerSessionKey({ ...rest, peerKind: peer?.kind, peerId: peer?.id });
      const { sessionKey } = resolveThreadSessionKeys({ baseSessionKey, threadId });
      assert.equal(core.buildSessionKey({ peer, threadId, ...rest }), sessionKey);
    }),
    { numRuns, seed },
  );
});

test("what is no session key, kind or scope is refused by name", () => {
  assert.throws(() => core.parseSessionKey(undefined), {
    code: "VALIDATION",
    message: /`key` must be a string/,
  });
  assert.throws(() => core.buildSessionKey("x"), {
    code: "VALIDATION",
    message: /`parts` must be an object/,
  });
  assert.throws(() => core.buildSessionKey({ agentId: "a", dmScope: "per-planet" }), {
    code: "VALIDATION",
    message: /`dmScope` must be one of main, per-peer/,
  });
  assert.throws(() => core.buildSessionKey({ agentId: "a", peer: { kind: "dm", id: "1" } }), {
    code: "VALIDATION",
    message: /`kind` must be one of direct/,
  });
  assert.throws(() => core.buildSessionKey({ agentId: 7 }), { code: "VALIDATION", message: /`agentId`/ });
});
