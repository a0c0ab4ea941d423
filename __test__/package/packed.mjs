// The packed tarballs, and an empty folder with them installed.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
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
import { releaseManifest } from "../../scripts/release-manifest.mjs";
import { NOTICES } from "../../scripts/sbom.mjs";

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

/** Packs the package in `source` into `folder`; gives what npm says of the tarball, and its path. */
export function packFolder(source, folder) {
  const [packed] = JSON.parse(
    npm(["pack", "--json", "--ignore-scripts", "--pack-destination", folder], source),
  );
  return { ...packed, path: join(folder, packed.filename) };
}

/** Unpacks a tarball into `folder`, which it makes. */
export function unpack(tarball, folder) {
  mkdirSync(folder, { recursive: true });
  const { status, stderr } = run("tar", ["-xzf", tarball, "-C", folder, "--strip-components=1"]);
  assert.equal(status, 0, stderr);
  return folder;
}

/** Packs the package of a platform, with its binary. */
export function packPlatform(folder, name = platform) {
  const staging = join(folder, "platform");
  const source = join(root, "npm", name);
  // They are made of what cargo says, by the build too.
  assert.ok(
    existsSync(join(source, NOTICES)),
    `npm/${name}/${NOTICES} is not there: run \`node scripts/sbom.mjs --platform ${name}\``,
  );
  cpSync(source, staging, { recursive: true });
  copyFileSync(join(root, `core.${name}.node`), join(staging, `core.${name}.node`));
  try {
    return packFolder(staging, folder);
  } finally {
    rmSync(staging, { recursive: true });
  }
}

/** Packs the main package, as it is in the tree. */
export function packMain(folder) {
  return packFolder(root, folder);
}

/** Packs the main package and this platform's. */
export function pack(folder) {
  return { main: packMain(folder), native: packPlatform(folder) };
}

/** Changes the JSON file at `path`. */
export function editJson(path, change) {
  const value = JSON.parse(readFileSync(path, "utf8"));
  writeFileSync(path, `${JSON.stringify(change(value), null, 2)}\n`);
}

/**
 * Makes of the tarballs of `pack` the folders that a release of `version` publishes, in its order: the platform packages,
 * then the main package, which names them all. The binary stays the one that was built; packages of other platforms come
 * without theirs, or not at all.
 */
export function stageRelease({ main, native }, folder, version, { others = true } = {}) {
  const platforms = readdirSync(join(root, "npm")).sort();
  const folders = [];
  for (const name of platforms.filter((name) => others || name === platform)) {
    const staged = join(folder, name);
    if (name === platform) unpack(native.path, staged);
    else cpSync(join(root, "npm", name), staged, { recursive: true });
    editJson(join(staged, "package.json"), (own) => ({ ...own, version }));
    folders.push(staged);
  }
  const staged = unpack(main.path, join(folder, "core"));
  editJson(join(staged, "package.json"), (own) => releaseManifest({ ...own, version }, platforms));
  editJson(join(staged, "openclaw.plugin.json"), (own) => ({ ...own, version }));
  return [...folders, staged];
}

/** An empty npm project with these tarballs installed and nothing else asked for. */
export function install(folder, tarballs, flags = []) {
  writeFileSync(join(folder, "package.json"), '{ "name": "app", "version": "1.0.0", "private": true }\n');
  npm(["install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", ...flags, ...tarballs], folder);
}
