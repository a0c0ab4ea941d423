// The packed package, installed as a plugin into a scratch home by OpenClaw's own command.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packPlugin } from "../../scripts/pack-plugin.mjs";

/** Installs it into a home of the fixture's. */
export async function installPlugin(home) {
  const scratch = mkdtempSync(join(tmpdir(), "openclaw-core-plugin-"));
  try {
    const installed = await home.openclaw(
      ["plugins", "install", `npm-pack:${packPlugin(scratch)}`, "--force", "--accept-capabilities"],
      // npm talks to the registry; where that has a certificate authority of its own, npm must know it.
      { timeoutMs: 120_000, env: { NODE_EXTRA_CA_CERTS: process.env.NODE_EXTRA_CA_CERTS } },
    );
    assert.equal(installed.code, 0, `${installed.stdout}\n${installed.stderr}`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
