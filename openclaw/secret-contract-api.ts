// OpenClaw looks for this file to learn which fields of the plugin's channels may be references to secrets.
import { createRequire } from "node:module";
import { isAccount, PLATFORMS } from "./adapters/channel-table.js";

interface Surface {
  hasExplicitAccounts: boolean;
  channelEnabled: boolean;
  accounts: { accountId: string; account: Record<string, unknown>; enabled: boolean }[];
}
interface Input {
  config: { channels?: Record<string, unknown> };
  defaults?: unknown;
  context: object;
}
interface Sdk {
  createChannelSecretTargetRegistryEntries(input: {
    channelKey: string;
    account: readonly string[];
    channel: readonly string[];
  }): readonly unknown[];
  getChannelSurface(
    config: Input["config"],
    channelKey: string,
  ): { channel: Record<string, unknown>; surface: Surface } | null;
  collectSimpleChannelFieldAssignments(input: Record<string, unknown>): void;
}

const { createChannelSecretTargetRegistryEntries, getChannelSurface, collectSimpleChannelFieldAssignments } =
  loadSdk();

/** From the plugin, where OpenClaw has linked itself, or else from the program that runs. */
function loadSdk(): Sdk {
  const name = "openclaw/plugin-sdk/channel-secret-basic-runtime";
  try {
    return createRequire(import.meta.url)(name) as Sdk;
  } catch {
    return createRequire(process.argv[1] ?? import.meta.url)(name) as Sdk;
  }
}

export const secretTargetRegistryEntries = PLATFORMS.flatMap(({ id, secrets }) => {
  const fields = Object.keys(secrets);
  return createChannelSecretTargetRegistryEntries({ channelKey: id, account: fields, channel: fields });
});

/** OpenClaw asks once for each channel that is configured; all are collected at the first. */
const collected = new WeakSet<object>();
export function collectRuntimeConfigAssignments({ config, defaults, context }: Input): void {
  if (collected.has(context)) return;
  collected.add(context);
  for (const platform of PLATFORMS) {
    const { id, label, secrets } = platform;
    const found = getChannelSurface(config, id);
    if (!found) continue;
    const { channel, surface } = found;
    // Beside accounts with names, the section is an account, too; OpenClaw's own rule knows it only where it is alone.
    const accounts =
      surface.hasExplicitAccounts && isAccount(platform, channel)
        ? [{ accountId: "default", account: {}, enabled: surface.channelEnabled }, ...surface.accounts]
        : surface.accounts;
    for (const field of Object.keys(secrets))
      collectSimpleChannelFieldAssignments({
        ...{ channelKey: id, field, channel, surface: { ...surface, accounts }, defaults, context },
        topInactiveReason: `no enabled account inherits this top-level ${label} ${field}.`,
        accountInactiveReason: `${label} account is disabled.`,
      });
  }
}
