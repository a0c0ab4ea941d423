// The packed package, installed as a plugin into a scratch home by OpenClaw's own command.
import assert from "node:assert/strict";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binary, npm, root, run } from "../package/packed.mjs";

/** A release brings the binary in a package of its own, fetched from the registry. Here it rides in the tarball. */
export async function installPlugin(home) {
  const scratch = mkdtempSync(join(tmpdir(), "openclaw-core-plugin-"));
  try {
    npm(["pack", "--ignore-scripts", "--pack-destination", scratch], root);
    const tarball = readdirSync(scratch).find((name) => name.endsWith(".tgz"));
    assert.equal(run("tar", ["-xzf", tarball], { cwd: scratch }).status, 0);
    const staged = join(scratch, "package");
    const manifest = JSON.parse(readFileSync(join(staged, "package.json"), "utf8"));
    manifest.files.push(binary);
    const init = "openclaw-core-init";
    if (existsSync(join(root, init))) {
      manifest.files.push(init);
      copyFileSync(join(root, init), join(staged, init));
    }
    // Not published yet, so npm could not find them.
    delete manifest.optionalDependencies;
    writeFileSync(join(staged, "package.json"), JSON.stringify(manifest));
    copyFileSync(join(root, binary), join(staged, binary));
    rmSync(join(scratch, tarball));
    npm(["pack", "--ignore-scripts", "--pack-destination", scratch], staged);
    const installed = await home.openclaw(
      ["plugins", "install", `npm-pack:${join(scratch, tarball)}`, "--force", "--accept-capabilities"],
      // npm talks to the registry; where that has a certificate authority of its own, npm must know it.
      { timeoutMs: 120_000, env: { NODE_EXTRA_CA_CERTS: process.env.NODE_EXTRA_CA_CERTS } },
    );
    assert.equal(installed.code, 0, `${installed.stdout}\n${installed.stderr}`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
