// parseJson5 against npm json5 and, on the same value as plain JSON, JSON.parse.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { document } from "./documents.mjs";
import { compare, row } from "./measure.mjs";

const require = createRequire(import.meta.url);

export const title = "Reading JSON5";

export async function run() {
  const { parseJson5 } = require("../index.js");
  const JSON5 = require("json5");
  const sizes = [
    ["300 B", 1, 1, "not slower than npm json5"],
    ["5 KB", 5_000, 3, "≥ 3× npm json5"],
    ["1 MB", 1_000_000, 8, "≥ 8× npm json5"],
  ];
  return sizes.map(([size, bytes, factor, text]) => {
    const source =
      bytes === 1
        ? document(1).replace(
            /agents: \{\s+list: \[\s+\],\s+\},\s+/,
            "agents: { list: [{ id: 'main', tools: ['read', 'exec',], }] },\n  session: { scope: 'per-sender', resetMinutes: 0x3C, },\n",
          )
        : document(bytes);
    const json = JSON.stringify(JSON5.parse(source));
    assert.deepEqual(parseJson5(source), JSON5.parse(source));
    const samples = compare(
      {
        parseJson5: () => parseJson5(source),
        "npm json5": () => JSON5.parse(source),
        "JSON.parse of the same as JSON": () => JSON.parse(json),
      },
      bytes > 100_000 ? { turns: 30, turnMs: 30 } : {},
    );
    return row({
      title: `JSON5 config of ${size}`,
      unit: "µs",
      samples,
      note: `${Buffer.byteLength(source)} bytes`,
      target: { text, met: ({ ratios }) => ratios["npm json5"].value >= factor },
    });
  });
}
