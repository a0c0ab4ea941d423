// The package as an OpenClaw plugin. OpenClaw calls `register` several times in every process, most of which need
// nothing of the core: it sets switches and names commands, and loads no addon.
import { writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type ChannelsApi, registerChannels } from "./adapters/channels.js";
import { registerSandbox, type SandboxApi, type SandboxConfig } from "./adapters/sandbox.js";
import { type Logger, logTo } from "./addon.js";
import { type EventsApi, registerEvents } from "./events/plugin.js";
import type { GatewayRuntime } from "./events-cli.js";
import { type ProvidersApi, registerProviders } from "./model-providers.js";
import { MODULES } from "./modules.js";
import type { Core } from "./swap.js";
import { Switches } from "./switch.js";

/** The part of OpenClaw's plugin API that is used here. */
interface PluginApi extends Omit<ChannelsApi, "runtime">, EventsApi, ProvidersApi, SandboxApi {
  logger?: Logger & { info?(text: string): void };
  /** Where the plugin is installed. OpenClaw may run a passing copy of it, so this module's own URL will not do. */
  rootDir?: string;
  runtime?: NonNullable<ChannelsApi["runtime"]> & NonNullable<EventsApi["runtime"]>;
  pluginConfig?: { modules?: Record<string, unknown>; sandbox?: SandboxConfig };
  registerCli(
    registrar: (context: { program: Command }) => void,
    options: {
      descriptors: {
        name: string;
        description: string;
        hasSubcommands: boolean;
        machineOutput(context: { argv: readonly string[] }): boolean;
      }[];
    },
  ): void;
}
interface Command {
  command(name: string): Command;
  description(text: string): Command;
  option(flags: string, description: string): Command;
  argument(name: string, description: string): Command;
  allowUnknownOption(): Command;
  helpOption(flags: false): Command;
  action(run: (options: { json?: boolean }) => Promise<void>): Command;
}

const description = "Show which OpenClaw modules run natively, read the event store, and keep credentials";

export default {
  id: "core",
  name: "OpenClaw native core",
  description: "Runs modules of OpenClaw natively and shows which",
  register(api: PluginApi): void {
    const folder = api.rootDir ?? fileURLToPath(new URL("..", import.meta.url));
    const modules = api.pluginConfig?.modules ?? {};
    logTo(api.logger);
    const switches = Switches.read(process.env, modules);
    const unmet = applySwitches(switches, folder);
    registerStart(api, switches, unmet);
    registerEvents(api, switches.mode("events"));
    if (switches.mode("providers") !== "off") registerProviders(api);
    registerChannels(api, switches.mode("channels"));
    registerSandbox(api, switches.mode("sandbox"), folder, api.pluginConfig?.sandbox);
    api.registerCli(
      ({ program }) => {
        const status = async ({ json }: { json?: boolean }) => {
          const { formatStatus, plain, readStatus } = await import("./status.js");
          const { installOf } = await import("./install.js");
          const found = readStatus(installOf(process.argv[1] ?? ""), process.env, { folder, modules });
          // OpenClaw sends what goes through console to its log when the output is for a machine.
          process.stdout.write(`${json ? JSON.stringify(found, null, 2) : formatStatus(found, plain)}\n`);
        };
        const core = program
          .command("core")
          .description(description)
          .option("--json", "machine-readable output")
          .action(status);
        core
          .command("status")
          .description("Show which OpenClaw modules run natively")
          .option("--json", "machine-readable output")
          .action(status);
        core
          .command("register")
          .description("Print the preload's URL, for NODE_OPTIONS")
          .action(async () => {
            const { registerUrl } = await import("./status.js");
            process.stdout.write(`${registerUrl(folder)}\n`);
          });
        core
          .command("doctor")
          .description("Check what the core needs; exit code 1 if something is in the way")
          .option("--json", "machine-readable output")
          .action(async ({ json }) => {
            const { diagnose, formatChecks, plain } = await import("./status.js");
            const { installOf } = await import("./install.js");
            const checks = diagnose(installOf(process.argv[1] ?? ""), process.env);
            const ok = checks.every((check) => check.ok);
            process.stdout.write(
              `${json ? JSON.stringify({ ok, checks }, null, 2) : formatChecks(checks, plain)}\n`,
            );
            if (!ok) process.exitCode = 1;
          });
        core
          .command("schema")
          .description("Ask OpenClaw for the schema of its config, so that doctor can validate it")
          .action(async () => {
            const { keepSchema } = await import("./status.js");
            const { installOf } = await import("./install.js");
            const install = installOf(process.argv[1] ?? "");
            if (!install) throw new Error("there is no OpenClaw here");
            process.stdout.write(`${await keepSchema(install)}\n`);
          });
        core
          .command("events")
          .description("Read the event store: list, show, tail, verify, export, import, status")
          .argument("[args...]", "a command and its options; --help shows them")
          .helpOption(false)
          .allowUnknownOption()
          .action(events);
        core
          .command("secret")
          .description("Keep credentials, encrypted at rest: set, list, delete, rotate, audit, import")
          .argument("[args...]", "a command and its options; --help shows them")
          .helpOption(false)
          .allowUnknownOption()
          .action(secret);
      },
      {
        descriptors: [
          {
            name: "core",
            description,
            hasSubcommands: true,
            machineOutput: ({ argv }) => ["--json", "export", "register"].some((word) => argv.includes(word)),
          },
        ],
      },
    );
  },
};

