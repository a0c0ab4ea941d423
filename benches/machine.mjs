// What was measured, and on what.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

export function machine() {
  const version = (command, ...args) =>
    spawnSync(command, args, { encoding: "utf8" }).stdout?.trim() || "unknown";
  const host = join(root, "__test__/host/node_modules/openclaw/package.json");
  const json5 = join(root, "node_modules/json5/package.json");
  const packageVersion = (file) =>
    existsSync(file) ? JSON.parse(readFileSync(file, "utf8")).version : "absent";
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: `${os.cpus()[0]?.model.trim()}, ${os.cpus().length} cores`,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    load: os.loadavg().map((value) => Number(value.toFixed(2))),
    rustc: version("rustc", "--version"),
    openclaw: packageVersion(host),
    json5: packageVersion(json5),
    commit: version("git", "-C", root, "rev-parse", "--short", "HEAD"),
  };
}
