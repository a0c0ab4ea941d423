// Measuring: contenders take turns within one run, so that whatever else the machine does hits all of them alike.
import { spawnSync } from "node:child_process";

/** SplitMix32: the same numbers on every machine. */
export function random(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let z = state ^ (state >>> 16);
    z = Math.imul(z, 0x21f0aaad);
    z ^= z >>> 15;
    z = Math.imul(z, 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 4294967296;
  };
}

export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.ceil(at)] - sorted[low]) * (at - low);
}

export const median = (values) => quantile(values, 0.5);

/** median(over) / median(under), with the 95 % interval of 2,000 bootstrap draws of whole turns. */
export function ratio(over, under) {
  const next = random(1);
  const draws = Array.from({ length: 2000 }, () => {
    const turns = over.map(() => Math.floor(next() * over.length));
    return median(turns.map((turn) => over[turn])) / median(turns.map((turn) => under[turn]));
  });
  return { value: median(over) / median(under), low: quantile(draws, 0.025), high: quantile(draws, 0.975) };
}

/** A row of the table; the first contender is ours, and each other one gets a ratio to it. */
export function row({ title, unit, samples, target, smallerIsBetter = true, note }) {
  const [[ours, own], ...others] = Object.entries(samples);
  const contenders = Object.fromEntries(
    Object.entries(samples).map(([name, values]) => [
      name,
      {
        median: median(values),
        p5: quantile(values, 0.05),
        p95: quantile(values, 0.95),
        samples: values.length,
      },
    ]),
  );
  const ratios = Object.fromEntries(others.map(([name, values]) => [name, ratio(values, own)]));
  const result = { title, unit, smallerIsBetter, ours, contenders, ratios };
  if (note) result.note = note;
  if (target) {
    const met = target.met({ contenders, ratios });
    result.target = { text: target.text, met };
  }
  return result;
}

/**
 * Times synchronous functions in turns. Each turn of each runs it often enough to take about `turnMs`; the order
 * changes from turn to turn. Gives microseconds a call, by name.
 */
export function compare(functions, { turns = 60, turnMs = 8, seed = 7 } = {}) {
  const next = random(seed);
  const entries = Object.entries(functions).map(([name, call]) => {
    let calls = 1;
    for (;;) {
      const start = performance.now();
      for (let index = 0; index < calls; index++) call();
      const took = performance.now() - start;
      if (took >= turnMs) break;
      calls = Math.max(calls + 1, Math.ceil(calls * Math.min(10, turnMs / Math.max(took, 0.001))));
    }
    return { name, call, calls, times: [] };
  });
  for (let turn = 0; turn < turns; turn++) {
    const order = entries.map((entry) => ({ entry, key: next() })).sort((a, b) => a.key - b.key);
    for (const { entry } of order) {
      const start = performance.now();
      for (let index = 0; index < entry.calls; index++) entry.call();
      entry.times.push(((performance.now() - start) * 1000) / entry.calls);
    }
  }
  return Object.fromEntries(entries.map(({ name, times }) => [name, times]));
}

/** The same for promises that do too much for many calls a turn. Gives milliseconds a call. */
export async function compareAsync(functions, { turns = 30, warmUp = 3 } = {}) {
  const names = Object.keys(functions);
  const times = Object.fromEntries(names.map((name) => [name, []]));
  for (let turn = -warmUp; turn < turns; turn++) {
    for (const name of turn % 2 ? names : [...names].reverse()) {
      const start = performance.now();
      await functions[name]();
      if (turn >= 0) times[name].push(performance.now() - start);
    }
  }
  return times;
}

/** Runs a script in a fresh process and gives the JSON that it prints. */
export function fresh(code, { cwd, env } = {}) {
  const { status, stdout, stderr, error } = spawnSync(process.execPath, ["--expose-gc", "-e", code], {
    cwd,
    env: { ...process.env, ...env },
    encoding: "utf8",
    timeout: 60_000,
  });
  if (status !== 0) throw new Error(`a measured process failed: ${error ?? stderr}`);
  return JSON.parse(stdout);
}
