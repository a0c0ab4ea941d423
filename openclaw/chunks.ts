// Where in an OpenClaw install the functions lie that the core replaces. Chunk names change with every release;
// the bundler's `//#region <source>` markers and the function names do not, so those are what is looked for.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, sep } from "node:path";
import type { Install } from "./install.js";
import type { Basis, FunctionTarget, ModuleName, PackageTarget } from "./modules.js";

/** A function to be replaced. */
export type SwapFunction = FunctionTarget & { module: ModuleName };

/** Anything the load hook replaces. */
export type SwapTarget = (FunctionTarget | PackageTarget) & { module: ModuleName };

/** A function found in a chunk. */
export interface Found {
  region: string;
  name: string;
  /** What the bundler calls it in this chunk: the name, perhaps with `$1` behind it. */
  binding: string;
}

/** A function that stays TypeScript in some chunk, and why. */
export interface Problem {
  file: string;
  name: string;
  reason: string;
}

/** What one scan of an install found. */
export interface ChunkIndex {
  /** Chunk (relative to the package, with `/`) to the functions in it. */
  chunks: Record<string, Found[]>;
  problems: Problem[];
}

/** A ChunkIndex and how it came about. */
export interface LoadedIndex extends ChunkIndex {
  origin: "cache" | "scan";
  /** Why the scan could not be kept; the next start scans again. */
  notCached?: string;
}

