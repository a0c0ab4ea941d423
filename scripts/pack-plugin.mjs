// Packs what was built into one tarball that needs nothing of the registry: a release has its binary in a package of its
// own, and here it rides along.
//
//   node scripts/pack-plugin.mjs [FOLDER]
//
// Prints the tarball's path, for `openclaw plugins install npm-pack:PATH` and `npm install PATH`.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Puts what a package has into a folder: OpenClaw copies the whole folder of a plugin, and this repository is large. */
export function stagePlugin(stage) {
  const binary = readdirSync(root).find(
    (name) => name.startsWith(`core.${process.platform}-${process.arch}`) && name.endsWith(".node"),
  );
  if (!binary) throw new Error("there is no binary for this platform: run `npm run build`");
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const natives = [binary, "openclaw-core-init"].filter((name) => existsSync(join(root, name)));
  for (const name of [...manifest.files, ...natives, "README.md", "LICENSE"])
    cpSync(join(root, name), join(stage, name), { recursive: true });
  manifest.files.push(...natives);
  // Not published yet, so npm could not find them.
  delete manifest.optionalDependencies;
  writeFileSync(join(stage, "package.json"), JSON.stringify(manifest, null, 2));
}

/** Packs into `folder`; gives the path of the tarball. */
export function packPlugin(folder) {
  const stage = mkdtempSync(join(tmpdir(), "openclaw-core-pack-"));
  try {
    stagePlugin(stage);
    const args = ["pack", "--json", "--ignore-scripts", "--pack-destination", resolve(folder)];
    const { status, stdout, stderr } = spawnSync("npm", args, {
      cwd: stage,
      encoding: "utf8",
      shell: process.platform === "win32",
    });
    if (status !== 0) throw new Error(`npm pack failed: ${stderr}`);
    return join(resolve(folder), JSON.parse(stdout)[0].filename);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const path = packPlugin(process.argv[2] ?? ".");
    console.log(`openclaw plugins install "npm-pack:${path}" --force --accept-capabilities`);
  } catch (error) {
    console.error(`pack-plugin: ${error.message}`);
    process.exitCode = 1;
  }
}
