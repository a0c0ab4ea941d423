// The plugin's channels in one stock gateway, all of them beside each other, with a simulated platform on one side of each
// and the model server on the other: who is answered and who is not, what the platforms see, and what a crash leaves. The
// config is that of docs/channels/openclaw.md.
import assert from "node:assert/strict";
import { chmodSync, cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { PLATFORMS } from "../../dist/adapters/channel-table.js";
import { startSimulator } from "../sim/channels/simulator.mjs";
import { startModelApis } from "../sim/models/server.mjs";
import { CASES } from "./channel-cases.mjs";
import { createHome, until } from "./fixture.mjs";
import { connectGateway } from "./gateway-client.mjs";
import { installPlugin } from "./installed-plugin.mjs";
import { modelProvider, transcript, turnConfig } from "./model-turn.mjs";
import { png } from "./picture.mjs";

const addon = createRequire(import.meta.url)("../../index.js");
const { EventStore, TelegramChannel, parseJson5 } = addon;
const file = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

/** What takes longer on a busy machine does not come any more. */
const HANGS_MS = 300_000;
/** In the answers of every model. */
const ANSWER = "世界";
const PICTURE = png(2, 2).toString("base64");
const IDS = Object.keys(CASES);
/** As many answers are slow enough to be interrupted; those after them are not. */
const SLOW = {
  ...{ tokens: 6000, perSecond: 60 },
  fail: { key: "interrupted", times: IDS.length, model: "long" },
};
const GROUPS = IDS.filter((id) => CASES[id].group !== undefined);

test("the manifest names the channels of the table, and their fields; each has its case here", () => {
  const manifest = JSON.parse(file("openclaw.plugin.json"));
  const ids = PLATFORMS.map(({ id }) => id);
  assert.deepEqual(manifest.channels, ids);
  assert.deepEqual(Object.keys(manifest.channelConfigs), ids);
  assert.deepEqual(IDS.toSorted(), ids.toSorted());
  for (const { id, className, secrets, options, required } of PLATFORMS) {
    assert.equal(typeof addon[className], "function", className);
    const { schema, uiHints } = manifest.channelConfigs[id];
    const own = Object.keys({ ...secrets, ...options });
    for (const properties of [schema.properties, schema.properties.accounts.additionalProperties.properties])
      assert.deepEqual(
        own.filter((field) => !(field in properties)),
        [],
      );
    assert.deepEqual(
      required.filter((field) => !own.includes(field)),
      [],
    );
    for (const field of Object.keys(secrets)) {
      assert.equal(uiHints[field].sensitive, true, field);
      assert.equal(uiHints[`accounts.*.${field}`].sensitive, true, field);
    }
    for (const field of Object.keys(uiHints))
      assert.ok(field.replace("accounts.*.", "") in schema.properties, `${id} ${field}`);
  }
});

/** The configs that docs/channels/openclaw.md gives to copy, by channel. */
function documentedChannels() {
  const blocks = [...file("docs/channels/openclaw.md").matchAll(/^```json5\n([\s\S]*?)^```/gm)];
  return Object.assign({}, ...blocks.map(([, text]) => parseJson5(text).channels ?? {}));
}

describe("the channels in one stock gateway", () => {
  const sims = {};
  const configs = {};
  const env = Object.assign({}, ...IDS.map((id) => CASES[id].env));
  /** Further accounts of Telegram, each a bot of its own. */
  const second = `${env.CORE_TELEGRAM_TOKEN}-second`;
  const third = `${env.CORE_TELEGRAM_TOKEN}-third`;
  const secrets = [...Object.values(env), second, third];
  let models;
  let home;
  let gateway;
  let client;

  before(async () => {
    models = await startModelApis();
    home = await createHome();
    await installPlugin(home);
    const documented = documentedChannels();
    // Under names that OpenClaw's own channels look for, it would start these, too.
    for (const name of Object.keys(env)) assert.match(name, /^CORE_/);
    assert.deepEqual(Object.keys(documented).toSorted(), IDS.toSorted());
    await writeConfig(documented);
    await openclaw("config", "validate");
    for (const id of IDS) {
      const { options, config, people, group, prepare } = CASES[id];
      sims[id] = await startSimulator(id.replace("core-", ""), options);
      await prepare?.(sims[id], people);
      configs[id] = {
        ...documented[id],
        ...(await config(sims[id], people)),
        allowFrom: [people[0], people[2]],
        ...(group !== undefined && { groups: { [group]: { requireMention: true } } }),
      };
    }
    sims.second = await startSimulator("telegram", { token: second });
    sims.third = await startSimulator("telegram", { token: third });
    sims.wrong = await startSimulator("telegram", { token: "1:another" });
    configs["core-telegram"].accounts = {
      second: {
        ...{ apiRoot: sims.second.url, dmPolicy: "allowlist" },
        botToken: { source: "file", provider: "tokens", id: "/telegram/second" },
      },
      third: {
        apiRoot: sims.third.url,
        botToken: { source: "exec", provider: "keeper", id: "telegram/third" },
      },
      wrong: { apiRoot: sims.wrong.url, botToken: `${env.CORE_TELEGRAM_TOKEN}-wrong` },
      // What stands outside. It is one without this line, too, but OpenClaw's doctor asks for it.
      default: {},
    };
    writeFileSync(picture(), Buffer.from(PICTURE, "base64"));
    await writeConfig();
    await start();
  });
  after(async () => {
    await stop();
    await home?.remove();
    await models?.close();
    for (const sim of Object.values(sims)) await sim.close();
  });

  const picture = () => join(home.workspace, "dot.png");
  const writeConfig = async (channels = configs) => {
    const tokens = await home.write("tokens.json", { telegram: { second } });
    const keeper = await home.write(
      "keeper.sh",
      `#!/bin/sh\ncat >/dev/null\necho '${JSON.stringify({ protocolVersion: 1, values: { "telegram/third": third } })}'\n`,
    );
    chmodSync(keeper, 0o700);
    const config = turnConfig(home, {
      primary: "loopback/text",
      providers: {
        loopback: modelProvider(models, "openai-completions", {}, ["text"]),
        slow: modelProvider(models, "openai-completions", SLOW, ["text"]),
      },
      plugins: { entries: { core: { enabled: true } } },
    });
    // The third person of each platform speaks to another agent.
    config.agents.entries = { main: { default: true }, slow: { model: "slow/text" } };
    config.bindings = IDS.map((channel) => ({
      agentId: "slow",
      match: { channel, peer: { kind: "direct", id: CASES[channel].people[2] } },
    }));
    config.session = { dmScope: "per-channel-peer" };
    config.secrets = {
      providers: {
        tokens: { source: "file", path: tokens, mode: "json" },
        keeper: { source: "exec", command: keeper, args: [] },
      },
    };
    config.channels = channels;
    await home.write("openclaw.json", config);
  };
  const start = async () => {
    gateway = await home.startGateway({ env });
    client = await connectGateway(gateway, home.token);
    for (const id of IDS) await CASES[id].ready?.(sims[id], configs[id]);
  };
  const stop = async () => {
    client?.close();
    await gateway?.stop();
    gateway = undefined;
  };
  const kill = async () => {
    process.kill(-gateway.pid, "SIGKILL");
    await stop();
  };

  /** What the bot said to somebody, or in a group, after the first `from`. */
  const said = async (id, to, from = 0) => CASES[id].said(await sims[id].state(), to).slice(from);
  const isAnswer = ({ text }) => text.includes(ANSWER);
  const hears = (id, to, from = 0, passes = isAnswer) =>
    until(async () => (await said(id, to, from)).find(passes), {
      timeoutMs: HANGS_MS,
      everyMs: 100,
      timeoutMessage: () => `${to} heard nothing\n${gateway?.log().split("\n").slice(-60).join("\n")}`,
    });
  const asked = (words) => models.requests.filter(({ body }) => JSON.stringify(body ?? "").includes(words));
  const openclaw = async (...args) => {
    const run = await home.openclaw(args, { env });
    assert.equal(run.code, 0, `${run.stdout}\n${run.stderr}`);
    for (const secret of secrets) assert.ok(!`${run.stdout}${run.stderr}`.includes(secret), args.join(" "));
    return run.stdout;
  };
  const turnsWith = (words, agent) =>
    transcript(home, agent).filter(
      ({ role, content }) => role === "user" && JSON.stringify(content).includes(words),
    );
  /** A test for each of these channels, all at once. */
  const each = (name, ids, run) =>
    describe(name, { concurrency: true }, () => {
      for (const id of ids) test(id, () => run(id, CASES[id], sims[id]));
    });

  test("`openclaw channels status` shows all accounts healthy, but the one whose token is wrong", async () => {
    let shown;
    const find = (id, account) => shown.channelAccounts[id]?.find(({ accountId }) => accountId === account);
    const healthy = [
      ...IDS.map((id) => [id, "default"]),
      ["core-telegram", "second"],
      ["core-telegram", "third"],
    ];
    await until(
      async () => {
        shown = JSON.parse(await openclaw("channels", "status", "--json"));
        return (
          healthy.every(([id, account]) => find(id, account)?.connected === true) &&
          find("core-telegram", "wrong")?.lifecycle === "blocked"
        );
      },
      {
        timeoutMs: HANGS_MS,
        everyMs: 500,
        timeoutMessage: () => `${JSON.stringify(shown?.channelAccounts, null, 1)}\n${gateway.log()}`,
      },
    );
    for (const [id, account] of healthy) {
      const one = find(id, account);
      assert.deepEqual(
        [one.running, one.lifecycle, one.lastError ?? null, one.configured, one.mode],
        [true, "ready", null, true, "native"],
        `${id} ${account}`,
      );
    }
    const wrong = find("core-telegram", "wrong");
    assert.equal(wrong.running, false);
    assert.match(wrong.lastError, /Unauthorized/);
    // What native code warns of is in OpenClaw's own log.
    assert.match(gateway.log(), /channel: the channel gives up, channel: telegram:wrong, .*Unauthorized/);
    assert.deepEqual(
      (shown.statusIssues ?? []).filter(
        ({ channel, accountId }) => channel in CASES && accountId !== "wrong",
      ),
      [],
    );
  });

  each(
    "a message is answered by the agent, and a stranger gets a code and no turn",
    IDS,
    async (id, one, sim) => {
      const [owner, stranger] = one.people;
      await one.write(sim, stranger, `a stranger on ${id}`);
      await one.write(sim, owner, `the owner on ${id}`);
      await hears(id, owner);
      assert.equal((await said(id, owner)).length, 1);
      assert.equal(asked(`the owner on ${id}`).length, 1);
      const code = await hears(id, stranger, 0, ({ text }) =>
        text.includes(`openclaw pairing approve ${id}`),
      );
      assert.ok(code.text.includes(stranger), code.text);
      assert.deepEqual(asked(`a stranger on ${id}`), []);
      assert.deepEqual((await said(id, stranger)).length, 1);
    },
  );

  test("whom the owner approves by the code is answered", async () => {
    const id = "core-telegram";
    const stranger = CASES[id].people[1];
    const { requests } = JSON.parse(await openclaw("pairing", "list", id, "--json"));
    const pending = requests.find((request) => request.id === stranger);
    const [told] = await said(id, stranger);
    assert.ok(told.text.includes(pending.code));
    await openclaw("pairing", "approve", id, pending.code);
    await CASES[id].write(sims[id], stranger, "a stranger no more");
    await hears(id, stranger);
    assert.equal(asked("a stranger no more").length, 1);
  });

  test("who may write is edited while the channels run, and none of them starts again for it", async () => {
    const id = "core-telegram";
    const late = "4711";
    const starts = async () => {
      const { channelAccounts } = JSON.parse(await openclaw("channels", "status", "--json"));
      return IDS.map(
        (one) => channelAccounts[one].find(({ accountId }) => accountId === "default").lastStartAt,
      );
    };
    const before = await starts();
    const config = JSON.parse(readFileSync(home.configPath, "utf8"));
    config.channels[id].allowFrom.push(late);
    config.messages = { ...config.messages, ackReactionScope: "all" };
    await home.write("openclaw.json", config);
    // Until OpenClaw has read it, they are a stranger.
    await until(
      async () => {
        await CASES[id].write(sims[id], late, "let in while it runs");
        return (await said(id, late)).some(isAnswer);
      },
      { timeoutMs: HANGS_MS, everyMs: 1000, timeoutMessage: () => gateway.log() },
    );
    assert.match(
      gateway.log(),
      /evaluating reload \([^)]*core-telegram\.allowFrom, messages\.ackReactionScope\)/,
    );
    assert.deepEqual(await starts(), before);
  });

  each("in a group, who mentions the bot is answered, and nobody else", GROUPS, async (id, one, sim) => {
    const [owner, stranger] = one.people;
    await one.post(sim, owner, `not for the bot on ${id}`);
    await one.post(sim, stranger, `a stranger in the group on ${id}`, { mention: true });
    await one.post(sim, owner, `for the bot on ${id}`, { mention: true });
    // One after the other: what came before was decided before this was answered.
    await hears(id, one.group);
    assert.equal((await said(id, one.group)).length, 1);
    assert.equal(asked(`for the bot on ${id}`).length, 1);
    assert.deepEqual(asked(`a stranger in the group on ${id}`), []);
  });

  each(
    "what is asked in a thread is answered there, in a session of its own",
    GROUPS.filter((id) => CASES[id].thread),
    async (id, one, sim) => {
      const from = (await said(id, one.group)).length;
      const thread = await one.thread(sim);
      await one.post(sim, one.people[0], `in the thread on ${id}`, { mention: true, thread });
      const answer = await hears(id, one.group, from);
      assert.equal(String(answer.thread), String(thread));
      const [request] = asked(`in the thread on ${id}`);
      assert.ok(!JSON.stringify(request.body).includes(`for the bot on ${id}`), "the session is the group's");
    },
  );

  each(
    "of a burst, each message has a turn and an answer, and nothing else is said",
    IDS,
    async (id, one, sim) => {
      const owner = one.people[0];
      const from = (await said(id, owner)).length;
      const words = [1, 2, 3].map((number) => `burst ${number} on ${id}`);
      for (const text of words) await one.write(sim, owner, text);
      await until(async () => (await said(id, owner, from)).length >= words.length, {
        timeoutMs: HANGS_MS,
        timeoutMessage: () => `${id} said too little\n${gateway.log()}`,
      });
      const heard = await said(id, owner, from);
      assert.deepEqual([heard.length, heard.every(isAnswer)], [words.length, true], JSON.stringify(heard));
      for (const text of words) assert.equal(turnsWith(text).length, 1, text);
    },
  );

  test("core-discord: a slash command is answered as one, and not as a message beside it", async () => {
    const [id, { group, people }] = ["core-discord", CASES["core-discord"]];
    const from = (await said(id, group)).length;
    await sims[id].do("command", {
      ...{ channel: group, from: people[0], name: "ask" },
      options: [{ type: 3, name: "question", value: "by a slash command" }],
    });
    await hears(id, group, from);
    assert.equal(asked("/ask by a slash command").length, 1);
    const requests = (await sims[id].log()).filter(({ request }) => request?.path.includes("/webhooks/"));
    assert.equal(requests.length, 1, JSON.stringify(requests));
  });

  each("a picture comes to the model, and a file goes out", IDS, async (id, one, sim) => {
    const [owner] = one.people;
    const from = (await said(id, owner)).length;
    await one.write(sim, owner, `what is in the picture on ${id}?`, { picture: PICTURE });
    await hears(id, owner, from);
    const [request] = asked(`what is in the picture on ${id}?`);
    assert.ok(JSON.stringify(request.body).includes(PICTURE), "the model got no picture");
    await client.request("send", {
      ...{ channel: id, agentId: "main", to: owner, message: "look at this", mediaUrl: picture() },
      idempotencyKey: `picture-${id}`,
    });
    const sent = (await said(id, owner, from + 1)).find((message) => message.file);
    assert.equal(sent?.file, "dot.png");
  });

  each("the operator sends, reacts and edits through the gateway", IDS, async (id, one, sim) => {
    const [owner] = one.people;
    const from = (await said(id, owner)).length;
    const sent = await client.request("send", {
      ...{
        channel: id,
        agentId: "main",
        to: owner,
        message: "**sent** by the operator",
        idempotencyKey: `operator-${id}`,
      },
    });
    assert.equal(sent.channel, id);
    const [message] = await said(id, owner, from);
    assert.match(message.text, /sent.* by the operator/);
    const action = (name, params) =>
      client.request("message.action", {
        ...{ channel: id, agentId: "main", action: name, idempotencyKey: `${name}-${id}` },
        // As `openclaw message` says it. An agent may do this in the conversation that it answers.
        conversationReadOrigin: "direct-operator",
        params: { to: owner, messageId: sent.messageId, ...params },
      });
    if (PLATFORMS.find((platform) => platform.id === id).edits) {
      await action("edit", { message: "changed by the operator" });
      assert.ok(JSON.stringify(await sim.state()).includes("changed by the operator"));
    } else await assert.rejects(action("edit", { message: "changed" }), /edit/);
    await action("react", { emoji: "👍" });
    assert.match(JSON.stringify(await sim.state()), /👍|\+1|thumbsup/);
  });

  test("accounts answer by their own bots, whatever their secrets come from", async () => {
    const write = (sim, from, text) => sim.do("message", { from, text });
    const bots = async (sim, to) => CASES["core-telegram"].said(await sim.state(), to);
    // The second account's policy: a stranger hears nothing.
    await write(sims.second, 99, "a stranger to the second");
    for (const name of ["second", "third"]) {
      await write(sims[name], 71, `the owner to the ${name}`);
      await until(async () => (await bots(sims[name], 71)).find(isAnswer), {
        timeoutMs: HANGS_MS,
        timeoutMessage: () => `no answer by the ${name}\n${gateway.log()}`,
      });
      assert.equal(asked(`the owner to the ${name}`).length, 1);
    }
    assert.deepEqual(await bots(sims.second, 99), []);
    assert.deepEqual(asked("a stranger to the second"), []);
  });

  test("OpenClaw's lists and its doctor know the channels, and have nothing to say against them", async () => {
    const list = JSON.parse(await openclaw("channels", "list", "--json"));
    for (const id of IDS) assert.ok(JSON.stringify(list).includes(id), id);
    const doctor = await openclaw("doctor", "--non-interactive");
    const complaints = doctor
      .split("\n")
      .filter((line) => IDS.some((id) => line.includes(id)) && !line.includes("wrong"));
    assert.deepEqual(complaints, []);
  });

  test("SIGKILL in the middle of turns, and of an answer: no second turn, no second answer, none lost", async () => {
    // The platform takes an answer, and never says so.
    const telegram = "core-telegram";
    const [owner] = CASES[telegram].people;
    const heard = (await said(telegram, owner)).length;
    const from = (await sims[telegram].log()).length;
    await sims[telegram].fault({ at: "answer", match: "sendMessage", do: "stall", ms: 3_600_000 });
    await CASES[telegram].write(sims[telegram], owner, "an answer that is lost");
    await sims[telegram].seen(({ what }) => what === "fault", { after: from });
    assert.equal((await said(telegram, owner, heard)).length, 1);

    const interrupted = (id) => `the interrupted question on ${id}`;
    await Promise.all(IDS.map((id) => CASES[id].write(sims[id], CASES[id].people[2], interrupted(id))));
    await until(() => IDS.every((id) => asked(interrupted(id)).some(({ sentBytes }) => sentBytes > 0)), {
      timeoutMs: HANGS_MS,
      everyMs: 5,
      timeoutMessage: () =>
        `no turn began: ${IDS.filter((id) => !asked(interrupted(id)).length)}\n${gateway.log()}`,
    });
    await kill();
    for (const id of IDS) assert.deepEqual(await said(id, CASES[id].people[2]), [], id);
    await sims[telegram].clearFaults();
    await start();
    await Promise.all(
      IDS.map(async (id) => {
        const friend = CASES[id].people[2];
        // OpenClaw's notice that it goes on is no answer.
        await hears(id, friend);
        // A message that comes after is answered after: were there a second turn, it would have begun before that.
        await CASES[id].write(sims[id], friend, `the next question on ${id}`);
        await until(async () => (await said(id, friend)).filter(isAnswer).length > 1, {
          timeoutMs: HANGS_MS,
          timeoutMessage: () => `no answer to the next question on ${id}\n${gateway.log()}`,
        });
        assert.equal((await said(id, friend)).filter(isAnswer).length, 2, id);
        assert.equal(turnsWith(interrupted(id), "slow").length, 1, id);
      }),
    );
    await CASES[telegram].write(sims[telegram], owner, "after the lost answer");
    await until(() => asked("after the lost answer").length > 0, {
      timeoutMs: HANGS_MS,
      timeoutMessage: () => gateway.log(),
    });
    await until(async () => (await said(telegram, owner, heard)).filter(isAnswer).length > 1, {
      timeoutMs: HANGS_MS,
      timeoutMessage: () => `no answer after the lost one\n${gateway.log()}`,
    });
    assert.equal((await said(telegram, owner, heard)).filter(isAnswer).length, 2);
    assert.equal(turnsWith("an answer that is lost").length, 1);
  });

  test("SIGKILL while messages wait for their turn, as it begins, and before an answer is out: each has one, once", async () => {
    const words = (id, number) => `waiting question ${number} on ${id}`;
    const [numbers, person] = [[1, 2, 3], (id) => CASES[id].people[0]];
    const before = new Map();
    for (const id of IDS) before.set(id, (await said(id, person(id))).length);
    const answers = async (id) => (await said(id, person(id), before.get(id))).filter(isAnswer).length;
    await Promise.all(
      IDS.map(async (id) => {
        for (const number of numbers) await CASES[id].write(sims[id], person(id), words(id, number));
      }),
    );
    // With an answer to the first, the second begins.
    await until(async () => (await Promise.all(IDS.map(answers))).some((count) => count > 0), {
      timeoutMs: HANGS_MS,
      everyMs: 5,
      timeoutMessage: () => `no answer\n${gateway.log()}`,
    });
    await kill();
    await start();
    const turns = (id) => numbers.map((number) => turnsWith(words(id, number)).length);
    for (const id of IDS) {
      // What the platform may have taken, and never said so, goes out at most once; then the log says that.
      const wanted = () =>
        gateway.log().includes(`${id}: nobody knows whether`) ? numbers.length - 1 : numbers.length;
      await until(async () => !turns(id).includes(0) && (await answers(id)) >= wanted(), {
        timeoutMs: HANGS_MS + 120_000,
        timeoutMessage: () => `${id} has turns ${turns(id)}\n${gateway.log()}`,
      });
      assert.deepEqual(turns(id), [1, 1, 1], id);
    }
    for (const id of IDS) assert.ok((await answers(id)) <= numbers.length, `${id} heard an answer twice`);
  });

  test("what was delivered twice has one turn, whether OpenClaw had begun it or not", async () => {
    await stop();
    const id = "core-telegram";
    const [owner] = CASES[id].people;
    const heard = (await said(id, owner)).length;
    // A process that takes a message from the inbox and ends before it says that it is done.
    await CASES[id].write(sims[id], owner, "delivered twice");
    const folder = join(home.stateDir, "core", "channels");
    const store = await EventStore.open(folder);
    const channel = new TelegramChannel({ store, token: env.CORE_TELEGRAM_TOKEN, baseUrl: sims[id].url });
    const { value: message } = await channel.messages().next();
    assert.equal(message.text, "delivered twice");
    assert.equal(message.redelivered, false);
    await channel.close();
    await store.close();
    const marked = join(home.dir, "marked");
    cpSync(folder, marked, { recursive: true });
    // OpenClaw knows nothing of it: the turn begins.
    await start();
    await hears(id, owner, heard);
    await stop();
    // The section alone is an account beside the others, too.
    const config = JSON.parse(readFileSync(home.configPath, "utf8"));
    delete config.channels[id].accounts.default;
    await home.write("openclaw.json", config);
    // As if the process had ended between the turn and the acknowledgement.
    rmSync(folder, { recursive: true });
    cpSync(marked, folder, { recursive: true });
    await start();
    await CASES[id].write(sims[id], owner, "after the second delivery");
    await hears(id, owner, heard + 1);
    assert.equal(turnsWith("delivered twice").length, 1);
    assert.equal((await said(id, owner, heard)).length, 2);
  });

  test("back to OpenClaw's own channel, by the commands of the page", async () => {
    await stop();
    const id = "core-telegram";
    const [owner] = CASES[id].people;
    const section = file("docs/channels/openclaw.md").split("## Back to OpenClaw's own channel\n")[1];
    const [, block] = /^```sh\n([\s\S]*?)^```/m.exec(section);
    const commands = [...block.matchAll(/^openclaw config set (\S+) (?:'([^']+)'|(\S+))$/gm)];
    assert.equal(commands.length, block.trim().split("\n").length);
    for (const [, path, quoted, plain] of commands) await openclaw("config", "set", path, quoted ?? plain);
    // The simulator, and who is known there.
    await openclaw("config", "set", "channels.telegram.apiRoot", sims[id].url);
    await openclaw("config", "set", "channels.telegram.allowFrom", JSON.stringify([Number(owner)]));
    const heard = (await said(id, owner)).length;
    await start();
    await CASES[id].write(sims[id], owner, "back on the own channel");
    await hears(id, owner, heard);
    const status = JSON.parse(await openclaw("channels", "status", "--json"));
    assert.equal(status.channelAccounts.telegram.find(({ running }) => running)?.configured, true);
    const native = status.channelAccounts[id] ?? [];
    assert.deepEqual(
      native.filter(({ running }) => running),
      [],
    );
  });

  test("no rule of a platform was broken", async () => {
    for (const [name, sim] of Object.entries(sims)) {
      const found = await sim.violations();
      const rules = found
        .map(({ rule }) => rule)
        .filter((rule) => name !== "wrong" || rule !== "telegram.token");
      assert.deepEqual(rules, [], `${name}: ${JSON.stringify(found)}`);
    }
  });
});
