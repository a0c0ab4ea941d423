// What a sandbox costs: the start of a command against bare bubblewrap, many at once, and those that do nothing.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readlinkSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { compareAsync, fresh, quantile, row } from "./measure.mjs";

const { Sandbox } = createRequire(import.meta.url)("../index.js");

export const title = "Sandbox";

const TRUE = "/usr/bin/true";

/** What the core asks of bubblewrap, as far as arguments can say it: filter, Landlock and limits are ours alone. */
function bare(workspace) {
  const args =
    "--unshare-user --die-with-parent --new-session --as-pid-1 --cap-drop ALL --clearenv --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try --hostname sandbox --unshare-net --disable-userns --ro-bind /usr /usr".split(
      " ",
    );
  for (const path of ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"]) {
    try {
      args.push("--symlink", readlinkSync(path), path);
    } catch {
      if (existsSync(path)) args.push("--ro-bind", path, path);
    }
  }
  const etc =
    "ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl/certs ssl/openssl.cnf ca-certificates pki/tls/certs pki/ca-trust/extracted nsswitch.conf localtime timezone mime.types services protocols os-release debian_version fonts inputrc terminfo magic python3 passwd group hosts";
  args.push("--perms", "0755", "--dir", "/etc");
  for (const name of etc.split(" ")) args.push("--ro-bind-try", `/etc/${name}`, `/etc/${name}`);
  args.push("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev");
  for (const path of ["/dev/shm", "/tmp"])
    args.push("--perms", "1777", "--size", "1073741824", "--tmpfs", path);
  args.push("--perms", "0755", "--size", "65536", "--tmpfs", "/run", "--ro-bind", TRUE, "/run/program");
  args.push(
    "--bind",
    workspace,
    "/workspace",
    "--remount-ro",
    "/dev",
    "--remount-ro",
    "/run",
    "--remount-ro",
    "/",
  );
  args.push("--chdir", "/workspace", "--", TRUE);
  return args;
}

const ended = (command, args) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    child.on("error", reject);
    let words = "";
    child.stderr.on("data", (chunk) => {
      words += chunk;
    });
    child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(`${command}: ${code} ${words}`))));
  });

export async function run() {
  if (process.platform !== "linux") throw new Error("the sandbox of this system is another one");
  const workspace = mkdtempSync("/tmp/openclaw-core-bench-");
  try {
    const sandbox = await Sandbox.create({ workspace: { host: workspace, access: "rw" }, backend: "bwrap" });
    const landlock = await Sandbox.create({
      workspace: { host: workspace, access: "rw" },
      backend: "landlock",
    });
    const args = bare(workspace);
    const succeed = async (one) => {
      const { exitCode, stderr } = await one.run([TRUE]);
      if (exitCode !== 0) throw new Error(`${exitCode} ${stderr}`);
    };
    const start = await compareAsync(
      {
        "Sandbox.run": () => succeed(sandbox),
        "bare bubblewrap": () => ended("bwrap", args),
        "Sandbox.run, backend landlock": () => succeed(landlock),
        "no sandbox": () => ended(TRUE, []),
      },
      { turns: 80, warmUp: 5 },
    );
    const rows = [
      row({
        title: "a command that does nothing, from call to result",
        unit: "ms",
        samples: start,
        target: {
          text: "p50 ≤ 1.3 × bare bubblewrap with the same arguments, and ≤ 15 ms",
          met: ({ contenders, ratios }) =>
            1 / ratios["bare bubblewrap"].value <= 1.3 && contenders["Sandbox.run"].median <= 15,
        },
        note: "Both are started from Node. Bare bubblewrap gets the same mounts and namespaces, and neither filter, Landlock, limits nor anybody who watches over it.",
      }),
    ];
    const delays = [];
    for (let turn = 0; turn < 5; turn++) {
      const delay = monitorEventLoopDelay({ resolution: 1 });
      delay.enable();
      await Promise.all(Array.from({ length: 32 }, () => sandbox.run("seq 1 2000")));
      delay.disable();
      // What the timer itself takes is in every sample.
      delays.push(Math.max(0, delay.percentile(99) / 1e6 - 1));
    }
    rows.push(
      row({
        title: "event-loop delay while 32 sandboxes run, p99",
        unit: "ms",
        samples: { "32 at once": delays },
        target: { text: "p99 ≤ 10 ms", met: ({ contenders }) => contenders["32 at once"].median <= 10 },
      }),
    );
    await sandbox.close();
    await landlock.close();
    const code = `
      const { Sandbox } = require(${JSON.stringify(join(import.meta.dirname, "../index.js"))});
      const policy = { workspace: { host: ${JSON.stringify(workspace)}, access: "rw" }, backend: "bwrap" };
      (async () => {
        const kept = [await Sandbox.create(policy)];
        gc();
        const before = process.memoryUsage().rss;
        for (let n = 0; n < 40; n++) kept.push(await Sandbox.create(policy));
        gc();
        console.log(JSON.stringify({ each: Math.max(0, process.memoryUsage().rss - before) / 40 / 1048576 }));
      })();`;
    const each = Array.from({ length: 3 }, () => fresh(code).each);
    rows.push(
      row({
        title: "memory of a sandbox in which nothing runs",
        unit: "MiB",
        samples: { "one of 40": each },
        target: { text: "≤ 2 MiB in Node", met: () => quantile(each, 1) <= 2 },
      }),
    );
    return rows;
  } finally {
    rmSync(workspace, { recursive: true, force: true });
  }
}
