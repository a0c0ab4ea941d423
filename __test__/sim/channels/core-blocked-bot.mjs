// A bot in a process of its own, which blocks its own thread after the first message, until it is told to go on; then it
// takes the rest. Says what it does in lines of JSON, written at once.
import { readSync, writeSync } from "node:fs";
import core from "../../../index.js";

const { adapter, options, store: path, last } = JSON.parse(process.argv[2]);
const say = (what, more = {}) => writeSync(1, `${JSON.stringify({ what, ...more })}\n`);

const store = await core.EventStore.open(path);
const channel = new core[adapter]({ ...options, store });
const messages = channel.messages();
const { value: first } = await messages.next();
await first.ack();
// The loop waits for the next message when the thread stops, as loops do.
const next = messages.next();
say("blocked");
// Nothing else of JavaScript runs until there is something to read.
readSync(0, Buffer.alloc(1));
const { state, waiting } = channel.status();
say("awake", { state, waiting, bytes: core.memoryUsage().owners.channels });
for (let { value } = await next; ; { value } = await messages.next()) {
  say("message", { text: value.text, redelivered: value.redelivered });
  await value.ack();
  if (value.text === last) break;
}
await messages.return();
await channel.close();
await store.close();
say("closed");
