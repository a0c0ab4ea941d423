// Preloaded into OpenClaw: writes down every process that is started, by Node or by the core, and every call of a
// sandbox's files. One JSON line each, into the file that SPAWN_LOG names.
import childProcess from "node:child_process";
import { appendFileSync } from "node:fs";
import Module from "node:module";

const file = process.env.SPAWN_LOG;
const note = (kind, what) =>
  appendFileSync(file, `${JSON.stringify({ atMs: Date.now(), pid: process.pid, kind, what })}\n`);

if (file) {
  // spawn, exec, execFile and fork all end here.
  const { spawn } = childProcess.ChildProcess.prototype;
  childProcess.ChildProcess.prototype.spawn = function (options) {
    note("spawn", [options.file, ...(options.args ?? []).slice(1)].join(" ").slice(0, 300));
    return spawn.call(this, options);
  };
  for (const name of ["spawnSync", "execSync", "execFileSync"]) {
    const original = childProcess[name];
    childProcess[name] = function (...args) {
      note("spawn", String(args[0]));
      return original.apply(this, args);
    };
  }
  Module.syncBuiltinESMExports();
  const wrapped = new WeakSet();
  const wrap = (owner, kind, names) => {
    if (wrapped.has(owner.prototype)) return;
    wrapped.add(owner.prototype);
    for (const name of names) {
      const original = owner.prototype[name];
      owner.prototype[name] = function (...args) {
        note(kind, name);
        return original.apply(this, args);
      };
    }
  };
  const load = Module._load;
  Module._load = function (...args) {
    const exports = load.apply(this, args);
    if (exports && typeof exports === "object" && Object.hasOwn(exports, "SandboxFs")) {
      // `launch` starts nothing; `create` runs a command that looks around.
      wrap(exports.Sandbox, "spawn", ["run", "explain"]);
      const methods = Object.getOwnPropertyNames(exports.SandboxFs.prototype);
      wrap(
        exports.SandboxFs,
        "files",
        methods.filter((name) => name !== "constructor"),
      );
    }
    return exports;
  };
}
