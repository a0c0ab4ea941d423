// `npm test`: every check of the repository, each part timed.
//
//   node scripts/test.mjs [--list] [--only part,part] [--skip part,part] [--verbose]
//
// Parts that take long and are for a release run only where --only names them. What a part prints goes to
// target/test-logs/PART.log; here stand its outcome and, where it failed, its failures. --verbose shows all of it.
//
// After the set-up, what cargo checks runs beside what is built and run in Node: linking the release build and most tests
// in Node leave a processor idle.
//
// Uses nothing but Node's own modules, since its first part is what installs the rest.
import { AsyncLocalStorage } from "node:async_hooks";
import { spawn, spawnSync } from "node:child_process";
import { createWriteStream, existsSync, mkdirSync, readdirSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { denyBinary } from "./setup.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const nodes = ["20", "22", "24", "26"];

/** The pinned Node of a major version, which npm brought; the one that runs this script if it is that major. */
function nodeOf(major) {
  const pinned = join(
    root,
    `__test__/node/node_modules/node${major}-${process.platform}-${process.arch}/bin/node`,
  );
  if (existsSync(pinned)) return pinned;
  return process.versions.node.split(".")[0] === major ? process.execPath : undefined;
}

const { values: options } = parseArgs({
  options: {
    list: { type: "boolean" },
    only: { type: "string" },
    skip: { type: "string" },
    verbose: { type: "boolean" },
  },
});

/**
 * Test folders that run as one part each; `major` is the Node they need, if not the one at hand. With `forceExit`, nobody
 * waits for the timers that a client under test left behind.
 */
const suites = {
  unit: {},
  differential: { major: "24" },
  host: { major: "24" },
  sim: {},
  "sim/channels": { major: "24", forceExit: true },
  docs: { major: "24" },
  site: { major: "24" },
  escape: { major: "24" },
  package: {},
  release: { major: "24" },
  soak: { major: "24" },
};

/** So many files of a part are run again if they fail; more have one cause. */
const MOST_TWICE = 2;
/** No command of a part takes so long, unless it hangs. */
const LONGEST_MS = 45 * 60_000;

const counters = {
  // One check, which holds or does not.
  check: (_output, ok) => ({ passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 }),
  cargo: (output) => {
    const sums = { passed: 0, failed: 0, skipped: 0 };
    for (const [, passed, failed, ignored] of output.matchAll(
      /^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored/gm,
    )) {
      sums.passed += Number(passed);
      sums.failed += Number(failed);
      sums.skipped += Number(ignored);
    }
    return sums;
  },
  node: (output) => {
    const sum = (...names) => {
      const lines = output.matchAll(new RegExp(`^(?:#|ℹ) (?:${names.join("|")}) (\\d+)$`, "gm"));
      return [...lines].reduce((total, [, count]) => total + Number(count), 0);
    };
    return { passed: sum("pass"), failed: sum("fail", "cancelled"), skipped: sum("skipped", "todo") };
  },
};

/** What a failed part said of it: from where its runner lists the failures, or its last lines. */
function complaint(output) {
  const lines = output.trimEnd().split("\n");
  const listed = lines.findIndex((line) => /^(failures:|(?:✖|#) failing tests:)/.test(line));
  return (listed < 0 ? lines.slice(-40) : lines.slice(listed, listed + 80)).map((line) => line.slice(0, 300));
}

const logs = join(root, "target", "test-logs");

/** The part that is running here, and its log: two run at the same time. */
const running = new AsyncLocalStorage();

/** Shows text by whole lines, each with the name of its part, if that is wanted. */
function shower(sink) {
  const { name } = running.getStore();
  let rest = "";
  return (text, end) => {
    if (!options.verbose) return;
    const lines = (rest + text).split("\n");
    rest = end ? "" : lines.pop();
    if (end && lines.at(-1) === "") lines.pop();
    for (const line of lines) sink.write(`${name}│ ${line}\n`);
  };
}

/** Runs one command with its output in the part's log; resolves with what it printed. */
function run(command, args, { env = {} } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      // Panics that a test asks for would print thousands of stacks.
      env: { ...process.env, CARGO_TERM_COLOR: "never", RUST_BACKTRACE: "0", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const hangs = setTimeout(() => child.kill("SIGKILL"), LONGEST_MS);
    const { log } = running.getStore();
    let output = "";
    for (const [stream, sink] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      const show = shower(sink);
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        output += text;
        log.write(text);
        show(text);
      });
      stream.on("end", () => show("", true));
    }
    child.on("error", (error) => resolve({ ok: false, output: `${output}\n${command}: ${error.message}` }));
    child.on("close", (status) => {
      clearTimeout(hangs);
      resolve({ ok: status === 0, output });
    });
  });
}

const cargo = (...args) => run("cargo", args);
const script = (name, ...args) => run(process.execPath, [join("scripts", name), ...args]);
const tool = (name, ...args) => run(process.execPath, [join("node_modules", name), ...args]);

function testFiles(folder) {
  const path = join(root, "__test__", folder);
  return existsSync(path)
    ? readdirSync(path)
        .filter((file) => file.endsWith(".test.mjs"))
        .sort()
        .map((file) => join("__test__", folder, file))
    : [];
}

async function nodeTests(folder, major, { forceExit = false, env: given = {} } = {}) {
  const files = testFiles(folder);
  if (files.length === 0) return { reason: `no test files in __test__/${folder}` };
  const node = major ? nodeOf(major) : process.execPath;
  if (!node) return { ok: false, output: "", error: `Node ${major} is not there: run \`npm run setup\`` };
  // The pinned Node comes first in PATH, so that what a test spawns as "node" is the same Node.
  const env = { PATH: `${dirname(node)}${delimiter}${process.env.PATH}`, ...given };
  // Two files at once also where Node would leave a processor to others; what hangs is said before CI's patience ends.
  const flags = ["--test-timeout=900000", ...(forceExit ? ["--test-force-exit"] : [])];
  const runFiles = (concurrency, names) =>
    run(node, ["--test", "--test-reporter=spec", `--test-concurrency=${concurrency}`, ...flags, ...names], {
      env,
    });
  const first = await runFiles(2, files);
  if (first.ok) return first;
  // On a machine that others use, what has little time may be late for once: a file that fails has failed when it does so
  // alone, too. Which ones were needed twice is said.
  const named = new Set([...first.output.matchAll(/^test at (.+?):\d+:\d+$/gm)].map(([, file]) => file));
  const failed = files.filter((file) => named.has(file));
  if (failed.length === 0 || failed.length > MOST_TWICE) return first;
  const second = await runFiles(1, failed);
  return second.ok ? { ...first, twice: failed } : first;
}

const parts = [
  {
    name: "setup",
    what: "dependencies, Node releases, stock OpenClaw",
    run: () =>
      script("setup.mjs", "--only", "root,node,host,idp,judges,site,release,deny,musl,bwrap,nats,chromium"),
  },
  { name: "rustfmt", what: "cargo fmt --check", run: () => cargo("fmt", "--all", "--check") },
  {
    name: "clippy",
    what: "clippy, warnings denied, tests included",
    run: () => cargo("clippy", "--workspace", "--all-targets", "--", "-D", "warnings"),
  },
  {
    name: "clippy-targets",
    what: "clippy for other systems, C libraries and processors",
    run: () => script("clippy-targets.mjs"),
  },
  {
    name: "rust",
    what: "cargo test, and the fuzz targets over their corpora",
    count: "cargo",
    run: () => cargo("test", "--workspace", "--no-fail-fast", "--", "--show-output"),
  },
  {
    name: "deny",
    what: "licences, bans and sources of all crates, by deny.toml",
    run: async () => {
      const deny = denyBinary();
      if (!deny) return { reason: "cargo-deny is not there" };
      // It looks at the crates of all platforms; what was built here brought those of this one.
      const fetched = await cargo("fetch", "--locked");
      if (!fetched.ok) return fetched;
      return run(deny, ["--offline", "--locked", "check", "licenses", "bans", "sources"]);
    },
  },
  {
    name: "build",
    what: "release build; index.d.ts is what it makes",
    run: () => script("build.mjs", "--check"),
  },
  {
    name: "biome",
    what: "lint and format of JavaScript and TypeScript",
    run: () => tool("@biomejs/biome/bin/biome", "check", "--error-on-warnings", "."),
  },
  {
    name: "types",
    what: "type tests of index.d.ts",
    run: () => tool("typescript/bin/tsc", "--project", "__test__/types/tsconfig.json"),
  },
  {
    name: "status-table",
    what: "the README's table is that of openclaw/modules.ts",
    run: () => script("status-table.mjs", "--check"),
  },
  {
    name: "day-table",
    what: "the README's account of one day is what was measured",
    run: () => script("day-table.mjs", "--check"),
  },
  ...Object.entries(suites).map(([folder, { major, forceExit }]) => ({
    name: folder.replace("/", "-"),
    what: `__test__/${folder} under Node ${major ?? process.versions.node.split(".")[0]}`,
    count: "node",
    run: () => nodeTests(folder, major, { forceExit }),
  })),
  ...nodes.map((major) => ({
    name: `load-${major}`,
    what: `__test__/load under Node ${major}`,
    count: "node",
    run: () => nodeTests("load", major),
  })),
  {
    name: "day",
    what: "__test__/day: a short one of the bench's, with every module native",
    count: "node",
    asked: true,
    run: () => nodeTests("day", "24"),
  },
  {
    name: "release-complete",
    what: "__test__/release, every package manager for every Node",
    count: "node",
    asked: true,
    run: () => nodeTests("release", "24", { env: { RELEASE_REHEARSAL: "complete" } }),
  },
  {
    name: "release-targets",
    what: "Linux with glibc 2.17, x64 and arm64: release builds, and __test__/targets",
    count: "node",
    asked: true,
    run: buildTargets,
  },
];

/** Builds for Linux as the release workflow does, and looks at what came out. */
async function buildTargets() {
  const steps = await script("setup.mjs", "--only", "root,node,zig,arm64,targets");
  if (!steps.ok) return steps;
  for (const cpu of ["x86_64", "aarch64"]) {
    const target = `${cpu}-unknown-linux-gnu.2.17`;
    const built = await script("build.mjs", "--only", "native", "--zig", "--check", "--target", target);
    if (!built.ok) return built;
  }
  return nodeTests("targets", "24");
}

if (options.list) {
  for (const { name, what, asked } of parts)
    console.log(`${name.padEnd(16)} ${what}${asked ? " (only if named)" : ""}`);
  process.exit(0);
}

const chosen = (text) => {
  const names = (text ?? "").split(",").filter(Boolean);
  const unknown = names.filter((name) => !parts.some((part) => part.name === name));
  if (unknown.length > 0) {
    console.error(`test: there is no part ${unknown.join(", ")}; --list shows them`);
    process.exit(2);
  }
  return names;
};
const only = chosen(options.only);
const skip = chosen(options.skip);
const selected = parts.filter(
  ({ name, asked }) => (only.length === 0 ? !asked : only.includes(name)) && !skip.includes(name),
);

// A test file in a folder that no part runs would look tested and not be.
const known = new Set([...Object.keys(suites), "day", "load", "targets"]);
const orphans = readdirSync(join(root, "__test__"), { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && !known.has(entry.name) && testFiles(entry.name).length > 0)
  .map((entry) => entry.name);
if (orphans.length > 0) {
  console.error(`test: no part runs __test__/${orphans.join(", __test__/")}; add it to scripts/test.mjs`);
  process.exit(1);
}
if (spawnSync("cargo", ["--version"]).status !== 0) {
  console.error("test: cargo is not there; install the Rust toolchain (https://rustup.rs) and try again");
  process.exit(1);
}

// Two rows of parts: what cargo checks, and then some of what needs the build; and the build, with all others after it. What
// starts OpenClaw many times is in the second: more than two at once keep it from answering in time.
const early = ["rustfmt", "clippy", "clippy-targets", "rust", "deny"];
const late = ["site", "escape", "package", "release"];
const rows = new Map();

async function runPart({ name, what, count = "check", run: execute }) {
  console.log(`── ${name}: ${what}`);
  const start = performance.now();
  const log = createWriteStream(join(logs, `${name}.log`));
  const { ok, output, reason, error, twice = [] } = await running.run({ name, log }, execute);
  log.end();
  const minutes = (performance.now() - start) / 60_000;
  if (reason) {
    console.log(`── ${name}: skipped: ${reason}`);
    rows.set(name, { name, minutes, passed: 0, failed: 0, skipped: 0, note: `skipped: ${reason}` });
    return;
  }
  const sums = counters[count](output, ok);
  const { failed: atFirst } = sums;
  if (twice.length > 0) Object.assign(sums, { passed: sums.passed + atFirst, failed: 0 });
  let note = error ?? (twice.length > 0 ? `${twice.join(", ")} failed, and passed when run again` : "");
  // A runner that fails without a failed test, or passes without a test, has not tested.
  if (!ok && atFirst === 0) {
    sums.failed = 1;
    note ||= "the runner itself failed";
  } else if (ok && sums.passed === 0) {
    sums.failed = 1;
    note = "no test ran";
  }
  const reasons = count === "node" ? (output.match(/^.*# SKIP.*$/gm) ?? []) : [];
  note = [note, ...reasons.map((line) => line.trim())].filter(Boolean).join("; ");
  rows.set(name, { name, minutes, ...sums, note });
  console.log(`── ${name}: ${minutes.toFixed(2)} min, ${sums.passed} passed, ${sums.failed} failed`);
  if (!ok || sums.failed > 0) for (const line of complaint(output)) console.log(`${name}│ ${line}`);
}

async function runAll(some) {
  for (const part of some) await runPart(part);
}

mkdirSync(logs, { recursive: true });
const began = performance.now();
const named = (names) => selected.filter(({ name }) => names.includes(name));
const others = selected.filter(({ name }) => !["setup", "build", ...early, ...late].includes(name));
await runAll(named(["setup"]));
const built = runAll(named(["build"]));
await Promise.all([
  runAll(named(early))
    .then(() => built)
    .then(() => runAll(named(late))),
  built.then(() => runAll(others)),
]);

const ordered = selected.map(({ name }) => rows.get(name));
const total = (field) => ordered.reduce((sum, row) => sum + row[field], 0);
console.log(
  `\n${"part".padEnd(16)} ${"minutes".padStart(7)} ${"passed".padStart(7)} ${"failed".padStart(7)} ${"skipped".padStart(7)}`,
);
for (const row of ordered) {
  const cells = [row.minutes.toFixed(2), row.passed, row.failed, row.skipped];
  console.log(
    `${row.name.padEnd(16)} ${cells.map((cell) => String(cell).padStart(7)).join(" ")}  ${row.note}`.trimEnd(),
  );
}
console.log(`${"all".padEnd(16)} ${((performance.now() - began) / 60_000).toFixed(2).padStart(7)}`);
console.log(
  `\n${total("passed")} passed, ${total("failed")} failed${total("skipped") ? `, ${total("skipped")} skipped` : ""}`,
);
process.exitCode = total("failed") > 0 ? 1 : 0;
