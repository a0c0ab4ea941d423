// A registry of our own, with what a release publishes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { hostNode, nodeBinary } from "../../scripts/setup.mjs";
import { editJson, pack, scratch, stageRelease } from "../package/packed.mjs";

const require = createRequire(import.meta.url);

/** The programs of the package managers beside npm, which Node starts. */
const programs = {
  yarn: require.resolve("yarn/bin/yarn.js"),
  berry: require.resolve("@yarnpkg/cli-dist/bin/yarn.js"),
};

/** Whether every package manager is to install for every Node. */
export const complete = process.env.RELEASE_REHEARSAL === "complete";

/**
 * pnpm's executable, where it is installed. The package `pnpm` would pick it from those of fifteen platforms; a lock file
 * has to know them all, and not every registry does.
 */
const pnpm = (() => {
  try {
    return require.resolve(`@pnpm/exe.${process.platform}-${process.arch}/pnpm`);
  } catch {}
})();

/** Why a package manager cannot be used here; false where it can. */
export function lacks(manager) {
  return manager === "pnpm" && !pnpm && "pnpm's executable is brought for Linux only";
}

/** Starts a registry whose storage is in `folder`; it ends with this process. */
export async function startRegistry(folder) {
  const server = spawn(hostNode(), [fileURLToPath(new URL("serve.mjs", import.meta.url)), folder], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  let log = "";
  const ended = new Promise((resolve) => server.once("close", resolve));
  const port = await new Promise((resolve, reject) => {
    server.stderr.setEncoding("utf8").on("data", (text) => (log += text));
    server.stdout.setEncoding("utf8").on("data", (text) => {
      log += text;
      const [, found] = /^PORT (\d+)$/m.exec(log) ?? [];
      if (found) resolve(Number(found));
    });
    ended.then((code) => reject(new Error(`the registry ended with code ${code}\n${log}`)));
  });
  return {
    url: `http://127.0.0.1:${port}/`,
    host: `127.0.0.1:${port}`,
    /** What it printed, a JSON line for each request. */
    log: () => log,
    stop: async () => {
      server.stdin.end();
      await ended;
    },
  };
}

/**
 * A registry with `releases` in it, and a home for the package managers that use it. Nothing of the caller's settings,
 * caches and proxies reaches them. `releases` maps versions to options of `stageRelease`.
 */
export async function startReleased(releases) {
  const { folder, remove } = scratch("release – größer 東京");
  const registry = await startRegistry(folder);
  const home = join(folder, "home");
  mkdirSync(home);
  // A file for npm to read in place of the user's own.
  const userconfig = join(home, "npmrc");
  writeFileSync(
    userconfig,
    `registry=${registry.url}\n//${registry.host}/:_authToken=${await token(registry)}\n`,
  );
  const environment = (node = hostNode()) => ({
    PATH: [dirname(node), process.env.PATH].join(delimiter),
    HOME: home,
    LANG: "C.UTF-8",
    // Colours and progress would only clutter what a failed test prints.
    CI: "true",
    NO_COLOR: "1",
    npm_config_userconfig: userconfig,
    npm_config_registry: registry.url,
    npm_config_cache: join(home, "npm-cache"),
    npm_config_audit: "false",
    npm_config_fund: "false",
    npm_config_update_notifier: "false",
    YARN_NPM_REGISTRY_SERVER: registry.url,
    YARN_UNSAFE_HTTP_WHITELIST: "127.0.0.1",
    YARN_ENABLE_TELEMETRY: "false",
    // What was published within the last day is passed over by default.
    YARN_NPM_MINIMAL_AGE_GATE: "0",
    YARN_ENABLE_IMMUTABLE_INSTALLS: "false",
  });
  /** Runs a program to its end. */
  const execute = (command, args, { cwd, node, env = {}, ...options } = {}) =>
    execution(command, args, { ...options, cwd, env: { ...environment(node), ...env } });
  const manage = (manager, args, { node = hostNode(), ...options } = {}) => {
    if (manager === "npm") return execute("npm", args, { ...options, node });
    if (manager === "pnpm") return execute(pnpm, args, { ...options, node });
    // Yarn 1 spoils its cache for another that runs beside it.
    const alone = manager === "yarn" ? ["--mutex", `file:${join(home, "yarn.lock")}`] : [];
    return execute(node, [programs[manager], ...args, ...alone], { ...options, node });
  };
  const built = pack(folder);
  /** Publishes a release, from the packages that were built. */
  const publish = async (version, options) => {
    const workspaces = stageRelease(built, join(folder, version), version, options);
    const cwd = emptyApp(join(folder, version));
    editJson(join(cwd, "package.json"), (own) => ({
      ...own,
      workspaces: workspaces.map((path) => basename(path)),
    }));
    const tag = version.includes("-") ? "next" : "latest";
    const args = ["publish", "--workspaces", "--access", "public", "--tag", tag];
    const { code, output } = await manage("npm", args, { cwd });
    assert.equal(code, 0, output);
  };
  for (const [version, options] of Object.entries(releases)) await publish(version, options);
  return {
    folder,
    registry,
    environment,
    publish,
    execute,
    manage,
    stop: async () => {
      await registry.stop();
      remove();
    },
  };
}

/** The token of a new user. */
async function token({ url }) {
  const answer = await fetch(new URL("-/user/org.couchdb.user:publisher", url), {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name: "publisher", password: "of-this-run" }),
  });
  assert.equal(answer.status, 201);
  return (await answer.json()).token;
}

function execution(command, args, { timeout = 300_000, ...options }) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, timeout, stdio: ["ignore", "pipe", "pipe"] });
    const said = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"])
      child[name].setEncoding("utf8").on("data", (text) => (said[name] += text));
    child.once("error", reject);
    child.once("close", (code, signal) =>
      resolve({
        code,
        signal,
        ...said,
        output: `${command} ${args.join(" ")}\n${said.stdout}\n${said.stderr}`,
      }),
    );
  });
}

/** The Node releases that the package supports and that are here, by major version. */
export const nodes = Object.fromEntries(
  ["20", "22", "24", "26"].map((major) => [major, nodeBinary(major)]).filter(([, file]) => file),
);

/** A folder with an empty project in it, which none above it takes for its own. */
export function emptyApp(folder) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), '{ "name": "app", "version": "1.0.0", "private": true }\n');
  // Yarn 4 looks for it.
  writeFileSync(join(folder, "yarn.lock"), "");
  return folder;
}
