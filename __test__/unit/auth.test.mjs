// Auth profiles against an identity provider that forbids what the RFCs forbid: `__test__/sim/idp`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, get, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, beforeEach, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import core from "../../index.js";
import { startIdp } from "../sim/idp/server.mjs";

const resolver = fileURLToPath(new URL("../sim/idp/resolver.mjs", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "openclaw-core-auth-"));
// Everything that the core has said, to no matter whom.
const said = [];
const stopLog = core.onLog("trace", (records) => said.push(JSON.stringify(records)));
after(() => {
  stopLog();
  rmSync(scratch, { recursive: true, force: true });
});

let folders = 0;
let idp;
let dir;
let keyFile;
let store;
let profiles;
const issued = [];
beforeEach(async () => {
  idp = await startIdp();
  dir = join(scratch, `store-${folders++}`);
  keyFile = join(scratch, `key-${folders}`);
  store = await core.CredentialStore.open(dir, { keyFile });
  profiles = await core.AuthProfiles.open(store);
});
afterEach(async () => {
  issued.push(...idp.secrets());
  await idp.close();
});

/** A profile whose token has expired, of a provider that is known. */
async function expired(id = "sim:default", expiresMs = Date.now() - 1000) {
  const { access, refresh } = idp.grant();
  await profiles.registerProvider(idp.provider());
  const secrets = { accessToken: access, refreshToken: refresh };
  await profiles.add({ id, provider: "sim", type: "oauth", expiresMs }, secrets);
  return { access, refresh };
}

/** An error of the core, which keeps secrets to itself. */
async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    said.push(`${error.stack} ${JSON.stringify(error)} ${error.cause?.stack}`);
    return error;
  }
  assert.fail("this should have failed");
}

const key = async (options) => (await profiles.resolve("sim", options)).key.expose();
const state = async () => JSON.parse((await store.get("auth.state")).expose());

/** A GET that follows no redirect. */
const visit = (url, headers) =>
  new Promise((resolve, reject) => {
    get(url, { headers }, (response) => {
      response.resume();
      response.on("end", () => resolve({ status: response.statusCode, location: response.headers.location }));
    }).on("error", reject);
  });

// ── signing in ────────────────────────────────────────────────────────────────────────────────────────────────────

test("a browser signs in with PKCE, and the profile is named and refreshed", async () => {
  idp.settings.lifetime = 0;
  const prompts = [];
  const profile = await profiles.login(idp.provider("SIM"), {
    onPrompt(prompt) {
      prompts.push(prompt);
      fetch(prompt.url);
    },
  });
  assert.equal(profile.id, "sim:user@example.com");
  assert.equal(profile.email, "user@example.com");
  assert.equal(prompts.length, 1);
  const { searchParams } = new URL(prompts[0].url);
  assert.equal(searchParams.get("code_challenge_method"), "S256");
  assert.match(searchParams.get("redirect_uri"), /^http:\/\/127\.0\.0\.1:\d+\/callback$/);
  assert.ok(idp.accepts(await key()));
  assert.deepEqual(idp.outcomes("authorization_code"), ["ok"]);
  assert.deepEqual(idp.outcomes(), ["ok"]);
});

test("a redirect with another state, host, path or method changes nothing", async () => {
  let prompted;
  const prompt = new Promise((resolve) => (prompted = resolve));
  const signedIn = profiles.login(idp.provider(), { onPrompt: prompted });
  const { url } = await prompt;
  const callback = (await visit(url)).location;
  const forged = new URL(callback);
  forged.searchParams.set("state", "forged");
  forged.searchParams.set("code", "forged");
  assert.equal((await visit(forged)).status, 400);
  const stateless = new URL(callback);
  stateless.searchParams.delete("state");
  assert.equal((await visit(stateless)).status, 400);
  assert.equal((await visit(`${callback}&state=forged`)).status, 400);
  assert.equal((await visit(callback, { host: "rebound.example" })).status, 400);
  assert.equal((await visit(callback.replace("/callback", "/other"))).status, 404);
  const post = await new Promise((resolve) => request(callback, { method: "POST" }, resolve).end());
  post.resume();
  assert.equal(post.statusCode, 400);
  const error = new URL(forged);
  error.searchParams.set("error", "access_denied");
  assert.equal((await visit(error)).status, 400);
  assert.deepEqual(idp.outcomes("authorization_code"), []);
  assert.equal((await visit(callback)).status, 200);
  await signedIn;
  assert.ok(idp.accepts(await key()));
});

