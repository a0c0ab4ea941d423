// A stock OpenClaw command with `register` preloaded and every module off, against plain stock: CPU time.
import { createHome } from "../__test__/host/fixture.mjs";
import { ratio, row } from "./measure.mjs";

export const title = "Starting OpenClaw";
export const node = "24";

const PAIRS = 24;

const percent = (factor) => `${factor < 1 ? "−" : "+"}${Math.abs((factor - 1) * 100).toFixed(1)} %`;

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
        note: `${percent(more.value)} CPU, 95 % interval ${percent(more.low)} to ${percent(more.high)}, ${PAIRS} pairs`,
        target: { text: "upper 95 % bound ≤ +5 %", met: () => more.high <= 1.05 },
      }),
    ];
  } finally {
    await home.remove();
  }
}
