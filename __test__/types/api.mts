// Compiled, never run: what the declarations promise, and what they must refuse.
import { buildSessionKey, Config, coreInfo, onLog, parseJson5, parseSessionKey } from "@openclaw/core";

export const document: unknown = parseJson5("{ a: 1 }");
// @ts-expect-error the text is required
parseJson5();
// @ts-expect-error a Buffer is not a string
parseJson5(Buffer.from("{}"));
// @ts-expect-error the value is unknown until it is checked
parseJson5("{ a: 1 }").a;

const info = coreInfo();
export const version: string = info.version;
export const target: string = info.target;
export const capability: { name: string; available: boolean; reason?: string } | undefined =
  info.capabilities[0];

const config: Config = await Config.load({ env: { HOME: undefined }, missingEnv: "error", schema: false });
// @ts-expect-error there are two ways to meet a missing variable
await Config.load({ missingEnv: "ignore" });
// @ts-expect-error values are fresh, and not set
config.value = {};
export const port: unknown = config.get("gateway.port");
export const line: number | undefined = config.explain("gateway.port")?.line;
export const errors: string[] = config.issues
  .filter(({ severity }) => severity === "error")
  .map(({ path }) => path);
export const edited: Promise<Config> = config.edit(
  [
    { op: "set", path: "a", value: 1 },
    { op: "unset", path: "b" },
  ],
  {
    allowShrink: true,
  },
);
// @ts-expect-error there is no such operation
config.edit([{ op: "delete", path: "a" }]);
for await (const update of config.watch({ signal: AbortSignal.timeout(1) })) {
  export_(update.changedPaths, update.config?.path, update.error?.message);
}

export const key: { agentId: string; rest: string } | null = parseSessionKey("agent:main:main");
export const built: string = buildSessionKey({
  agentId: "main",
  peer: { kind: "direct", id: "1" },
  dmScope: "per-peer",
});
// @ts-expect-error there is no such scope
buildSessionKey({ agentId: "main", dmScope: "per-planet" });
const stop: () => void = onLog("info", (records) => records.map(({ level, fields }) => [level, fields.file]));
stop();

declare function export_(changed: string[], path: string | undefined, message: string | undefined): void;
