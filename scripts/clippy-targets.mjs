// Clippy, warnings denied, for platforms other than the one at hand, so that code behind a `cfg` never rots uncompiled.
// Needs rustup; C in dependencies goes through zig, which pip brings.
//
//   node scripts/clippy-targets.mjs [--all]
//
// Without --all: one platform for each system, C library and processor, as no `cfg` here asks for two of them at once.
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { setup, zigEnvironment } from "./setup.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const bin = join(root, ".cache/zig-cc");
const { napi } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

const run = (command, args, options = {}) =>
  spawnSync(command, args, { cwd: root, encoding: "utf8", ...options });
const host = /^host: (.*)$/m.exec(run("rustc", ["-vV"]).stdout ?? "")?.[1];
const few = ["aarch64-unknown-linux-musl", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"];
const triples = napi.targets.filter(
  (triple) => triple !== host && (process.argv.includes("--all") || few.includes(triple)),
);

/** Whether a dependency compiles C for this target. */
const compilesC = (triple) =>
  run("cargo", ["tree", "--target", triple, "--edges", "normal,build", "--prefix", "none", "--locked"])
    .stdout.split("\n")
    .some((line) => /^(?:cc|cmake) v/.test(line));

/** zig's C compiler as `cc`-like scripts, one a target. */
function compilers(targets) {
  const { CARGO_ZIGBUILD_ZIG_PATH: zig } = zigEnvironment();
  mkdirSync(bin, { recursive: true });
  const environment = {};
  for (const triple of targets) {
    const [arch, , system, abi] = triple.split("-");
    const target = {
      linux: `${arch}-linux-${abi}`,
      darwin: `${arch}-macos`,
      // zig carries the headers of mingw only; no object is linked, so the ABI does not matter here.
      windows: `${arch}-windows-gnu`,
    }[system];
    const cc = join(bin, `cc-${triple}`);
    // cc passes its own notion of the target, which zig would not understand.
    writeFileSync(
      cc,
      `#!/bin/sh\nfor a; do shift; case "$a" in --target=*|-arch|arm64|x86_64) ;; *) set -- "$@" "$a";; esac; done\nexec "${zig}" cc -target ${target} "$@"\n`,
    );
    const ar = join(bin, `ar-${triple}`);
    writeFileSync(ar, `#!/bin/sh\nexec "${zig}" ${system === "windows" ? "lib" : "ar"} "$@"\n`);
    chmodSync(cc, 0o755);
    chmodSync(ar, 0o755);
    const suffix = triple.replaceAll("-", "_");
    environment[`CC_${suffix}`] = cc;
    environment[`AR_${suffix}`] = ar;
  }
  return environment;
}

if (run("rustup", ["--version"]).status !== 0) {
  console.error("rustup is not there, so the standard libraries of other platforms cannot be installed");
  process.exit(1);
}
const { status } = run("rustup", ["target", "add", ...triples], { stdio: "inherit" });
if (status !== 0) {
  console.error("rustup could not install the standard libraries");
  process.exit(1);
}
const withC = triples.filter(compilesC);
console.log(
  withC.length > 0 ? `C is compiled for ${withC.join(", ")}` : "no dependency compiles C: no zig needed",
);
if (withC.length > 0) await setup({ only: ["zig"], say: console.log });
const clippy = run(
  "cargo",
  ["clippy", "--lib", "--bins", ...triples.flatMap((triple) => ["--target", triple]), "--", "-D", "warnings"],
  { stdio: "inherit", env: { ...process.env, ...(withC.length > 0 ? compilers(withC) : {}) } },
);
if (clippy.status === 0) console.log(`clean on ${triples.join(", ")}`);
process.exitCode = clippy.status ?? 1;
