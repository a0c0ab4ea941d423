// What importing the core costs a process: time, memory, and bytes on disk.
import { existsSync, readdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { fresh, row } from "./measure.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

export const title = "Importing the core";

const empty = "const load = () => {};";
const core = 'const load = () => require("./index.js");';
const probe = (load) => `${load}
  gc();
  const rss = () => process.memoryUsage.rss() / 1048576;
  const before = rss();
  const start = performance.now();
  load();
  const ms = performance.now() - start;
  process.stdout.write(JSON.stringify({ ms, added: rss() - before, rss: rss() }));`;

export async function run() {
  const ours = [];
  const without = [];
  for (let turn = -2; turn < 40; turn++) {
    const [first, second] = turn % 2 ? [core, empty] : [empty, core];
    const results = [fresh(probe(first), { cwd: root }), fresh(probe(second), { cwd: root })];
    if (turn < 0) continue;
    ours.push(results[first === core ? 0 : 1]);
    without.push(results[first === core ? 1 : 0]);
  }
  const added = ours.map(({ added }, turn) => added - without[turn].added);
  const file = readdirSync(root).find((name) => name.startsWith(`core.${process.platform}-${process.arch}`));
  if (!file || !existsSync(root + file))
    throw new Error("there is no binary for this platform: run `npm run build`");
  // With what is beside it in the package: the starter of sandboxed commands, and the licences.
  const platform = `${root}npm/${file.replace(/^core\.|\.node$/g, "")}/`;
  const sizes = [root + file, ...readdirSync(platform).map((name) => platform + name)].map(
    (path) => statSync(path).size,
  );
  const megabytes = sizes.reduce((sum, size) => sum + size, 0) / 1e6;
  return [
    row({
      title: "time to import, fresh process",
      unit: "ms",
      samples: { "@openclaw/core": ours.map(({ ms }) => ms) },
      target: { text: "≤ 20 ms", met: ({ contenders }) => contenders["@openclaw/core"].median <= 20 },
    }),
    row({
      title: "resident memory added by the import",
      unit: "MiB",
      samples: { "@openclaw/core": added },
      note: "less what the same process gains without the import",
      target: { text: "≤ 10 MiB", met: ({ contenders }) => contenders["@openclaw/core"].median <= 10 },
    }),
    row({
      title: "the package of a platform, unpacked",
      unit: "MB",
      samples: { [platform.split("/").at(-2)]: [megabytes] },
      target: { text: "≤ 12 MB", met: () => megabytes <= 12 },
    }),
  ];
}
