// A stock OpenClaw command with `register` preloaded and every module off, against plain stock: CPU time.
import { createHome } from "../__test__/host/fixture.mjs";
import { median, ratio, row } from "./measure.mjs";

export const title = "Starting OpenClaw";
export const node = "24";

const PAIRS = 24;

export async function run() {
  const home = await createHome({ config: "{ gateway: { mode: 'local', port: 18789 } }" });
  try {
    const once = async (core) => {
      const result = await home.openclaw(["config", "get", "gateway.port"], { core });
      if (result.code !== 0) throw new Error(`openclaw failed: ${result.stderr}`);
      return result.cpuMs;
    };
    const samples = { "register, all off": [], "plain stock": [] };
    for (let pair = -1; pair < PAIRS; pair++) {
      const turns = [
        ["register, all off", { mode: "off" }],
        ["plain stock", undefined],
      ];
      for (const [name, core] of pair % 2 ? turns : turns.reverse()) {
        const cpuMs = await once(core);
        if (pair >= 0) samples[name].push(cpuMs);
      }
    }
    const more = ratio(samples["register, all off"], samples["plain stock"]);
    return [
      row({
        title: "openclaw config get: CPU",
        unit: "ms",
        samples,
        note: `${((more.value - 1) * 100).toFixed(1)} % more CPU than plain, 95 % interval ${((more.low - 1) * 100).toFixed(1)} to ${((more.high - 1) * 100).toFixed(1)} %, ${PAIRS} pairs, plain ${median(samples["plain stock"]).toFixed(0)} ms`,
        target: { text: "upper 95 % bound ≤ +5 %", met: () => more.high <= 1.05 },
      }),
    ];
  } finally {
    await home.remove();
  }
}
