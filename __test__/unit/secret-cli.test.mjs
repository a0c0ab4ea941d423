// `openclaw-core secret`: what it takes, what it prints, what it exits with.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { EventEmitter } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { runSecret } from "../../dist/secret-cli.js";
import { locate } from "../../dist/secrets/location.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { CredentialStore } = createRequire(import.meta.url)("../../index.js");
const SECRET = "sk-cli-0123456789";

let base;
let home;
before(() => {
  base = mkdtempSync(join(tmpdir(), "openclaw-core-secret-cli-"));
});
after(() => rmSync(base, { recursive: true, force: true }));
beforeEach(() => {
  home = mkdtempSync(join(base, "home-"));
});

function run(args, { input = "", env = {} } = {}) {
  const result = spawnSync(process.execPath, [join(root, "dist/cli.js"), "secret", ...args], {
    encoding: "utf8",
    input,
    cwd: home,
    env: { PATH: process.env.PATH, HOME: home, ...env },
    timeout: 60_000,
  });
  return { code: result.status, stdout: result.stdout, stderr: result.stderr };
}
const store = () =>
  CredentialStore.open(
    join(home, ".openclaw/core/secrets"),
    { keyFile: join(home, ".config/openclaw-core/secrets.key") },
    { create: false },
  );
const value = async (name) => (await (await store()).get(name)).expose();

test("sets, lists and deletes, by default with a key file outside of the state folder", async () => {
  for (const [name, input] of [
    ["a/b", `${SECRET}\n`],
    ["c", `${SECRET}\r\n`],
    ["d", `${SECRET} \n\n`],
  ]) {
    const { code, stdout, stderr } = run(["set", name, "--stdin"], { input });
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(
      stdout,
      new RegExp(`^stored; in openclaw.json: \\{ source: "exec", provider: "core", id: "${name}" \\}\n$`),
    );
  }
  assert.deepEqual(
    [await value("a/b"), await value("c"), await value("d")],
    [SECRET, SECRET, `${SECRET} \n`],
  );
  if (process.platform !== "win32") {
    assert.equal(statSync(join(home, ".config/openclaw-core/secrets.key")).mode & 0o777, 0o600);
    assert.equal(statSync(join(home, ".config/openclaw-core")).mode & 0o077, 0);
  }
  const listed = run(["list"]);
  assert.match(
    listed.stdout,
    /^NAME +CREATED +UPDATED\na\/b +\S.*\nc +\S.*\nd +\S.*\n3 credentials in .*, opened by the key file .*\n$/,
  );
  assert.deepEqual(
    JSON.parse(run(["list", "--json"]).stdout).credentials.map(({ name }) => name),
    ["a/b", "c", "d"],
  );
  assert.deepEqual(run(["delete", "c"]), { code: 0, stdout: "deleted\n", stderr: "" });
  assert.deepEqual(run(["delete", "c"]), {
    code: 1,
    stdout: "",
    stderr: 'openclaw-core secret: there is no credential "c"\n',
  });
});

test("never takes a value from the command line, nor repeats one", () => {
  const wrong = [
    ["set", "a", SECRET],
    ["set", "a", `--value=${SECRET}`],
    ["set", "a", "--stdin", SECRET],
    [SECRET],
    ["set", `a ${SECRET}`, "--stdin"],
    ["list", SECRET],
    ["list", "--key", SECRET],
    ["rotate", "--to", SECRET],
  ];
  for (const args of wrong) {
    const { code, stdout, stderr } = run(args, { input: "x" });
    assert.ok(code === 2 || code === 1, `${args}: ${code}`);
    assert.ok(!(stdout + stderr).includes(SECRET), stderr);
    assert.match(stderr, /^openclaw-core secret: /);
  }
  // Without a terminal there is nobody to ask.
  const { code, stderr } = run(["set", "a"], { input: SECRET });
  assert.equal(code, 2);
  assert.match(stderr, /--stdin/);
  assert.equal(run(["set", "a", "--stdin"], { input: "\n" }).code, 1);
  assert.deepEqual(JSON.parse(run(["list", "--json"]).stdout).credentials, []);
});

