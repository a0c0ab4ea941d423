/**
 * `openclaw config validate --json` for many configs in one process: one config a line on standard input, and a
 * line with `{ valid, issues }` for each on standard output. Runs in a home of its own: it writes the config file.
 */
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { stockFunction } from "../host/stock.mjs";

const createConfigIO = await stockFunction("src/config/io.factory.ts", "createConfigIO");
const finish = await stockFunction("src/cli/config-cli-validation.ts", "finishConfigValidationForCli");
const configPath = process.env.OPENCLAW_CONFIG_PATH;
const logger = { warn() {}, error() {}, info() {}, debug() {} };
for await (const line of createInterface({ input: process.stdin })) {
  writeFileSync(configPath, line);
  const io = createConfigIO({ configPath, env: process.env, logger });
  const read = await io.readConfigFileSnapshotWithPluginMetadata({
    observe: false,
    prepareValidation: "strict",
  });
  const { valid, issues } = await finish(read);
  process.stdout.write(`${JSON.stringify({ valid, issues: valid ? [] : issues })}\n`);
}
process.stdout.write("", () => process.exit(0));
