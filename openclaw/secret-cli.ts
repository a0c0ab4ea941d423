// `openclaw core secret …` and `openclaw-core secret …`: how a person keeps the credential store. A secret is typed at a
// hidden prompt or read from standard input; on the command line every process would see it.
import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import type { ReadStream } from "node:tty";
import { parseArgs } from "node:util";
import { loadAddon } from "./addon.js";
import { clean, type Output, painter, plural, printTable, time } from "./events/print.js";
import { codeOf, messageOf } from "./events/store.js";
import { type Found, ImportError, readSecrets } from "./secrets/import.js";
import {
  describeKey,
  KEY_FORMS,
  KEY_VARIABLE,
  type Location,
  locate,
  parseKey,
  STORE_VARIABLE,
} from "./secrets/location.js";
import { isReserved } from "./secrets/names.js";

type Addon = typeof import("../index.js");
type Store = Awaited<ReturnType<Addon["CredentialStore"]["open"]>>;
type Input = Pick<ReadStream, "isTTY" | "setRawMode" | "on" | "off" | "pause" | "resume"> &
  AsyncIterable<Uint8Array>;

/** Where the command runs. */
export interface SecretTerminal {
  /** How the command is called, for messages: `openclaw core secret`. */
  program: string;
  env: Readonly<Record<string, string | undefined>>;
  stdin: Input;
  stdout: Output;
  stderr: Output;
}

const HELP = (program: string) => `${program}: credentials, encrypted at rest

usage: ${program} <command> [options]

commands
  set NAME           stores a secret, typed at a hidden prompt or read with --stdin
  list               the names, and since when they are there
  delete NAME        removes a secret
  rotate             gives the store a new key and encrypts everything anew
  audit              what is wrong: a key beside the data, wide modes, damage; exit code 1 if anything is
  import FILE        takes in NAME=value lines (.env) or a JSON object, nested names joined by "/"

options
  --stdin            set: the secret is standard input, without the newline at its end
  --to KEY           rotate: what opens the store from then on (default: the same place, with a new key)
  --prefix TEXT      import: put before every name
  --replace          import: also replace what is there
  --json             list, audit: machine-readable
  --store PATH       the store (default: ${STORE_VARIABLE}, or core/secrets in the state folder)
  --key KEY          what opens it: ${KEY_FORMS}
                     (default: ${KEY_VARIABLE}, or the key file ~/.config/openclaw-core/secrets.key)

In openclaw.json a secret is then { source: "exec", provider: "core", id: "NAME" }.
`;
const COMMANDS = ["set", "list", "delete", "rotate", "audit", "import"] as const;
type Command = (typeof COMMANDS)[number];

/** Something in the arguments; exit code 2. */
class UsageError extends Error {}
/** Something that is not as the command needs it; exit code 1. */
class Failure extends Error {}

interface Options {
  stdin: boolean;
  to?: string;
  prefix?: string;
  replace: boolean;
  json: boolean;
  store?: string;
  key?: string;
}

interface Run {
  terminal: SecretTerminal;
  options: Options;
  location: Location;
  addon: Addon;
  open(create?: boolean): Promise<Store>;
}

/** Runs one command; gives the exit code. */
export async function runSecret(args: string[], terminal: SecretTerminal): Promise<number> {
  try {
    const { command, rest, options } = parse(args);
    if (!command) {
      terminal.stdout.write(HELP(terminal.program));
      return 0;
    }
    const loaded = loadAddon();
    if ("error" in loaded) throw loaded.error;
    const { addon } = loaded;
    const location = located(terminal.env, options);
    const open = async (create = true) => {
      if (location.key !== "passphrase")
        return addon.CredentialStore.open(location.dir, location.key, { create });
      const passphrase = await ask(terminal, "Passphrase: ");
      try {
        return await addon.CredentialStore.open(location.dir, { passphrase }, { create });
      } finally {
        passphrase.fill(0);
      }
    };
    return await RUN[command]({ terminal, options, location, addon, open }, rest);
  } catch (error) {
    const prefix = `${terminal.program}: `;
    if (error instanceof UsageError) {
      terminal.stderr.write(`${prefix}${error.message}\nTry: ${terminal.program} --help\n`);
      return 2;
    }
    const code = codeOf(error);
    terminal.stderr.write(
      `${prefix}${code && !(error instanceof Failure) ? `${code}: ` : ""}${messageOf(error)}\n`,
    );
    return error instanceof Interrupted ? 130 : 1;
  }
}

