// The router, the allowlist and the splitter against OpenClaw's own functions.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import core from "../../index.js";
import { stockFunction } from "../host/stock.mjs";

const resolveAgentRoute = await stockFunction("src/routing/resolve-route.ts", "resolveAgentRoute");
const chunkMarkdownTextWithMode = await stockFunction("src/auto-reply/chunk.ts", "chunkMarkdownTextWithMode");
const decide = await stockFunction("src/security/dm-policy-shared.ts", "resolveLegacyDmGroupAccessDecision");
const matchSimple = await stockFunction("src/channels/allowlist-match.ts", "resolveAllowlistMatchSimple");

const seed = 20261121;

/** Mostly one of a few, so that they meet. */
const of = (...values) => fc.constantFrom(...values);
const id = fc.oneof(
  { weight: 8, arbitrary: of("1", "2", "G1", "g1", " 1 ", "AbC=", "!Room:server") },
  { weight: 1, arbitrary: of("*", "", "ΣΑΣ", "İd", 7, 1e15) },
);
const channel = fc.oneof(
  { weight: 8, arbitrary: of("telegram", "signal", "matrix", "discord") },
  { weight: 1, arbitrary: of(" Telegram ", "SIGNAL", "") },
);
const account = of("default", "work", "Work ", "__proto__", "a b!c", "", "x".repeat(80));
const agentId = fc.oneof(
  { weight: 6, arbitrary: of("main", "work", "Home", "a b") },
  { weight: 1, arbitrary: of(" ", "nobody", "--x--") },
);
const kind = of("direct", "dm", "group", "channel", "Group", "room");
const peer = fc.record({ kind, id: fc.oneof(of("1", "G1"), id) });
const dmScope = of("main", "per-peer", "per-channel-peer", "per-account-channel-peer");
const groupScope = of("per-group", "main");
const maybe = (arbitrary) => fc.option(arbitrary, { nil: undefined });
const roles = fc.array(of("admin", "mod", "guest"), { maxLength: 2 });

const binding = fc.record(
  {
    agentId,
    type: of("route", "acp", "route"),
    match: fc.record(
      {
        channel,
        accountId: of("default", "work", "*", " Work ", ""),
        peer: fc.option(fc.oneof(peer, fc.record({ kind, id: fc.constant("*") })), { nil: null }),
        guildId: id,
        teamId: id,
        roles,
      },
      { requiredKeys: ["channel"] },
    ),
    session: fc.record({ dmScope, groupScope }, { requiredKeys: [] }),
  },
  { requiredKeys: ["agentId", "match"] },
);
/** For one chat of the platform. */
const close = fc.record({
  agentId,
  match: fc.record({ channel, accountId: fc.constant("*"), peer }),
});
/** For all chats of an account, or of the platform: what is left where nothing more specific is. */
const wide = fc.record({
  agentId,
  match: fc.record({ channel, accountId: of("*", "*", "default", "work") }),
});
/** For a role in a guild. */
const guarded = fc.record({
  agentId,
  match: fc.record({
    channel,
    accountId: fc.constant("*"),
    guildId: of("G1", 7),
    roles: fc.array(of("admin", "mod"), { minLength: 1, maxLength: 2 }),
  }),
});
const entry = fc.record({ id: agentId, default: fc.boolean() }, { requiredKeys: ["id"] });
const agents = fc.oneof(
  fc.record(
    {
      list: fc.array(entry, { maxLength: 3 }),
      entries: fc.dictionary(agentId, fc.record({ default: fc.boolean() }, { requiredKeys: [] }), {
        maxKeys: 3,
      }),
      ownership: of("explicit", "legacy"),
      defaults: fc.record({ systemAgent: fc.record({ agentId }) }),
    },
    { requiredKeys: [] },
  ),
  fc.constant(undefined),
);
const config = fc.record(
  {
    agents,
    bindings: fc.array(fc.oneof(binding, binding, close, wide, guarded), { maxLength: 8 }),
    session: fc.record(
      {
        dmScope,
        groupScope,
        mainKey: of("main", "Boss ", ""),
        identityLinks: fc.dictionary(
          of("alice", "Bob ", " "),
          fc.array(of("telegram:1", "2", "signal:G1", "MATRIX:g1"), { maxLength: 2 }),
        ),
      },
      { requiredKeys: [] },
    ),
  },
  { requiredKeys: [] },
);
const input = fc.record(
  {
    channel,
    accountId: account,
    peer: maybe(peer),
    parentPeer: maybe(peer),
    guildId: fc.oneof(id, of("G1", "7")),
    teamId: id,
    memberRoleIds: roles,
    defaultAgentId: agentId,
    dmScope,
    groupScope,
  },
  { requiredKeys: ["channel"] },
);

