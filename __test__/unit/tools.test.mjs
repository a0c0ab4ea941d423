// `ToolRegistry`: handlers in JavaScript, and the built-in tools in a real sandbox.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

const { Sandbox, ToolRegistry } = createRequire(import.meta.url)("../../index.js");
const any = { type: "object" };
const define = (name, parameters = any) => ({ name, description: `the tool ${name}`, parameters });
const run = (registry, name, args = {}, options) =>
  registry.execute({ id: `call-${name}`, name, arguments: args }, options);
const textOf = ({ content }) => content.map(({ text }) => text).join("\n");
const code = (expected) => (error) => {
  assert.equal(error.code, expected, error.message);
  return true;
};

describe("tools in JavaScript", () => {
  test("what a handler returns is the result, in each of its forms", async () => {
    const registry = new ToolRegistry();
    const forms = {
      text: ["plain", [{ type: "text", text: "plain" }]],
      json: [{ a: [1, null] }, [{ type: "text", text: '{"a":[1,null]}' }]],
      nothing: [undefined, [{ type: "text", text: "" }]],
      content: [{ content: [{ type: "text", text: "x" }] }, [{ type: "text", text: "x" }]],
      image: [
        { content: [{ type: "image", data: "AA==", mimeType: "image/png" }] },
        [{ type: "image", data: "AA==", mimeType: "image/png" }],
      ],
    };
    for (const [name, [value, content]] of Object.entries(forms)) {
      registry.register(define(name), async () => value);
      assert.deepEqual(await run(registry, name), {
        role: "toolResult",
        toolCallId: `call-${name}`,
        toolName: name,
        content,
        isError: false,
      });
    }
    registry.register(define("details"), () => ({ content: "x", details: { n: 1 }, isError: true }));
    const { details, isError, content } = await run(registry, "details");
    assert.deepEqual([details, isError, content[0].text], [{ n: 1 }, true, "x"]);
  });

  test("a handler gets its arguments, its call's id and a signal", async () => {
    const registry = new ToolRegistry();
    const seen = [];
    registry.register(define("see"), (args, ctx) => {
      seen.push([args, ctx.toolCallId, ctx.signal instanceof AbortSignal, ctx.signal.aborted]);
    });
    await run(registry, "see", { a: { b: ["ü"] } });
    await run(registry, "see", undefined);
    assert.deepEqual(seen, [
      [{ a: { b: ["ü"] } }, "call-see", true, false],
      [{}, "call-see", true, false],
    ]);
  });

  test("whatever a handler does, the call has a result", async () => {
    const registry = new ToolRegistry({ timeoutMs: 300 });
    const cycle = {};
    cycle.self = cycle;
    const bad = {
      throws: [
        () => {
          throw new Error("broken");
        },
        /broken/,
      ],
      rejects: [() => Promise.reject("no error"), /no error/],
      rejectsOddly: [
        () =>
          Promise.reject({
            get message() {
              throw new Error("x");
            },
          }),
        /failed/,
      ],
      hangs: [() => new Promise(() => {}), /300 ms/],
      cycle: [() => cycle, /circular/i],
      bigint: [() => 1n, /BigInt/],
      nonsense: [() => ({ content: [{ type: "smell" }] }), /content/],
      numbers: [() => ({ content: 7 }), /content/],
    };
    for (const [name, [handler, words]] of Object.entries(bad)) {
      registry.register(define(name), handler);
      const result = await run(registry, name);
      assert.equal(result.isError, true, name);
      assert.match(textOf(result), words, name);
    }
    assert.match(
      textOf(await run(registry, "unknown")),
      /There is no tool "unknown"; there are: throws, rejects/,
    );
  });

  test("every violation of the schema is listed, and the handler is not called", async () => {
    const registry = new ToolRegistry();
    const properties = { n: { type: "integer" }, s: { type: "string", minLength: 2 } };
    const parameters = { type: "object", properties, required: ["n", "x"], additionalProperties: false };
    registry.register(define("strict", parameters), () => assert.fail("was called"));
    const result = await run(registry, "strict", { n: "1", s: "", more: true });
    assert.equal(result.isError, true);
    for (const words of [
      /\/n: "1" is not of type "integer"/,
      /\/s: "" is shorter/,
      /"x" is a required/,
      /'more' was unexpected/,
    ])
      assert.match(textOf(result), words);
  });

  test("the handler's signal fires when the caller aborts, and when the time is up", async () => {
    const registry = new ToolRegistry({ timeoutMs: 200 });
    const controller = new AbortController();
    const reason = new Error("enough");
    let stop;
    let stopped = new Promise((resolve) => (stop = resolve));
    registry.register(define("wait"), (_, { signal }) => {
      signal.addEventListener("abort", () => stop());
      controller.abort(reason);
      return new Promise(() => {});
    });
    await assert.rejects(run(registry, "wait", {}, { signal: controller.signal }), reason);
    await stopped;
    stopped = new Promise((resolve) => (stop = resolve));
    assert.match(textOf(await run(registry, "wait")), /200 ms/);
    await stopped;
  });

  test("an error tells no secret of the environment, and no credential", async () => {
    const registry = new ToolRegistry();
    process.env.SOME_SERVICE_TOKEN = "correct-horse-battery";
    try {
      registry.register(define("leaks"), () => {
        throw new Error(
          `refused: ${process.env.SOME_SERVICE_TOKEN} and sk-ant-api03-0123456789abcdefghijklmnopqrstuvwxyz`,
        );
      });
      const text = textOf(await run(registry, "leaks"));
      assert.match(text, /^refused: \[REDACTED\] and /);
      assert.doesNotMatch(text, /battery|efghijklmnopq/);
    } finally {
      delete process.env.SOME_SERVICE_TOKEN;
    }
  });

  test("a result is bounded, keeps its head and its tail, and says how much went", async () => {
    const registry = new ToolRegistry({ maxResultBytes: 4096 });
    registry.register(define("floods"), () => `head${"x".repeat(1 << 20)}tail`);
    const text = textOf(await run(registry, "floods"));
    assert.ok(text.length < 4300, String(text.length));
    assert.match(text, /^head.*\n\[… 1044488 bytes left out …\]\n.*tail$/s);
  });

  test("tools come and go, and what is no tool is refused", async () => {
    const registry = new ToolRegistry();
    registry.register(define("a"), () => "1");
    assert.deepEqual(registry.list(), [define("a")]);
    assert.throws(() => registry.register(define("a"), () => "2"), code("VALIDATION"));
    for (const tool of [
      null,
      {},
      define("a b"),
      define("x", { type: "nothing" }),
      { name: "x", description: "" },
    ])
      assert.throws(() => registry.register(tool, () => ""), code("VALIDATION"));
    assert.throws(() => registry.register(define("x"), "handler"), code("VALIDATION"));
    assert.throws(() => registry.registerBuiltin("exec"), code("VALIDATION"));
    assert.throws(() => new ToolRegistry({ sandbox: {} }), code("VALIDATION"));
    assert.throws(() => new ToolRegistry({ timeoutMs: 0 }), code("VALIDATION"));
    await assert.rejects(registry.execute({ name: "a" }), code("VALIDATION"));
    assert.equal(registry.unregister("a"), true);
    assert.equal(registry.unregister("a"), false);
    assert.deepEqual(registry.list(), []);
  });
});

