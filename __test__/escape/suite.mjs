// Runs every attack on the host, in the sandbox, and in the sandbox with one layer left out.
import { spawn, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cases } from "./cases.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const built = join(root, ".cache/escape");
const { Sandbox } = createRequire(import.meta.url)(join(root, "index.js"));

/** The places where an attack is run, after the host. The last has no namespaces: it is the backend landlock. */
const PLACES = ["all", "-seccomp", "-landlock", "-namespaces"];

/** Builds the attacks, and the launcher with a layer left out. Gives why it cannot, if so. */
export function build() {
  const rustc = spawnSync("rustc", ["-vV"], { encoding: "utf8" }).stdout ?? "";
  const host = /^host: (.*)$/m.exec(rustc)?.[1] ?? "";
  const installed = spawnSync("rustup", ["target", "list", "--installed"], { encoding: "utf8" }).stdout ?? "";
  const musl = host.replace("-gnu", "-musl");
  const target = installed.split(/\s+/).includes(musl) ? musl : host;
  const linker = target === host ? "" : "-C linker=rust-lld";
  const variable = `CARGO_TARGET_${target.toUpperCase().replaceAll("-", "_")}_RUSTFLAGS`;
  const env = { ...process.env, [variable]: `-C target-feature=+crt-static ${linker}`.trim() };
  const metadata = spawnSync("cargo", ["metadata", "--no-deps", "--format-version", "1"], {
    cwd: root,
    encoding: "utf8",
  });
  const out = join(JSON.parse(metadata.stdout).target_directory, target, "escape");
  for (const [place, feature] of [
    ["all", ""],
    ["-seccomp", "without-seccomp"],
    ["-landlock", "without-landlock"],
  ]) {
    const args = [
      "build",
      "--quiet",
      "--package",
      "openclaw-core-init",
      "--profile",
      "escape",
      "--target",
      target,
    ];
    const { status, stderr } = spawnSync("cargo", [...args, "--features", `escape ${feature}`], {
      cwd: root,
      env,
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`the attacks cannot be built:\n${stderr}`);
    mkdirSync(join(built, place), { recursive: true });
    copyFileSync(join(out, "openclaw-core-init"), join(built, place, "openclaw-core-init"));
    if (place === "all") copyFileSync(join(out, "openclaw-core-escape"), join(built, "openclaw-core-escape"));
  }
}

/** Runs something to its end. A million swaps take long where others work, too. */
function finish(argv, options) {
  return new Promise((resolve) => {
    const child = spawn(argv[0], argv.slice(1), options);
    const timer = setTimeout(() => child.kill("SIGKILL"), 300_000);
    const out = [];
    child.stdout.on("data", (chunk) => out.push(chunk));
    child.stderr.on("data", (chunk) => out.push(chunk));
    child.on("error", (error) => resolve({ code: null, out: error.message }));
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal: signal ?? undefined, out: Buffer.concat(out).toString() });
    });
  });
}

const listening = (server, ...args) =>
  new Promise((resolve, reject) => server.once("error", reject).listen(...args, () => resolve(server)));

/** Those that have a text among their arguments, or only those that sleep so long. */
function holders(mark, sleeping = false) {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const text = readFileSync(`/proc/${pid}/cmdline`, "latin1");
      return sleeping ? text.startsWith(`sleep\0${mark}`) : text.includes(mark);
    } catch {
      return false;
    }
  });
}

/** Runs all cases; gives rows and the count. */
export async function runSuite(say = console.log) {
  process.env.GATEWAY_TOKEN = "token of the gateway";
  const base = mkdtempSync("/tmp/openclaw-core-escape-");
  const open = [];
  try {
    return await inFolder(base, open, say);
  } finally {
    for (const one of open) one.close();
    rmSync(base, { recursive: true, force: true });
  }
}