test("who says no, or aborts, has not signed in", async () => {
  idp.person.decision = "deny";
  const denied = await failure(profiles.login(idp.provider(), { onPrompt: ({ url }) => fetch(url) }));
  assert.equal(denied.code, "AUTH_EXPIRED");
  const reason = new Error("enough");
  const abort = new AbortController();
  let address;
  const aborted = await failure(
    profiles.login(idp.provider(), {
      signal: abort.signal,
      onPrompt({ url }) {
        address = new URL(url).searchParams.get("redirect_uri");
        abort.abort(reason);
      },
    }),
  );
  assert.equal(aborted, reason);
  // Nobody listens any more.
  for (let tries = 0; ; tries++) {
    const open = await visit(address).then(
      () => true,
      () => false,
    );
    if (!open) break;
    assert.ok(tries < 100, "the redirect is still served");
    await delay(20);
  }
  assert.deepEqual(await profiles.list(), []);
});

test("a profile's id is checked before anyone signs in, and any address gives one", async (t) => {
  let asked = 0;
  for (const profileId of ["x".repeat(120), "a\nb", ""]) {
    const options = { profileId, onPrompt: () => asked++ };
    assert.equal((await failure(profiles.login(idp.provider(), options))).code, "VALIDATION");
  }
  const long = `${"x".repeat(95)}`;
  assert.equal(
    (await failure(profiles.login(idp.provider(long), { onPrompt: () => asked++ }))).code,
    "VALIDATION",
  );
  assert.equal(asked, 0);
  for (const [provider, id] of [
    ["sim", "sim:пользователь@пример.рф"],
    ["s".repeat(80), `${"s".repeat(80)}:default`],
  ]) {
    const abroad = await startIdp({ email: "пользователь@пример.рф" });
    t.after(() => abroad.close());
    const signIn = { onPrompt: ({ url }) => fetch(url) };
    assert.equal((await profiles.login(abroad.provider(provider), signIn)).id, id);
    assert.ok(abroad.accepts((await profiles.resolve(provider)).key.expose()));
    assert.equal(await profiles.remove(id), true);
  }
  assert.deepEqual(
    (await store.list()).map(({ name }) => name),
    ["auth.state"],
  );
});

test("a redirect URI that is registered is used to the letter", async () => {
  const redirectUri = await freeUri();
  let used;
  await profiles.login(idp.provider("sim", { redirectUri }), {
    onPrompt({ url }) {
      used = new URL(url).searchParams.get("redirect_uri");
      fetch(url);
    },
  });
  assert.equal(used, redirectUri);
  assert.ok(idp.accepts(await key()));
});

async function freeUri() {
  const probe = await startIdp();
  const { port } = new URL(probe.url);
  await probe.close();
  return `http://localhost:${port}/auth/callback`;
}

test("a device signs in, no faster than it was told", async () => {
  Object.assign(idp.settings, { interval: 0.3, pending: 2 });
  const prompts = [];
  const options = { flow: "device", onPrompt: (prompt) => prompts.push(prompt) };
  const profile = await profiles.login(idp.provider(), options);
  assert.equal(profile.id, "sim:user@example.com");
  assert.equal(prompts.length, 1);
  assert.match(prompts[0].userCode, /^[0-9A-F]{8}$/);
  const [grant] = idp.devices.values();
  assert.equal(grant.tooEarly, 0);
  assert.equal(grant.polls, 3);
  // A connection that is used again may be closed while a grant is on its way.
  assert.deepEqual(idp.traffic, { connections: 4, requests: 4 });
});