const RUN: Record<Command, (run: Run, rest: string[]) => Promise<number>> = {
  async set({ terminal, options, addon, open }, rest) {
    const name = nameOf(
      rest,
      "a value on the command line would be seen by every process: leave it out, and it is asked for",
    );
    notReserved(name);
    const secret = options.stdin
      ? await readSecret(terminal)
      : await ask(terminal, `Secret for ${clean(name)}: `);
    const isText = isUtf8(secret);
    try {
      const store = await open();
      await store.set(name, new addon.ApiKey(secret));
    } finally {
      secret.fill(0);
    }
    if (!isText) {
      terminal.stderr.write(
        `${terminal.program}: it is not UTF-8 text: programs can read it as bytes, and OpenClaw cannot use it\n`,
      );
    }
    terminal.stdout.write(
      `stored; in openclaw.json: { source: "exec", provider: "core", id: ${JSON.stringify(name)} }\n`,
    );
    return 0;
  },

  async list({ terminal, options, location, open }, rest) {
    noMore(rest);
    const store = await open(false);
    const entries = await store.list();
    if (options.json) return printJson(terminal, { store: location.dir, credentials: entries });
    const rows = entries.map(({ name, createdMs, updatedMs }) => [name, time(createdMs), time(updatedMs)]);
    const paint = painter(terminal.stdout, terminal.env);
    printTable(terminal.stdout, paint, ["NAME", "CREATED", "UPDATED"], rows, new Set());
    terminal.stdout.write(
      `${paint("quiet", `${plural(entries.length, "credential")} in ${location.dir}, opened by ${describeKey(location.key)}`)}\n`,
    );
    return 0;
  },

  async delete({ terminal, open }, rest) {
    const name = nameOf(rest, "one name at a time");
    notReserved(name);
    const store = await open(false);
    if (!(await store.delete(name))) throw new Failure(`there is no credential ${JSON.stringify(name)}`);
    terminal.stdout.write("deleted\n");
    return 0;
  },

  async rotate({ terminal, options, location, open }, rest) {
    noMore(rest);
    const to = options.to === undefined ? location.key : parsedKey(options.to);
    const store = await open(false);
    if (to === "passphrase") {
      const passphrase = await ask(terminal, "New passphrase: ");
      let again: Buffer | undefined;
      try {
        // A typing error would lock everybody out.
        again = await ask(terminal, "Again: ");
        if (!passphrase.equals(again)) throw new Failure("the two differ; nothing was changed");
        await store.rotateKey({ passphrase });
      } finally {
        passphrase.fill(0);
        again?.fill(0);
      }
    } else {
      await store.rotateKey(to);
    }
    terminal.stdout.write(`everything is encrypted anew; the store is now opened by ${describeKey(to)}\n`);
    return 0;
  },

  async audit({ terminal, options, location, open }, rest) {
    noMore(rest);
    const store = await open(false);
    const issues = await store.audit();
    if (options.json) printJson(terminal, { store: location.dir, issues });
    else if (issues.length === 0) terminal.stdout.write(`nothing is wrong with ${location.dir}\n`);
    else
      for (const { severity, message } of issues) terminal.stdout.write(`${severity}: ${clean(message)}\n`);
    return issues.length === 0 ? 0 : 1;
  },

  async import({ terminal, options, addon, open }, rest) {
    const file = nameOf(rest, "one file at a time");
    const { secrets, skipped } = await secretsOf(file, options.prefix ?? "");
    const kept: string[] = [];
    let stored = 0;
    try {
      const store = await open();
      for (const [name, secret] of secrets) {
        if (!options.replace && (await store.has(name))) {
          kept.push(name);
        } else {
          await store.set(name, new addon.ApiKey(secret));
          stored += 1;
        }
      }
    } catch (error) {
      if (stored > 0) terminal.stderr.write(`${stored} of ${secrets.size} were stored before this failed:\n`);
      throw error;
    } finally {
      for (const secret of secrets.values()) secret.fill(0);
    }
    terminal.stdout.write(`${plural(stored, "credential")} stored`);
    if (kept.length > 0) terminal.stdout.write(`; there already, and kept (--replace): ${kept.join(", ")}`);
    if (skipped.length > 0) terminal.stdout.write(`; left out, empty or no text: ${skipped.join(", ")}`);
    const besides = kept.length + skipped.length > 0 ? ", and what was not stored" : "";
    terminal.stdout.write(
      `\nThe file still holds them in clear${besides}: remove ${clean(file)} when they work from here.\n`,
    );
    return 0;
  },
};

/** What a file holds, of which nothing is kept in memory otherwise. */
async function secretsOf(file: string, prefix: string): Promise<Found> {
  const bytes = await readFile(file);
  try {
    return readSecrets(bytes, prefix);
  } catch (error) {
    if (error instanceof ImportError) throw new Failure(`${error.message}; nothing was stored`);
    throw error;
  } finally {
    bytes.fill(0);
  }
}

