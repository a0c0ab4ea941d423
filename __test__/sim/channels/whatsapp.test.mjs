// The simulated Cloud API over HTTP, with a webhook that checks signatures with Node's own HMAC.
import assert from "node:assert/strict";
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { startSimulator, within } from "./simulator.mjs";

const phone = "100000000000001";
let sim;
let server;
const values = [];
const waiting = [];
let status = 200;
before(async () => {
  sim = await startSimulator("whatsapp", {
    templates: [{ name: "order", language: "en", parameters: 1 }],
  });
  server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    if (request.method === "GET") {
      const right = url.searchParams.get("hub.verify_token") === "sim-verify";
      return response.writeHead(right ? 200 : 403).end(right ? url.searchParams.get("hub.challenge") : "");
    }
    const body = Buffer.concat(await request.toArray());
    const expected = `sha256=${createHmac("sha256", "sim-secret").update(body).digest("hex")}`;
    const given = request.headers["x-hub-signature-256"] ?? "";
    if (given.length !== expected.length || !timingSafeEqual(Buffer.from(given), Buffer.from(expected)))
      return response.writeHead(403).end();
    response.writeHead(status).end();
    if (status !== 200) return;
    values.push(JSON.parse(body).entry[0].changes[0].value);
    for (const check of waiting) check();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  await sim.do("subscribe", { url: `http://127.0.0.1:${server.address().port}/hook?x=1` });
  await sim.seen(({ what, status }) => what === "called" && status === 200);
});
after(async () => {
  server.close();
  await sim.close();
});

const notified = (matches) =>
  within(
    new Promise((resolve) => {
      const check = () => {
        const found = values.find(matches);
        if (found) resolve(found);
      };
      waiting.push(check);
      check();
    }),
  );
async function graph(path, init = {}) {
  const response = await fetch(`${sim.url}/v23.0/${path}`, {
    ...init,
    headers: { authorization: "Bearer sim-token", ...init.headers },
  });
  return { status: response.status, body: await response.json() };
}
const send = (message) =>
  graph(`${phone}/messages`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messaging_product: "whatsapp", ...message }),
  });

test("the webhook was verified with the right token, and refused the wrong one", async () => {
  const state = await sim.state();
  assert.deepEqual(state.verifications.map(({ expected, answered }) => [expected, answered]).sort(), [
    [false, false],
    [true, true],
  ]);
});

test("a message comes signed, is answered, and its fate is told", async () => {
  const { id } = await sim.do("message", { from: "15552222222", name: "Ann", text: "hi" });
  const value = await notified(({ messages }) => messages?.[0].id === id);
  assert.equal(value.contacts[0].profile.name, "Ann");
  const { body } = await send({
    to: "+1 555 222 2222",
    text: { body: "hello" },
    context: { message_id: id },
  });
  const sent = body.messages[0].id;
  await notified(({ statuses }) => statuses?.[0].id === sent && statuses[0].status === "delivered");
  assert.deepEqual((await send({ status: "read", message_id: id })).body, { success: true });
});

test("what is not answered with 200 comes again; what is forged is not taken", async () => {
  status = 500;
  const { id } = await sim.do("message", { from: "15552222222", text: "again" });
  const from = (await sim.log()).length;
  await sim.seen(({ what, status }) => what === "called" && status === 500);
  status = 200;
  await sim.advance(1000);
  await notified(({ messages }) => messages?.[0].id === id);
  await sim.do("forge", { text: "evil" });
  await sim.seen(({ what, status }) => what === "called" && status === 403, { after: from });
  assert.equal(
    values.some(({ messages }) => messages?.[0].text?.body === "evil"),
    false,
  );
  assert.deepEqual(await sim.violations(), []);
});

test("media goes up by multipart and comes down by a URL that needs the token", async () => {
  const form = new FormData();
  form.set("messaging_product", "whatsapp");
  form.set("type", "text/plain");
  form.set("file", new Blob(["contents"], { type: "text/plain" }), "a.txt");
  const { body: uploaded } = await graph(`${phone}/media`, { method: "POST", body: form });
  const { body: info } = await graph(uploaded.id);
  assert.equal(info.sha256, createHash("sha256").update("contents").digest("hex"));
  const authorized = await fetch(info.url, { headers: { authorization: "Bearer sim-token" } });
  assert.equal(await authorized.text(), "contents");
  assert.equal((await fetch(info.url)).status, 401);
  const { status: refused } = await graph(uploaded.id, { method: "DELETE" });
  assert.equal(refused, 200);
});

test("outside the window only templates go out", async () => {
  await sim.advance(86_400_000);
  const { body } = await send({ to: "15552222222", text: { body: "too late" } });
  const id = body.messages[0].id;
  const failed = await notified(({ statuses }) => statuses?.[0].id === id && statuses[0].status === "failed");
  assert.equal(failed.statuses[0].errors[0].code, 131047);
  const template = (parameters) =>
    send({
      to: "15552222222",
      type: "template",
      template: { name: "order", language: { code: "en" }, components: [{ type: "body", parameters }] },
    });
  assert.equal((await template([])).body.error.code, 132000);
  assert.equal((await template([{ type: "text", text: "7" }])).status, 200);
});

test("every rule names its source", async () => {
  for (const { id, source } of await sim.rules()) {
    assert.match(id, /^whatsapp\./);
    assert.match(source, /^https:\/\/developers\.facebook\.com\/docs\//);
  }
});
