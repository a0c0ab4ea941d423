// What the core would do, or does, in the OpenClaw found here; read by `openclaw-core` and by `openclaw core`.
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type Addon, addonState, loadAddon } from "./addon.js";
import type { Problem } from "./chunks.js";
import { findInstall, type Install, installAt, installOf, stateDir } from "./install.js";
import { describeTarget, MODULES, type ModuleName, type Row } from "./modules.js";
import { readTotals, type ShadowTotals } from "./shadow.js";
import { CORE, Core, canHook, noHooks, reportFolder } from "./swap.js";
import { type Mode, Switches, unknownSwitches } from "./switch.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** One module, as it is here. */
export interface ModuleStatus {
  name: ModuleName;
  state: Row["state"];
  attaches: Row["attaches"];
  mode: Mode;
  /** The variable or config path that set the mode. */
  modeSource: string;
  attached: "native" | "typescript" | "shadow" | "off";
  /** Why it is not native. */
  reason?: string;
  replaces: string[];
  exports: readonly string[];
  shadow?: ShadowTotals;
}
/** Everything `status` says. */
export interface Status {
  core: { version: string; register: string; addon: "loads" | string };
  node: string;
  openclaw: Install | null;
  /** Whether the preload is active in this process, named in NODE_OPTIONS, or neither. */
  preload: "active" | "NODE_OPTIONS" | "none";
  modules: ModuleStatus[];
  /** Copies of the replaced functions that stay TypeScript, such as those in minified bundles. */
  copies: Problem[];
}

/** One thing `doctor` looked at. */
export interface Check {
  name: string;
  ok: boolean;
  detail: string;
  remedy?: string;
}

/** The version of this package. */
export function coreVersion(): string {
  const file = fileURLToPath(new URL("../package.json", import.meta.url));
  return JSON.parse(readFileSync(file, "utf8")).version;
}

/** The preload of the package in `folder`, as `--import` takes it from every working directory. */
export function registerUrl(folder: string): string {
  return pathToFileURL(join(folder, "dist/register.js")).href;
}

/** The OpenClaw that is meant: the one given, or the one found from `cwd`. */
export function resolveInstall(cwd: string, env: Environment, given?: string): Install | undefined {
  if (given === undefined) return findInstall(cwd, env);
  return installAt(given) ?? installAt(join(given, "node_modules/openclaw")) ?? installOf(given);
}

/**
 * The state of every module in an OpenClaw, or without one. The plugin, which runs as a copy of the package, says where
 * the package is installed, and what its config switches.
 */
export function readStatus(
  install: Install | undefined,
  env: Environment,
  {
    folder = fileURLToPath(new URL("..", import.meta.url)),
    modules = {},
  }: { folder?: string; modules?: Readonly<Record<string, unknown>> } = {},
): Status {
  const switches = Switches.read(env, modules);
  const running = (globalThis as Record<symbol, unknown>)[CORE] !== undefined;
  const core = install && new Core(install, switches, env, () => {});
  const addon = loadAddon();
  return {
    core: {
      version: coreVersion(),
      register: registerUrl(folder),
      addon: "addon" in addon ? "loads" : addon.error.message,
    },
    node: process.versions.node,
    openclaw: install ?? null,
    preload: running
      ? "active"
      : /core[\\/]register|dist[\\/]register\.js/.test(env.NODE_OPTIONS ?? "")
        ? "NODE_OPTIONS"
        : "none",
    modules: MODULES.map((row) => moduleStatus(row, switches, core, env)),
    copies: core && core.modules.size > 0 ? core.index().problems : [],
  };
}

function moduleStatus(row: Row, switches: Switches, core: Core | undefined, env: Environment): ModuleStatus {
  const mode = switches.mode(row.name);
  const status: ModuleStatus = {
    name: row.name,
    state: row.state,
    attaches: row.attaches,
    mode,
    modeSource: switches.source(row.name),
    attached: "typescript",
    replaces: row.replaces.map(describeTarget),
    exports: row.exports,
  };
  if (mode === "off") return { ...status, attached: "off", reason: `switched off by ${status.modeSource}` };
  if (row.state !== "native") return { ...status, reason: row.note ? `not built; ${row.note}` : "not built" };
  if (row.attaches === "library") return { ...status, reason: row.note ?? "only by import" };
  if (!core) return { ...status, reason: "no OpenClaw found here" };
  const missing = core.missing(row.name);
  if (missing.length > 0) return { ...status, reason: missing.join("; ") };
  const folder = reportFolder(env);
  const shadow = folder ? readTotals(folder, row.name) : undefined;
  return {
    ...status,
    attached: mode === "shadow" ? "shadow" : "native",
    ...(row.note && { reason: row.note }),
    ...(shadow && { shadow }),
  };
}