async function inFolder(base, open, say) {
  const isRoot = process.getuid() === 0;
  const [out, ws, ro] = ["outside", "workspace", "read-only"].map((name) => join(base, name));
  for (const dir of [
    join(out, "home/.ssh"),
    join(out, "home/.openclaw/credentials"),
    join(out, "other-workspace"),
    join(ws, "fake"),
    join(ws, "skills"),
    ro,
  ]) {
    mkdirSync(dir, { recursive: true });
  }
  for (const name of [
    "secret",
    "home/.ssh/id_ed25519",
    "home/.openclaw/credentials/oauth.json",
    "other-workspace/secret",
  ]) {
    writeFileSync(join(out, name), "OUTSIDE-SECRET\n");
  }
  writeFileSync(join(ro, "file"), "");
  writeFileSync(join(ws, "fake/bwrap"), "#!/bin/sh\necho FAKE\n");
  chmodSync(join(ws, "fake/bwrap"), 0o755);
  const attack = join(ws, "attack");
  copyFileSync(join(built, "openclaw-core-escape"), attack);
  chmodSync(attack, 0o755);
  const copyOfInit = join(out, "init");
  copyFileSync(join(root, "openclaw-core-init"), copyOfInit);

  const accept = (socket) =>
    socket
      .on("error", () => {})
      .resume()
      .end("hello");
  const unix = join(out, "docker.sock");
  // Node 20 fills a shorter name up with zeros.
  const abstract = `openclaw-escape-${process.pid}`.padEnd(107, "-");
  const runSocket = `/run/openclaw-escape-${process.pid}.sock`;
  const tcp = await listening(createServer(accept), 0, "127.0.0.1");
  open.push(
    tcp,
    await listening(createServer(accept), unix),
    await listening(createServer(accept), `\0${abstract}`),
  );
  if (isRoot) open.push(await listening(createServer(accept), runSocket));
  const udp = createSocket("udp4").on("message", (text, { port, address }) => udp.send(text, port, address));
  await new Promise((resolve) => udp.bind(0, "127.0.0.1", resolve));
  open.push(udp);
  const secretFd = openSync(join(out, "secret"), "r");
  // Stands for the gateway: its token, its folder, a descriptor of its own.
  const gateway = spawn("sleep", ["1000"], { cwd: out, stdio: ["ignore", "ignore", "ignore", secretFd] });
  open.push({ close: () => closeSync(secretFd) }, { close: () => gateway.kill() });

  const limits = { pids: 64, memoryBytes: 128 << 20, fileBytes: 4 << 20, wallMs: 60_000 };
  const mounts = (at) => [{ host: ro, mount: at, access: "ro" }];
  const sandboxes = {
    bwrap: await Sandbox.create({
      workspace: { host: ws, access: "rw" },
      mounts: mounts("/ro"),
      limits,
      backend: "bwrap",
    }),
    landlock: await Sandbox.create({
      workspace: { host: ws, access: "rw" },
      mounts: mounts(ro),
      limits,
      backend: "landlock",
    }),
  };
  const explained = await sandboxes.bwrap.explain();
  say(
    `uid ${process.getuid()}, bounded by ${JSON.stringify(explained.boundedBy)}, Landlock ABI ${explained.landlock.kernelAbi}`,
  );

  const nameserver = /^nameserver\s+([\d.]+)/m.exec(
    existsSync("/etc/resolv.conf") ? readFileSync("/etc/resolv.conf", "utf8") : "",
  )?.[1];
  let marks = 0;
  const context = (place) => {
    const namespaces = !["host", "-namespaces"].includes(place);
    return {
      place,
      root: isRoot,
      out,
      ws: namespaces ? "/workspace" : ws,
      ro: namespaces ? "/ro" : ro,
      attack: namespaces ? "/workspace/attack" : attack,
      copyOfInit,
      secret: join(out, "secret"),
      unix,
      runSocket,
      abstract,
      tcp: `127.0.0.1:${tcp.address().port}`,
      udp: `127.0.0.1:${udp.address().port}`,
      nameserver,
      hasRoute: (address) =>
        spawnSync(attack, ["route", address]).status === 0
          ? undefined
          : `this machine has no route to ${address}`,
      /** A process of the gateway's user, which holds a secret and lets anybody attach. */
      async victim() {
        const child = spawn(attack, ["victim"], { stdio: ["pipe", "pipe", "ignore"] });
        const line = await new Promise((resolve) => child.stdout.once("data", resolve));
        const [pid, at] = String(line).trim().split(" ");
        const file = `/proc/${pid}/stat`;
        const isAlive = () => existsSync(file) && !/\) [ZX] /.test(readFileSync(file, "latin1"));
        /** Whether it is alive after all; what was said to be sent has so long to come. */
        const end = async (ms) => {
          const until = Date.now() + ms;
          while (isAlive() && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 5));
          const alive = isAlive();
          child.kill("SIGKILL");
          return alive;
        };
        return { pid, at, end };
      },
      async flood(_run, bytes) {
        if (place === "host")
          return (await finish(["head", "-c", String(bytes), "/dev/zero"], {})).out.length;
        return (await sandboxes.bwrap.run(["head", "-c", String(bytes), "/dev/zero"])).stdout.length;
      },
      /** What is left a second after the one who runs it is killed. */
      async survive() {
        const mark = `8${process.pid}${++marks}.5`;
        const script =
          `(setsid sh -c 'sleep ${mark} & sleep ${mark}' &) ; (trap "" TERM HUP INT; sleep ${mark}) & ` +
          `sleep ${mark} & kill -STOP $! ; (sleep ${mark} &) & echo ready; sleep ${mark}`;
        const { argv, options } = await command(place, script);
        const child = spawn(argv[0], argv.slice(1), { ...options, stdio: "pipe", detached: true });
        await new Promise((resolve) => child.stdout.once("data", resolve));
        const before = Date.now();
        while (holders(mark, true).length < 4 && Date.now() - before < 10_000)
          await new Promise((resolve) => setTimeout(resolve, 5));
        child.kill("SIGTERM");
        const start = performance.now();
        let left = holders(mark);
        while (left.length > 0 && performance.now() - start < 2000) {
          await new Promise((resolve) => setTimeout(resolve, 10));
          left = holders(mark);
        }
        const took = performance.now() - start;
        for (const pid of left) process.kill(Number(pid), "SIGKILL");
        return { through: left.length > 0, detail: `${left.length} left after ${took.toFixed(0)} ms` };
      },
      /** Somebody reads from a terminal that a program of the user has open. */
      async terminal(run) {
        const child = spawn("script", ["-qc", "tty; exec sleep 1000", "/dev/null"], {
          stdio: ["pipe", "pipe", "ignore"],
        });
        const line = await new Promise((resolve) => child.stdout.once("data", resolve));
        const { code, out: text } = await run(`exec 3<${String(line).trim()} && test -t 3`);
        child.kill("SIGKILL");
        // In a sandbox of namespaces a number like that may be its own.
        return { through: code === 0 && !namespaces, detail: text.trim() || `exit code ${code}` };
      },
      /** Somebody reads what another process of the user has put into a segment. */
      async sharedMemory(run) {
        const perl = (text) => spawnSync("perl", ["-e", text], { encoding: "utf8" }).stdout;
        const segment = perl(
          "my $m = shmget(0, 64, 01600); defined $m or die; shmwrite $m, q(OUTSIDE-SECRET), 0, 14 or die; print $m",
        );
        const { out: text } = await run(`perl -e 'shmread(${segment}, $_, 0, 14) or die $!; print'`);
        perl(`shmctl ${segment}, 0, 0`);
        return { through: text.includes("OUTSIDE-SECRET"), detail: text.trim() };
      },
      race: () => race(place, { ws, out, attack, limits, command }),
      raceForMountPoint: () => raceForMountPoint(place, { base, out, attack, limits }),
    };
  };

  /** How a command is started in a place. */
  async function command(place, what, { env = {}, inherit = false } = {}) {
    const here = context(place);
    const given = {
      OUT: out,
      WS: here.ws,
      RO: here.ro,
      GATEWAY: String(gateway.pid),
      SECRET_FD: "3",
      ...env,
    };
    if (place === "host") {
      const argv = typeof what === "string" ? ["/bin/sh", "-c", what] : what;
      return {
        argv,
        options: {
          cwd: ws,
          env: inherit ? process.env : { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", ...given },
        },
      };
    }
    const sandbox = place === "-namespaces" ? sandboxes.landlock : sandboxes.bwrap;
    const launch = await sandbox.launch(what, { env: given });
    const program = ["all", "-namespaces"].includes(place)
      ? launch.argv[0]
      : join(built, place, "openclaw-core-init");
    // A careless supervisor: it adds its own environment.
    const own = inherit ? process.env : {};
    return { argv: [program, ...launch.argv.slice(1)], options: { cwd: ws, env: { ...own, ...launch.env } } };
  }

  const rows = [];
  // OPENCLAW_ESCAPE_ONLY: those whose name matches, while working on one.
  const only = new RegExp(process.env.OPENCLAW_ESCAPE_ONLY ?? "");
  for (const one of cases.filter(({ name }) => only.test(name))) {
    const began = performance.now();
    const row = { area: one.area, name: one.name, places: {} };
    rows.push(row);
    row.absent = one.applies?.(context("host"));
    for (const place of row.absent ? [] : ["host", ...PLACES]) {
      if (place !== "host" && one.only && !one.only.includes(place)) continue;
      const here = context(place);
      const run = async (what, options = {}) => {
        const { argv, options: how } = await command(place, what, options);
        const stdio = ["ignore", "pipe", "pipe"];
        if (options.descriptor !== undefined) stdio.push(options.descriptor);
        const result = await finish(argv, { ...how, stdio });
        if (options.descriptor !== undefined) closeSync(options.descriptor);
        return result;
      };
      let outcome;
      if (one.attack) outcome = await one.attack(run, here);
      else {
        const { code, signal, out: text } = await run(one.sh ?? one.argv(here));
        const absent = code === 3 && place === "host" ? `the kernel says ${text.trim()}` : undefined;
        outcome = {
          through: code === 0,
          absent,
          detail: signal ?? (text.trim().split("\n").at(-1) || `exit code ${code}`),
        };
      }
      if (place === "host" && (outcome.absent || !outcome.through)) {
        row.absent = outcome.absent;
        row.uncontrolled = outcome.absent ? undefined : outcome.detail;
        break;
      }
      row.places[place] = outcome;
    }
    const mark = row.absent
      ? "n/a "
      : row.uncontrolled
        ? "????"
        : row.places.all.through || row.places["-namespaces"]?.through
          ? "OUT!"
          : "ok  ";
    const detail =
      row.absent ?? row.uncontrolled ?? `host: ${row.places.host.detail} | sandbox: ${row.places.all.detail}`;
    say(
      `${mark} ${one.area}: ${one.name} | ${detail.replaceAll("\n", " ").slice(0, 150)} | ${((performance.now() - began) / 1000).toFixed(1)} s`,
    );
  }
  for (const sandbox of Object.values(sandboxes)) await sandbox.close();
  const tried = rows.filter((row) => row.places.all);
  // "Without namespaces" is a backend, too: what gets out of it, gets out.
  const escaped = tried.filter((row) => row.places.all.through || row.places["-namespaces"]?.through);
  return {
    rows,
    tried: tried.length,
    escaped: escaped.map((row) => row.name),
    uncontrolled: rows.filter((row) => row.uncontrolled),
  };
}