/** `openclaw core events …`: the arguments as they were given, because its own parser also serves `openclaw-core`. */
async function events(): Promise<void> {
  const { ownTerminal, runEvents } = await import("./events-cli.js");
  const { argv } = process;
  const args = argv.slice(argv.indexOf("events", argv.indexOf("core")) + 1);
  const sdk: string = "openclaw/plugin-sdk/gateway-runtime";
  const terminal = ownTerminal("openclaw core events", async () => (await import(sdk)) as GatewayRuntime);
  process.exitCode = await runEvents(args, terminal);
}

/** `openclaw core secret …`, in the same way. */
async function secret(): Promise<void> {
  const { ownSecretTerminal, runSecret } = await import("./secret-cli.js");
  const { argv } = process;
  const args = argv.slice(argv.indexOf("secret", argv.indexOf("core")) + 1);
  process.exitCode = await runSecret(args, ownSecretTerminal("openclaw core secret"));
}

/**
 * Hands the switches of `plugins.entries.core.config.modules` to the core that the preload put into this process. Gives what
 * must be native and is not.
 */
function applySwitches(switches: Switches, folder: string): string[] {
  const unmet: string[] = [];
  for (const { name, attaches, state } of MODULES) {
    const source = switches.source(name);
    if (!source.startsWith("plugins.")) continue;
    const mode = switches.mode(name);
    const runtime = preloaded()?.modules.get(name);
    if (runtime) runtime.mode = mode;
    if (mode !== "require") continue;
    if (state !== "native") unmet.push(`${source} is "require" and ${name} is not built`);
    else if (attaches === "swap" && !runtime) {
      unmet.push(
        `${source} is "require" and the preload is not active: start OpenClaw with ` +
          `NODE_OPTIONS=--import=${pathToFileURL(join(folder, "dist/register.js"))}`,
      );
    } else {
      const missing = preloaded()?.missing(name) ?? [];
      if (missing.length > 0) unmet.push(`${source} is "require": ${missing.join("; ")}`);
    }
  }
  return unmet;
}

/** Of this process, whichever copy of this file asks. */
const running = globalThis as Record<symbol, unknown>;
const STARTED = Symbol.for("openclaw.core.started");

const preloaded = () =>
  (globalThis as Record<symbol, unknown>)[Symbol.for("openclaw.core")] as Core | undefined;

/**
 * A gateway says what is native in it, and does not start without what is required. Commands do: one of them may be what
 * mends it.
 */
function registerStart(api: PluginApi, switches: Switches, unmet: string[]): void {
  api.registerService?.({
    id: "core",
    async start() {
      if (unmet.length > 0) {
        // An edit of the config starts services again: what runs goes on.
        if (running[STARTED]) return api.logger?.error?.(`not as required: ${unmet.join("; ")}`);
        const text = `refusing to start, as required: ${unmet.join("; ")}`;
        api.logger?.error?.(text);
        writeSync(2, `openclaw-core: ${text}\n`);
        process.exit(1);
      }
      running[STARTED] = true;
      const core = preloaded();
      const swapped = MODULES.filter(({ attaches, state }) => attaches === "swap" && state === "native");
      // What an edit took out of the config is as if it had never been there.
      for (const { name } of swapped) {
        const runtime = core?.modules.get(name);
        if (runtime) runtime.mode = switches.mode(name);
      }
      const parts = swapped.map(({ name }) => {
        const runtime = core?.modules.get(name);
        const mode = runtime?.mode ?? switches.mode(name);
        if (mode === "off" || mode === "shadow") return `${name} ${mode}`;
        return `${name} ${runtime && core?.missing(name).length === 0 ? "native" : "TypeScript"}`;
      });
      api.logger?.info?.(`the preload is ${core ? "active" : "not active"}: ${parts.join(", ")}`);
    },
    async stop() {},
  });
}
