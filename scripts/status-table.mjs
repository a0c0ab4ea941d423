// Keeps the status table of README.md equal to openclaw/modules.ts.
//
//   node scripts/status-table.mjs --check | --write
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const begin = "<!-- status table: made by scripts/status-table.mjs -->";
const end = "<!-- end of status table -->";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { describeTarget, MODULES } = await import("../dist/modules.js").catch(() => {
  console.error("status-table: dist/ is not built; run `npm run build`");
  process.exit(1);
});

/** The table as Markdown. */
export function statusTable() {
  const rows = MODULES.map(({ name, replaces, attaches, exports, state, note }) => [
    name,
    state,
    attaches,
    replaces.map((target) => `\`${describeTarget(target)}\``).join(", "),
    exports.map((name) => `\`${name}\``).join(", "),
    note ?? "",
  ]);
  return [["module", "state", "attaches", "in place of", "exports", "note"], Array(6).fill("---"), ...rows]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
}

const { values } = parseArgs({ options: { check: { type: "boolean" }, write: { type: "boolean" } } });
const file = join(root, "README.md");
const text = readFileSync(file, "utf8");
const from = text.indexOf(begin);
const to = text.indexOf(end);
if (from < 0 || to < from) {
  console.error(`status-table: README.md lacks the lines "${begin}" and "${end}"`);
  process.exit(1);
}
const wanted = `${text.slice(0, from)}${begin}\n${statusTable()}\n${text.slice(to)}`;
if (values.write) {
  writeFileSync(file, wanted);
} else if (values.check) {
  if (wanted !== text) {
    console.error(
      "status-table: the table in README.md is stale; run `node scripts/status-table.mjs --write` and commit",
    );
    process.exit(1);
  }
} else {
  console.log(statusTable());
}
