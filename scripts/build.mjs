// Builds the package: the native binary with the notices of what is in it, index.d.ts, index.js and dist/.
//
//   node scripts/build.mjs [--debug | --profile NAME] [--target TRIPLE] [--zig] [--check] [--only native|init|ts|loader]
//
// --check   fails when the committed index.d.ts is not what the build makes.
// --zig     links with zig through cargo-zigbuild, from the set-up's step of that name or from PATH; a glibc floor may
//           follow the triple (…-gnu.2.17).
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { addonHash, recordAddon, zigEnvironment } from "./setup.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(import.meta.url);
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

const { values: options } = parseArgs({
  options: {
    debug: { type: "boolean" },
    profile: { type: "string" },
    target: { type: "string" },
    zig: { type: "boolean" },
    check: { type: "boolean" },
    only: { type: "string" },
    features: { type: "string" },
  },
});

if (options.zig) Object.assign(process.env, zigEnvironment());

/** Starts the commands of the sandbox, on Linux. */
const initName = "openclaw-core-init";

function fail(message) {
  console.error(`build: ${message}`);
  process.exit(1);
}

function run(name, args, environment = {}) {
  const { bin } = require(`${name}/package.json`);
  const relative = typeof bin === "string" ? bin : Object.values(bin)[0];
  const script = join(dirname(require.resolve(`${name}/package.json`)), relative);
  const result = spawnSync(process.execPath, [script, ...args], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...environment },
  });
  if (result.status !== 0) fail(`${name} ${args[0]} failed`);
}

/** Names that index.d.ts exports as values. */
function declaredExports(types) {
  const names = [...types.matchAll(/^export declare (?:class|function|const|enum) (\w+)/gm)].map((m) => m[1]);
  return [...new Set(names)].sort();
}

/** The loader, with one `exports.X = …` line an export, which is what Node's ESM needs to offer named imports. */
function writeLoader(names) {
  const packages = manifest.napi.targets
    .map(platformOf)
    .map((platform) => `"${platform}": () => require("${manifest.name}-${platform}"),`);
  const loader = readFileSync(join(root, "scripts/loader-template.cjs"), "utf8")
    .replace("/* @packages */", packages.join("\n  "))
    .replace("/* @version */", manifest.version)
    .replace(
      /^module\.exports = native;.*$/m,
      [
        ...names.map((name) => `exports.${name} = native.${name};`),
        "// What dist/ uses beside the package's interface.",
        // Reflect, as what Object defines is taken for an export of the ES module.
        'Reflect.defineProperty(exports, "__native", { value: native });',
      ].join("\n"),
    );
  writeFileSync(join(root, "index.js"), loader);
}

/** "x86_64-unknown-linux-gnu" as npm names it: "linux-x64-gnu". */
function platformOf(triple) {
  const [arch, , system, abi] = triple.split("-");
  const cpu = { x86_64: "x64", aarch64: "arm64" }[arch];
  return { linux: `linux-${cpu}-${abi}`, darwin: `darwin-${cpu}`, windows: `win32-${cpu}-${abi}` }[system];
}

function buildNative() {
  const staging = join(root, ".cache/build");
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  const args = ["build", "--platform", "--no-js", "--no-const-enum", "--output-dir", staging];
  if (options.target) args.push("--target", options.target);
  if (options.zig) args.push("--cross-compile");
  if (options.profile) args.push("--profile", options.profile);
  else if (!options.debug) args.push("--release");
  const release = !options.debug && !options.profile;
  const optimised = release && process.platform !== "win32";
  run("@napi-rs/cli", args, optimised ? { CARGO: join(root, "scripts/cargo.sh") } : {});

  const types = readFileSync(join(staging, "index.d.ts"), "utf8")
    // Says which binary was loaded; index.js does not hand it out.
    .replace(/^\/\*\*[^\n]*\*\/\n(?=export declare (?:function|const) __napiBindingTarget)/gm, "")
    .replace(/^export declare (?:function|const) __napiBindingTarget\b.*\n/gm, "")
    // What script.js makes its classes of.
    .replace(/^\/\*\*(?:(?!\*\/)[\s\S])*\*\/\nexport declare class __\w+ \{\n[\s\S]*?^\}\n\n?/gm, "")
    .replace(/^export type \w+ = __\w+\n\n?/gm, "");
  const typesFile = join(root, "index.d.ts");
  const committed = existsSync(typesFile) ? readFileSync(typesFile, "utf8") : "";
  if (options.check && types !== committed) {
    fail("index.d.ts is stale: run `npm run build` and commit the result");
  }
  writeFileSync(typesFile, types);

  const binary = readdirSync(staging).find((file) => file.endsWith(".node"));
  if (!binary) fail("napi build left no .node file");
  // A glibc floor is no part of the platform's name.
  const platform = binary.slice("core.".length, -".node".length).replace(/\.[\d.]+$/, "");
  const target = join(root, `core.${platform}.node`);
  chmodSync(join(staging, binary), 0o755);
  // A rename, because a running process may have the old file mapped.
  renameSync(join(staging, binary), target);
  rmSync(staging, { recursive: true, force: true });

  const declared = declaredExports(types);
  const host = process.platform === "win32" ? "win32" : process.platform;
  if (!options.target || platform.startsWith(`${host}-${process.arch}`)) {
    let actual;
    try {
      actual = Object.keys(require(target))
        .filter((name) => !name.startsWith("__"))
        .sort();
    } catch (error) {
      // A cross build for another C library does not load here; its twin on the right machine does the check.
      if (!options.target) fail(`the new binary does not load: ${error.message}`);
    }
    if (actual && actual.join() !== declared.join()) {
      fail(
        `index.d.ts declares ${declared.join(", ") || "nothing"}, the binary exports ${actual.join(", ") || "nothing"}`,
      );
    }
  }
  writeLoader(declared);
  writeNotices(platform);
  console.log(
    `built core.${platform}.node, ${(statSync(target).size / 1e6).toFixed(2)} MB, with ${declared.length} exports`,
  );
}