const numRoutes = 30_000;
test(`every message is routed as OpenClaw routes it (${numRoutes} configs, seed ${seed})`, () => {
  const by = new Map();
  let thrown = 0;
  fc.assert(
    fc.property(config, fc.array(input, { minLength: 1, maxLength: 3 }), (cfg, inputs) => {
      const router = new core.Router(cfg);
      for (const asked of inputs) {
        let expected;
        try {
          expected = resolveAgentRoute({ cfg, ...asked });
        } catch (error) {
          thrown++;
          assert.throws(() => router.resolve(asked), { code: "VALIDATION", message: error.message });
          continue;
        }
        by.set(expected.matchedBy, (by.get(expected.matchedBy) ?? 0) + 1);
        assert.deepEqual(router.resolve(asked), expected);
      }
    }),
    { numRuns: numRoutes, seed },
  );
  assert.equal(by.size, 9, `not every kind of match was met: ${[...by.keys()]}`);
  for (const [kind, count] of by) assert.ok(count > 10, `${kind} was met ${count} times`);
  assert.ok(thrown > 200, `${thrown} errors`);
});

const numSenders = 20_000;
test(`every sender is judged as OpenClaw judges them (${numSenders} lists, seed ${seed})`, () => {
  const name = of("1", " 1 ", "Alice", "ALICE", "*", "", "telegram:1", "İ");
  const sender = fc.record({ id: name, name, username: name }, { requiredKeys: ["id"] });
  const policies = of("open", "allowlist", "pairing", "disabled", undefined);
  let named = 0;
  fc.assert(
    fc.property(fc.array(name, { maxLength: 4 }), policies, sender, (entries, policy, who) => {
      const expected = decide({
        isGroup: false,
        dmPolicy: policy,
        effectiveAllowFrom: entries,
        effectiveGroupAllowFrom: [],
        isSenderAllowed: (allowFrom) => matchSimple({ allowFrom, senderId: who.id }).allowed,
      });
      const list = new core.Allowlist(entries, policy && { policy });
      const { allowed, reason } = list.check(who);
      assert.deepEqual(
        { allowed, reason },
        { allowed: expected.decision === "allow", reason: expected.reasonCode },
      );
      if (!allowed && [who.name, who.username].some((n) => entries.includes(n) && n?.trim())) named++;
    }),
    { numRuns: numSenders, seed },
  );
  assert.ok(named > 100, "no sender ever bore a listed name without being admitted");
});

const piece = of(
  "word",
  "lorem ipsum",
  "a",
  " ",
  "  ",
  "\n",
  "\n\n",
  "\n \n",
  "\t",
  "(",
  ")",
  "(see this)",
  "- item\n",
  "> quote\n",
  "| a | b |\n",
  "`code`",
  "**bold**",
  "https://example.org/path?query=1",
  "漢字",
  "é",
  "\u3000",
  "\u00a0",
  "日本語。",
);
const fence = of("\n```\n", "\n```js\nlet x = 1;\n```\n", "```rust\n", "~~~\n", "\n````\n", "   ```\n");
const emoji = of("😀", "👍🏽", "🇩🇪🇫🇷", "e\u0301", "👨‍👩‍👧");

const numTexts = 20_000;
for (const [title, arbitrary, mode] of [
  ["plain text", fc.array(fc.oneof(piece, emoji), { maxLength: 60 }), "length"],
  ["text with fences", fc.array(fc.oneof(piece, piece, fence), { maxLength: 60 }), "length"],
  ["paragraphs", fc.array(piece, { maxLength: 60 }), "newline"],
])
  test(`${title} is split where OpenClaw splits it (${numTexts} texts, seed ${seed})`, () => {
    let parts = 0;
    let over = 0;
    fc.assert(
      fc.property(arbitrary, fc.integer({ min: 16, max: 200 }), (pieces, limit) => {
        const text = pieces.join("");
        const expected = chunkMarkdownTextWithMode(text, limit, mode);
        const got = core.chunkMarkdown(text, { limit, mode });
        for (const part of got) assert.ok(part.length <= limit, `${JSON.stringify(part)} at ${limit}`);
        parts += got.length;
        // Where OpenClaw's part is too long, ours must differ.
        if (expected.some((part) => part.length > limit)) {
          over++;
          return;
        }
        assert.deepEqual(got, expected);
      }),
      { numRuns: numTexts, seed },
    );
    assert.ok(parts > numTexts, `only ${parts} parts: the generator has gone wrong`);
    assert.ok(over < numTexts / 20, `${over} texts could not be compared`);
  });

test("what is no text, limit, config or list is refused by name", () => {
  const wrong = (call, message) => assert.throws(call, { code: "VALIDATION", message });
  wrong(() => core.chunkMarkdown(7, { limit: 1 }), /`text` must be a string/);
  wrong(() => core.chunkMarkdown("x", {}), /`limit`/);
  wrong(() => core.chunkMarkdown("x", { limit: 0 }), /`limit`/);
  wrong(() => core.chunkMarkdown("x", { limit: 1, unit: "bits" }), /`unit`/);
  wrong(() => new core.Allowlist("x"), /`entries`/);
  wrong(() => new core.Allowlist([1]), /`entries`/);
  wrong(() => new core.Allowlist([], { policy: "maybe" }), /`policy`/);
  wrong(() => new core.Allowlist([]).check({}), /`sender.id`/);
  wrong(() => new core.Router({}).resolve({}), /`input.channel`/);
});
