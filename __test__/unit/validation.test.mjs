// validateMessage, resolveBeneath, checkUrl and fetchChecked, as a caller sees them.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import core from "../../index.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { validateMessage, resolveBeneath, checkUrl, fetchChecked } = core;
const coded = (code) => (error) => error instanceof Error && error.code === code;
const issuesOf = (text, limits) =>
  validateMessage(text, limits).issues.map(({ code, offset }) => [code, offset]);

describe("validateMessage", () => {
  /** The same rules, one character at a time. */
  function reference(text, { maxChars, maxBytes, allowControl, allowBidi } = {}) {
    const found = [];
    let bytes = 0;
    let passed = false;
    let before;
    for (let at = 0; at < text.length; ) {
      const code = text.codePointAt(at);
      const lone = code >= 0xd800 && code <= 0xdfff;
      bytes += lone ? 3 : Buffer.byteLength(String.fromCodePoint(code));
      if (bytes > maxBytes && !passed) {
        passed = true;
        before = undefined;
        found.push(["TOO_MANY_BYTES", at]);
      }
      let kind;
      if (lone) kind = "LONE_SURROGATE";
      else if (code < 0x20 ? ![9, 10, 13].includes(code) : code >= 0x7f && code <= 0x9f)
        kind = allowControl ? undefined : "CONTROL";
      else if ((code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069))
        kind = allowBidi ? undefined : "BIDI";
      if (kind !== undefined && kind !== before) found.push([kind, at]);
      before = kind;
      at += code > 0xffff ? 2 : 1;
    }
    if (text.length > maxChars) found.push(["TOO_LONG", maxChars]);
    return found.sort((a, b) => a[1] - b[1]);
  }

  test("gives back the very text, and what a reader of each character would find", () => {
    const odd = fc.constantFrom(
      "\0",
      "\t",
      "\n",
      "\x1b",
      "\x7f",
      "\x85",
      "é",
      "€",
      "\u202e",
      "\u2066",
      "😀",
      "\ud83d",
      "\ude00",
      "\u200f",
    );
    const text = fc
      .array(fc.oneof({ weight: 4, arbitrary: fc.string({ maxLength: 90 }) }, odd, odd), { maxLength: 14 })
      .map((parts) => parts.join(""));
    const flags = { allowControl: fc.boolean(), allowBidi: fc.boolean() };
    fc.assert(
      fc.property(
        text,
        fc.option(fc.record(flags, { requiredKeys: [] }), { nil: undefined }),
        (given, limits) => {
          const { ok, text: same, issues } = validateMessage(given, limits);
          assert.equal(same, given);
          const found = issues.map(({ code, offset }) => [code, offset]);
          assert.deepEqual(found, reference(given, limits).slice(0, 100));
          assert.equal(ok, issues.length === 0);
        },
      ),
      { numRuns: 3000 },
    );
  });

  test("counts characters as JavaScript does, and bytes as UTF-8", () => {
    for (const [text, chars, bytes] of [
      ["", 0, 0],
      ["plain", 5, 5],
      ["é€😀", 4, 9],
      ["x".repeat(600), 600, 600],
      ["é".repeat(600), 600, 1200],
      ["😀".repeat(300), 600, 1200],
      ["€".repeat(5000), 5000, 15_000],
      ["a\ud83d", 2, 4],
    ]) {
      const lone = text.isWellFormed() ? [] : [["LONE_SURROGATE", 1]];
      assert.deepEqual(issuesOf(text, { maxChars: chars, maxBytes: bytes }), lone, text.slice(0, 9));
      if (text === "") continue;
      assert.ok(
        issuesOf(text, { maxChars: chars - 1 }).some(([code, at]) => code === "TOO_LONG" && at === chars - 1),
      );
      assert.ok(issuesOf(text, { maxBytes: bytes - 1 }).some(([code]) => code === "TOO_MANY_BYTES"));
    }
  });

  test("an offset counts UTF-16 code units, and a message tells what and where", () => {
    const { issues } = validateMessage("😀\u202e!\x1b[0m");
    assert.deepEqual(issues, [
      { code: "BIDI", message: "bidirectional control U+202E at 2", offset: 2 },
      { code: "CONTROL", message: "control character U+001B at 4", offset: 4 },
    ]);
  });

  test("no character is changed, composed or folded", () => {
    for (const text of ["ﬁ", "Å", "e\u0301", "①", "Ｆｕｌｌ", "\u00a0\u3000\ufeff", "K", "👨‍👩‍👧"]) {
      assert.deepEqual(validateMessage(text), { ok: true, text, issues: [] });
    }
  });

  test("arguments of another type are refused, long text or short", () => {
    for (const text of ["short", "é", "x".repeat(300)]) {
      for (const limits of [
        5,
        "x",
        true,
        { maxChars: "5" },
        { maxChars: -1 },
        { maxChars: 1.5 },
        { maxChars: Number.NaN },
        { maxBytes: {} },
        { maxBytes: Number.POSITIVE_INFINITY },
        { allowControl: "yes" },
        { allowBidi: 1 },
      ]) {
        assert.throws(
          () => validateMessage(text, limits),
          coded("VALIDATION"),
          `${text} ${JSON.stringify(limits)}`,
        );
      }
    }
    for (const text of [undefined, null, 5, {}, ["a"], Symbol("a"), Buffer.from("a")]) {
      assert.throws(() => validateMessage(text), coded("VALIDATION"));
      assert.throws(() => validateMessage(text, { maxChars: 5 }), coded("VALIDATION"));
    }
  });

  test("works in a worker thread", async () => {
    const code = `const { parentPort } = require("node:worker_threads");
      parentPort.postMessage(require(${JSON.stringify(join(root, "index.js"))}).validateMessage("a\\0"));`;
    const worker = new Worker(code, { eval: true });
    const [found] = await new Promise((resolve, reject) => {
      worker.once("message", (message) => resolve([message]));
      worker.once("error", reject);
    });
    assert.deepEqual(found, validateMessage("a\0"));
  });
});