/** Asks OpenClaw for the schema of its config, and keeps it for validation; says so. */
export async function keepSchema(install: Install): Promise<string> {
  const addon = loadAddon();
  if ("error" in addon) throw addon.error;
  await addon.addon.Config.refreshSchema({ openclaw: install.root });
  return `the schema of OpenClaw ${install.version} and its plugins is kept`;
}

/** Looks at everything the core needs; every failed check says what to do. */
export function diagnose(install: Install | undefined, env: Environment): Check[] {
  const checks: Check[] = [];
  const check: Report = (name, ok, detail, remedy) =>
    checks.push(ok ? { name, ok, detail } : { name, ok, detail, remedy });

  const addon = loadAddon();
  if ("addon" in addon) {
    const works = JSON.stringify(addon.addon.parseJson5("{works: +1}")) === '{"works":1}';
    const ms = (addonState().loadNs / 1e6).toFixed(1);
    check(
      "addon",
      works,
      works ? `loads in ${ms} ms` : "loads and answers wrongly",
      "reinstall @openclaw/core",
    );
  } else {
    check("addon", false, addon.error.message, "reinstall @openclaw/core with its optional dependencies");
  }

  const node = process.versions.node;
  check(
    "hooks",
    canHook(),
    canHook() ? `Node ${node} can swap functions` : noHooks(),
    "use Node 24 or later",
  );

  check(
    "openclaw",
    install !== undefined,
    install ? `${install.version} at ${install.root}` : "not found here",
    "run this where OpenClaw is installed, or name it: --openclaw PATH",
  );
  if (install) {
    const fits = satisfies(node, install.engines);
    check(
      "node",
      fits,
      `Node ${node}; OpenClaw ${install.version} asks for ${install.engines || "any"}`,
      "start OpenClaw, and this command, with a Node that OpenClaw accepts",
    );
    const core = new Core(install, Switches.read({}), env, () => {});
    const { chunks, notCached } = core.index();
    const missing = [...core.modules.keys()].flatMap((name) => core.missing(name));
    check(
      "index",
      missing.length === 0,
      missing.length > 0
        ? missing.join("; ")
        : `every function found, in ${Object.keys(chunks).length} chunks${notCached ? `; not kept: ${notCached}` : ""}`,
      "the functions named stay TypeScript with this release; look for a newer @openclaw/core",
    );
  }

  const unknown = unknownSwitches(env);
  check(
    "switches",
    unknown.length === 0,
    unknown.length > 0 ? `${unknown.join(", ")} switches nothing` : "every switch names a module",
    `name one of ${MODULES.map(({ name }) => name).join(", ")}`,
  );

  const state = stateDir(env);
  checkMode(check, "state", state, 0o077);
  const config = env.OPENCLAW_CONFIG_PATH?.trim() || join(state, "openclaw.json");
  checkMode(check, "config mode", config, 0o077);
  if ("addon" in addon && existsSync(config)) {
    checkConfig(check, config, addon.addon, install);
  }
  return checks;
}

type Report = (name: string, ok: boolean, detail: string, remedy: string) => void;

/** What `doctor` says, for people. */
export function formatChecks(checks: readonly Check[], paint: Paint): string {
  const failed = checks.filter(({ ok }) => !ok).length;
  const lines = checks.flatMap(({ name, ok, detail, remedy }) => [
    `${ok ? paint("good", "ok  ") : paint("bad", "FAIL")} ${name}: ${detail}`,
    ...(remedy ? [`     ${paint("note", remedy)}`] : []),
  ]);
  lines.push(failed === 0 ? "nothing is in the way" : `${failed} of ${checks.length} checks failed`);
  return lines.join("\n");
}

function checkConfig(check: Report, path: string, addon: Addon, install: Install | undefined): void {
  const remedy = "correct the file, or run `openclaw doctor`";
  try {
    const { issues } = addon.Config.loadSync({ path, ...(install && { openclaw: install.root }) });
    const errors = issues.filter(({ severity }) => severity === "error");
    const [first] = errors;
    if (first) {
      const where = [first.file, first.line, first.column].filter((part) => part !== undefined).join(":");
      const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : "";
      check("config", false, `${where} ${first.path}: ${first.message}${more}`, remedy);
    } else {
      const warnings = issues.map(({ message }) => message);
      check("config", true, [`${path} is in order`, ...warnings].join("; "), "");
    }
  } catch (error) {
    check("config", false, error instanceof Error ? error.message : String(error), remedy);
  }
}

