// `Sandbox`: one suite of behaviour for every backend that works here, as this user and, if that is root, as nobody.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { Sandbox } = createRequire(import.meta.url)("../../index.js");
const linux = process.platform === "linux";
const nobody = 65534;
const code = (expected) => (error) => {
  assert.ok(error instanceof Error, String(error));
  assert.equal(error.code, expected, error.message);
  return true;
};

// Not in `os.tmpdir()`, which TMPDIR may have put into a home that others cannot enter.
const base = mkdtempSync("/tmp/openclaw-core-sandbox-");
after(() => rmSync(base, { recursive: true, force: true }));
let count = 0;
function folder() {
  const path = join(base, `w${++count}`);
  mkdirSync(path);
  return path;
}

/** Processes whose arguments hold a text. */
function processes(mark) {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(mark);
      } catch {
        return false;
      }
    });
}

/** How long it takes until no process has the mark, in milliseconds. */
async function gone(mark) {
  const start = performance.now();
  while (processes(mark).length > 0) {
    if (performance.now() - start > 10_000) throw new Error(`${mark} survives: ${processes(mark)}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - start;
}

async function until(condition, what) {
  const start = performance.now();
  while (!condition()) {
    if (performance.now() - start > 20_000) throw new Error(`in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A number that `sleep` takes and no other process has among its arguments. */
let marks = 0;
const mark = () => `9${process.pid}${String(++marks).padStart(3, "0")}.25`;

/** Starts what is hard to kill: a double fork, sessions of their own, a stopped process, one that ignores signals. */
const stubborn = (mark) =>
  `(setsid sh -c 'sleep ${mark} & sleep ${mark}' &) ; (trap "" TERM HUP INT; sleep ${mark}) & ` +
  `sleep ${mark} & kill -STOP $! ; (sleep ${mark} &) & echo ready; sleep ${mark}`;

const { checks } = await Sandbox.probe();
const works = (backend) => {
  const own = checks.filter(({ name }) => name.startsWith(`${backend}/`));
  return own.length > 0 && own.every(({ ok }) => ok);
};
const failing = (backend) => checks.find(({ name, ok }) => name.startsWith(`${backend}/`) && !ok);

for (const backend of linux ? ["bwrap", "landlock"] : []) {
  const why = failing(backend);
  const skip = works(backend) ? false : `${why?.name}: ${why?.detail}`;
  describe(`the backend ${backend} as uid ${process.getuid?.()}`, { skip }, () => {
    let workspace;
    const create = (more = {}) =>
      Sandbox.create({
        ...more,
        workspace: { host: workspace, access: "rw", ...more.workspace },
        backend,
      });
    before(() => {
      workspace = folder();
    });

    test("a command's output, exit code and input are its own", async () => {
      const sandbox = await create();
      assert.equal(sandbox.backend, backend);
      const { exitCode, signal, stdout, stderr, truncated } = await sandbox.run("cat; echo err >&2; exit 3", {
        stdin: Buffer.from([0, 255, 10]),
      });
      assert.deepEqual([exitCode, signal, truncated], [3, undefined, false]);
      assert.deepEqual([...stdout], [0, 255, 10]);
      assert.equal(String(stderr), "err\n");
      const big = Buffer.alloc(3 << 20, "x");
      const counted = await sandbox.run(["wc", "-c"], { stdin: big });
      assert.equal(Number(counted.stdout), big.length);
      const killed = await sandbox.run("kill -SEGV $$");
      assert.deepEqual([killed.exitCode, killed.signal], [null, "SIGSEGV"]);
      await sandbox.close();
    });

    test("arguments reach the program as they are", async () => {
      const sandbox = await create();
      const args = ["", "a b", "$(id)", "--", "-n", "é\n\\"];
      const { stdout } = await sandbox.run(["printf", "%s|", ...args]);
      assert.equal(String(stdout), `${args.join("|")}|`);
      await sandbox.close();
    });

    test("the environment is what was given and nothing else", async () => {
      process.env.OPENCLAW_TEST_TOKEN = "from the host";
      const sandbox = await create({ env: { A: "policy", B: "policy" } });
      const { stdout } = await sandbox.run(["/usr/bin/env", "-0"], { env: { B: "own\nline", C: "\\n" } });
      delete process.env.OPENCLAW_TEST_TOKEN;
      const env = Object.fromEntries(
        String(stdout)
          .split("\0")
          .filter(Boolean)
          .map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
      );
      const { A, B, C, ...rest } = env;
      assert.deepEqual([A, B, C], ["policy", "own\nline", "\\n"]);
      assert.deepEqual(Object.keys(rest).sort(), ["HOME", "LANG", "PATH", "TMPDIR"]);
      await sandbox.close();
    });

    test("files in the workspace are the host's, and its access holds", async () => {
      writeFileSync(join(workspace, "in"), "in");
      const sandbox = await create();
      const written = await sandbox.run("cat in && echo out > out");
      assert.equal(written.exitCode, 0, String(written.stderr));
      assert.equal(readFileSync(join(workspace, "out"), "utf8"), "out\n");
      await sandbox.close();
      const readOnly = await create({ workspace: { access: "ro" } });
      const refused = await readOnly.run("cat in; echo no > in; rm -f in; mkdir x");
      assert.equal(String(refused.stdout), "in");
      assert.equal(readFileSync(join(workspace, "in"), "utf8"), "in");
      assert.ok(!existsSync(join(workspace, "x")));
      await readOnly.close();
    });

    test("/tmp is private and gone afterwards", async () => {
      const sandbox = await create();
      const { stdout } = await sandbox.run('echo x > "$TMPDIR/mine" && cat "$TMPDIR/mine"; ls -A "$TMPDIR"');
      assert.equal(String(stdout), "x\nmine\n");
      const again = await sandbox.run('ls -A "$TMPDIR"');
      assert.equal(String(again.stdout), "");
      await sandbox.close();
    });

    test("a terminal is a real one", async () => {
      const sandbox = await create();
      const { stdout, exitCode } = await sandbox.run(
        "test -t 0 && test -t 1 && test -t 2 && tty && stty size && read -r line && echo got $line; echo err >&2; exit 4",
        { pty: true, stdin: Buffer.from("typed\n") },
      );
      assert.equal(exitCode, 4);
      const text = String(stdout);
      assert.match(text, /(^|\n)\/dev\/pts\/\d+\r\n/);
      assert.match(text, /24 80\r\n/);
      assert.match(text, /got typed\r\n/);
      assert.match(text, /err\r\n/);
      await sandbox.close();
    });

    test("no signal is blocked or ignored, whatever the gateway does with it", async () => {
      const sandbox = await create();
      // Node itself ignores SIGXFSZ and SIGPIPE, and the launcher blocks the first three.
      for (const name of ["HUP", "INT", "TERM", "XFSZ", "PIPE", "PROF", "IO"]) {
        const { signal } = await sandbox.run(["perl", "-e", `kill ${name} => $$; sleep 1`]);
        assert.equal(signal, `SIG${name}`);
      }
      await sandbox.close();
    });

    test("a terminal's input ends, also in the middle of a line", async () => {
      const sandbox = await create();
      for (const text of ["", "line\n", "no newline"]) {
        const { exitCode, timedOut } = await sandbox.run("stty -echo; cat; echo done", {
          pty: true,
          stdin: Buffer.from(text),
        });
        assert.deepEqual([exitCode, timedOut], [0, undefined], text);
      }
      await sandbox.close();
    });

    test("a terminal that somebody in the background keeps open does not keep the command", async () => {
      const sandbox = await create();
      const own = mark();
      const { exitCode, stdout, timedOut } = await sandbox.run(`sleep ${own} & echo hi`, { pty: true });
      assert.deepEqual([exitCode, timedOut, String(stdout)], [0, undefined, "hi\r\n"]);
      assert.ok((await gone(own)) < 2000);
      // Nor if the kernel does not hang it up, because the command gave it up as its own (TIOCNOTTY).
      const other = mark();
      const kept = await sandbox.run(
        [
          "perl",
          "-e",
          `$SIG{HUP} = "IGNORE"; fork or exec "sleep", ${other}; ioctl(STDIN, 0x5422, 0) or die $!`,
        ],
        { pty: true },
      );
      assert.deepEqual([kept.exitCode, kept.timedOut, String(kept.stdout)], [0, undefined, ""]);
      assert.ok((await gone(other)) < 2000);
      await sandbox.close();
    });

    test("the terminal of the gateway is not the command's", async () => {
      const sandbox = await create();
      const seen = await sandbox.run(
        "perl -MPOSIX -e 'print getppid() == 1 || POSIX::getpgrp() != $ARGV[0] ? q(own) : q(shared)' $GROUP; exec 3</dev/tty",
        { env: { GROUP: readFileSync("/proc/self/stat", "latin1").split(") ")[1].split(" ")[2] } },
      );
      assert.equal(String(seen.stdout), "own");
      assert.notEqual(seen.exitCode, 0);
      await sandbox.close();
    });

    test("the death of the launcher ends everything", async () => {
      const sandbox = await create();
      const own = mark();
      const running = sandbox.run(stubborn(own));
      await until(() => processes(own).length > 4, "the command to run");
      for (const pid of processes("openclaw-core-init\0control")) {
        const parent = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ")[1];
        if (parent === String(process.pid)) process.kill(Number(pid), "SIGKILL");
      }
      const { exitCode, signal } = await running;
      assert.deepEqual([exitCode, signal], [null, "SIGKILL"]);
      assert.ok((await gone(own)) < 2000);
      await sandbox.close();
    });

    test("what cannot start is SANDBOX_SPAWN, and says why", async () => {
      const sandbox = await create();
      await assert.rejects(sandbox.run(["/no/such/program"]), (error) => {
        code("SANDBOX_SPAWN")(error);
        assert.match(error.message, /\/no\/such\/program.*No such file/);
        return true;
      });
      await assert.rejects(sandbox.run("true", { cwd: "/no/such/folder" }), code("SANDBOX_SPAWN"));
      await assert.rejects(sandbox.run([]), code("SANDBOX_SPAWN"));
      await assert.rejects(sandbox.run("true", { cwd: "relative" }), code("SANDBOX_SPAWN"));
      await assert.rejects(sandbox.run(["a\0b"]), code("SANDBOX_SPAWN"));
      // More than the launcher takes: it fails before it has begun.
      const much = Array.from({ length: 70 }, () => "x".repeat(1 << 20));
      await assert.rejects(sandbox.run(["true", ...much]), code("SANDBOX_SPAWN"));
      await sandbox.close();
    });

    test("output beyond the limit loses its middle, and onOutput still gets it all", async () => {
      const sandbox = await create({ limits: { outputBytes: 1000 } });
      let got = 0;
      const result = await sandbox.run("seq 1 100000", {
        onOutput: (chunk, stream) => {
          assert.equal(stream, "stdout");
          got += chunk.length;
        },
      });
      assert.equal(result.truncated, true);
      assert.equal(result.stdout.length, 1000);
      assert.equal(result.droppedBytes, got - 1000);
      assert.ok(String(result.stdout).startsWith("1\n2\n") && String(result.stdout).endsWith("\n100000\n"));
      await assert.rejects(
        sandbox.run("yes", {
          onOutput: () => {
            throw new RangeError("mine");
          },
        }),
        RangeError,
      );
      await sandbox.close();
    });

    test("a slow listener holds the command back, not the memory", async () => {
      const sandbox = await create();
      let first = true;
      let bytes = 0;
      const before = process.memoryUsage().rss;
      let peak = 0;
      await sandbox.run("head -c 400000000 /dev/zero", {
        onOutput: (chunk) => {
          bytes += chunk.length;
          if (first) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
          first = false;
          peak = Math.max(peak, process.memoryUsage().rss - before);
        },
      });
      assert.equal(bytes, 400_000_000);
      // Buffers wait for the collector; what was never held back would be all of it.
      assert.ok(peak < 200 << 20, `${peak} bytes more`);
      await sandbox.close();
    });

    for (const [name, limits, which] of [
      ["wallMs", { wallMs: 3000 }, "wall"],
      ["idleMs", { idleMs: 3000 }, "idle"],
    ]) {
      test(`${name} ends everything that the command started`, async () => {
        const sandbox = await create({ limits });
        const own = mark();
        const result = await sandbox.run(stubborn(own));
        assert.equal(result.timedOut, which);
        assert.equal(String(result.stdout), "ready\n");
        assert.ok((await gone(own)) < 2000);
        await sandbox.close();
      });
    }

    test("a command that ends takes what it left in the background with it", async () => {
      const sandbox = await create();
      const own = mark();
      const result = await sandbox.run(`setsid sleep ${own} & (sleep ${own} &) ; exit 0`);
      assert.deepEqual([result.exitCode, result.timedOut], [0, undefined]);
      assert.ok((await gone(own)) < 2000);
      await sandbox.close();
    });

    test("a signal ends everything, and rejects with its own reason", async () => {
      const sandbox = await create();
      const own = mark();
      const abort = new AbortController();
      const running = sandbox.run(stubborn(own), {
        signal: abort.signal,
        onOutput: () => abort.abort("enough"),
      });
      await assert.rejects(running, (reason) => reason === "enough");
      assert.ok((await gone(own)) < 2000);
      await sandbox.close();
    });

    test("close ends everything and lets nothing more start", async () => {
      const sandbox = await create();
      const own = mark();
      const running = sandbox.run(stubborn(own));
      const rejected = assert.rejects(running, code("SANDBOX_SPAWN"));
      await until(() => processes(own).length > 4, "the command to run");
      await sandbox.close();
      assert.deepEqual(processes(own), []);
      await rejected;
      await assert.rejects(sandbox.run("true"), code("SANDBOX_SPAWN"));
      await assert.rejects(sandbox.launch("true"), code("SANDBOX_SPAWN"));
      await assert.rejects(sandbox.explain(), code("SANDBOX_SPAWN"));
    });

    test("the death of Node ends everything", async () => {
      const own = mark();
      const script = `
        const { Sandbox } = require(${JSON.stringify(join(root, "index.js"))});
        const policy = { workspace: { host: ${JSON.stringify(workspace)}, access: "rw" }, backend: "${backend}" };
        Sandbox.create(policy).then((sandbox) => sandbox.run(${JSON.stringify(stubborn(own))}));`;
      const child = spawn(process.execPath, ["-e", script], { stdio: "inherit" });
      // The core's own arguments do not show the command: what is seen is what runs.
      await until(() => processes(own).length > 5, "the command to run");
      child.kill("SIGKILL");
      assert.ok((await gone(own)) < 2000);
    });

    test("a launch is the same sandbox for another supervisor", async () => {
      const sandbox = await create({ env: { SECRET_OF_POLICY: "s3cr3t" } });
      const { argv, env } = await sandbox.launch("echo $SECRET_OF_POLICY $MORE; cat; exit 7", {
        env: { MORE: "0thers3cr3t" },
      });
      assert.doesNotMatch(argv.join(" "), /s3cr3t/);
      assert.deepEqual(Object.keys(env), ["OPENCLAW_SANDBOX_ENV"]);
      const [program, ...args] = argv;
      const result = spawnSync(program, args, { env, input: "in", encoding: "utf8" });
      assert.deepEqual([result.stdout, result.status], ["s3cr3t 0thers3cr3t\nin", 7], result.stderr);
      const status = async (command) => {
        const launch = await sandbox.launch(command);
        return spawnSync(launch.argv[0], launch.argv.slice(1), { env: launch.env });
      };
      assert.equal((await status("kill -9 $$")).status, 137);
      assert.equal((await status(["/no/such/program"])).status, 126);
      await sandbox.close();
    });

    test("a launched command ends with its supervisor's signal, its wall time and its parent", async () => {
      const limits = { wallMs: 3_600_000 };
      const sandbox = await create({ limits });
      const start = async (own, options) => {
        const { argv, env } = await sandbox.launch(`: ; ${stubborn(own)}`, options);
        return { argv, env };
      };
      const running = (own) => until(() => processes(`sleep\0${own}`).length > 4, "the command to run");
      const first = mark();
      const launch = await start(first);
      const child = spawn(launch.argv[0], launch.argv.slice(1), { env: launch.env, stdio: "ignore" });
      await running(first);
      child.kill("SIGTERM");
      assert.ok((await gone(first)) < 2000);

      const second = mark();
      const orphan = await start(second);
      const text = JSON.stringify([
        orphan.argv[0],
        orphan.argv.slice(1),
        { env: orphan.env, stdio: "ignore" },
      ]);
      const parent = spawn(
        process.execPath,
        [
          "-e",
          `require("node:child_process").spawn(...JSON.parse(process.env.SPAWN)); setInterval(() => {}, 1e6)`,
        ],
        { env: { ...process.env, SPAWN: text } },
      );
      await running(second);
      parent.kill("SIGKILL");
      assert.ok((await gone(second)) < 2000);
      await sandbox.close();

      const quick = await create({ limits: { wallMs: 300 } });
      const third = mark();
      const timed = await quick.launch(`: ; ${stubborn(third)}`);
      const ended = spawnSync(timed.argv[0], timed.argv.slice(1), { env: timed.env, timeout: 20_000 });
      assert.equal(ended.status, 137);
      assert.ok((await gone(third)) < 2000);
      await quick.close();
    });

    test("limits hold: processes, memory, file size, CPU time", async () => {
      const sandbox = await create({
        limits: { pids: 30, memoryBytes: 128 << 20, fileBytes: 1 << 20, cpuSeconds: 1, wallMs: 60_000 },
      });
      const forks = await sandbox.run(
        "i=0; while [ $i -lt 60 ]; do sleep 20 & i=$((i+1)); done 2>/dev/null; jobs -p | wc -l; kill -9 $(jobs -p)",
      );
      const started = Number(String(forks.stdout).trim() || 0);
      assert.ok(started < 30, `${started} processes`);
      const memory = await sandbox.run([
        "perl",
        "-e",
        "my @a; for (1..64) { push @a, 'x' x (4 << 20) } print 'all of it'",
      ]);
      assert.doesNotMatch(String(memory.stdout), /all of it/);
      assert.ok(memory.exitCode !== 0);
      assert.ok(memory.peakMemoryBytes <= 160 << 20, String(memory.peakMemoryBytes));
      const file = await sandbox.run("head -c 3000000 /dev/zero > big; wc -c < big");
      assert.ok(Number(file.stdout) <= 1 << 20, String(file.stdout));
      const cpu = await sandbox.run("while :; do :; done");
      assert.ok(["SIGXCPU", "SIGKILL"].includes(cpu.signal), cpu.signal);
      assert.equal(cpu.timedOut, undefined);
      assert.ok(cpu.cpuMs > 500, String(cpu.cpuMs));
      await sandbox.close();
    });

    test("explain says what was seen from inside", async () => {
      const sandbox = await create();
      const seen = await sandbox.explain();
      assert.equal(seen.backend, backend);
      assert.equal(seen.capabilities, "0/0/0");
      assert.equal(seen.noNewPrivs, true);
      assert.equal(seen.seccomp.mode, "filter");
      assert.deepEqual([...new Set(Object.values(seen.seccomp.tried))], ["EPERM"]);
      assert.match(seen.boundedBy.pids, /^(cgroup-v[12]|rlimit-nproc)$/);
      if (backend === "bwrap") {
        assert.deepEqual(seen.network.interfaces, ["lo"]);
        assert.deepEqual([seen.network.ipv4Routes, seen.processesSeen], [0, 2]);
        assert.deepEqual(
          seen.mounts
            .filter(({ access }) => access === "rw")
            .map(({ mount }) => mount)
            .sort(),
          [
            "/dev/full",
            "/dev/null",
            "/dev/pts",
            "/dev/random",
            "/dev/shm",
            "/dev/tty",
            "/dev/urandom",
            "/dev/zero",
            "/proc",
            "/tmp",
            "/workspace",
          ],
        );
      }
      await sandbox.close();
    });

    test("many commands at once leave nothing behind", async () => {
      const sandbox = await create();
      const results = await Promise.all(
        Array.from({ length: 24 }, (_, index) => sandbox.run(["sh", "-c", `echo ${index}; exit ${index}`])),
      );
      assert.deepEqual(
        results.map(({ exitCode, stdout }) => [exitCode, Number(stdout)]),
        results.map((_, index) => [index, index]),
      );
      await sandbox.close();
      const own = (pid) => {
        try {
          return (
            readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ")[1] === String(process.pid)
          );
        } catch {
          return false;
        }
      };
      // The launchers clear away after themselves when the commands are gone.
      await until(() => processes("openclaw-core-init").filter(own).length === 0, "the launchers to end");
    });
  });
}

describe("without namespaces", { skip: works("landlock") ? false : "Landlock does not work here" }, () => {
  test("no Unix socket of the host is reached, also with the host's network", async () => {
    const elsewhere = folder();
    const at = join(elsewhere, "socket");
    const perl = (text) => ["perl", "-MSocket", "-e", text];
    // A service that takes what is sent to it, and a program that reaches it in three ways.
    const service = spawn(
      ...((argv) => [argv[0], argv.slice(1)])(
        perl(
          `for ([SOCK_STREAM, ""], [SOCK_DGRAM, ".dgram"]) { my $s; socket $s, AF_UNIX, $_->[0], 0 or die; ` +
            `bind $s, sockaddr_un("${at}$_->[1]") or die; listen $s, 5 if !$_->[1]; push @s, $s } ` +
            `chmod 0777, "${at}", "${at}.dgram"; $| = 1; print "ready\n"; sleep 1000`,
        ),
      ),
    );
    after(() => service.kill());
    await new Promise((resolve) => service.stdout.once("data", resolve));
    const ways = {
      stream: `socket my $s, AF_UNIX, SOCK_STREAM, 0 or die; connect $s, sockaddr_un("${at}") or die`,
      datagram: `socket my $s, AF_UNIX, SOCK_DGRAM, 0 or die; connect $s, sockaddr_un("${at}.dgram") or die`,
      pair: `socketpair my $s, my $t, AF_UNIX, SOCK_DGRAM, 0 or die; connect $s, sockaddr_un("${at}.dgram") or die`,
    };
    const policy = (network) => ({
      workspace: { host: folder(), access: "rw" },
      network,
      backend: "landlock",
    });
    for (const [way, text] of Object.entries(ways)) {
      const argv = perl(text);
      assert.equal(spawnSync(argv[0], argv.slice(1)).status, 0, `${way} on the host`);
      for (const network of ["none", "host"]) {
        const sandbox = await Sandbox.create(policy(network));
        const { exitCode } = await sandbox.run(argv);
        assert.notEqual(exitCode, 0, `${way} with network ${network}`);
        await sandbox.close();
      }
    }
    // What programs are made of still works.
    const sandbox = await Sandbox.create(policy("none"));
    const stream = await sandbox.run(
      perl(
        "socketpair my $s, my $t, AF_UNIX, SOCK_STREAM, 0 or die; syswrite $s, q(x); sysread $t, $_, 1; print",
      ),
    );
    assert.equal(String(stream.stdout), "x", String(stream.stderr));
    await sandbox.close();
  });
});

describe("a sandbox", { skip: works("bwrap") ? false : "bubblewrap does not work here" }, () => {
  test("shows mounts where the policy says, the inner ones over the outer ones", async () => {
    const [outer, inner] = [folder(), folder()];
    mkdirSync(join(outer, "skills"));
    writeFileSync(join(outer, "skills", "own"), "");
    writeFileSync(join(inner, "skill"), "s");
    const sandbox = await Sandbox.create({
      workspace: { host: outer, access: "rw" },
      mounts: [{ host: inner, mount: "/workspace/skills", access: "ro" }],
    });
    const { stdout } = await sandbox.run(
      "ls skills; cat skills/skill; echo x > skills/skill || echo refused",
    );
    assert.equal(String(stdout), "skill\nsrefused\n");
    await sandbox.close();
    const none = await Sandbox.create({ workspace: { host: outer, access: "none" } });
    const empty = await none.run("ls -A; pwd; echo x > x || echo refused");
    assert.equal(String(empty.stdout), "/workspace\nrefused\n");
    await none.close();
  });

  test("does not follow a mount's source that has become a link", async () => {
    const host = folder();
    const target = folder();
    writeFileSync(join(target, "secret"), "s");
    const sandbox = await Sandbox.create({ workspace: { host, access: "rw" } });
    renameSync(host, `${host}.old`);
    symlinkSync(target, host);
    await assert.rejects(sandbox.run("cat secret"), (error) => {
      code("SANDBOX_SPAWN")(error);
      assert.match(error.message, /symbolic link/);
      return true;
    });
    await sandbox.close();
  });

  test("makes no mount point through a link that a command has left", async () => {
    const [host, inner, elsewhere] = [folder(), folder(), folder()];
    const sandbox = await Sandbox.create({
      workspace: { host, access: "rw" },
      mounts: [{ host: inner, mount: "/workspace/a/b", access: "ro" }],
    });
    rmSync(join(host, "a"), { recursive: true, force: true });
    symlinkSync(elsewhere, join(host, "a"));
    await assert.rejects(sandbox.run("true"), code("SANDBOX_SPAWN"));
    assert.deepEqual(readdirSync(elsewhere), []);
    await sandbox.close();
  });

  test("is refused where user namespaces are, by name and with a remedy", async () => {
    // Inside of a sandbox they are: the core in there runs into the real refusal.
    const library = folder();
    const node = realpathSync(process.execPath);
    for (const name of readdirSync(root).filter((name) => name.endsWith(".node"))) {
      copyFileSync(join(root, name), join(library, name));
    }
    for (const name of ["index.js", "openclaw-core-init"])
      copyFileSync(join(root, name), join(library, name));
    copyFileSync(node, join(library, "node"));
    const sandbox = await Sandbox.create({ workspace: { host: library, access: "ro" } });
    const script = `
      const { Sandbox } = require("/workspace/index.js");
      const policy = { workspace: { host: "/workspace", access: "none" }, backend: "bwrap" };
      Sandbox.create(policy).then(() => console.log("made"), (e) => console.log(JSON.stringify([e.code, e.missing, e.remedy])));`;
    const { stdout, stderr } = await sandbox.run(["/workspace/node", "-e", script]);
    const [code_, missing, remedy] = JSON.parse(String(stdout) || "[]");
    assert.deepEqual([code_, missing], ["SANDBOX_UNAVAILABLE", "user-namespaces"], String(stderr));
    assert.ok(remedy.length > 10);
    await sandbox.close();
  });

  test("no source shows under another name what must not be seen", async () => {
    const home = folder();
    for (const dir of [
      ".openclaw/credentials",
      ".openclaw/workspace",
      ".ssh",
      "project",
      "alias",
      "outer/alias",
    ])
      mkdirSync(join(home, dir), { recursive: true });
    const script = `
      const { Sandbox } = require(${JSON.stringify(join(root, "index.js"))});
      const tried = process.argv.slice(1).map((host) =>
        Sandbox.create({ workspace: { host, access: "ro" }, backend: "bwrap" }).then(() => "made", ({ code, path }) => [code, path]));
      Promise.all(tried).then((all) => console.log(JSON.stringify(all)));`;
    const outcome = (from, to, ...hosts) => {
      const bind = `mount --bind ${join(home, from)} ${join(home, to)} && exec "$@"`;
      const all = hosts.map((host) => join(home, host));
      const args = ["-rm", "sh", "-c", bind, "sh", process.execPath, "-e", script, ...all];
      const { stdout, stderr } = spawnSync("unshare", args, {
        encoding: "utf8",
        env: { ...process.env, HOME: home },
      });
      assert.ok(stdout, stderr);
      return JSON.parse(stdout).map((one) => one === "made" || one[0] !== "SANDBOX_POLICY");
    };
    assert.deepEqual(outcome("project", "alias", "alias", "project"), [true, true]);
    assert.deepEqual(outcome(".openclaw", "alias", "alias", "alias/credentials", "alias/workspace"), [
      false,
      false,
      true,
    ]);
    assert.deepEqual(outcome(".ssh", "outer/alias", "outer", "outer/alias"), [false, false]);
    assert.deepEqual(outcome(".", "outer/alias", "outer", "outer/alias", "outer/alias/project"), [
      false,
      false,
      true,
    ]);
  });

  test("a policy is refused by the field that is wrong", async () => {
    const host = folder();
    const workspace = { host, access: "rw" };
    for (const [path, policy] of [
      ["workspace", {}],
      ["workspace.access", { workspace: { host, access: "all" } }],
      ["workspace.host", { workspace: { host: "/", access: "ro" } }],
      ["workspace.host", { workspace: { host: "/proc/self/root", access: "ro" } }],
      ["workspace.host", { workspace: { host: join(host, "missing"), access: "ro" } }],
      ["mounts[0].host", { workspace, mounts: [{ host: "/run", mount: "/x", access: "ro" }] }],
      ["mounts[0].mount", { workspace, mounts: [{ host, mount: "/usr/bin", access: "ro" }] }],
      ["mounts", { workspace, mounts: [{ host, mount: "/workspace", access: "ro" }] }],
      ["network", { workspace, network: "container:x" }],
      ["limits.pids", { workspace, limits: { pids: 0 } }],
      ["limits.pids", { workspace, limits: { pids: Number.NaN } }],
      ["unconfined", { workspace, unconfined: true }],
      ["env.A B", { workspace, env: { "A B": "" } }],
    ]) {
      await assert.rejects(Sandbox.create(policy), (error) => {
        code("SANDBOX_POLICY")(error);
        assert.equal(error.path, path, error.message);
        return true;
      });
    }
    await assert.rejects(Sandbox.create(7), code("VALIDATION"));
    await assert.rejects(Sandbox.create({ workspace, backend: "seatbelt" }), code("SANDBOX_UNAVAILABLE"));
    await assert.rejects(
      Sandbox.create({ workspace: { ...workspace, mount: "/elsewhere" }, backend: "landlock" }),
      code("SANDBOX_POLICY"),
    );
  });
});

describe("the executable", { skip: linux ? false : "only Linux has it" }, () => {
  function copy() {
    const dir = folder();
    const node = readdirSync(root).find((name) => name.endsWith(".node"));
    for (const name of ["index.js", "openclaw-core-init", node])
      copyFileSync(join(root, name), join(dir, name));
    return { dir, Sandbox: createRequire(join(dir, "x.js"))("./index.js").Sandbox };
  }
  const policy = () => ({ workspace: { host: folder(), access: "rw" } });

  test("that is missing is missed by name", async () => {
    const { dir, Sandbox } = copy();
    rmSync(join(dir, "openclaw-core-init"));
    await assert.rejects(Sandbox.create(policy()), (error) => {
      code("SANDBOX_UNAVAILABLE")(error);
      assert.equal(error.missing, "openclaw-core-init");
      assert.match(error.remedy, /optional dependencies/);
      return true;
    });
    assert.equal((await Sandbox.probe()).backend, null);
  });

  test("gets its run bit back where an archive forgot it", {
    skip: works("bwrap") ? false : "no bwrap",
  }, async () => {
    const { dir, Sandbox } = copy();
    chmodSync(join(dir, "openclaw-core-init"), 0o644);
    const sandbox = await Sandbox.create(policy());
    assert.equal((await sandbox.run("true")).exitCode, 0);
    await sandbox.close();
  });

  test("cannot be told to leave a layer out", async () => {
    const text = readFileSync(join(root, "openclaw-core-init"), "latin1");
    assert.ok(!text.includes("OPENCLAW_CORE_INIT_WITHOUT"));
  });
});

const setpriv = ["--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"];
const asNobody = () => {
  if (!linux || process.getuid() !== 0) return "this is not root";
  const { status } = spawnSync("setpriv", [...setpriv, "test", "-r", fileURLToPath(import.meta.url)]);
  return status === 0 ? false : `nobody cannot read ${root}, or there is no setpriv`;
};
test("all of this holds for nobody, too", { skip: asNobody() }, () => {
  const temp = folder();
  chownSync(temp, nobody, nobody);
  const args = [
    ...setpriv,
    process.execPath,
    "--test",
    "--test-reporter=tap",
    fileURLToPath(import.meta.url),
  ];
  // The runner of tests marks its children, and they would report to it.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { status, stdout, stderr } = spawnSync("setpriv", args, {
    encoding: "utf8",
    env: { ...env, HOME: temp },
    timeout: 240_000,
  });
  assert.equal(
    status,
    0,
    `${stdout}${stderr}`
      .split("\n")
      .filter((line) => /not ok|error|expected|actual/.test(line))
      .join("\n"),
  );
  assert.ok(Number(/^# pass (\d+)/m.exec(stdout)?.[1]) > 30, stdout);
});
