// Where the credential store lies and what opens it. Nothing of this is in openclaw.json: the resolver must be quick, and
// what opens the store is better not written beside what refers to it.
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { stateDir } from "../install.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** A key that needs no person. */
export type StoredKey =
  | { keyFile: string }
  | { keychain: { service: string; account: string } }
  | { systemdCredential: string };

export interface Location {
  dir: string;
  /** "passphrase": somebody has to be asked. */
  key: StoredKey | "passphrase";
}

export const STORE_VARIABLE = "OPENCLAW_CORE_SECRETS_STORE";
export const KEY_VARIABLE = "OPENCLAW_CORE_SECRETS_KEY";
export const KEY_FORMS = "file:PATH, keychain:SERVICE/ACCOUNT, systemd:NAME or passphrase";

/** Options first, then the environment, then `core/secrets` in OpenClaw's state folder and a key file outside of it. */
export function locate(env: Environment, options: { store?: string; key?: string } = {}): Location {
  const store = options.store ?? env[STORE_VARIABLE];
  const key = options.key ?? env[KEY_VARIABLE];
  return {
    dir: store ? resolve(store) : join(stateDir(env), "core", "secrets"),
    key: key ? parseKey(key) : { keyFile: defaultKeyFile(env) },
  };
}

/** `file:PATH` and so on. A text of another form may be a key itself, and is not repeated. */
export function parseKey(text: string): Location["key"] {
  const [, kind, rest] = /^(file|keychain|systemd):(.+)$/s.exec(text) ?? [];
  if (kind === "file" && rest) return { keyFile: resolve(rest) };
  if (kind === "systemd" && rest) return { systemdCredential: rest };
  const [, service, account] = /^([^/]+)\/(.+)$/s.exec(rest ?? "") ?? [];
  if (kind === "keychain" && service && account) return { keychain: { service, account } };
  if (text === "passphrase") return "passphrase";
  throw new Error(`a key is given as ${KEY_FORMS}`);
}

/** Outside of the state folder: whoever copies that does not copy the key. */
function defaultKeyFile(env: Environment): string {
  const home = env.HOME || homedir();
  const folder =
    env.XDG_CONFIG_HOME || (process.platform === "win32" && env.APPDATA) || join(home, ".config");
  return join(folder, "openclaw-core", "secrets.key");
}

/** For people. */
export function describeKey(key: Location["key"]): string {
  if (key === "passphrase") return "a passphrase";
  if ("keyFile" in key) return `the key file ${key.keyFile}`;
  if ("keychain" in key) return `the keychain item ${key.keychain.service}/${key.keychain.account}`;
  return `the systemd credential ${key.systemdCredential}`;
}