const probe = await Sandbox.probe();
const missing = probe.checks.find(({ ok }) => !ok);
const skip = probe.backend === null && `no backend works here: ${missing?.name}: ${missing?.detail}`;

describe("built-in tools", { skip }, () => {
  let base, sandbox, registry;
  before(async () => {
    base = realpathSync(mkdtempSync(join(tmpdir(), "openclaw-core-tools-")));
    writeFileSync(join(base, "note.txt"), "one\ntwo\n");
    sandbox = await Sandbox.create({ workspace: { host: base, access: "rw" }, env: { GREETING: "hello" } });
    registry = new ToolRegistry({ sandbox });
    registry.registerBuiltin("exec", "read", "write", "edit", "ls", "grep");
  });
  after(async () => {
    await sandbox?.close();
    rmSync(base, { recursive: true, force: true });
  });

  test("are known by name, once, and describe themselves", () => {
    assert.deepEqual(
      registry.list().map(({ name }) => name),
      ["exec", "read", "write", "edit", "ls", "grep"],
    );
    for (const { description, parameters } of registry.list()) {
      assert.ok(description.length > 20);
      assert.equal(parameters.type, "object");
    }
    assert.throws(() => registry.registerBuiltin("read"), code("VALIDATION"));
    assert.throws(() => registry.registerBuiltin("format"), code("VALIDATION"));
  });

  test("exec runs in the sandbox, streams what comes, and tells the exit code", async () => {
    const partial = [];
    const command = "echo $GREETING; echo wrong >&2; cat note.txt; exit 3";
    const result = await run(registry, "exec", { command }, { onUpdate: (update) => partial.push(update) });
    // Two pipes: in which order their text comes is nobody's promise.
    assert.match(textOf(result), /^(?:wrong\n)?hello\n(?:wrong\n)?one\ntwo\n(?:wrong\n)?\[exit code 3\]$/);
    assert.equal(result.isError, false);
    assert.equal(result.details.exitCode, 3);
    const streamed = (stream) => partial.filter((part) => part.stream === stream).map(({ text }) => text);
    assert.equal(streamed("stderr").join(""), "wrong\n");
    assert.equal(streamed("stdout").join(""), "hello\none\ntwo\n");
    assert.match(
      textOf(await run(registry, "exec", { command: "cat /etc/shadow /root/.bashrc" })),
      /exit code 1/,
    );
    assert.equal(
      textOf(await run(registry, "exec", { command: "pwd", cwd: "." })).trim(),
      join(sandbox.workspace, "."),
    );
  });

  test("exec keeps head and tail of a flood", async () => {
    const result = await run(registry, "exec", { command: "echo first; seq 1 200000; echo last" });
    const text = textOf(result);
    assert.ok(text.length < 70_000, String(text.length));
    assert.match(text, /^first\n1\n2\n[\s\S]*\n\[… \d+ bytes left out …\]\n[\s\S]*200000\nlast\n$/);
    assert.equal(result.details.truncated, true);
  });

  test("exec ends what takes too long, with all that it had started, and tells what came until then", async () => {
    const command = "echo begun; (setsid sleep 98765.25 &); sleep 98765.25";
    const result = await run(registry, "exec", { command, timeoutMs: 3000 });
    assert.equal(result.isError, true);
    assert.match(textOf(result), /^begun\n\[The command was ended after 3000 ms/);
    const { readdirSync } = await import("node:fs");
    const alive = readdirSync("/proc").filter((id) => {
      try {
        return readFileSync(`/proc/${id}/cmdline`, "utf8").includes("98765.25");
      } catch {
        return false;
      }
    });
    assert.deepEqual(alive, []);
  });

  test("a command for which the registry has no more time tells what came until then", async () => {
    const impatient = new ToolRegistry({ sandbox, timeoutMs: 3000 });
    impatient.registerBuiltin("exec");
    const result = await run(impatient, "exec", { command: "echo begun; sleep 98765.75" });
    assert.equal(result.isError, true);
    assert.match(textOf(result), /no answer within 3000 ms[\s\S]*begun\n\[The command was ended/);
  });

  test("what one tool writes, the others and the host see", async () => {
    const done = async (name, args) => {
      const result = await run(registry, name, args);
      assert.equal(result.isError, false, textOf(result));
      return textOf(result);
    };
    await done("write", { path: "src/main.js", content: "let answer = 41;\n" });
    await done("edit", { path: "src/main.js", oldText: "41", newText: "42" });
    assert.equal(await done("read", { path: "src/main.js" }), "let answer = 42;\n");
    assert.equal(await done("exec", { command: "cat src/main.js" }), "let answer = 42;\n");
    assert.equal(readFileSync(join(base, "src/main.js"), "utf8"), "let answer = 42;\n");
    assert.equal(await done("ls", {}), "note.txt\nsrc/\n");
    assert.equal(
      await done("grep", { pattern: "answer" }),
      `${sandbox.workspace}/src/main.js:1:let answer = 42;\n`,
    );
    await done("exec", { command: "ln -s /etc/passwd out; printf from-inside > made" });
    assert.equal(await done("read", { path: "made" }), "from-inside");
    assert.equal((await run(registry, "read", { path: "out" })).isError, true);
  });

  test("what exec tells waits for who takes it, and is cut between characters", async () => {
    let told = "";
    let length = 0;
    const before = process.memoryUsage().rss;
    const command = "printf '\\303'; sleep 0.1; printf '\\251'; yes | head -c 100000000";
    const onUpdate = ({ text }) => {
      if (told.length < 3) told += text.slice(0, 3 - told.length);
      length += text.length;
    };
    const call = run(registry, "exec", { command }, { onUpdate });
    // Nobody takes anything meanwhile.
    const stop = performance.now() + 2000;
    let peak = 0;
    while (performance.now() < stop) peak = Math.max(peak, process.memoryUsage().rss - before);
    assert.equal((await call).isError, false);
    assert.equal(told, "éy\n");
    assert.equal(length, 100_000_001);
    assert.ok(peak < 48 << 20, `${peak} bytes more`);
  });

  test("grep's glob begins where it searches, and rules above it count", async () => {
    const files = {
      ".gitignore": "deep/no*\n",
      "deep/no": "needle",
      "deep/x/yes.rs": "needle",
      "top.rs": "needle",
    };
    for (const [name, text] of Object.entries(files))
      await run(registry, "write", { path: `globs/${name}`, content: text });
    const found = async (args) =>
      textOf(await run(registry, "grep", { pattern: "needle", path: "globs", ...args }))
        .split("\n")
        .filter((line) => line.includes(":1:"))
        .map((line) => line.slice(line.indexOf("/globs/") + 7, line.indexOf(":")));
    assert.deepEqual(await found({}), ["deep/x/yes.rs", "top.rs"]);
    assert.deepEqual(await found({ glob: "deep/**" }), ["deep/x/yes.rs"]);
    assert.deepEqual(await found({ glob: "/*.rs" }), ["top.rs"]);
    assert.deepEqual(await found({ path: "globs/deep" }), ["deep/x/yes.rs"]);
    assert.deepEqual(await found({ path: "globs/deep/no" }), ["deep/no"]);
    await run(registry, "exec", { command: "rm -r globs" });
  });

  test("exec is killed when the caller aborts", async () => {
    const controller = new AbortController();
    const call = run(
      registry,
      "exec",
      { command: "echo ready; sleep 98765.5" },
      { signal: controller.signal, onUpdate: () => controller.abort(new Error("enough")) },
    );
    await assert.rejects(call, /enough/);
  });
});
