// The platforms of the plugin's channels, for the host tests: how each simulator is started, what stands in the channel's
// config, how people write there, and what the bot said to whom.
import { randomInt } from "node:crypto";
import { freePort } from "../free-port.mjs";
import { until } from "./fixture.mjs";

/** In every token: one process of a machine receives for one. */
const RUN = String(randomInt(1e9)).padStart(9, "0");

const pictureOf = (picture) => ({ name: "dot.png", mime: "image/png", base64: picture });
const NAME = "dot.png";

/**
 * For each channel:
 * - `options`: the simulator's. `env`: the secrets, under the names that docs/channels/openclaw.md gives them. `config`: what
 *   leads to the simulator, and what the docs leave to fill in
 * - `people`: the owner, a stranger, and one more whom the owner trusts
 * - `write(sim, from, text, { picture })`: to the bot alone
 * - `group`: its id for OpenClaw, or none. `post(sim, from, text, { mention, thread })` writes there, and gives what `thread`
 *   takes; `thread(sim)` begins one, where the platform has some
 * - `said(state, to)`: what the bot said to a person, or in the group: `{ text, thread, file }`, oldest first
 */
export const CASES = {
  "core-telegram": {
    options: { token: `${RUN}:sim-token`, privacy: false },
    env: { CORE_TELEGRAM_TOKEN: `${RUN}:sim-token` },
    config: (sim) => ({ apiRoot: sim.url, pollSeconds: 20 }),
    people: ["71", "99", "72"],
    group: "-1001",
    prepare: (sim) => sim.do("chat", { id: -1001, type: "supergroup", title: "Team" }),
    write: (sim, from, text, { picture } = {}) =>
      sim.do("message", {
        ...{ from: Number(from), text },
        ...(picture && { media: { kind: "document", ...pictureOf(picture) } }),
      }),
    post: (sim, from, text, { mention, thread } = {}) =>
      sim.do("message", {
        ...{ from: Number(from), chat: -1001, text: mention ? `@sim_bot ${text}` : text },
        ...(thread && { thread }),
      }),
    thread: async (sim) => (await sim.do("topic", { chat: -1001, name: "Talk" })).thread,
    said: ({ chats }, to) =>
      Object.values(chats[to]?.messages ?? {})
        .filter(({ from }) => from?.is_bot)
        .map(({ text, caption, message_thread_id: thread, photo, document }) => ({
          ...{ text: text ?? caption ?? "", thread },
          file: photo ? NAME : document?.file_name,
        })),
  },
  "core-discord": {
    options: { token: `discord-${RUN}` },
    env: { CORE_DISCORD_TOKEN: `discord-${RUN}` },
    config: (sim) => ({
      apiRoot: `${sim.url}/api/v10`,
      commands: [
        {
          ...{ name: "ask", description: "Ask the agent" },
          options: [{ type: 3, name: "question", description: "What?", required: true }],
        },
      ],
    }),
    people: ["800000000000000071", "800000000000000099", "800000000000000072"],
    group: "1100000000000000071",
    async prepare(sim) {
      await sim.do("guild", { id: "1200000000000000001", name: "Team" });
      await sim.do("channel", { id: "1100000000000000071", guild: "1200000000000000001", name: "team" });
    },
    write: (sim, from, text, { picture } = {}) =>
      sim.do("message", { from, text, ...(picture && { files: [pictureOf(picture)] }) }),
    post: (sim, from, text, { mention, thread } = {}) =>
      sim.do("message", {
        ...{ from, channel: thread ?? "1100000000000000071" },
        text: mention ? `<@900000000000000001> ${text}` : text,
      }),
    thread: async (sim) => {
      const id = "1100000000000000072";
      const [parent, guild] = ["1100000000000000071", "1200000000000000001"];
      return (await sim.do("channel", { id, parent, guild, name: "Talk" })).id;
    },
    said: ({ channels }, to) =>
      Object.entries(channels)
        .filter(
          ([id, { info }]) =>
            id === to || info.parent_id === to || info.recipients?.some((one) => one.id === to),
        )
        .flatMap(([, { messages }]) => messages.filter(({ author }) => author.bot))
        .toSorted((one, other) => (BigInt(one.id) < BigInt(other.id) ? -1 : 1))
        .map(({ content, channel_id: thread, attachments }) => ({
          ...{ text: content, thread },
          file: attachments?.[0]?.filename,
        })),
  },
  "core-slack": {
    options: { bot_token: `xoxb-${RUN}`, app_token: `xapp-${RUN}` },
    env: { CORE_SLACK_BOT_TOKEN: `xoxb-${RUN}`, CORE_SLACK_APP_TOKEN: `xapp-${RUN}` },
    config: (sim) => ({ apiRoot: `${sim.url}/api` }),
    people: ["U71", "U99", "U72"],
    group: "C71",
    prepare: (sim) => sim.do("channel", { id: "C71", name: "team" }),
    write: (sim, from, text, { picture } = {}) =>
      sim.do("message", { from, text, ...(picture && { files: [pictureOf(picture)] }) }),
    post: (sim, from, text, { mention, thread } = {}) =>
      sim.do("message", {
        ...{ from, channel: "C71", text: mention ? `<@U0BOT> ${text}` : text },
        ...(thread && { thread_ts: thread }),
      }),
    thread: async (sim) => (await sim.do("message", { from: "U71", channel: "C71", text: "a topic" })).ts,
    said: ({ channels, messages }, to) =>
      Object.entries(messages)
        .filter(([id]) => id === to || channels[id]?.user === to)
        .flatMap(([, list]) => Object.values(list).filter(({ bot_id }) => bot_id))
        .map(({ text, thread_ts: thread, files }) => ({ text, thread, file: files?.[0]?.name })),
  },
  "core-signal": {
    options: { account: `+1555${RUN}`, receive_mode: "on-connection" },
    env: {},
    config: (sim) => ({ account: `+1555${RUN}`, httpUrl: sim.url }),
    people: ["+15551111171", "+15551111199", "+15551111172"],
    group: "group:R1+/==",
    prepare: (sim) => sim.do("group", { id: "R1+/==", name: "Team" }),
    write: (sim, from, text, { picture } = {}) =>
      sim.do("message", { from, text, ...(picture && { files: [pictureOf(picture)] }) }),
    post: (sim, from, text, { mention } = {}) =>
      sim.do("message", {
        ...{ from, group: "R1+/==", text: mention ? `\uFFFC ${text}` : text },
        ...(mention && { mentions: [{ name: "Bot", number: `+1555${RUN}`, start: 0, length: 1 }] }),
      }),
    said: ({ sent }, to) =>
      sent
        .filter(({ groupId, recipient }) =>
          to.startsWith("group:") ? `group:${groupId}` === to : [recipient].flat().includes(to),
        )
        .map(({ message, attachments }) => ({
          ...{ text: message ?? "" },
          file: attachments?.length > 0 ? NAME : undefined,
        })),
  },
  "core-matrix": {
    options: { token: `syt-${RUN}` },
    env: { CORE_MATRIX_TOKEN: `syt-${RUN}` },
    config: (sim, people) => ({ homeserver: sim.url, autoJoinAllowlist: people }),
    people: ["@owner:sim", "@stranger:sim", "@friend:sim"],
    group: "!team:sim",
    async prepare(sim, people) {
      for (const by of people)
        await sim.do("room", {
          id: `!${by.slice(1, -4)}:sim`,
          by,
          direct: true,
          invite: true,
          members: [by],
        });
      await sim.do("room", { id: "!team:sim", by: people[0], name: "Team", invite: true, members: people });
    },
    /** The bot accepts the invitations. */
    ready: (sim) =>
      until(
        async () => Object.values((await sim.state()).rooms).every(({ membership }) => membership === "join"),
        {
          timeoutMs: 300_000,
          timeoutMessage: "the bot accepted no invitation",
        },
      ),
    write: (sim, from, text, { picture } = {}) =>
      sim.do("message", {
        ...{ from, room: `!${from.slice(1, -4)}:sim`, text },
        ...(picture && { file: pictureOf(picture) }),
      }),
    post: (sim, from, text, { mention, thread } = {}) =>
      sim.do("message", {
        ...{ from, room: "!team:sim", text },
        ...(mention && { mentions: ["@sim:sim"] }),
        ...(thread && { thread }),
      }),
    thread: async (sim) =>
      (await sim.do("message", { from: "@owner:sim", room: "!team:sim", text: "a topic" })).event_id,
    said: ({ rooms }, to) =>
      rooms[to.startsWith("!") ? to : `!${to.slice(1, -4)}:sim`].events
        .filter(({ type, sender }) => type === "m.room.message" && sender === "@sim:sim")
        .map(({ content }) => ({
          text: content.msgtype === "m.text" ? content.body : "",
          thread:
            content["m.relates_to"]?.rel_type === "m.thread" ? content["m.relates_to"].event_id : undefined,
          file: content.url === undefined ? undefined : (content.filename ?? content.body),
        })),
  },
  "core-whatsapp": {
    options: { token: `EAA${RUN}` },
    env: {
      ...{ CORE_WHATSAPP_ACCESS_TOKEN: `EAA${RUN}`, CORE_WHATSAPP_VERIFY_TOKEN: "sim-verify" },
      CORE_WHATSAPP_APP_SECRET: "sim-secret",
    },
    config: async (sim) => ({
      ...{ phoneNumberId: "100000000000001", apiRoot: sim.url, webhookPort: await freePort() },
    }),
    people: ["15551111171", "15551111199", "15551111172"],
    /** Meta asks for the challenge once the webhook is up. */
    ready: (sim, { webhookPort, webhookPath }) =>
      sim.do("subscribe", { url: `http://127.0.0.1:${webhookPort}${webhookPath}` }),
    write: (sim, from, text, { picture } = {}) =>
      sim.do("message", {
        from,
        ...(picture
          ? { file: { kind: "image", mime: "image/png", caption: text, base64: picture } }
          : { text }),
      }),
    said: ({ sent }, to) =>
      sent
        .filter(({ to: number, type }) => number === to && type !== "reaction")
        .map((one) => ({
          text: one.text?.body ?? one[one.type]?.caption ?? "",
          file: one.image || one.document ? NAME : undefined,
        })),
  },
};
