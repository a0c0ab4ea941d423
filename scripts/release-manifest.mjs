// Makes package.json the one that is published: it names the platform packages, which exist only from then on.
// npm installs the one that fits the machine, and OpenClaw checks that it did.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const file = join(root, "package.json");

/** The published form of this package.json. */
export function releaseManifest(manifest, platforms) {
  const names = platforms.map((platform) => `${manifest.name}-${platform}`).sort();
  return {
    ...manifest,
    optionalDependencies: Object.fromEntries(names.map((name) => [name, manifest.version])),
    openclaw: {
      ...manifest.openclaw,
      install: { ...manifest.openclaw.install, requiredPlatformPackages: names },
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const manifest = JSON.parse(readFileSync(file, "utf8"));
  const platforms = readdirSync(join(root, "npm"));
  writeFileSync(file, `${JSON.stringify(releaseManifest(manifest, platforms), null, 2)}\n`);
}