test("a device that is told to slow down asks five seconds less often", { timeout: 60_000 }, async () => {
  Object.assign(idp.settings, { interval: 0.1, slowDowns: 1, pending: 0 });
  const from = performance.now();
  await profiles.login(idp.provider(), { flow: "device", onPrompt() {} });
  const [grant] = idp.devices.values();
  assert.equal(grant.tooEarly, 0);
  assert.ok(performance.now() - from >= 5100);
});

test("a device code that is denied or runs out says so", async () => {
  Object.assign(idp.settings, { interval: 0.05 });
  idp.person.decision = "deny";
  const denied = await failure(profiles.login(idp.provider(), { flow: "device", onPrompt() {} }));
  assert.equal(denied.code, "AUTH_EXPIRED");
  idp.person.decision = "wait";
  idp.settings.deviceLifetime = 0.4;
  const late = await failure(profiles.login(idp.provider(), { flow: "device", onPrompt() {} }));
  assert.equal(late.code, "AUTH_EXPIRED");
  assert.match(late.message, /sign in again/);
});

test("what a server wants shown is shown only if it is what it looks like, and it is not asked without pause", async () => {
  const prompts = [];
  const options = { flow: "device", onPrompt: (prompt) => prompts.push(prompt) };
  for (const [name, value] of [
    ["verificationUri", "https://login.example/\u001b]52;c;ZXZpbA==\u0007"],
    ["verificationUri", "https://login.example/\u202ehtml"],
    ["verificationUri", "https://login.example/a\nb"],
    ["verificationUri", "javascript:alert(1)"],
    ["userCode", "AB\u001b[2J"],
    ["userCode", "AB\u2066CD"],
  ]) {
    idp.settings[name] = value;
    assert.equal((await failure(profiles.login(idp.provider(), options))).code, "AUTH_REFRESH", value);
    delete idp.settings[name];
  }
  assert.deepEqual(prompts, []);
  Object.assign(idp.settings, { interval: 0, pending: 2, verificationUri: "https://bücher.example/ä" });
  const polls = [];
  idp.hooks.token = () => polls.push(performance.now());
  await profiles.login(idp.provider(), options);
  assert.equal(prompts[0].url, "https://xn--bcher-kva.example/%C3%A4");
  assert.equal(polls.length, 3);
  // Timers of two processes: some milliseconds of grace.
  for (const [before, poll] of [polls.slice(0, 2), polls.slice(1)]) assert.ok(poll - before > 980);
});

// ── refreshing ────────────────────────────────────────────────────────────────────────────────────────────────────

test("fifty tasks that meet an expired token make one refresh, and an abort of some does not stop it", async () => {
  await expired();
  const abort = new AbortController();
  idp.hooks.token = async () => abort.abort(new Error("enough"));
  const tasks = Array.from({ length: 50 }, (_, task) => key(task % 2 ? { signal: abort.signal } : undefined));
  const outcomes = await Promise.allSettled(tasks);
  const keys = new Set(outcomes.filter((outcome) => outcome.value).map((outcome) => outcome.value));
  assert.equal(keys.size, 1);
  assert.ok(idp.accepts([...keys][0]));
  assert.deepEqual(
    outcomes.map(({ reason }) => reason?.message),
    tasks.map((_, task) => (task % 2 ? "enough" : undefined)),
  );
  assert.deepEqual(idp.outcomes(), ["ok"]);
});