function parse(args: string[]): { command?: Command; rest: string[]; options: Options } {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        stdin: { type: "boolean", default: false },
        to: { type: "string" },
        prefix: { type: "string" },
        replace: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        store: { type: "string" },
        key: { type: "string" },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    const [command, ...rest] = positionals;
    const { help, ...options } = values;
    if (help || command === undefined || command === "help") return { rest: [], options };
    if (!COMMANDS.includes(command as Command))
      throw new UsageError(`there is no such command: it is ${COMMANDS.join(", ")}`);
    return { command: command as Command, rest, options };
  } catch (error) {
    // Node's message repeats the argument, which may be the secret.
    if (error instanceof UsageError) throw error;
    throw new UsageError("an option is unknown, or lacks its value");
  }
}

function located(env: SecretTerminal["env"], options: Options): Location {
  try {
    return locate(env, options);
  } catch (error) {
    throw new UsageError(messageOf(error));
  }
}

function parsedKey(text: string): Location["key"] {
  try {
    return parseKey(text);
  } catch (error) {
    throw new UsageError(messageOf(error));
  }
}

function nameOf([name, ...more]: string[], surplus: string): string {
  if (name === undefined) throw new UsageError("what is it? Give its name");
  if (more.length > 0) throw new UsageError(surplus);
  return name;
}

function notReserved(name: string): void {
  if (isReserved(name))
    throw new UsageError("auth/… and auth.state are kept for auth profiles: take another name");
}

function noMore(rest: string[]): void {
  if (rest.length > 0) throw new UsageError("this command takes no argument");
}

function printJson(terminal: SecretTerminal, value: unknown): number {
  terminal.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  return 0;
}

// ── secrets as they come in: bytes, which can be wiped ───────────────────────────────────────────────────────────────

/** Standard input, without one newline at its end. */
async function readSecret({ stdin }: SecretTerminal): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stdin) chunks.push(chunk);
  const all = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  let end = all.length;
  if (all[end - 1] === 0x0a) end -= all[end - 2] === 0x0d ? 2 : 1;
  if (end <= 0) throw new Failure("standard input is empty");
  return all.subarray(0, end);
}

class Interrupted extends Error {}

/** One line from the keyboard, which is not shown. */
async function ask(terminal: SecretTerminal, prompt: string): Promise<Buffer> {
  const { stdin, stderr } = terminal;
  if (!stdin.isTTY) throw new UsageError("there is no terminal to ask at: pipe the secret in with --stdin");
  stderr.write(prompt);
  stdin.setRawMode(true);
  let typed: Buffer = Buffer.alloc(0);
  try {
    await new Promise<void>((resolve, reject) => {
      const take = (chunk: Uint8Array) => {
        try {
          for (const byte of chunk) {
            if (byte === 0x0d || byte === 0x0a || byte === 0x04) return done(resolve);
            if (byte === 0x03) return done(() => reject(new Interrupted("interrupted; nothing was changed")));
            if (byte === 0x15) typed = replaced(typed, 0);
            else if (byte === 0x7f || byte === 0x08) typed = replaced(typed, lastCharacter(typed));
            else typed = replaced(typed, typed.length, byte);
          }
        } finally {
          chunk.fill(0);
        }
      };
      const done = (settle: () => void) => {
        stdin.off("data", take);
        stdin.pause();
        settle();
      };
      stdin.on("data", take);
      stdin.resume();
    });
  } catch (error) {
    typed.fill(0);
    throw error;
  } finally {
    stdin.setRawMode(false);
    stderr.write("\n");
  }
  const line = withoutPaste(typed);
  if (line.length === 0) throw new Failure("nothing was typed; nothing was changed");
  return line;
}

/** The first `length` bytes and one more, in new memory; the old is wiped. */
function replaced(bytes: Buffer, length: number, byte?: number): Buffer {
  const next = Buffer.alloc(length + (byte === undefined ? 0 : 1));
  bytes.copy(next, 0, 0, length);
  if (byte !== undefined) next[length] = byte;
  bytes.fill(0);
  return next;
}

/** Where the last character of UTF-8 begins. */
function lastCharacter(bytes: Buffer): number {
  let at = Math.max(bytes.length - 1, 0);
  while (at > 0 && ((bytes[at] ?? 0) & 0xc0) === 0x80) at -= 1;
  return at;
}

/** Without the marks that some terminals put around pasted text. */
function withoutPaste(bytes: Buffer): Buffer {
  const begin = bytes.indexOf("\x1b[200~");
  const end = bytes.indexOf("\x1b[201~");
  return begin === 0 ? bytes.subarray(6, end < 0 ? bytes.length : end) : bytes;
}

/** The process's own terminal, for `runSecret`. */
export function ownSecretTerminal(program: string): SecretTerminal {
  return { program, env: process.env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr };
}