describe("resolveBeneath", () => {
  let folder;
  let inside;
  before(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), "openclaw-core-beneath-")));
    inside = join(folder, "root");
    mkdirSync(join(inside, "a/b"), { recursive: true });
    mkdirSync(join(folder, "root-sibling"));
    writeFileSync(join(inside, "a/file"), "inside");
    writeFileSync(join(folder, "secret"), "outside");
    symlinkSync("a", join(inside, "link"));
    symlinkSync("../secret", join(inside, "out"));
    symlinkSync(join(folder, "secret"), join(inside, "absolute"));
    symlinkSync("loop", join(inside, "loop"));
    symlinkSync(inside, join(folder, "root-link"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  test("follows what stays beneath the root, and names what does not exist yet", async () => {
    for (const [path, found] of [
      ["a/file", "a/file"],
      ["link/../a/./file", "a/file"],
      ["link/new/file", "a/new/file"],
      [".", "."],
      [join("/", "a").slice(1), "a"],
    ]) {
      assert.equal(await resolveBeneath(inside, path), join(inside, found), path);
    }
    assert.equal(await resolveBeneath(inside, join(inside, "link/file")), join(inside, "a/file"));
    // The root may itself be a link; a path may begin with it.
    const through = join(folder, "root-link");
    assert.equal(await resolveBeneath(through, join(through, "link/file")), join(inside, "a/file"));
    assert.equal(await resolveBeneath(through, join(inside, "link/file")), join(inside, "a/file"));
  });

  test("refuses what leads out with PATH_ESCAPE, and the path as a field", async () => {
    for (const path of [
      "..",
      "../root/a",
      "a/../../secret",
      "out",
      "out/x",
      "absolute",
      "loop",
      "loop/x",
      "/etc/passwd",
      join(folder, "root-sibling"),
      `${inside}/../secret`,
      `${inside}-sibling/x`,
    ]) {
      await assert.rejects(resolveBeneath(inside, path), (error) => {
        assert.equal(error.code, "PATH_ESCAPE", path);
        assert.equal(error.file, path);
        return true;
      });
    }
  });

  test("what is no path, and what the system refuses, are told apart", async () => {
    await assert.rejects(resolveBeneath(inside, ""), coded("VALIDATION"));
    await assert.rejects(resolveBeneath(inside, "a\0b"), coded("VALIDATION"));
    await assert.rejects(resolveBeneath(inside, "a/file/x"), coded("IO"));
    await assert.rejects(resolveBeneath(join(folder, "missing"), "a"), coded("IO"));
    await assert.rejects(resolveBeneath(join(folder, "secret"), "a"), coded("IO"));
    await assert.rejects(resolveBeneath(inside, 5), coded("VALIDATION"));
    await assert.rejects(resolveBeneath(inside, "\ud800"), coded("VALIDATION"));
  });
});

