#!/usr/bin/env node
// `openclaw-core`: what is attached here and why not, and what is in the way.
import { parseArgs } from "node:util";
import {
  coreVersion,
  diagnose,
  formatChecks,
  formatStatus,
  keepSchema,
  type Paint,
  plain,
  readStatus,
  resolveInstall,
  satisfies,
} from "./status.js";
import { SwitchError } from "./switch.js";

const HELP = `openclaw-core: the native core of OpenClaw

usage: openclaw-core <command> [options]

commands
  status     each module: native or TypeScript in the OpenClaw found here, and why
  doctor     checks what the core needs, with remedies; exit code 1 if something is in the way
  schema     asks OpenClaw for the schema of its config and keeps it, so that configs can be validated
  register   prints the preload's URL, which works from every folder
  events     the event store: list, show, tail, verify, export, import; \`openclaw-core events --help\`
  secret     credentials, encrypted at rest: set, list, delete, rotate, audit, import; \`openclaw-core secret --help\`

options
  --openclaw PATH   the OpenClaw to look at (default: of this project, on PATH, or global)
  --json            machine-readable output
  --help, --version

switches (environment)
  OPENCLAW_CORE=auto|require|shadow|off            all modules
  OPENCLAW_CORE_<MODULE>=auto|require|shadow|off   one module, such as OPENCLAW_CORE_CONFIG

Start OpenClaw with the core:
  NODE_OPTIONS="--import=$(openclaw-core register)" openclaw gateway run
`;
const COMMANDS = "status, doctor, schema, register, events or secret";

process.exitCode = await main(process.argv.slice(2));

async function main(args: string[]): Promise<number> {
  try {
    if (args[0] === "events") return await events(args.slice(1));
    if (args[0] === "secret") {
      const { ownSecretTerminal, runSecret } = await import("./secret-cli.js");
      return await runSecret(args.slice(1), ownSecretTerminal("openclaw-core secret"));
    }
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        json: { type: "boolean", default: false },
        openclaw: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
        version: { type: "boolean", short: "v", default: false },
      },
    });
    const [command, ...rest] = positionals;
    if (values.version) return print(coreVersion());
    if (values.help || command === "help") return print(HELP.trimEnd());
    if (rest.length > 0) return complain(`unexpected argument ${JSON.stringify(rest[0])}`);
    switch (command) {
      case "status":
        return status(values.openclaw, values.json);
      case "doctor":
        return doctor(values.openclaw, values.json);
      case "schema":
        return await schema(values.openclaw);
      case "register":
        return print(new URL("register.js", import.meta.url).href);
      case undefined:
        return complain(`a command is needed: ${COMMANDS}`);
      default:
        return complain(`unknown command ${JSON.stringify(command)}: it is ${COMMANDS}`);
    }
  } catch (error) {
    if (error instanceof SwitchError) return complain(error.message);
    if (isParseError(error)) return complain(error.message);
    throw error;
  }
}

function status(path: string | undefined, json: boolean): number {
  const install = resolveInstall(process.cwd(), process.env, path);
  if (path !== undefined && !install) return complain(`there is no OpenClaw at ${path}`, 1);
  const result = readStatus(install, process.env);
  return print(json ? JSON.stringify(result, null, 2) : formatStatus(result, paint()));
}

function doctor(path: string | undefined, json: boolean): number {
  const checks = diagnose(resolveInstall(process.cwd(), process.env, path), process.env);
  const ok = checks.every((check) => check.ok);
  print(json ? JSON.stringify({ ok, checks }, null, 2) : formatChecks(checks, paint()));
  return ok ? 0 : 1;
}

async function schema(path: string | undefined): Promise<number> {
  const install = resolveInstall(process.cwd(), process.env, path);
  if (!install) return complain(path ? `there is no OpenClaw at ${path}` : "there is no OpenClaw here", 1);
  try {
    return print(await keepSchema(install));
  } catch (error) {
    return complain(error instanceof Error ? error.message : String(error), 1);
  }
}

/** `events` has options of its own. The gateway is asked with the client of the OpenClaw that is found here. */
async function events(args: string[]): Promise<number> {
  const { gatewayOf, ownTerminal, runEvents } = await import("./events-cli.js");
  return runEvents(
    args,
    ownTerminal("openclaw-core events", async (path) => {
      const install = resolveInstall(process.cwd(), process.env, path);
      if (!install)
        throw new Error(path ? `there is no OpenClaw at ${path}` : "no OpenClaw is installed here");
      if (!satisfies(process.versions.node, install.engines)) {
        throw new Error(
          `OpenClaw's client needs Node ${install.engines}, and this is ${process.versions.node}`,
        );
      }
      return gatewayOf(install.root);
    }),
  );
}

function paint(): Paint {
  if (!process.stdout.isTTY || process.env.NO_COLOR || process.env.TERM === "dumb") return plain;
  const codes = { good: 32, bad: 31, note: 36, quiet: 2 };
  return (tone, text) => `\x1b[${codes[tone]}m${text}\x1b[0m`;
}

function print(text: string): number {
  console.log(text);
  return 0;
}

function complain(message: string, code = 2): number {
  console.error(`openclaw-core: ${message}`);
  if (code === 2) console.error("Try: openclaw-core --help");
  return code;
}

function isParseError(error: unknown): error is Error {
  return error instanceof Error && String((error as { code?: string }).code).startsWith("ERR_PARSE_ARGS");
}
