// The picture of a terminal in README.md, of what `npm start` really printed.
//
//   node scripts/terminal-picture.mjs [--from FILE] [--check]
//
// Runs `npm start`, keeps what it prints in docs/start.txt (colours and all), and draws docs/start.svg. --from draws the
// output of another run; --check fails when the picture is not that of docs/start.txt.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const textFile = join(root, "docs", "start.txt");
const pictureFile = join(root, "docs", "start.svg");

/** One character, and what is around them all. */
const CELL = { width: 7.83, height: 18 };
const MARGIN = 16;
const BAR = 30;
/** A dark terminal on whatever the page has: contrast does not depend on it. */
const COLOURS = { text: "#e6edf3", 2: "#9198a1", 31: "#ff7b72", 32: "#7ee787" };

const escaped = (text) => text.replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);
const round = (value) => Number(value.toFixed(2));

const ESCAPE = "\u001b";
const PIECE = new RegExp(`${ESCAPE}\\[(\\d+)m|([^${ESCAPE}]+)`, "g");

/** The pieces of a line, each with the codes in force. */
function pieces(line) {
  const found = [];
  let codes = [];
  let column = 0;
  for (const [, code, text] of line.matchAll(PIECE)) {
    if (code !== undefined) codes = code === "0" ? [] : [...codes, code];
    else {
      // Columns of a table are pieces of their own: blanks in a row would become one.
      for (const part of text.matchAll(/\S+(?: \S+)*/g))
        found.push({ text: part[0], codes, column: column + part.index });
      column += text.length;
    }
  }
  return { found, columns: column };
}

/** What was printed, as SVG. */
export function picture(output) {
  const lines = [`${ESCAPE}[1m$ npm start${ESCAPE}[0m`, ...output.trim().split("\n")].map(pieces);
  const columns = Math.max(...lines.map((line) => line.columns));
  const width = Math.ceil(columns * CELL.width + 2 * MARGIN);
  const height = BAR + lines.length * CELL.height + MARGIN;
  const rows = lines.flatMap(({ found }, row) =>
    found.map(({ text, codes, column }) => {
      const x = round(MARGIN + column * CELL.width);
      const y = round(BAR + (row + 0.75) * CELL.height);
      const colour = COLOURS[codes.findLast((code) => code in COLOURS) ?? "text"];
      const weight = codes.includes("1") ? ' font-weight="bold"' : "";
      // Fixed, whatever font is there: columns stay columns.
      const length = round(text.length * CELL.width);
      return `<text x="${x}" y="${y}" fill="${colour}"${weight} textLength="${length}">${escaped(text)}</text>`;
    }),
  );
  const dots = ["#ff5f57", "#febc2e", "#28c840"].map(
    (colour, index) => `<circle cx="${18 + 18 * index}" cy="15" r="5.5" fill="${colour}"/>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="A terminal, and what npm start printed in it">
<rect x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8" fill="#0d1117" stroke="#3d444d"/>
${dots.join("\n")}
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', 'DejaVu Sans Mono', monospace" font-size="13">
${rows.filter(Boolean).join("\n")}
</g>
</svg>
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { from: { type: "string" }, check: { type: "boolean" } } });
  if (values.check) {
    if (readFileSync(pictureFile, "utf8") !== picture(readFileSync(textFile, "utf8"))) {
      console.error(
        "terminal-picture: docs/start.svg is not drawn from docs/start.txt; run this without --check",
      );
      process.exit(1);
    }
  } else {
    let output;
    if (values.from) {
      output = readFileSync(values.from, "utf8");
    } else {
      const { status, stdout } = spawnSync(process.execPath, [join(root, "scripts", "start.mjs")], {
        encoding: "utf8",
        env: { ...process.env, FORCE_COLOR: "1", NO_COLOR: undefined },
        stdio: ["ignore", "pipe", "inherit"],
      });
      if (status !== 0) {
        console.error(`terminal-picture: npm start failed, and there is nothing to show\n${stdout}`);
        process.exit(1);
      }
      output = stdout;
    }
    writeFileSync(textFile, `${output.trim()}\n`);
    writeFileSync(pictureFile, picture(output));
  }
}
