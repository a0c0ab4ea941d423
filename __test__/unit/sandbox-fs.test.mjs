// `SandboxFs`: the files of a policy, read and written without a command. What the walk itself refuses is tested beside it.
import assert from "node:assert/strict";
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

const { SandboxFs } = createRequire(import.meta.url)("../../index.js");
const windows = process.platform === "win32" && "there is no SandboxFs on Windows";
const code = (expected) => (error) => {
  assert.ok(error instanceof Error, String(error));
  assert.equal(error.code, expected, error.message);
  return true;
};

describe("the files of a sandbox", { skip: windows }, () => {
  let base, work, files;
  before(async () => {
    base = realpathSync(mkdtempSync(join(tmpdir(), "openclaw-core-files-")));
    work = join(base, "work");
    for (const dir of ["work/a", "data", "outside"]) mkdirSync(join(base, dir), { recursive: true });
    writeFileSync(join(base, "data/file"), "data");
    writeFileSync(join(base, "outside/file"), "outside");
    files = await SandboxFs.open({
      workspace: { host: work, access: "rw" },
      mounts: [{ host: join(base, "data"), mount: "/data", access: "ro" }],
    });
  });
  after(() => rmSync(base, { recursive: true, force: true }));

  test("a file is written, read and described, by bytes and by text", async () => {
    const bytes = Buffer.from([0, 255, 10, 128]);
    assert.equal(await files.writeFile("/workspace/x/y", bytes, { mkdir: true }), undefined);
    const read = await files.readFile("x/y");
    assert.ok(Buffer.isBuffer(read));
    assert.deepEqual(read, bytes);
    assert.deepEqual(readFileSync(join(work, "x/y")), bytes);
    await files.writeFile("x/text", "zwölf 🦞");
    assert.equal((await files.readFile("x/text")).toString(), "zwölf 🦞");
    const stat = await files.stat("x/text");
    assert.deepEqual([stat.type, stat.size], ["file", 11]);
    assert.ok(Math.abs(stat.mtimeMs - Date.now()) < 60_000);
    assert.equal((await files.stat("x")).type, "directory");
    assert.equal(await files.stat("missing"), null);
    assert.deepEqual(await files.readDirectory("/workspace/x"), [
      { name: "text", isDirectory: false },
      { name: "y", isDirectory: false },
    ]);
    // A view of other memory, and only what it shows.
    await files.writeFile("x/part", new Uint8Array(Buffer.from("-middle-").buffer, 0, 0));
    await files.writeFile("x/part", Buffer.from("-middle-").subarray(1, 7));
    assert.equal((await files.readFile("x/part")).toString(), "middle");
  });

  test("names are made, moved, copied and removed", async () => {
    await files.mkdirp("deep/er/est");
    await files.writeFile("deep/one", "1");
    await files.rename("deep/one", "deep/er/two");
    await files.copyFile("/data/file", "deep/er/three");
    assert.deepEqual(readdirSync(join(work, "deep/er")).sort(), ["est", "three", "two"]);
    await assert.rejects(files.remove("deep"), code("IO"));
    await files.remove("deep", { recursive: true });
    await assert.rejects(files.remove("deep"), code("IO"));
    await files.remove("deep", { force: true });
    assert.equal(await files.createFile("once", "1"), true);
    assert.equal(await files.createFile("once", "2"), false);
    await assert.rejects(files.writeFile("once", "2", { exclusive: true }), code("IO"));
    assert.equal(readFileSync(join(work, "once"), "utf8"), "1");
  });

  test("what is not mounted is not there, and what is mounted read-only stays", async () => {
    symlinkSync(join(base, "outside"), join(work, "out"));
    symlinkSync("/data/file", join(work, "to-data"));
    for (const path of [
      "/etc/passwd",
      "../../etc/passwd",
      "out/file",
      join(base, "outside/file"),
      "/proc/self/environ",
    ]) {
      await assert.rejects(files.readFile(path), code("PATH_ESCAPE"), path);
      await assert.rejects(files.writeFile(path, "x", { mkdir: true }), code("PATH_ESCAPE"), path);
      assert.equal(await files.stat(path), null, path);
    }
    assert.equal((await files.readFile("to-data")).toString(), "data");
    for (const change of [
      () => files.writeFile("/data/file", "x"),
      () => files.writeFile("to-data", "x"),
      () => files.remove("/data/file"),
      () => files.mkdirp("/data/dir"),
      () => files.rename("/data/file", "mine"),
    ])
      await assert.rejects(change(), code("IO"));
    assert.equal(readFileSync(join(base, "data/file"), "utf8"), "data");
    linkSync(join(base, "outside/file"), join(work, "second-name"));
    await assert.rejects(files.readFile("second-name"), code("PATH_ESCAPE"));
  });

  test("a path is resolved, and a pinned one follows nothing afterwards", async () => {
    symlinkSync("a", join(work, "to-a"));
    assert.equal(await files.resolvePath("to-a/new"), "/workspace/a/new");
    assert.equal(await files.resolvePath("to-a", { keepLast: true }), "/workspace/to-a");
    assert.deepEqual(await files.readFileWithPath("to-data"), {
      data: Buffer.from("data"),
      path: "/data/file",
    });
    await files.writeFile("/workspace/a/new", "1", { pinned: true });
    await assert.rejects(files.writeFile("/workspace/to-a/new", "2", { pinned: true }), code("PATH_ESCAPE"));
    assert.equal(readFileSync(join(work, "a/new"), "utf8"), "1");
  });

  test("no more is read than the caller takes", async () => {
    await files.writeFile("six", "123456");
    assert.equal((await files.readFile("six", { maxBytes: 6 })).length, 6);
    await assert.rejects(files.readFile("six", { maxBytes: 5 }), code("LIMIT"));
    assert.equal((await files.readFile("six", { maxBytes: 6 })).toString(), "123456");
  });

  test("a call that is aborted rejects with the signal's own reason and leaves the file", async () => {
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await assert.rejects(files.readFile("six", { signal }), reason);
    await assert.rejects(files.writeFile("six", "x", { signal }), reason);
    assert.equal(readFileSync(join(work, "six"), "utf8"), "123456");
  });

  test("what is no argument is refused by its name", async () => {
    const wrong = [
      () => files.readFile(1),
      () => files.readFile("six", { maxBytes: -1 }),
      () => files.readFile("six", "utf8"),
      () => files.writeFile("six", 7),
      () => files.writeFile("six", new Float64Array(1)),
      () => files.writeFile("six", "x", { mkdir: "yes" }),
      () => files.remove("six", { recursive: 1 }),
      () => files.stat("\ud800"),
    ];
    for (const call of wrong) await assert.rejects(async () => call(), code("VALIDATION"), String(call));
    await assert.rejects(async () => SandboxFs.open(undefined), code("SANDBOX_POLICY"));
    await assert.rejects(
      async () => SandboxFs.open({ workspace: { host: "/", access: "rw" } }),
      code("SANDBOX_POLICY"),
    );
    assert.equal(readFileSync(join(work, "six"), "utf8"), "123456");
  });

  test("many calls at once are all answered", async () => {
    const names = Array.from({ length: 200 }, (_, n) => `many/${n}`);
    await Promise.all(names.map((name) => files.writeFile(name, name, { mkdir: true })));
    const read = await Promise.all(names.map(async (name) => (await files.readFile(name)).toString()));
    assert.deepEqual(read, names);
    assert.equal((await files.readDirectory("many")).length, 200);
  });
});
