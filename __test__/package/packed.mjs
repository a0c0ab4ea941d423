// The packed tarballs, and an empty folder with them installed, made once for all tests of this folder's files.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
export const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
export const binary = readdirSync(root).find(
  (file) => file.startsWith(`core.${process.platform}-${process.arch}`) && file.endsWith(".node"),
);
assert.ok(binary, "there is no binary for this platform: run `npm run build`");
export const platform = binary.slice("core.".length, -".node".length);

export function run(command, args, options = {}) {
  return spawnSync(command, args, { encoding: "utf8", timeout: 120_000, ...options });
}

export function npm(args, cwd) {
  const result = run("npm", args, { cwd });
  assert.equal(result.status, 0, `npm ${args.join(" ")}\n${result.stdout}\n${result.stderr}`);
  return result.stdout;
}

/** A folder of this name in a scratch place; `remove` deletes it all. */
export function scratch(name) {
  const base = mkdtempSync(join(tmpdir(), "openclaw-core-"));
  const folder = join(base, name);
  mkdirSync(folder);
  return { folder, remove: () => rmSync(base, { recursive: true, force: true }) };
}

/** Packs the main package and this platform's, as a release would; returns the two tarballs. */
export function pack(folder) {
  const [main] = JSON.parse(npm(["pack", "--json", "--ignore-scripts", "--pack-destination", folder], root));
  const staging = join(folder, "platform");
  cpSync(join(root, "npm", platform), staging, { recursive: true });
  copyFileSync(join(root, binary), join(staging, binary));
  const [native] = JSON.parse(npm(["pack", "--json", "--pack-destination", folder], staging));
  rmSync(staging, { recursive: true });
  return {
    main: { ...main, path: join(folder, main.filename) },
    native: { ...native, path: join(folder, native.filename) },
  };
}

/** An empty npm project with these tarballs installed and nothing else asked for. */
export function install(folder, tarballs, flags = []) {
  writeFileSync(join(folder, "package.json"), '{ "name": "app", "version": "1.0.0", "private": true }\n');
  npm(["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", ...flags, ...tarballs], folder);
}
