// `npm run test:escape`: nothing gets out of the sandbox, as this user and, if that is root, as nobody.
//
//   node __test__/escape/escape.test.mjs --write   also writes the table of docs/security/escape-suite.md
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build, runSuite, table } from "./suite.mjs";

const own = fileURLToPath(import.meta.url);
const root = join(dirname(own), "../..");
const nobody = 65534;
const child = process.env.OPENCLAW_ESCAPE_CHILD === "1";
const skip = process.platform === "linux" ? false : "the sandbox of this system is another one";
const write = process.argv.includes("--write");

if (!child && !skip) build();

async function check() {
  const { rows, tried, escaped, uncontrolled } = await runSuite();
  console.log(
    `escaped ${escaped.length} of ${tried}, as uid ${process.getuid()}; ${rows.length - tried} not applicable`,
  );
  assert.deepEqual(escaped, []);
  assert.deepEqual(
    uncontrolled.map(({ name, uncontrolled }) => `${name}: ${uncontrolled}`),
    [],
    "these did not go through on the host, so that their refusal would show nothing",
  );
  assert.ok(tried > 50, `${tried} attacks`);
  // A layer that alone stops nothing would not be worth its cost. What namespaces stop, the stricter rules of the backend
  // without them stop too.
  assert.ok(
    rows.some((row) => row.places["-seccomp"]?.through),
    "without seccomp nothing gets through",
  );
  return { rows, tried, escaped };
}

test(`nothing gets out, as uid ${process.getuid?.()}`, { skip, timeout: 500_000 }, async () => {
  const { rows, tried, escaped } = await check();
  if (!write) return;
  const file = join(root, "docs/security/escape-suite.md");
  const text = readFileSync(file, "utf8");
  const summary = `As uid ${process.getuid()}: escaped ${escaped.length} of ${tried}; ${rows.length - tried} of ${rows.length} not applicable.`;
  const made = `<!-- table -->\n${summary}\n\n${table(rows)}\n<!-- /table -->`;
  writeFileSync(
    file,
    text.replace(/<!-- table -->[\s\S]*<!-- \/table -->/, () => made),
  );
});

const setpriv = ["--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"];
const asNobody = () => {
  if (skip) return skip;
  if (process.getuid() !== 0) return "this is not root";
  if (child) return "this is it";
  const { status } = spawnSync("setpriv", [...setpriv, "test", "-r", own]);
  return status === 0 ? false : `nobody cannot read ${root}, or there is no setpriv`;
};
test("nothing gets out as nobody", { skip: asNobody(), timeout: 500_000 }, () => {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const args = [...setpriv, process.execPath, "--test-reporter=spec", own];
  const { status, stdout, stderr } = spawnSync("setpriv", args, {
    encoding: "utf8",
    env: { ...env, HOME: "/nonexistent", OPENCLAW_ESCAPE_CHILD: "1" },
    timeout: 480_000,
  });
  console.log(stdout);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /escaped 0 of \d+, as uid 65534/);
});