test("says that there is no store instead of making one", () => {
  for (const command of ["list", "audit", "rotate"]) {
    const { code, stderr } = run([command]);
    assert.equal(code, 1);
    assert.match(stderr, /CREDENTIAL_NOT_FOUND: there is no credential store in /);
  }
  assert.ok(!existsSync(join(home, ".openclaw")) && !existsSync(join(home, ".config")));
  assert.match(run([]).stdout, /^openclaw-core secret: credentials, encrypted at rest\n/);
  assert.equal(run(["forget"]).code, 2);
});

test("rotates in place and to another key, and audits", async () => {
  run(["set", "a", "--stdin"], { input: SECRET });
  const file = join(home, ".config/openclaw-core/secrets.key");
  const before = readFileSync(file, "utf8");
  assert.equal(run(["rotate"]).code, 0);
  const [newest, older] = readFileSync(file, "utf8").trim().split("\n");
  assert.ok(newest !== older && `${older}\n` === before);
  const audited = run(["audit"]);
  assert.equal(audited.code, 1);
  assert.match(audited.stdout, /^warning: .* still holds older keys/);
  writeFileSync(file, `${newest}\n`, { mode: 0o600 });
  assert.deepEqual(run(["audit"]).stdout, `nothing is wrong with ${join(home, ".openclaw/core/secrets")}\n`);

  const beside = join(home, ".openclaw/core/secrets/key");
  assert.equal(run(["rotate", "--to", `file:${beside}`]).code, 0);
  assert.match(run(["list"]).stderr, /CREDENTIAL_KEY/);
  const { code, stdout } = run(["audit", "--json", "--key", `file:${beside}`]);
  assert.equal(code, 1);
  assert.deepEqual(
    JSON.parse(stdout).issues.map(({ kind }) => kind),
    ["key-beside-data"],
  );
  assert.equal(run(["list"], { env: { OPENCLAW_CORE_SECRETS_KEY: `file:${beside}` } }).code, 0);
});

test("imports .env lines and JSON, and keeps what is there unless told otherwise", async () => {
  const lines = join(home, "x.env");
  writeFileSync(lines, `# keys\nOPENAI_API_KEY=${SECRET}\nexport B='two words'\r\n\nEMPTY=\nC="a=b"`);
  assert.match(
    run(["import", lines, "--prefix", "env/"]).stdout,
    /^3 credentials stored; left out, empty or no text: env\/EMPTY\n/,
  );
  assert.deepEqual(
    [await value("env/OPENAI_API_KEY"), await value("env/B"), await value("env/C")],
    [SECRET, "two words", "a=b"],
  );
  const json = join(home, "secrets.json");
  writeFileSync(json, JSON.stringify({ providers: { openai: { apiKey: "one" } }, env: { B: "other" } }));
  assert.match(
    run(["import", json]).stdout,
    /^1 credential stored; there already, and kept \(--replace\): env\/B\n/,
  );
  assert.deepEqual([await value("providers/openai/apiKey"), await value("env/B")], ["one", "two words"]);
  run(["import", json, "--replace"]);
  assert.equal(await value("env/B"), "other");
  for (const text of [`{"a": "${SECRET}"`, `nothing like it ${SECRET}`, `{"a b": "${SECRET}"}`]) {
    writeFileSync(json, text);
    const { code, stderr } = run(["import", json]);
    assert.equal(code, 1);
    assert.ok(!stderr.includes(SECRET), stderr);
  }
});