describe("checkUrl and fetchChecked", () => {
  let server;
  let origin;
  let requests;
  const open = { allowPrivate: true };
  before(async () => {
    server = createServer((request, response) => {
      requests.push({ url: request.url, headers: request.headers });
      const path = new URL(request.url, "http://x").pathname;
      if (path === "/hang") return;
      if (path.startsWith("/to/")) {
        response.writeHead(302, { location: decodeURIComponent(path.slice(4)) });
        response.end();
      } else if (path === "/bomb") {
        response.writeHead(200, { "content-encoding": "gzip" });
        response.end(gzipSync(Buffer.alloc(50_000_000)));
      } else if (path === "/large") {
        response.end(Buffer.alloc(100_000));
      } else if (path === "/endless") {
        const more = () => {
          while (response.write(Buffer.alloc(65_536)));
        };
        response.on("drain", more);
        more();
      } else {
        response.writeHead(path === "/missing" ? 404 : 200, { "x-twice": ["1", "2"] });
        response.end(Buffer.from([0, 255, 1]));
      }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    origin = `http://127.0.0.1:${server.address().port}`;
    requests = [];
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  test("a URL that may be fetched comes back with its addresses", async () => {
    assert.deepEqual(await checkUrl("HTTPS://8.8.8.8:443/a b?q#f"), {
      url: "https://8.8.8.8/a%20b?q#f",
      addresses: ["8.8.8.8"],
    });
    assert.deepEqual(await checkUrl("https://[2606:4700:4700:0::1111]/"), {
      url: "https://[2606:4700:4700::1111]/",
      addresses: ["2606:4700:4700::1111"],
    });
    assert.deepEqual((await checkUrl(`${origin}/`, open)).addresses, ["127.0.0.1"]);
    const { addresses } = await checkUrl("http://localhost/", { allowHosts: ["localhost"] });
    assert.ok(addresses.length > 0 && addresses.every((address) => ["127.0.0.1", "::1"].includes(address)));
  });

  test("one that may not is SSRF_BLOCKED, one that is none VALIDATION", async () => {
    for (const url of [
      "http://127.0.0.1/",
      "http://localhost/",
      "http://0x7f.1/",
      "http://[::ffff:10.0.0.1]/",
      "http://169.254.169.254/latest/meta-data/",
      "file:///etc/passwd",
      "http://user@8.8.8.8/",
    ]) {
      await assert.rejects(checkUrl(url), coded("SSRF_BLOCKED"), url);
      await assert.rejects(fetchChecked(url), coded("SSRF_BLOCKED"), url);
    }
    for (const url of ["", "no url", "http://[fe80::1%25eth0]/"]) {
      await assert.rejects(checkUrl(url), coded("VALIDATION"), url);
    }
  });

  test("the body comes as bytes, with status, headers and where it came from", async () => {
    const fetched = await fetchChecked(`${origin}/to/%2Fmissing`, { policy: open, headers: { "x-a": "b" } });
    assert.equal(fetched.status, 404);
    assert.equal(fetched.url, `${origin}/missing`);
    assert.ok(Buffer.isBuffer(fetched.body));
    assert.deepEqual([...fetched.body], [0, 255, 1]);
    assert.equal(fetched.headers["x-twice"], "1, 2");
    assert.equal(requests.at(-1).headers["x-a"], "b");
    assert.equal(requests.at(-1).headers["accept-encoding"], "identity");
  });

  test("a redirect to what may not be fetched is refused before it is", async () => {
    const policy = { allowHosts: ["127.0.0.1"] };
    const before = requests.length;
    for (const target of [
      `http://localhost:${server.address().port}/`,
      `http://[::ffff:127.0.0.1]:${server.address().port}/`,
      "http://169.254.169.254/",
      "file:///etc/passwd",
      `http://u@127.0.0.1:${server.address().port}/`,
    ]) {
      await assert.rejects(
        fetchChecked(`${origin}/to/${encodeURIComponent(target)}`, { policy }),
        coded("SSRF_BLOCKED"),
        target,
      );
    }
    assert.equal(requests.length - before, 5);
  });

  test("credentials do not follow to another origin", async () => {
    const other = createServer((request, response) => response.end(JSON.stringify(request.headers)));
    await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
    try {
      const target = encodeURIComponent(`http://127.0.0.1:${other.address().port}/`);
      const { body } = await fetchChecked(`${origin}/to/${target}`, {
        policy: open,
        headers: { Authorization: "Bearer s3cret", Cookie: "a=b", "X-Api-Key": "k", "Accept-Language": "de" },
      });
      assert.equal(requests.at(-1).headers.authorization, "Bearer s3cret");
      const seen = JSON.parse(body);
      assert.equal(seen["accept-language"], "de");
      for (const name of ["authorization", "cookie", "x-api-key"]) assert.equal(seen[name], undefined, name);
    } finally {
      other.close();
    }
  });

  test("a body larger than maxBytes is LIMIT, even one without end; a packed one stays packed", async () => {
    const limits = { policy: open, maxBytes: 99_999 };
    for (const path of ["/large", "/endless"]) {
      await assert.rejects(fetchChecked(origin + path, limits), coded("LIMIT"), path);
    }
    assert.equal(
      (await fetchChecked(`${origin}/large`, { policy: open, maxBytes: 100_000 })).body.length,
      100_000,
    );
    const { headers, body } = await fetchChecked(`${origin}/bomb`, limits);
    assert.equal(headers["content-encoding"], "gzip");
    assert.ok(body.length < 99_999, `${body.length} bytes`);
  });

  test("a signal ends it with its own reason, before and while it runs", async () => {
    const reason = { why: "enough" };
    await assert.rejects(
      fetchChecked(`${origin}/hang`, { policy: open, signal: AbortSignal.abort(reason) }),
      (error) => error === reason,
    );
    const controller = new AbortController();
    const count = requests.length;
    const fetching = fetchChecked(`${origin}/hang`, { policy: open, signal: controller.signal });
    while (requests.length === count) await new Promise((resolve) => setImmediate(resolve));
    controller.abort(reason);
    await assert.rejects(fetching, (error) => error === reason);
  });

  test("a server that does not answer is TIMEOUT, one that is not there NETWORK", async () => {
    await assert.rejects(fetchChecked(`${origin}/hang`, { policy: open, timeoutMs: 50 }), coded("TIMEOUT"));
    const gone = createServer();
    await new Promise((resolve) => gone.listen(0, "127.0.0.1", resolve));
    const { port } = gone.address();
    await new Promise((resolve) => gone.close(resolve));
    await assert.rejects(fetchChecked(`http://127.0.0.1:${port}/?key=s3cret`, { policy: open }), (error) => {
      assert.equal(error.code, "NETWORK");
      assert.doesNotMatch(`${error.stack} ${error.cause}`, /s3cret/);
      return true;
    });
  });

  test("arguments of another type are refused, by the promise", async () => {
    for (const call of [
      () => checkUrl(5),
      () => checkUrl("http://a\ud800/"),
      () => fetchChecked("http://a\ud800/"),
      () => checkUrl(new URL("https://example.com/")),
      () => checkUrl("https://8.8.8.8/", 5),
      () => checkUrl("https://8.8.8.8/", { allowPrivate: "yes" }),
      () => checkUrl("https://8.8.8.8/", { allowHosts: "localhost" }),
      () => checkUrl("https://8.8.8.8/", { allowHosts: [5] }),
      () => fetchChecked("https://8.8.8.8/", 5),
      () => fetchChecked("https://8.8.8.8/", { policy: "open" }),
      () => fetchChecked("https://8.8.8.8/", { policy: { allowPrivate: 1 } }),
      () => fetchChecked("https://8.8.8.8/", { maxBytes: -1 }),
      () => fetchChecked("https://8.8.8.8/", { headers: { a: 5 } }),
      () => fetchChecked("https://8.8.8.8/", { signal: 5 }),
    ]) {
      await assert.rejects(call(), coded("VALIDATION"), String(call));
    }
  });

  /** Runs a script in a process of its own, while this one goes on serving. */
  async function child(script, env) {
    const node = spawn(process.execPath, ["-e", script], {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const out = [];
    node.stdout.on("data", (data) => out.push(data));
    node.stderr.on("data", (data) => out.push(data));
    const status = await new Promise((resolve) => node.on("close", resolve));
    return { status, out: Buffer.concat(out).toString() };
  }

  test("goes through no proxy that the environment names, and the process ends by itself", async () => {
    let asked = 0;
    const proxy = createServer((_, response) => {
      asked++;
      response.end("proxied");
    });
    await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    try {
      const url = `http://127.0.0.1:${proxy.address().port}`;
      const { status, out } = await child(
        `require("./index.js").fetchChecked("${origin}/x", { policy: { allowPrivate: true } })
          .then(({ body }) => console.log(body.length));`,
        { HTTP_PROXY: url, http_proxy: url, ALL_PROXY: url, all_proxy: url, NO_PROXY: "", no_proxy: "" },
      );
      assert.equal(out, "3\n");
      assert.equal(status, 0);
      assert.equal(asked, 0);
    } finally {
      proxy.close();
    }
  });

  test("HTTPS trusts NODE_EXTRA_CA_CERTS, and holds the certificate against the host", async () => {
    const tls = (name) => readFileSync(join(root, "__test__/sim/tls", name));
    const secure = createTlsServer({ cert: tls("server.pem"), key: tls("server.key.pem") }, (_, response) =>
      response.end("secure"),
    );
    await new Promise((resolve) => secure.listen(0, "127.0.0.1", resolve));
    const script = `require("./index.js")
      .fetchChecked("https://127.0.0.1:${secure.address().port}/", { policy: { allowPrivate: true } })
      .then(({ body }) => console.log(String(body)), ({ code, message }) => console.log(code, message));`;
    try {
      const trusting = await child(script, { NODE_EXTRA_CA_CERTS: join(root, "__test__/sim/tls/ca.pem") });
      assert.equal(trusting.out, "secure\n");
      const strange = await child(script, { NODE_EXTRA_CA_CERTS: "" });
      assert.match(strange.out, /^NETWORK .*certificate/);
    } finally {
      secure.close();
    }
  });
});
