// Compiled, never run: what the declarations promise, and what they must refuse.
import { coreInfo, parseJson5 } from "@openclaw/core";

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