function checkMode(check: Report, name: string, path: string, forbidden: number): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) {
    check(name, true, `${path} does not exist yet`, "");
    return;
  }
  const mode = stat.mode & 0o777;
  // Windows keeps access rights elsewhere.
  const ok = process.platform === "win32" || (mode & forbidden) === 0;
  const octal = mode.toString(8).padStart(4, "0");
  const wanted = stat.isDirectory() ? "700" : "600";
  check(name, ok, `${path} has mode ${octal}`, `chmod ${wanted} ${JSON.stringify(path)}`);
}

/** Whether a version lies in a range of comparators: `>=24.16.0 <25 || >=26.1.0`. */
export function satisfies(version: string, range: string): boolean {
  return range.split("||").some((part) =>
    part
      .trim()
      .split(/\s+/)
      .every((comparator) => {
        const match = /^(>=|>|<=|<|=|)v?(\d+)(?:\.(\d+))?(?:\.(\d+))?$/.exec(comparator);
        if (!match) return true;
        const order = compareVersions(version, [match[2], match[3] ?? 0, match[4] ?? 0].map(Number));
        switch (match[1]) {
          case ">=":
            return order >= 0;
          case ">":
            return order > 0;
          case "<=":
            return order <= 0;
          case "<":
            return order < 0;
          default:
            return order === 0;
        }
      }),
  );
}

function compareVersions(version: string, other: readonly number[]): number {
  const parts = version.split(/[.-]/).map(Number);
  for (const index of [0, 1, 2]) {
    const difference = (parts[index] ?? 0) - (other[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** The status as text for people. `paint` colours a word by what it says. */
export function formatStatus(status: Status, paint: Paint): string {
  const { core, openclaw, preload } = status;
  const off = status.modules.every(({ attached }) => attached === "off");
  const lines = [
    `@openclaw/core ${core.version} · Node ${status.node} · addon ${core.addon === "loads" ? "loads" : paint("bad", core.addon)}`,
    openclaw
      ? `OpenClaw ${openclaw.version} at ${openclaw.root}`
      : paint("bad", "no OpenClaw found here; name it with --openclaw PATH"),
    {
      active: "the preload is active in this process",
      NODE_OPTIONS: off
        ? "NODE_OPTIONS names the preload, which does nothing: every module is off"
        : "NODE_OPTIONS names the preload: OpenClaw started here runs with the core",
      none: `the preload is off here; start OpenClaw with NODE_OPTIONS=--import=${core.register}`,
    }[preload],
    "",
  ];
  const table = status.modules.map((row) => {
    const shadow = row.shadow ? `${row.mode === "shadow" ? "" : "so far, in "}${compared(row.shadow)}; ` : "";
    return [row.name, row.attached, row.attaches, row.mode, `${shadow}${row.reason ?? ""}`];
  });
  const rows = [["module", "answers", "attaches", "mode", "why"], ...table];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  for (const [index, row] of rows.entries()) {
    const cells = row.map((cell, column) => {
      const text = cell.padEnd(widths[column] ?? 0);
      if (index === 0) return paint("quiet", text);
      if (column !== 1) return text;
      return paint(cell === "native" ? "good" : cell === "shadow" ? "note" : "quiet", text);
    });
    lines.push(cells.join("  ").trimEnd());
  }
  if (status.copies.length > 0) {
    lines.push("", "copies that stay TypeScript, in bundles and workers of OpenClaw's that have their own:");
    for (const { file, name, reason } of status.copies) lines.push(`  ${name} in ${file}: ${reason}`);
  }
  return lines.join("\n");
}

function compared({ differences, compared, distinct, nativeNs, originalNs }: ShadowTotals): string {
  const took = nativeNs && originalNs ? `, a call in ${us(nativeNs)}, in TypeScript ${us(originalNs)}` : "";
  return `shadow: ${differences} differences in ${compared} comparisons of ${distinct} inputs${took}`;
}

const us = (nanoseconds: number) => `${(nanoseconds / 1e3).toFixed(1)} µs`;

/** Colours a word, or leaves it as it is. */
export type Paint = (tone: "good" | "bad" | "note" | "quiet", text: string) => string;

/** No colours. */
export const plain: Paint = (_tone, text) => text;
