// A bot in a process of its own, which kills.mjs ends. Says what it does in lines of JSON, written at once.
import { writeSync } from "node:fs";
import core from "../../../index.js";

const { adapter, options, store: path } = JSON.parse(process.argv[2]);
const say = (what, more = {}) => writeSync(1, `${JSON.stringify({ what, ...more })}\n`);

const store = await core.EventStore.open(path);
const channel = new core[adapter]({ ...options, store });
say("open");
for await (const message of channel.messages()) {
  const { id, text, redelivered, chat } = message;
  say("delivered", { id, text, redelivered, chat: chat.id });
  const { state } = await channel.send({ to: chat.id, text: `re: ${text}`, idempotencyKey: `re:${id}` });
  say("sent", { id, text, state });
  await message.ack();
  say("acked", { id, text });
}