test("a token is refreshed before it expires, and the old one serves while the server fails", async () => {
  const { access } = await expired("sim:default", Date.now() + 60_000);
  idp.hooks.token = () => {
    throw new Error("out of order");
  };
  assert.equal(await key(), access);
  // The server is left alone for a while.
  assert.equal(await key(), access);
  assert.equal(idp.log.length, 1);
  idp.hooks.token = undefined;
  await profiles.markFailure("sim:default", "auth", 0);
  const refreshed = await key();
  assert.notEqual(refreshed, access);
  assert.ok(idp.accepts(refreshed));
});

test("a sign-in lives through refresh after refresh, each with the token of the one before", async () => {
  await expired();
  idp.settings.lifetime = 0;
  const keys = new Set();
  for (let time = 0; time < 6; time++) keys.add(await key());
  assert.equal(keys.size, 6);
  assert.deepEqual(idp.outcomes(), Array(6).fill("ok"));
});

test("a spent refresh token is AUTH_EXPIRED, once and for all, and signing in again ends it", async () => {
  const { refresh } = await expired();
  await fetch(`${idp.url}/token`, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "refresh_token",
      refresh_token: refresh,
      client_id: idp.clientId,
    }),
  });
  for (let time = 0; time < 3; time++) {
    const error = await failure(key());
    assert.equal(error.code, "AUTH_EXPIRED");
    assert.match(error.message, /sign in again/);
  }
  assert.deepEqual(idp.outcomes(), ["ok", "invalid_grant"]);
  assert.equal((await profiles.list())[0].signInAgain, true);
  await profiles.login(idp.provider(), { profileId: "sim:default", onPrompt: ({ url }) => fetch(url) });
  assert.ok(idp.accepts(await key()));
});

test("a server that is broken is AUTH_REFRESH, and the sign-in lives on", async () => {
  await expired();
  const answers = [
    (response) => response.writeHead(503).end("{}"),
    (response) => response.writeHead(200, { "content-type": "application/json" }).end("not JSON"),
    (response) => response.writeHead(200, { "content-type": "application/json" }).end('{"access_token":""}'),
    (response) => response.writeHead(200).end('{"access_token":"canary-mac","token_type":"mac"}'),
    (response) => response.writeHead(400).end('{"error":"canary-code","error_description":"canary"}'),
    (response) => response.writeHead(302, { location: "http://127.0.0.1:9/" }).end(),
    (response) => response.writeHead(200).end(`"${"x".repeat(300_000)}"`),
  ];
  for (const answer of answers) {
    idp.hooks.instead = answer;
    const error = await failure(key());
    assert.equal(error.code, "AUTH_REFRESH", error.message);
    assert.doesNotMatch(error.message, /canary/);
  }
  idp.hooks.instead = undefined;
  assert.ok(idp.accepts(await key()));
});

test("a profile that was removed or signed in anew while it was refreshed keeps what it was given", async () => {
  await expired();
  const fresh = idp.grant();
  idp.hooks.token = () =>
    profiles.add(
      { id: "sim:default", provider: "sim", type: "oauth", expiresMs: Date.now() + 3_600_000 },
      { accessToken: fresh.access, refreshToken: fresh.refresh },
    );
  assert.equal(await key(), fresh.access);
  await expired();
  idp.hooks.token = () => profiles.remove("sim:default");
  assert.equal((await failure(key())).code, "CREDENTIAL_NOT_FOUND");
  assert.deepEqual(await profiles.list(), []);
  assert.deepEqual(
    (await store.list()).map(({ name }) => name),
    ["auth.state"],
  );
});

test("a sign-in that cannot be refreshed does not stand in the way of the next profile", async () => {
  const { refresh } = await expired("sim:a");
  await expired("sim:b");
  await profiles.setOrder("sim", ["sim:a", "sim:b"]);
  idp.refreshes.get(refresh).spent = true;
  const { profile, key } = await profiles.resolve("sim");
  assert.equal(profile.id, "sim:b");
  assert.ok(idp.accepts(key.expose()));
});