test("imports lines as dotenv reads them, and names what it leaves out", async () => {
  const file = join(home, "x.env");
  const text = [
    "\ufeffA=1 # a comment",
    "  export B='x # y' # c",
    'C="several',
    'lines\\nand \\t"',
    "D=`it's`",
    "E=x'",
    "F=",
    "G='a\\nb'   ",
    "# H=no",
    'I = ""',
  ].join("\r\n");
  writeFileSync(file, text);
  const { code, stdout } = run(["import", file]);
  assert.equal(code, 0);
  assert.match(
    stdout,
    /^6 credentials stored; left out, empty or no text: F, I\n.* and what was not stored: /,
  );
  const found = {};
  for (const name of ["A", "B", "C", "D", "E", "G"]) found[name] = await value(name);
  assert.deepEqual(found, {
    A: "1",
    B: "x # y",
    C: "several\r\nlines\nand \\t",
    D: "it's",
    E: "x'",
    G: "a\\nb",
  });
  const json = join(home, "x.json");
  writeFileSync(json, JSON.stringify({ a: { pin: 123456, key: "v", list: ["p", true], none: null } }));
  assert.match(
    run(["import", json]).stdout,
    /^2 credentials stored; left out, empty or no text: a\/pin, a\/list\/1, a\/none\n/,
  );
});

