// The validation module inside OpenClaw: its built-in redaction patterns run by native code. Values that OpenClaw has
// registered as secret are masked by OpenClaw itself before it comes to the function that is replaced here.
import { channel } from "node:diagnostics_channel";
import type { ModuleRuntime } from "../swap.js";

interface Options {
  mode?: unknown;
  patterns?: { length: number };
}
type Redact = (text: unknown, options: Options) => unknown;

/** OpenClaw publishes here how long each of its own redactions took. */
const measurements = channel("openclaw.redaction");

/** The replacements of this module, by the names in the table. */
export function validationReplacements(runtime: ModuleRuntime): Record<string, (original: never) => unknown> {
  return {
    redactSensitiveTextWithOptions(original: Redact): Redact {
      const name = "redactSensitiveTextWithOptions";
      return function redactSensitiveTextWithOptions(text, options) {
        if (!isNativeInput(text, options) || measurements.hasSubscribers) return original(text, options);
        return runtime.call<unknown>(
          name,
          text,
          () => original(text, options),
          (addon) => addon.redact(text),
        );
      };
    },
  };
}

/** Patterns of a user stay with OpenClaw: whatever they are, V8 runs them as they were meant. */
function isNativeInput(text: unknown, options: Options | undefined): text is string {
  return typeof text === "string" && text !== "" && options?.mode !== "off" && !options?.patterns?.length;
}