test("a refresh token goes to the server it came from, whatever else is imported or signed in", async (t) => {
  const servers = await Promise.all(["a", "b"].map((name) => startIdp({ clientId: `client-${name}` })));
  t.after(() => Promise.all(servers.map((server) => server.close())));
  const [a, b] = servers;
  const legacy = (server) => {
    const { access, refresh } = server.grant();
    const { tokenUrl: tokenEndpoint, clientId } = server.provider();
    return { type: "oauth", provider: "sim", access, refresh, expires: 1, clientId, tokenEndpoint };
  };
  const mine = { id: "sim:mine", provider: "sim", type: "oauth", expiresMs: 1 };
  await profiles.add(mine, { refreshToken: idp.grant().refresh });
  const insecure = { ...legacy(a), tokenEndpoint: "http://id.example/token" };
  const file = { version: 1, profiles: { "sim:a": legacy(a), "sim:b": legacy(b), "sim:c": insecure } };
  const { imported, skipped } = await profiles.importLegacy(JSON.stringify(file));
  assert.equal(imported, 2);
  assert.match(skipped.join(), /^sim:c: .*https/);
  const only = async (id) => {
    await profiles.setOrder("sim", [id]);
    return key();
  };
  assert.ok(b.accepts(await only("sim:b")));
  assert.deepEqual([a.outcomes(), b.outcomes()], [[], ["ok"]]);
  assert.ok(a.accepts(await only("sim:a")));
  const unregistered = await failure(only("sim:mine"));
  assert.equal(unregistered.code, "AUTH_REFRESH");
  assert.match(unregistered.message, /registerProvider/);
  b.settings.lifetime = 0;
  await profiles.login(b.provider(), { profileId: "sim:login", onPrompt: ({ url }) => fetch(url) });
  assert.match((await failure(only("sim:mine"))).message, /registerProvider/);
  // The person's own word counts for the profile that has none, and for no other.
  await profiles.registerProvider(idp.provider());
  assert.ok(idp.accepts(await only("sim:mine")));
  assert.ok(b.accepts(await only("sim:login")));
  assert.deepEqual([a.outcomes(), b.outcomes(), idp.outcomes()], [["ok"], ["ok", "ok"], ["ok"]]);
});

// ── many processes ────────────────────────────────────────────────────────────────────────────────────────────────

