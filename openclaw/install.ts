// Finds the OpenClaw installs that matter: the one this process belongs to, and the one a user means.
import { readFileSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";

/** An installed OpenClaw. */
export interface Install {
  /** The package's folder, symlinks resolved. */
  root: string;
  version: string;
  /** The Node versions its package.json asks for. */
  engines: string;
}

/** The OpenClaw that `file` is part of; nested package.json files of its extensions are passed over. */
export function installOf(file: string): Install | undefined {
  let folder: string;
  try {
    folder = dirname(realpathSync(file));
  } catch {
    return undefined;
  }
  for (;;) {
    const install = installAt(folder);
    if (install) return install;
    const parent = dirname(folder);
    if (parent === folder) return undefined;
    folder = parent;
  }
}

/** The OpenClaw whose package.json lies in `folder`. */
export function installAt(folder: string): Install | undefined {
  try {
    const text = readFileSync(join(folder, "package.json"), "utf8");
    // Most package.json files met on the way up belong to others.
    if (!text.includes('"openclaw"')) return undefined;
    const manifest = JSON.parse(text);
    if (manifest.name !== "openclaw" || typeof manifest.version !== "string") return undefined;
    return {
      root: realpathSync(folder),
      version: manifest.version,
      engines: manifest.engines?.node ?? "",
    };
  } catch {
    return undefined;
  }
}

/** The OpenClaw of a project in or above `cwd`, else the one on PATH, else the global one of this Node. */
export function findInstall(
  cwd: string,
  env: Readonly<Record<string, string | undefined>>,
): Install | undefined {
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    const install = installAt(folder) ?? installAt(join(folder, "node_modules/openclaw"));
    if (install) return install;
    if (dirname(folder) === folder) break;
  }
  for (const folder of (env.PATH ?? "").split(delimiter)) {
    const install = folder && installOf(join(folder, "openclaw"));
    if (install) return install;
  }
  const prefix = dirname(process.execPath);
  return (
    installAt(resolve(prefix, "../lib/node_modules/openclaw")) ??
    installAt(join(prefix, "node_modules/openclaw"))
  );
}

/** OpenClaw's state folder by its own rule; it may not exist. */
export function stateDir(env: Readonly<Record<string, string | undefined>>): string {
  const home = homeOf(env);
  const set = env.OPENCLAW_STATE_DIR?.trim();
  if (set) return resolve(set.replace(/^~(?=$|[\\/])/, home));
  const folders = [join(home, ".openclaw"), join(home, ".clawdbot")];
  return folders.find(exists) ?? join(home, ".openclaw");
}

/** Where this user's caches live, or nothing where there is no home to keep one in. */
export function cacheDir(env: Readonly<Record<string, string | undefined>>): string | undefined {
  if (env.OPENCLAW_CORE_CACHE_DIR) return resolve(env.OPENCLAW_CORE_CACHE_DIR);
  if (env.XDG_CACHE_HOME) return join(env.XDG_CACHE_HOME, "openclaw-core");
  if (process.platform === "win32") {
    return env.LOCALAPPDATA ? join(env.LOCALAPPDATA, "openclaw-core", "cache") : undefined;
  }
  const home = env.HOME;
  if (!home) return undefined;
  return process.platform === "darwin"
    ? join(home, "Library/Caches/openclaw-core")
    : join(home, ".cache/openclaw-core");
}

function homeOf(env: Readonly<Record<string, string | undefined>>): string {
  const real = [env.HOME, env.USERPROFILE].map(clean).find(Boolean) ?? homedir();
  const home = clean(env.OPENCLAW_HOME) ?? real;
  return resolve(home.replace(/^~(?=$|[\\/])/, real));
}

/** OpenClaw reads the words that a careless script puts there as "not set". */
function clean(value: string | undefined): string | undefined {
  const text = value?.trim();
  return text && text !== "undefined" && text !== "null" ? text : undefined;
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