test("imports nothing of a file that could be meant otherwise, and says where", async () => {
  const file = join(home, "x.env");
  for (const [text, message] of [
    [`GOOD=1\nBAD NAME=${SECRET}`, /line 2: the name is not/],
    [`GOOD=1\n${SECRET}`, /line 2 is not of the form/],
    [`GOOD=1\n=${SECRET}`, /line 2 is not of the form/],
    [`GOOD=1\nA="${SECRET}\n\nB=2`, /line 2: the quote that begins there has no end/],
    [`GOOD="1\n"\nA='${SECRET}' x`, /line 3: there is something behind the quote/],
    [`GOOD=1\nA="\\"${SECRET}"`, /line 2: a backslash before a quote/],
    [`GOOD=1\nA=${SECRET}#b`, /line 2: a # within a value/],
    [`GOOD=1\nGOOD=${SECRET}`, /line 2: the name stands there twice/],
    [`GOOD=1\nauth/x=${SECRET}`, /line 2: auth\/… and auth.state are kept/],
    [`GOOD=1\nA=${"x".repeat(2 ** 20 + 1)}`, /line 2: the value is longer than 1 MiB/],
    [Buffer.concat([Buffer.from("GOOD=1\nA="), Buffer.of(0xff)]), /the file is not UTF-8 text/],
    [`{"GOOD": "1", "a": {"x": "2", "${SECRET} y": "3"}}`, /member 2 of "a": the name is not/],
    [`{"GOOD": "1", "a": {"b": "2"}, "a/b": "3"}`, /member 3 of the object: the name stands there twice/],
  ]) {
    writeFileSync(file, text);
    const { code, stdout, stderr } = run(["import", file]);
    assert.deepEqual([code, stdout], [1, ""], stderr);
    assert.match(stderr, message);
    assert.match(stderr, /; nothing was stored\n$/);
    assert.ok(!stderr.includes(SECRET), stderr);
  }
  assert.equal(run(["list"]).code, 1, "a store was made");
});

test("keeps its hands off the entries of auth profiles, and warns of what is no text", async () => {
  run(["set", "a", "--stdin"], { input: SECRET });
  await (await store()).set("auth.state", SECRET);
  await (await store()).set("auth/x/refresh", SECRET);
  for (const args of [
    ["set", "auth.state", "--stdin"],
    ["set", "auth/x/key", "--stdin"],
    ["delete", "auth.state"],
    ["delete", "auth/x/refresh"],
  ]) {
    const { code, stderr } = run(args, { input: "x" });
    assert.equal(code, 2);
    assert.match(stderr, /auth\/… and auth\.state are kept for auth profiles/);
  }
  assert.equal(await value("auth.state"), SECRET);
  const binary = run(["set", "bin", "--stdin"], { input: Buffer.of(0xff, 0xfe, 1) });
  assert.equal(binary.code, 0);
  assert.match(binary.stderr, /it is not UTF-8 text/);
  // What is not to be had does not keep the others away.
  const ids = ["a", "bin", "auth.state", "auth/x/refresh", "none"];
  const resolved = spawnSync(process.execPath, [join(root, "dist/secret-resolver.js")], {
    encoding: "utf8",
    input: JSON.stringify({ protocolVersion: 1, ids }),
    env: { PATH: process.env.PATH, HOME: home },
    timeout: 60_000,
  });
  assert.equal(resolved.status, 0, resolved.stderr);
  assert.deepEqual(JSON.parse(resolved.stdout), {
    protocolVersion: 1,
    values: { a: SECRET },
    errors: {
      bin: { code: "NOT_TEXT" },
      "auth.state": { code: "NOT_FOUND" },
      "auth/x/refresh": { code: "NOT_FOUND" },
      none: { code: "NOT_FOUND" },
    },
  });
});

/** A terminal at which each line is pasted when it is asked for; what the program was given stays to be seen. */
function terminal(...lines) {
  const given = lines.map((line) => Buffer.from(`${line}\r`));
  const waiting = [...given];
  const stdin = new EventEmitter();
  Object.assign(stdin, {
    isTTY: true,
    setRawMode() {},
    pause() {},
    resume: () => setImmediate(() => stdin.emit("data", waiting.shift())),
  });
  let shown = "";
  const out = {
    isTTY: false,
    write(text) {
      shown += text;
      return true;
    },
  };
  const env = { HOME: home };
  return { given, shown: () => shown, terminal: { program: "p", env, stdin, stdout: out, stderr: out } };
}

test("wipes what was typed: secrets and passphrases, taken or refused", async () => {
  const passphrase = "correct horse battery staple";
  for (const [args, lines, expected] of [
    [["set", "a"], [SECRET], 0],
    [["rotate", "--to", "passphrase"], [passphrase, `${passphrase}r`], 1],
    [["rotate", "--to", "passphrase"], [passphrase, passphrase], 0],
    [["list", "--key", "passphrase"], [`not ${passphrase}`], 1],
    [["list", "--key", "passphrase"], [passphrase], 0],
    [["set", "b", "--key", "passphrase"], ["typed\x03"], 130],
  ]) {
    const { given, shown, terminal: at } = terminal(...lines);
    assert.equal(await runSecret(args, at), expected, `${args}: ${shown()}`);
    for (const chunk of given)
      assert.ok(
        chunk.every((byte) => byte === 0),
        `${args}: ${chunk}`,
      );
    for (const line of lines) assert.ok(!shown().includes(line), shown());
  }
});

test("finds the store and its key by options, then the environment, then the state folder", () => {
  const env = { HOME: "/home/a" };
  const keyFile = "/home/a/.config/openclaw-core/secrets.key";
  assert.deepEqual(locate(env), { dir: "/home/a/.openclaw/core/secrets", key: { keyFile } });
  assert.deepEqual(locate({ ...env, XDG_CONFIG_HOME: "/c", OPENCLAW_STATE_DIR: "/s" }), {
    dir: "/s/core/secrets",
    key: { keyFile: "/c/openclaw-core/secrets.key" },
  });
  const set = { OPENCLAW_CORE_SECRETS_STORE: "/e", OPENCLAW_CORE_SECRETS_KEY: "systemd:vault" };
  assert.deepEqual(locate({ ...env, ...set }), { dir: "/e", key: { systemdCredential: "vault" } });
  assert.deepEqual(locate({ ...env, ...set }, { store: "/o", key: "keychain:openclaw/core/x" }), {
    dir: "/o",
    key: { keychain: { service: "openclaw", account: "core/x" } },
  });
  assert.equal(locate(env, { key: "passphrase" }).key, "passphrase");
  for (const wrong of ["x", "file:", "keychain:a", "keychain:/a", "raw:00"]) {
    assert.throws(() => locate(env, { key: wrong }), /^Error: a key is given as file:PATH/);
  }
});
