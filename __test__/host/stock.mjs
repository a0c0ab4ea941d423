/**
 * The original functions of the installed OpenClaw, for tests that hold ours against them.
 *
 * OpenClaw ships bundled but unminified: a source file is a `//#region src/…` block of some chunk, and an
 * exported name hides behind a letter. Chunk names change with every release, markers and names do not, so
 * `stockFunction("src/config/includes.ts", "resolveConfigIncludes")` looks for those.
 *
 * What a chunk does not export is reached through a second copy of the chunk whose source gets one more
 * `export` clause as it loads (nothing on disk is touched); such a copy shares its imports with the first one.
 */
import { readdirSync, readFileSync } from "node:fs";
import module from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** The folder of the installed package. */
export const stockRoot = fileURLToPath(new URL("./node_modules/openclaw/", import.meta.url));
/** Its version. */
export const stockVersion = JSON.parse(readFileSync(join(stockRoot, "package.json"), "utf8")).version;

const dist = join(stockRoot, "dist");
// A bundle of its own for another process: it repeats regions, with private copies of their state.
const SEALED = new Set(["managed-handoff-runtime.mjs"]);
const EXPOSE = "openclaw-core-expose";
const ESCAPED = /[.*+?^${}()|[\]\\]/g;

let regions;
/** Maps each region to the chunks that hold it; one pass over the main chunks, on first use. */
function regionIndex() {
  if (regions) return regions;
  regions = new Map();
  for (const name of readdirSync(dist).sort()) {
    if (!name.endsWith(".mjs") || SEALED.has(name)) continue;
    const text = readFileSync(join(dist, name), "utf8");
    for (const [, region] of text.matchAll(/^\/\/#region (\S+)$/gm)) {
      const chunks = regions.get(region);
      if (!chunks) regions.set(region, [name]);
      else if (!chunks.includes(name)) chunks.push(name);
    }
  }
  return regions;
}

function regionText(text, region) {
  const parts = text.split(`//#region ${region}\n`).slice(1);
  return parts.map((part) => part.split("\n//#endregion", 1)[0]).join("\n");
}

function declares(text, name) {
  const word = name.replace(ESCAPED, "\\$&");
  return new RegExp(`^(?:(?:async )?function\\*? |class |const |let |var )${word}\\b`, "m").test(text);
}

/** Where `name` of `region` is declared: the chunk's path and, if the chunk exports it, under which alias. */
export function stockLocation(region, name) {
  const found = [];
  for (const chunk of regionIndex().get(region) ?? []) {
    const path = join(dist, chunk);
    const text = readFileSync(path, "utf8");
    if (!declares(regionText(text, region), name)) continue;
    const clause = text.match(/^export \{([^}]*)\};?\s*$/m)?.[1] ?? "";
    const word = name.replace(ESCAPED, "\\$&");
    const alias = clause.match(new RegExp(`(?:^|[\\s,])${word}(?: as ([\\w$]+))?\\s*(?:,|$)`));
    found.push({ path, exported: alias ? (alias[1] ?? name) : undefined });
  }
  if (found.length === 0) {
    throw new Error(`OpenClaw ${stockVersion} has no ${name} in region ${region}`);
  }
  if (found.length > 1) {
    const chunks = found.map((entry) => entry.path).join(", ");
    throw new Error(`${name} of region ${region} stands in several chunks: ${chunks}`);
  }
  return found[0];
}

let hooked = false;
function exposeByHook() {
  if (hooked) return;
  if (typeof module.registerHooks !== "function") {
    throw new Error(`this needs node:module registerHooks (Node 24); running on ${process.version}`);
  }
  hooked = true;
  module.registerHooks({
    load(url, context, next) {
      const loaded = next(url, context);
      const name = url.includes(EXPOSE) ? new URL(url).searchParams.get(EXPOSE) : undefined;
      if (!name) return loaded;
      const source =
        typeof loaded.source === "string" ? loaded.source : Buffer.from(loaded.source).toString("utf8");
      return { ...loaded, source: `${source}\nexport { ${name} as __exposed };\n` };
    },
  });
}

/** Whatever `region` declares at its top level as `name`: a function, a class, a constant. */
export async function stockValue(region, name) {
  const { path, exported } = stockLocation(region, name);
  const url = pathToFileURL(path);
  if (exported) return (await import(url.href))[exported];
  exposeByHook();
  url.searchParams.set(EXPOSE, name);
  return (await import(url.href)).__exposed;
}

/** The function `name` of `region`; an error if there is none or it is something else. */
export async function stockFunction(region, name) {
  const value = await stockValue(region, name);
  if (typeof value !== "function") throw new TypeError(`${name} of region ${region} is a ${typeof value}`);
  return value;
}