/** The Rust libraries of these triples are installed. */
function installedTargets() {
  const { stdout } = spawnSync("rustup", ["target", "list", "--installed"], { encoding: "utf8" });
  return new Set((stdout ?? "").split(/\s+/));
}

/**
 * The executable that starts sandboxed commands: static, so that it starts fast and needs nothing of the system. musl's
 * library is best at that; where it is not installed, the target's own is linked in.
 */
function buildInit({ features } = {}) {
  const host = /^host: (.*)$/m.exec(spawnSync("rustc", ["-vV"], { encoding: "utf8" }).stdout ?? "")?.[1];
  const wanted = (options.target ?? host ?? "").replace(/\.[\d.]+$/, "");
  if (!wanted.includes("linux")) return;
  const musl = wanted.replace("-gnu", "-musl");
  const target = options.zig || installedTargets().has(musl) ? musl : wanted;
  const variable = `CARGO_TARGET_${target.toUpperCase().replaceAll("-", "_")}_RUSTFLAGS`;
  const args = ["--package", "openclaw-core-init", "--profile", "init", "--target", target];
  if (features) args.push("--features", features);
  // The linker that Rust brings will do for an executable without C.
  const flags =
    target === musl ? "-C target-feature=+crt-static -C linker=rust-lld" : "-C target-feature=+crt-static";
  const result = spawnSync(
    options.zig ? "cargo-zigbuild" : "cargo",
    [options.zig ? "zigbuild" : "build", ...args],
    {
      cwd: root,
      stdio: "inherit",
      env: options.zig ? process.env : { ...process.env, [variable]: flags },
    },
  );
  if (result.status !== 0) fail(`${initName} could not be built for ${target}`);
  const built = join(targetDir(), target, "init", initName);
  const folders = [join(root, "npm", platformOf(wanted))];
  if (!options.target || wanted === host) folders.push(root);
  for (const folder of folders) {
    // A rename, because a running process may be this file.
    copyFileSync(built, join(folder, `.${initName}`));
    chmodSync(join(folder, `.${initName}`), 0o755);
    renameSync(join(folder, `.${initName}`), join(folder, initName));
  }
  console.log(`built ${initName} for ${target}, ${(statSync(built).size / 1e6).toFixed(2)} MB`);
}

/** What the licences ask for of what the binary contains, into the package that has it. */
function writeNotices(platform) {
  const args = [join(root, "scripts/sbom.mjs"), "--platform", platform];
  if (spawnSync(process.execPath, args, { cwd: root, stdio: "inherit" }).status !== 0)
    fail(`the notices of ${platform} could not be made`);
}

/** Where cargo puts what it builds. */
function targetDir() {
  const { stdout } = spawnSync("cargo", ["metadata", "--no-deps", "--format-version", "1"], {
    cwd: root,
    encoding: "utf8",
  });
  return JSON.parse(stdout).target_directory;
}

function buildTypeScript() {
  const sources = existsSync(join(root, "openclaw"))
    ? readdirSync(join(root, "openclaw"), { recursive: true }).filter((file) => String(file).endsWith(".ts"))
    : [];
  if (sources.length === 0) {
    console.log("no TypeScript sources under openclaw/");
    return;
  }
  const dist = join(root, "dist");
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist);
  // The package itself is CommonJS, for require(); what lies under dist/ is ESM.
  writeFileSync(join(dist, "package.json"), '{ "type": "module" }\n');
  run("typescript", ["--project", "tsconfig.json"]);
  const cli = join(dist, "cli.js");
  if (existsSync(cli)) chmodSync(cli, 0o755);
  console.log(`built dist/ from ${sources.length} TypeScript files`);
}

const parts = options.only ? [options.only] : ["native", "ts"];
// What `npm start` may take for the release build of these sources.
const sources = addonHash();
if (parts.includes("native") && !options.target) recordAddon(undefined);
if (parts.includes("native")) buildNative();
if (parts.includes("native") || parts.includes("init")) buildInit({ features: options.features });
// From the committed index.d.ts, where the binary was built elsewhere.
if (parts.includes("loader")) writeLoader(declaredExports(readFileSync(join(root, "index.d.ts"), "utf8")));
if (parts.includes("ts")) buildTypeScript();
if (Object.keys(options).every((name) => name === "check")) recordAddon(sources);