/** A process that waits for `go`. */
async function start(tasks = 1, provider = "sim", env = {}) {
  const child = spawn(process.execPath, [resolver, dir, keyFile, provider, String(tasks)], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.stdin.on("error", () => {});
  assert.equal((await lines.next()).value, "ready");
  return {
    child,
    exited,
    go: () => child.stdin.write("go\n"),
    async result() {
      const { value } = await lines.next();
      await exited;
      return JSON.parse(value);
    },
  };
}

test("a proxy of the environment is told nothing of what is on this machine", async (t) => {
  const seen = [];
  const refuse = ({ method, url }) => seen.push(`${method} ${url}`);
  const proxy = createServer((request, response) => {
    refuse(request);
    response.writeHead(502).end();
  }).on("connect", (request, socket) => {
    refuse(request);
    socket.end("HTTP/1.1 502 No\r\n\r\n");
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.after(() => proxy.close());
  const url = `http://127.0.0.1:${proxy.address().port}`;
  const env = {
    HTTP_PROXY: url,
    http_proxy: url,
    ALL_PROXY: url,
    all_proxy: url,
    NO_PROXY: "",
    no_proxy: "",
  };
  await expired();
  const here = await start(1, "sim", env);
  here.go();
  const [key] = (await here.result()).keys;
  assert.ok(idp.accepts(key));
  assert.deepEqual(seen, []);
  // It is asked for what is elsewhere.
  await profiles.registerProvider({
    id: "far",
    clientId: "c",
    tokenUrl: "https://id.invalid/token",
    scopes: [],
  });
  const secrets = { refreshToken: idp.grant().refresh };
  await profiles.add({ id: "far", provider: "far", type: "oauth", expiresMs: 1 }, secrets);
  const far = await start(1, "far", env);
  far.go();
  assert.match((await far.result()).errors.join(), /^AUTH_REFRESH/);
  assert.ok(seen.includes("CONNECT id.invalid:443"), seen.join());
});

const processes = 64;
test(`${processes} processes of 50 tasks that meet an expired token make one refresh`, async () => {
  await expired();
  // Slow enough that all of them are waiting.
  idp.hooks.token = () => delay(500);
  const all = [];
  for (let begun = 0; begun < processes; begun += 8)
    all.push(...(await Promise.all(Array.from({ length: Math.min(8, processes - begun) }, () => start(50)))));
  for (const one of all) one.go();
  const results = await Promise.all(all.map((one) => one.result()));
  assert.deepEqual(
    results.flatMap(({ errors }) => errors),
    [],
  );
  const keys = new Set(results.flatMap(({ keys }) => keys));
  assert.equal(keys.size, 1);
  assert.ok(idp.accepts([...keys][0]));
  assert.equal(
    results.reduce((sum, { count }) => sum + count, 0),
    processes * 50,
  );
  assert.deepEqual(idp.outcomes(), ["ok"]);
});

/** After a kill: the token of whoever was first still works, or everyone is told to sign in again. */
async function aftermath() {
  const before = idp.log.length;
  const reopened = await core.AuthProfiles.open(await core.CredentialStore.open(dir, { keyFile }));
  const resolve = () => reopened.resolve("sim");
  const outcome = await resolve().then(
    ({ key }) => ({ key: key.expose() }),
    (error) => ({ error }),
  );
  if (outcome.key) {
    assert.ok(idp.accepts(outcome.key), "a key that the server does not take was handed out");
    return idp.log.length === before ? "stored" : "old token good";
  }
  said.push(outcome.error.stack);
  assert.equal(outcome.error.code, "AUTH_EXPIRED");
  assert.match(outcome.error.message, /interrupted.*sign in again/);
  assert.equal((await failure(resolve())).code, "AUTH_EXPIRED");
  assert.equal((await reopened.list())[0].signInAgain, true);
  await reopened.login(idp.provider(), { profileId: "sim:default", onPrompt: ({ url }) => fetch(url) });
  assert.ok(idp.accepts((await resolve()).key.expose()));
  return "sign in again";
}

/** Kills a process in the middle of a refresh; `when(kill, child)` says in the middle of what. */
async function killed(when) {
  await expired();
  const one = await start();
  await when(() => one.child.kill("SIGKILL"), one);
  one.go();
  await one.exited;
  Object.assign(idp.hooks, { token: undefined, answer: undefined, sent: undefined });
  return aftermath();
}

test("killed before the server looks at the token: the old one is good", async () => {
  const outcome = await killed((kill, one) => {
    idp.hooks.token = async () => {
      // What tells the next process, durable before the token is sent.
      const { refreshing } = (await state()).profiles["sim:default"];
      assert.equal(refreshing.pid, one.child.pid);
      kill();
      throw new Error("never saw it");
    };
  });
  assert.equal(outcome, "old token good");
});

test("killed between the server's answer and the store: sign in again, never a dead chain in silence", async () => {
  const outcome = await killed((kill) => {
    idp.hooks.answer = () => {
      kill();
      return false;
    };
  });
  assert.equal(outcome, "sign in again");
});

test("a connection that breaks after the token was spent: sign in again", async () => {
  await expired();
  idp.hooks.answer = () => false;
  assert.equal((await failure(key())).code, "AUTH_REFRESH");
  idp.hooks.answer = undefined;
  assert.equal(await aftermath(), "sign in again");
});

test("killed at any moment before the request or after the answer: one of the two", async (t) => {
  const seen = { before: {}, after: {} };
  /** Kills at each of the moments, and goes on until each outcome that must come has come: at once, or ever later. */
  async function sweep(phase, moments, kill) {
    const outcomes = seen[phase];
    const expected = { before: ["old token good"], after: ["sign in again", "stored"] }[phase];
    for (let turn = 0; ; turn++) {
      const missing = expected.filter((outcome) => !outcomes[outcome]);
      if (turn >= moments.length && missing.length === 0) return;
      assert.ok(
        turn < moments.length + 24,
        `${phase}: ${missing} did not come of ${JSON.stringify(outcomes)}`,
      );
      // Beyond the sweep: at once for what comes of a kill that is early, and ever later for what comes of a late one.
      const early = missing[0] === expected[0];
      const ms = moments[turn] ?? (early ? 0 : 2 ** (turn - moments.length));
      const outcome = await killed((end) => kill(end, ms));
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    }
  }
  // Around the write of the new tokens, in steps of a fifth of a millisecond: a timer would be too coarse.
  const fine = Array.from({ length: 16 }, (_, step) => step / 5);
  await sweep("after", fine, (kill, ms) => {
    idp.hooks.sent = () => {
      const until = performance.now() + ms;
      while (performance.now() < until);
      kill();
    };
  });
  // Around the mark and the request.
  const coarse = Array.from({ length: 12 }, (_, step) => 2 * step);
  await sweep("before", coarse, (kill, ms) => (ms ? void setTimeout(kill, ms) : kill()));
  t.diagnostic(JSON.stringify(seen));
  // What the server has spent is not good any more: of a kill after its answer, nothing else can come.
  assert.deepEqual(Object.keys(seen.after).sort(), ["sign in again", "stored"]);
});

// ── the rest ──────────────────────────────────────────────────────────────────────────────────────────────────────

test("a key comes back as an ApiKey, and wrong arguments are refused", async () => {
  await profiles.add({ id: "a", provider: "Groq", type: "api_key" }, { apiKey: "gsk-1" });
  const { profile, key } = await profiles.resolve("groq");
  assert.deepEqual(profile, { id: "a", provider: "groq", type: "api_key" });
  assert.equal(`${key}`, "[REDACTED]");
  assert.equal(key.expose(), "gsk-1");
  const { cooldownUntilMs } = await profiles.markFailure("a", "rate_limit", 60_000);
  assert.ok(cooldownUntilMs > Date.now());
  const cooling = await failure(profiles.resolve("groq"));
  assert.equal(cooling.code, "LIMIT");
  assert.ok(cooling.retryAfterMs > 0 && cooling.retryAfterMs <= 60_000);
  await profiles.markSuccess("a");
  await profiles.resolve("groq");
  for (const wrong of [
    () => core.AuthProfiles.open({}),
    () => profiles.add({ id: "x", provider: "p", type: "key" }, { apiKey: "k" }),
    () => profiles.add({ id: "x", type: "api_key" }, { apiKey: "k" }),
    () => profiles.add({ id: "x", provider: "p", type: "api_key" }, { apiKey: 5 }),
    () => profiles.markFailure("a", "bad luck"),
    () => profiles.markFailure("a", "auth", -1),
    () => profiles.setOrder("groq", "a"),
    () => profiles.resolve("groq", { signal: {} }),
    () => profiles.registerProvider({ id: "x", clientId: "c", tokenUrl: "http://id.example", scopes: [] }),
    () => profiles.registerProvider({ id: "x", clientId: "c", tokenUrl: "https://id.example" }),
    () => profiles.login(idp.provider()),
    () => profiles.importLegacy("{"),
  ]) {
    assert.equal((await failure((async () => wrong())())).code, "VALIDATION", wrong.toString());
  }
});

test("no token, code or verifier was ever said", () => {
  const everything = said.join("\n");
  assert.ok(everything.includes("sign in again"), "nothing was said at all");
  assert.ok(issued.length > 100);
  for (const secret of issued) assert.ok(!everything.includes(secret), "a secret was said");
});