const FORMAT = 2;
const RELATIVE_IMPORT = /^import\b[^"]*"(\.{1,2}\/[^"]+)";?$/gm;

/**
 * The functions among `targets` that this source holds in the shape the core was written against. `imported` reads
 * what the source imports by a relative name.
 */
export function findFunctions(
  source: string,
  targets: readonly SwapFunction[],
  imported: (specifier: string) => string | undefined = () => undefined,
): { found: Found[]; problems: Omit<Problem, "file">[] } {
  const found: Found[] = [];
  const problems: Omit<Problem, "file">[] = [];
  for (const { region, name, shape, basis } of targets) {
    const marker = `//#region ${region}`;
    const text = regionText(source, region);
    if (text === undefined) {
      // Bundles without markers are minified; without one nothing says that this is the same function.
      if (source.includes(`function ${name}(`) || source.includes(`function ${name}$`)) {
        problems.push({ name, reason: `no "${marker}" marker` });
      }
      continue;
    }
    const head = new RegExp(`^(?:async )?function (${name}(?:\\$\\d+)?)\\(`, "m").exec(text);
    if (!head?.[1]) {
      problems.push({ name, reason: `no top-level function of that name in ${region}` });
      continue;
    }
    const close = text.indexOf("\n}", head.index);
    const body = text.slice(head.index + head[0].length - 1, close < 0 ? undefined : close + 2);
    if (!shape?.test(normalise(body))) {
      problems.push({ name, reason: "its code is not the one the core was checked against" });
      continue;
    }
    const other = basis && unknownBasis(source, basis, imported);
    if (other) {
      problems.push({ name, reason: other });
      continue;
    }
    found.push({ region, name, binding: head[1] });
  }
  return { found, problems };
}

/** Why the regions that a function stands on are not known to the core; nothing where they are. */
function unknownBasis(
  source: string,
  { regions, known }: Basis,
  imported: (specifier: string) => string | undefined,
): string | undefined {
  const hash = createHash("sha256");
  let neighbours: string[] | undefined;
  for (const region of regions) {
    let text = regionText(source, region);
    if (text === undefined) {
      neighbours ??= [...source.matchAll(RELATIVE_IMPORT)].map(([, from]) => imported(from ?? "") ?? "");
      text = neighbours.map((neighbour) => regionText(neighbour, region)).find((found) => found);
    }
    if (text === undefined) return `${region}, which it stands on, was not found`;
    hash.update(`${region}\n${normalise(text)}\n`);
  }
  const digest = hash.digest("hex").slice(0, 16);
  return known.includes(digest)
    ? undefined
    : `what it stands on (${digest}) is not what the core was checked against`;
}

function regionText(source: string, region: string): string | undefined {
  const start = lineStart(source, `//#region ${region}`);
  if (start < 0) return undefined;
  const end = source.indexOf("\n//#endregion", start);
  return source.slice(start, end < 0 ? undefined : end);
}

/** Reads what a chunk imports from the folder it lies in. */
export function importsOf(file: string): (specifier: string) => string | undefined {
  return (specifier) => {
    const bytes = readIfThere(join(dirname(file), specifier));
    return bytes.length > 0 ? bytes.toString("utf8") : undefined;
  };
}

/** Reads the index of an install from the cache, or scans the install and keeps the result. */
export function loadIndex(
  install: Install,
  targets: readonly SwapFunction[],
  cache: string | undefined,
): LoadedIndex {
  const key = cacheKey(install, targets);
  const file = cache && join(cache, `chunks-${key}.json`);
  if (file) {
    const kept = readCache(file, key);
    if (kept) return { ...kept, origin: "cache" };
  }
  const index = scan(install, targets);
  if (!file) return { ...index, origin: "scan", notCached: "no cache folder is known" };
  try {
    mkdirSync(cache, { recursive: true, mode: 0o700 });
    const temporary = `${file}.${process.pid}.${Date.now().toString(36)}`;
    try {
      writeFileSync(temporary, JSON.stringify({ format: FORMAT, key, ...index }), {
        mode: 0o600,
        flag: "wx",
      });
      renameSync(temporary, file);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
    return { ...index, origin: "scan" };
  } catch (error) {
    return { ...index, origin: "scan", notCached: messageOf(error) };
  }
}

function scan(install: Install, targets: readonly SwapFunction[]): ChunkIndex {
  const chunks: Record<string, Found[]> = {};
  const problems: Problem[] = [];
  for (const { folder, prefix, of } of bundles(install, targets)) {
    const names = of.map(({ name }) => Buffer.from(`function ${name}`));
    for (const entry of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
      if (!/\.[cm]?js$/.test(entry)) continue;
      const bytes = readIfThere(join(folder, entry));
      if (!names.some((name) => bytes.includes(name))) continue;
      const file = `${prefix}${entry.replaceAll(sep, "/")}`;
      const result = findFunctions(bytes.toString("utf8"), of, importsOf(join(folder, entry)));
      if (result.found.length > 0) chunks[file] = result.found;
      for (const problem of result.problems) problems.push({ file, ...problem });
    }
  }
  for (const { name, region } of targets) {
    const somewhere = Object.values(chunks).some((found) => found.some((hit) => hit.name === name));
    if (!somewhere && !problems.some((problem) => problem.name === name)) {
      problems.push({ file: "dist", name, reason: `not found (looked for ${region})` });
    }
  }
  return { chunks, problems };
}

/** A folder of chunks: OpenClaw's own, or one of a package of its own. */
export interface Bundle {
  folder: string;
  /** What stands before the names of its chunks in the index. */
  prefix: string;
  /** The functions that are looked for in it. */
  of: readonly SwapFunction[];
}

/** The folders that hold what is looked for. A package that is not installed has none. */
export function bundles(install: Install, targets: readonly SwapFunction[]): Bundle[] {
  const found: Bundle[] = [];
  for (const from of new Set(targets.map((target) => target.package))) {
    const of = targets.filter((target) => target.package === from);
    const folder = from === undefined ? join(install.root, "dist") : distOf(install, from);
    if (folder) found.push({ folder, prefix: from === undefined ? "dist/" : `${from}/dist/`, of });
  }
  return found;
}

function distOf(install: Install, name: string): string | undefined {
  try {
    const main = createRequire(join(install.root, "package.json")).resolve(name);
    const end = join(name, "dist");
    const at = main.lastIndexOf(`${end}${sep}`);
    return at < 0 ? undefined : main.slice(0, at + end.length);
  } catch {
    return undefined;
  }
}

/** Changes with the install, with what is looked for, and with the way of looking. */
function cacheKey(install: Install, targets: readonly SwapFunction[]): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([FORMAT, install.root, install.version]));
  for (const file of ["package.json", "dist", "dist/postinstall-content-inventory.json"]) {
    const stat = statSync(join(install.root, file), { throwIfNoEntry: false });
    hash.update(`${file}:${stat?.mtimeMs}:${stat?.size};`);
  }
  for (const { folder, prefix } of bundles(install, targets)) {
    if (prefix !== "dist/") hash.update(`${prefix}:${folder}:${statSync(folder).mtimeMs};`);
  }
  for (const { package: from, region, name, shape, basis } of targets) {
    hash.update(`${from}:${region}:${name}:${shape}:${basis?.regions}:${basis?.known};`);
  }
  return hash.digest("hex").slice(0, 24);
}

/** A link that leads nowhere, or a file that an update takes away meanwhile, holds nothing to replace. */
function readIfThere(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch {
    return Buffer.alloc(0);
  }
}

/** A kept index; anything that is not exactly one is as good as none, and is written anew. */
function readCache(file: string, key: string): ChunkIndex | undefined {
  try {
    const kept = JSON.parse(readFileSync(file, "utf8"));
    if (kept.format !== FORMAT || kept.key !== key || !Array.isArray(kept.problems)) return undefined;
    for (const found of Object.values(kept.chunks)) {
      if (!Array.isArray(found) || !found.every((hit) => typeof hit.name === "string")) return undefined;
    }
    return { chunks: kept.chunks, problems: kept.problems };
  } catch {
    return undefined;
  }
}

function lineStart(source: string, line: string): number {
  for (let at = source.indexOf(line); at >= 0; at = source.indexOf(line, at + 1)) {
    const before = at === 0 || source[at - 1] === "\n";
    const after = source[at + line.length];
    if (before && (after === "\n" || after === "\r" || after === undefined)) return at;
  }
  return -1;
}

function normalise(code: string): string {
  return code
    .replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "")
    .replace(/\s+/g, " ")
    .trim();
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
