// The simulated signal-cli daemon over HTTP. There is no client package that could judge it: its parts are held against
// what signal-cli's manual pages say.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startSimulator } from "./simulator.mjs";

let sim;
before(async () => {
  sim = await startSimulator("signal", { keep_alive_ms: 200 });
});
after(() => sim.close());

async function rpc(method, params) {
  const response = await fetch(`${sim.url}/api/v1/rpc`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 7, method, params }),
  });
  assert.equal(response.status, 200);
  const answer = await response.json();
  assert.equal(answer.id, 7);
  return answer;
}

/** The events of a stream, as `{ event, data }`; comments as `{}`. */
async function* events(response) {
  let rest = "";
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    rest += chunk;
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      if (rest.startsWith(":")) {
        rest = rest.slice(end + 1);
        yield {};
        continue;
      }
      const whole = rest.indexOf("\n\n");
      if (whole < 0) break;
      const lines = rest.slice(0, whole).split("\n");
      rest = rest.slice(whole + 2);
      yield Object.fromEntries(
        lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)]),
      );
    }
  }
}

async function listen() {
  const response = await fetch(`${sim.url}/api/v1/events`);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const stream = events(response);
  return {
    next: async () => {
      for (;;) {
        const { value, done } = await stream.next();
        if (done) return undefined;
        if (value.event) return JSON.parse(value.data).envelope;
      }
    },
    comment: async () => {
      for (;;) if (!(await stream.next()).value.event) return;
    },
    close: () => stream.return(),
  };
}

test("the daemon answers its check, and methods that are wrong", async () => {
  assert.equal((await fetch(`${sim.url}/api/v1/check`)).status, 200);
  assert.equal((await fetch(`${sim.url}/api/v1/rpc`)).status, 405);
  assert.equal((await fetch(`${sim.url}/api/v1/rpc`, { method: "POST", body: "{}" })).status, 415);
});

test("messages, reactions and files come as events; the stream is kept alive", async () => {
  await sim.do("group", { id: "R3JvdXA=", name: "Group" });
  const stream = await listen();
  await stream.comment();
  const base64 = Buffer.from("inbound").toString("base64");
  const { timestamp } = await sim.do("message", {
    from: "+15552222222",
    text: "hello",
    group: "R3JvdXA=",
    files: [{ name: "a.txt", mime: "text/plain", base64 }],
  });
  const { dataMessage, ...envelope } = await stream.next();
  assert.equal(envelope.sourceNumber, "+15552222222");
  assert.equal(dataMessage.timestamp, timestamp);
  assert.equal(dataMessage.groupInfo.groupId, "R3JvdXA=");
  const { result } = await rpc("getAttachment", { id: dataMessage.attachments[0].id });
  assert.equal(result.data, base64);
  await sim.do("react", { from: "+15552222222", emoji: "👍", author: "+15550000000", target: timestamp });
  assert.equal((await stream.next()).dataMessage.reaction.emoji, "👍");
  await sim.do("end");
  assert.equal(await stream.next(), undefined);
});

test("a message goes to people and groups; what is wrong with it is said", async () => {
  const { result } = await rpc("send", { recipient: ["+15552222222"], message: "hi" });
  assert.equal(result.results[0].type, "SUCCESS");
  assert.equal((await sim.state()).sent.at(-1).timestamp, result.timestamp);
  assert.equal((await rpc("send", { recipient: ["nobody"], message: "hi" })).error.code, -1);
  assert.equal((await rpc("sendMessage", {})).error.code, -32601);
});

test("a stream that is cut by the script breaks", async () => {
  const stream = await listen();
  await sim.fault({ at: "out", match: "receive", do: "cut" });
  await sim.do("message", { text: "lost" });
  await assert.rejects(stream.next());
});

test("every rule names its source", async () => {
  for (const { id, source } of await sim.rules()) {
    assert.match(id, /^signal\./);
    assert.match(source, /^https:\/\/(github\.com\/AsamK\/signal-cli|www\.jsonrpc\.org)\//);
  }
});
