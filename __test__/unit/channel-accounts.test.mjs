// Accounts and targets of the plugin's channels, as OpenClaw's config writes them.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { fullId, nativeId } from "../../dist/adapters/channel-lane.js";
import { PLATFORMS } from "../../dist/adapters/channel-table.js";
import { accountOf, listAccounts, nativeOptions } from "../../dist/adapters/channels.js";

const addon = createRequire(import.meta.url)("../../index.js");
const platform = (id) => PLATFORMS.find((one) => one.id === id);
const telegram = platform("core-telegram");
const config = (section, id = "core-telegram") => ({ channels: { [id]: section } });

test("the section is the account `default`, and the default of the others", () => {
  const cfg = config({
    ...{ botToken: "1:a", dmPolicy: "open", mediaMaxMb: 5 },
    accounts: { Work: { botToken: "2:b", dmPolicy: "allowlist" }, off: { enabled: false } },
  });
  assert.deepEqual(listAccounts(cfg, telegram), ["default", "work", "off"]);
  const work = accountOf(cfg, telegram, "WORK");
  assert.deepEqual(
    [work.accountId, work.enabled, work.configured, work.config.dmPolicy, work.config.mediaMaxMb],
    ["work", true, true, "allowlist", 5],
  );
  assert.equal(work.config.accounts, undefined);
  assert.equal(accountOf(cfg, telegram, "off").enabled, false);
  assert.equal(accountOf(cfg, telegram, "nobody").config.botToken, "1:a");
});

test("only what is configured is an account", () => {
  assert.deepEqual(listAccounts(config({ accounts: { a: { botToken: "1:a" } } }), telegram), ["a"]);
  assert.deepEqual(listAccounts({}, telegram), ["default"]);
  assert.equal(accountOf({}, telegram).configured, false);
  assert.equal(accountOf(config({ botToken: " " }), telegram).configured, false);
  const reference = { source: "env", provider: "default", id: "TOKEN" };
  assert.equal(accountOf(config({ botToken: reference }), telegram).configured, true);
  // The section's switch is for all.
  const off = config({ enabled: false, accounts: { a: { enabled: true, botToken: "1:a" } } });
  assert.equal(accountOf(off, telegram, "a").enabled, false);
});

test("secrets become ApiKeys, and parts of an option come together", () => {
  const section = {
    ...{ accessToken: "EAA", verifyToken: "word", appSecret: " s3cret\n", phoneNumberId: "10" },
    ...{ webhookPort: 8443, webhookPath: "/hook" },
  };
  const whatsapp = platform("core-whatsapp");
  const options = nativeOptions(addon, whatsapp, accountOf(config(section, whatsapp.id), whatsapp));
  assert.ok(options.token instanceof addon.ApiKey && options.token.equals("EAA"));
  assert.ok(options.webhook.secret.equals("s3cret"));
  assert.deepEqual([options.webhook.port, options.webhook.path], [8443, "/hook"]);
  assert.equal(JSON.stringify(options).includes("s3cret"), false);
});

test("a reference that OpenClaw did not resolve is named, and not used", () => {
  const botToken = { source: "env", provider: "default", id: "TOKEN" };
  const account = accountOf(config({ botToken }), telegram);
  assert.throws(() => nativeOptions(addon, telegram, account), /channels\.core-telegram\.botToken/);
});

test("targets lose the channel's name, and nothing else", () => {
  const cases = {
    "core-telegram": { "telegram:42": "42", "core-telegram:group:-100": "-100", "tg:@name": "@name" },
    "core-discord": { "discord:user:42": "42", "core-discord:channel:7": "7", 42: "42" },
    "core-slack": { "slack:user:U1": "U1", "core-slack:channel:C1": "C1" },
    "core-signal": { "signal:group:abc=": "group:abc=", "core-signal:+1555": "+1555", "uuid:a": "uuid:a" },
    "core-matrix": { "matrix:!r:example.org": "!r:example.org", "core-matrix:room:!r:s": "!r:s" },
    "core-whatsapp": { "whatsapp:+1555": "1555", "+1555": "1555" },
  };
  assert.deepEqual(
    Object.keys(cases),
    PLATFORMS.map(({ id }) => id),
  );
  for (const [id, targets] of Object.entries(cases))
    for (const [raw, target] of Object.entries(targets)) assert.equal(platform(id).target(raw), target, raw);
});

test("a message's full id is its own among all chats, and gives the platform's back", () => {
  const message = (more) => ({ id: "x", kind: "message", messageId: "5", chat: { id: "7" }, ...more });
  const ids = [
    message(),
    message({ chat: { id: "8" } }),
    message({ kind: "callback", id: "c:1" }),
    message({ kind: "callback", id: "c:2" }),
    message({ kind: "command", id: "s:1", messageId: "" }),
  ].map(fullId);
  assert.equal(new Set(ids).size, ids.length);
  assert.deepEqual(ids.map(nativeId), ["5", "5", "5", "5", ""]);
  assert.equal(nativeId("1700000000.000100"), "1700000000.000100");
});