/** Somebody in the sandbox swaps a mount's source for a link to outside, while the next commands are started. */
async function race(place, { ws, out, attack, limits, command }) {
  const evil = join(ws, "evil");
  rmSync(evil, { force: true });
  rmSync(join(ws, "skills"), { recursive: true, force: true });
  mkdirSync(join(ws, "skills"));
  symlinkSync(out, evil);
  const swaps = 1_100_000;
  const words = (dir) => ["swap", join(dir, "skills"), join(dir, "evil"), String(swaps)];
  if (place === "host") {
    const swapping = finish([attack, ...words(ws)], {});
    let seen = 0;
    let tries = 0;
    for (; tries < 400 && seen === 0; tries++) {
      // What a launcher does that mounts by name.
      const bind = [
        "bwrap",
        "--dev-bind",
        "/",
        "/",
        "--ro-bind",
        join(ws, "skills"),
        "/usr/local",
        "cat",
        "/usr/local/secret",
      ];
      const { out: text } = await finish(bind, {});
      if (text.includes("OUTSIDE-SECRET")) seen++;
    }
    const swapped = await swapping;
    return {
      through: seen > 0,
      detail: `bubblewrap by name: seen after ${tries} tries, ${swapped.out.trim()}`,
    };
  }
  if (place !== "all") return { through: false, detail: "as with all layers" };
  const victim = await Sandbox.create({
    workspace: { host: ws, access: "rw" },
    mounts: [{ host: join(ws, "skills"), mount: "/skills", access: "ro" }],
    limits,
    backend: "bwrap",
  });
  const { argv, options } = await command("all", ["/workspace/attack", ...words("/workspace")]);
  let done = false;
  const swapping = finish(argv, options).then((result) => {
    done = true;
    return result;
  });
  let seen = 0;
  let refused = 0;
  let tries = 0;
  for (; !done; tries++) {
    try {
      const { stdout } = await victim.run("cat /skills/secret");
      if (String(stdout).includes("OUTSIDE-SECRET")) seen++;
    } catch (error) {
      if (error.code !== "SANDBOX_SPAWN") throw error;
      refused++;
    }
  }
  const swapped = await swapping;
  await victim.close();
  const count = Number(/swapped (\d+)/.exec(swapped.out)?.[1] ?? 0);
  if (count < 1_000_000) throw new Error(`only ${count} swaps: ${swapped.out}`);
  return { through: seen > 0, detail: `${count} swaps, ${tries} starts, ${refused} refused, ${seen} seen` };
}

