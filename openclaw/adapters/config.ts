// The config module inside OpenClaw: JSON5 read by native code. Whatever native code refuses is given to the
// original, so that every error is the original's own.
import type { ModuleRuntime } from "../swap.js";

type Json5 = { parse: (text: unknown, reviver?: unknown) => unknown };
type ParseCompat = (raw: unknown, json5?: Json5) => unknown;
type ParseConfig = (
  raw: unknown,
  json5?: Json5,
) => { ok: true; parsed: unknown } | { ok: false; error: string };

/** The replacements of this module, by the names in the table. */
export function configReplacements(runtime: ModuleRuntime): Record<string, (original: never) => unknown> {
  /** npm json5 parsers that native code stands in for, wrapped or not. A parser that a caller brings is not ours. */
  const known = new WeakSet<object>();
  /** Set while an original runs, which would otherwise come back here through json5 or another replacement. */
  let inOriginal = false;

  function stock<T>(run: () => T): T {
    if (inOriginal) return run();
    inOriginal = true;
    try {
      return run();
    } finally {
      inOriginal = false;
    }
  }

  function strictJson(text: string): { value: unknown } | undefined {
    try {
      return { value: JSON.parse(text) };
    } catch {
      return undefined;
    }
  }

  const ours = (raw: unknown, json5: Json5 | undefined): raw is string =>
    isNativeInput(raw) && (json5 === undefined || known.has(json5));

  return {
    parseJsonWithJson5Fallback(original: ParseCompat): ParseCompat {
      const name = "parseJsonWithJson5Fallback";
      return function parseJsonWithJson5Fallback(raw, json5) {
        if (inOriginal || !ours(raw, json5)) return original(raw, json5);
        // As stock does: strict JSON is never read as JSON5, whoever would be faster.
        const strict = strictJson(raw);
        if (strict) {
          runtime.passed(name, raw);
          return strict.value;
        }
        return runtime.call(
          name,
          raw,
          () => stock(() => original(raw, json5)),
          (addon) => addon.parseJson5(raw),
        );
      };
    },

    parseConfigJson5(original: ParseConfig): ParseConfig {
      const name = "parseConfigJson5";
      return function parseConfigJson5(raw, json5) {
        if (inOriginal || !ours(raw, json5)) return original(raw, json5);
        const strict = strictJson(raw);
        if (strict) {
          runtime.passed(name, raw);
          return { ok: true, parsed: strict.value };
        }
        return runtime.call(
          name,
          raw,
          () => stock(() => original(raw, json5)),
          (addon) => ({ ok: true, parsed: addon.parseJson5(raw) }),
          (answer) => !answer.ok,
        );
      };
    },

    "json5.parse"(json5: Json5): void {
      if (typeof json5?.parse !== "function" || known.has(json5)) return;
      const original = json5.parse;
      known.add(json5);
      const parse: Json5["parse"] = function parse(text, reviver) {
        if (inOriginal || typeof reviver === "function" || !isNativeInput(text)) {
          return original(text, reviver);
        }
        return runtime.call(
          "json5.parse",
          text,
          () => original(text),
          (addon) => addon.parseJson5(text),
        );
      };
      json5.parse = parse;
    },
  };
}

/** npm json5 prints a warning for U+2028 and U+2029 in strings; a text with either is left to it. */
function isNativeInput(text: unknown): text is string {
  return typeof text === "string" && !text.includes("\u2028") && !text.includes("\u2029");
}
