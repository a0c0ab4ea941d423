// What an hour of traffic leaves behind: the slope of the core's own bytes, and what an idle gateway holds afterwards.
import { quantile } from "../measure.mjs";

const MIB = 2 ** 20;
/** Theil and Sen's: the median of the slopes of all pairs, which single peaks do not move. */
export function slope(points) {
  const slopes = [];
  for (const [index, [x, y]] of points.entries())
    for (const [later, value] of points.slice(index + 1)) slopes.push((value - y) / (later - x));
  return slopes.length > 0 ? quantile(slopes, 0.5) : 0;
}

/** The least of each minute, `[minute, bytes]`: what is held when nothing is on its way. */
export function floors(series) {
  const least = new Map();
  for (const [seconds, bytes] of series) {
    const minute = Math.floor(seconds / 60);
    least.set(minute, Math.min(bytes, least.get(minute) ?? bytes));
  }
  return [...least];
}

/** Goals and what was found of them; `failures` names those that were missed. */
export function soaked(record) {
  const { minutes, held, verified } = record;
  const from = Math.min(10, minutes / 6);
  const growth = (least) => (slope(least.filter(([minute]) => minute >= from)) * 60) / MIB;
  const perHour = growth(floors(record.series));
  const byOwner = Object.entries(record.core.floors ?? {})
    .map(([owner, least]) => [owner, growth(least)])
    .filter(([, grown]) => Math.abs(grown) >= 0.05)
    .map(([owner, grown]) => `${owner} ${grown.toFixed(2)}`)
    .join(", ");
  const { before, end } = held;
  const rows = [
    ["messages never answered", record.lost.length, record.lost.length === 0, "0"],
    ["messages answered twice", record.doubled.length, record.doubled.length === 0, "0"],
    // A short run is warming up all the time, and says nothing of an hour.
    [
      "the core's own bytes, after the first ten minutes",
      `${perHour.toFixed(2)} MiB an hour${byOwner && ` (${byOwner})`}`,
      minutes < 30 || perHour <= 1,
      "≤ 1 MiB an hour",
    ],
    [
      "descriptors, before and after",
      `${before.files}, ${end.files}`,
      end.files <= before.files + 4,
      "no more",
    ],
    [
      "threads, before and after",
      `${before.threads}, ${end.threads}`,
      end.threads <= before.threads + 2,
      "no more",
    ],
    [
      "temporary files, before and after",
      `${before.temporary}, ${end.temporary}`,
      end.temporary <= before.temporary,
      "no more",
    ],
    ["`openclaw core events verify`", `exit code ${verified.code}`, verified.code === 0, "0"],
  ];
  const table = [
    "| what | found | goal |",
    "| --- | --- | --- |",
    ...rows.map(
      ([label, found, met, goal]) => `| ${label} | ${found} | ${goal}: ${met ? "met" : "**not met**"} |`,
    ),
  ].join("\n");
  const failures = rows.filter(([, , met]) => !met).map(([label]) => label);
  return { table, failures, perHourMiB: perHour, record };
}
