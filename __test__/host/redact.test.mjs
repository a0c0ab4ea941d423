// Redaction inside stock OpenClaw: its outer function over our inner stage.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { findFunctions, importsOf } from "../../dist/chunks.js";
import { MODULES } from "../../dist/modules.js";
import { createHome } from "./fixture.mjs";
import { stockLocation, stockRoot } from "./stock.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const NAME = "redactSensitiveTextWithOptions";
const redact = stockLocation("src/logging/redact.ts", "redactSensitiveText");
const register = stockLocation("src/logging/secret-redaction-registry.ts", "registerSecretValueForRedaction");

/** Runs in a process of OpenClaw, behind the core's hook: asks OpenClaw's own exports and writes their answers. */
const PROBE = `
import { writeFileSync } from "node:fs";
import { ${redact.exported} as redact } from ${JSON.stringify(pathToFileURL(redact.path).href)};
import { ${register.exported} as register } from ${JSON.stringify(pathToFileURL(register.path).href)};
if (process.env.PROBE_FILE) {
  const file = process.env.PROBE_FILE;
  delete process.env.PROBE_FILE;
  register("no pattern knows this one");
  writeFileSync(file, JSON.stringify([
    redact("export API_KEY=abcdefghijklmnopqrstuvwxyz"),
    redact("he said: no pattern knows this one, did he"),
    redact("both: no pattern knows this one and token=abcdefghijklmnopqrstuvwxyz"),
    redact("nothing here to hide"),
    redact("no pattern knows this one and token=abc", { mode: "off" }),
    redact("mine-1234 and token=abcdefgh", { patterns: ["mine-\\\\d+"] }),
    redact(""),
    redact("?code=a" + "\\ud83d" + "b&x=1 " + "word ".repeat(9000) + "sk-abcdefghijklmnopqrstuvwxyz"),
  ]));
}
`;

describe("redaction in stock OpenClaw", () => {
  let scratch;
  let home;
  let probe;

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), "openclaw-core-redact-"));
    home = await createHome({ config: "{}" });
    probe = join(scratch, "probe.mjs");
    writeFileSync(probe, PROBE);
  });
  after(async () => {
    await home?.remove();
    rmSync(scratch, { recursive: true, force: true });
  });

  /** What the probe was told, and the counts of the module where there are any. */
  async function asked(mode, { from = root, env = {} } = {}) {
    const folder = mkdtempSync(join(scratch, "run-"));
    const file = join(folder, "answers.json");
    const imports = [...(mode ? [join(from, "dist/register.js")] : []), probe];
    const { code, stderr } = await home.node(
      [
        ...imports.map((path) => `--import=${pathToFileURL(path)}`),
        join(stockRoot, "openclaw.mjs"),
        "--version",
      ],
      {
        env: {
          PROBE_FILE: file,
          OPENCLAW_CORE_STATS_DIR: folder,
          ...(mode && { OPENCLAW_CORE: mode }),
          ...env,
        },
      },
    );
    assert.equal(code, 0, stderr);
    const modules = readdirSync(folder)
      .filter((name) => name.endsWith(".json") && name !== "answers.json")
      .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")).modules.validation)
      .filter(({ functions }) => functions[NAME]);
    return { answers: JSON.parse(readFileSync(file, "utf8")), module: modules[0], stderr };
  }

  test("the answers are stock's, native code gave them, and a registered value without a pattern stays masked", async () => {
    const stock = await asked(undefined);
    const core = await asked("require");
    assert.deepEqual(core.answers, stock.answers);
    assert.equal(core.answers[0], "export API_KEY=***");
    assert.equal(core.answers[1], "he said: no pat… one, did he");
    assert.match(core.answers[2], /^both: no pat… one and token=abcdef…wxyz$/);
    assert.equal(core.module.attached, "native");
    // Not asked of it: the empty text, the mode `off`, and patterns of a user.
    const { calls, native, original } = core.module.functions[NAME];
    assert.deepEqual({ calls, native, original }, { calls: 5, native: 5, original: 0 });
  });

  test("shadow answers as stock and reports where a wrong addon differs, without the text", async () => {
    const from = join(scratch, "wrong");
    mkdirSync(from, { recursive: true });
    cpSync(join(root, "dist"), join(from, "dist"), { recursive: true });
    writeFileSync(join(from, "package.json"), '{ "name": "@openclaw/core", "version": "0.0.0" }');
    writeFileSync(join(from, "index.js"), 'exports.redact = (text) => text.replace("token", "t0ken");');
    const reports = join(scratch, "reports");
    const stock = await asked(undefined);
    const shadow = await asked("shadow", { from, env: { OPENCLAW_CORE_REPORT_DIR: reports } });
    assert.deepEqual(shadow.answers, stock.answers);
    assert.equal(shadow.module.attached, "shadow");
    const { compared, differences } = shadow.module.shadow;
    assert.equal(compared, 5);
    assert.equal(differences, 3, "the key, the token, and the long text");
    const report = readFileSync(join(reports, "shadow-validation.jsonl"), "utf8");
    assert.match(report, /"function":"redactSensitiveTextWithOptions","what":"value"/);
    for (const secret of ["abcdefgh", "API_KEY", "token", "sk-"]) assert.ok(!report.includes(secret), secret);
  });

  test("with the module off, OpenClaw's own code answers", async () => {
    const { answers, module } = await asked("auto", { env: { OPENCLAW_CORE_VALIDATION: "off" } });
    assert.equal(answers[0], "export API_KEY=***");
    assert.equal(module, undefined);
  });
});

test("a stage that stands on other code than was checked stays OpenClaw's", () => {
  const targets = MODULES.find(({ name }) => name === "validation").replaces.map((target) => ({
    ...target,
    module: "validation",
  }));
  const source = readFileSync(redact.path, "utf8");
  const imported = importsOf(redact.path);
  assert.equal(findFunctions(source, targets, imported).found.length, 1);
  const reason = (changed, from = imported) => {
    const { found, problems } = findFunctions(changed, targets, from);
    assert.deepEqual(found, []);
    return problems[0].reason;
  };
  const other = /^what it stands on \([0-9a-f]{16}\) is not what the core was checked against$/;
  assert.match(reason(source.replace("(ghp_[A-Za-z0-9]{10,})", "(ghp_[A-Za-z0-9]{12,})")), other);
  assert.match(reason(source.replace("KEEP_START = 6", "KEEP_START = 7")), other);
  assert.match(
    reason(source, (specifier) => imported(specifier)?.replace('"x_auth_token"', '"x_auth_tokens"')),
    other,
  );
  assert.match(
    reason(source, () => undefined),
    /^packages\/.*, which it stands on, was not found$/,
  );
  assert.match(
    reason(source.replace('.mode) === "off") return exactRedacted', '.mode) === "on") return exactRedacted')),
    /its code is not the one/,
  );
  // Another comment, another name of a chunk: the same code.
  const moved = source
    .replace(`from "./${basename(dirname(redact.path))}`, 'from "./')
    .replace("//#region src/logging/redact.ts\n", "//#region src/logging/redact.ts\n// a comment\n");
  assert.equal(findFunctions(moved, targets, imported).found.length, 1);
});
