// Finds the native binary for this platform and hands out its exports.
// The build makes index.js from scripts/loader-template.cjs: edit that file, not index.js.
"use strict";

const { existsSync, openSync, readSync, closeSync, readdirSync } = require("node:fs");
const { join } = require("node:path");

// Written out one by one, so that bundlers see which packages may be asked for.
const packages = {
  /* @packages */
};

/** The C library that this Node was linked against: "gnu", "musl", or "" outside Linux. */
function libc() {
  if (process.platform !== "linux") return "";
  const interpreter = elfInterpreter(process.execPath);
  if (interpreter.includes("ld-musl-")) return "musl";
  if (interpreter.includes("ld-linux")) return "gnu";
  // A statically linked or wrapped Node names no interpreter. The report is exact, but slow to make.
  try {
    const before = process.report.excludeNetwork;
    process.report.excludeNetwork = true;
    const { header } = process.report.getReport();
    process.report.excludeNetwork = before;
    if (header.glibcVersionRuntime) return "gnu";
  } catch {}
  try {
    if (readdirSync("/lib").some((name) => name.startsWith("ld-musl-"))) return "musl";
  } catch {}
  return "gnu";
}

/** The PT_INTERP entry of a 64-bit little-endian ELF file, or "". */
function elfInterpreter(file) {
  let descriptor;
  try {
    descriptor = openSync(file, "r");
    const head = Buffer.alloc(4096);
    const length = readSync(descriptor, head, 0, head.length, 0);
    if (length < 64 || head.readUInt32BE(0) !== 0x7f454c46 || head[4] !== 2 || head[5] !== 1) return "";
    const table = Number(head.readBigUInt64LE(32));
    const entrySize = head.readUInt16LE(54);
    const entries = head.readUInt16LE(56);
    for (let index = 0; index < entries; index++) {
      const entry = table + index * entrySize;
      if (entry + 40 > length) return "";
      if (head.readUInt32LE(entry) !== 3) continue;
      const text = Buffer.alloc(Math.min(Number(head.readBigUInt64LE(entry + 32)), 4096));
      readSync(descriptor, text, 0, text.length, Number(head.readBigUInt64LE(entry + 8)));
      return text.toString("latin1");
    }
  } catch {
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
  return "";
}

/** One sentence that says what is missing and what to do; the loader's own stack would only hide it. */
function missing(message) {
  const error = new Error(message);
  error.code = "CORE_BINARY_MISSING";
  Object.defineProperty(error, "stack", {
    value: `Error [CORE_BINARY_MISSING]: ${message}`,
    configurable: true,
    writable: true,
  });
  return error;
}

function load() {
  const target = [process.platform, process.arch, process.platform === "win32" ? "msvc" : libc()]
    .filter(Boolean)
    .join("-");
  const local = join(__dirname, `core.${target}.node`);
  if (existsSync(local)) {
    try {
      return require(local);
    } catch (error) {
      throw missing(
        `@openclaw/core: ${local} is there but cannot be loaded (${firstLine(error)}); run "npm run build" again.`,
      );
    }
  }
  const loadPackage = packages[target];
  if (!loadPackage) {
    throw missing(
      `@openclaw/core has no binary for ${target}; it is built for ${Object.keys(packages).join(", ")}.`,
    );
  }
  const name = `@openclaw/core-${target}`;
  try {
    return loadPackage();
  } catch (error) {
    if (error?.code === "MODULE_NOT_FOUND" && error.message.includes(`'${name}'`)) {
      throw missing(
        `@openclaw/core needs the package ${name}, which is not installed: install again without --omit=optional or --no-optional, or run "npm install ${name}@/* @version */".`,
      );
    }
    throw missing(
      `@openclaw/core: the package ${name} is installed but its binary cannot be loaded (${firstLine(error)}); reinstall it on this machine, with this system and C library.`,
    );
  }
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n", 1)[0];
}

const native = load();

module.exports = native; // the build writes one line an export here