/**
 * Somebody in the sandbox swaps a folder on the way to a mount point for a link to the host's tree, as bubblewrap sees that
 * while it sets up. Made by name, the mount point is made there.
 */
async function raceForMountPoint(place, { base, out, attack, limits }) {
  if (!["host", "all"].includes(place)) return { through: false, detail: "as with all layers" };
  const [ws, skills, elsewhere] = ["race-workspace", "race-skills", "race-elsewhere"].map((name) => {
    const path = join(name === "race-elsewhere" ? out : base, name);
    rmSync(path, { recursive: true, force: true });
    mkdirSync(path);
    return path;
  });
  copyFileSync(attack, join(ws, "attack"));
  mkdirSync(join(ws, "a"));
  symlinkSync(`/oldroot${elsewhere}`, join(ws, "evil"));
  let tries = 0;
  let made = 0;
  const look = () => {
    if (readdirSync(elsewhere).length > 0) made++;
    rmSync(join(elsewhere, "b"), { recursive: true, force: true });
    tries++;
  };
  const words = ["swap", "a", "evil", "200000"];
  if (place === "host") {
    const swapping = finish([attack, ...words], { cwd: ws });
    const own = [
      "--ro-bind",
      "/usr",
      "/usr",
      "--symlink",
      "usr/bin",
      "/bin",
      "--symlink",
      "usr/lib",
      "/lib",
      "--symlink",
      "usr/lib64",
      "/lib64",
    ];
    while (tries < 600 && made === 0) {
      await finish(
        ["bwrap", "--unshare-user", ...own, "--bind", ws, "/w", "--ro-bind", skills, "/w/a/b", "/bin/true"],
        {},
      );
      look();
    }
    const swapped = await swapping;
    return {
      through: made > 0,
      detail: `bubblewrap by name: made after ${tries} tries, ${swapped.out.trim()}`,
    };
  }
  const sandbox = await Sandbox.create({
    workspace: { host: ws, access: "rw" },
    mounts: [{ host: skills, mount: "/workspace/a/b", access: "ro" }],
    limits,
    backend: "bwrap",
  });
  // Its own mount is in the way of the swap, but not in that of a sandbox beside it.
  const other = await Sandbox.create({ workspace: { host: ws, access: "rw" }, limits, backend: "bwrap" });
  let done = false;
  const swapping = other.run(["./attack", ...words]).finally(() => {
    done = true;
  });
  let refused = 0;
  while (!done) {
    await sandbox.run("true").catch((error) => {
      if (error.code !== "SANDBOX_SPAWN") throw error;
      refused++;
    });
    look();
  }
  const swapped = await swapping;
  await Promise.all([sandbox.close(), other.close()]);
  const count = Number(/swapped (\d+)/.exec(String(swapped.stdout))?.[1] ?? 0);
  if (count < 100_000) throw new Error(`only ${count} swaps: ${swapped.stdout}`);
  return { through: made > 0, detail: `${count} swaps, ${tries} starts, ${refused} refused, ${made} made` };
}

/** The table of docs/security/escape-suite.md. */
export function table(rows) {
  const say = (detail, length) =>
    detail
      .split("\n")
      .at(-1)
      .replaceAll(/\/\S*?\/openclaw-core-escape-\w+/g, "…")
      .slice(0, length)
      .replaceAll("|", "/");
  const cell = (outcome) => {
    if (outcome === undefined) return "";
    return outcome.through ? "**through**" : say(outcome.detail, 60) || "refused";
  };
  const lines = [
    "| attack | on the host | in the sandbox | without seccomp | without Landlock | without namespaces |",
    "|---|---|---|---|---|---|",
  ];
  for (const row of rows) {
    const name = `${row.area}: ${row.name}`;
    if (row.absent) {
      lines.push(`| ${name} | not applicable: ${row.absent.replaceAll("|", "/")} | | | | |`);
      continue;
    }
    const places = PLACES.map((place) => cell(row.places[place]));
    lines.push(`| ${name} | goes through: ${say(row.places.host.detail, 40)} | ${places.join(" | ")} |`);
  }
  return lines.join("\n");
}
