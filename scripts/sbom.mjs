// What the binary of a platform contains, from cargo: the notices that its licences ask for, and a bill of materials.
//
//   node scripts/sbom.mjs [--platform NAME,NAME] [--bom FOLDER]
//
// Writes npm/PLATFORM/THIRD-PARTY-NOTICES.txt for the named platforms, or for all; with --bom, also
// FOLDER/openclaw-core-PLATFORM.cdx.json (CycloneDX 1.6). Fails on a crate whose licence deny.toml does not allow, or that
// is not from crates.io.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index";
export const NOTICES = "THIRD-PARTY-NOTICES.txt";

/** The licences that deny.toml allows, the preferred ones first. */
export function allowedLicences() {
  const text = readFileSync(join(root, "deny.toml"), "utf8");
  const [, list] = /^\[licenses\][^[]*^allow = \[([^\]]*)\]/m.exec(text) ?? [];
  if (!list) throw new Error("deny.toml has no list of allowed licences");
  return [...list.matchAll(/"([^"]+)"/g)].map(([, name]) => name);
}

/** Licences of an SPDX expression that are allowed and together satisfy it; undefined where there are none. */
export function chooseLicences(expression, allowed) {
  // "MIT/Apache-2.0" is an old way to write OR.
  const words = expression.replaceAll("/", " OR ").match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const best = (choices) =>
    choices
      .filter((choice) => choice)
      .sort((a, b) => rank(a) - rank(b))
      .at(0);
  const rank = (choice) => Math.max(...choice.map((name) => allowed.indexOf(name)));
  const either = () => {
    const choices = [both()];
    while (words[at] === "OR" && ++at) choices.push(both());
    return best(choices);
  };
  const both = () => {
    const parts = [single()];
    while (words[at] === "AND" && ++at) parts.push(single());
    return parts.every((part) => part) ? parts.flat() : undefined;
  };
  const single = () => {
    const word = words[at++];
    if (word === "(") {
      const inner = either();
      if (words[at++] !== ")") throw new Error(`unreadable licence: ${expression}`);
      return inner;
    }
    if (!word || word === ")" || word === "AND" || word === "OR")
      throw new Error(`unreadable licence: ${expression}`);
    if (words[at] !== "WITH") return allowed.includes(word) ? [word] : undefined;
    at += 2;
    const name = `${word} WITH ${words[at - 1]}`;
    return allowed.includes(name) ? [name] : undefined;
  };
  const chosen = either();
  if (at !== words.length) throw new Error(`unreadable licence: ${expression}`);
  return chosen && [...new Set(chosen)];
}

/** What is wrong with these crates, a line each. */
export function problems(crates, allowed) {
  return crates.flatMap(({ name, version, license, source }) => {
    const found = [];
    if (source && source !== CRATES_IO) found.push(`${name} ${version} comes from ${source}`);
    if (!license) found.push(`${name} ${version} names no licence`);
    else if (!chooseLicences(license, allowed))
      found.push(`${name} ${version} has the licence ${license}, which deny.toml does not allow`);
    return found;
  });
}

function cargo(...args) {
  const { status, stdout, stderr, error } = spawnSync("cargo", args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`cargo ${args[0]}: ${error?.message ?? stderr}`);
  return stdout;
}

let read;
/** All crates that Cargo.lock names, by "name version", with their checksums; and cargo's graph of them. */
function metadata() {
  if (read) return read;
  const { packages, resolve } = JSON.parse(cargo("metadata", "--locked", "--format-version", "1"));
  const checksums = new Map(
    [
      ...readFileSync(join(root, "Cargo.lock"), "utf8").matchAll(
        /^name = "([^"]+)"\nversion = "([^"]+)"\nsource = .*\nchecksum = "([^"]+)"/gm,
      ),
    ].map(([, name, version, checksum]) => [`${name} ${version}`, checksum]),
  );
  const nodes = new Map(resolve.nodes.map((node) => [node.id, node]));
  read = new Map(
    packages.map((crate) => [
      `${crate.name} ${crate.version}`,
      {
        ...crate,
        checksum: checksums.get(`${crate.name} ${crate.version}`),
        needs: nodes.get(crate.id).dependencies,
      },
    ]),
  );
  return read;
}

/** All crates that any build of the workspace may use. */
export function allCrates() {
  return [...metadata().values()];
}

function targetOf(platform) {
  const [system, cpu, abi] = platform.split("-");
  const arch = { x64: "x86_64", arm64: "aarch64" }[cpu];
  return {
    linux: `${arch}-unknown-linux-${abi}`,
    darwin: `${arch}-apple-darwin`,
    win32: `${arch}-pc-windows-${abi}`,
  }[system];
}

/** The crates whose code is in the package of a platform, ours left out. */
export function cratesOf(platform) {
  const target = targetOf(platform);
  const linked = (crate, triple) =>
    cargo(
      ...["tree", "--locked", "--package", crate, "--target", triple, "--edges", "normal,no-proc-macro"],
      ...["--prefix", "none", "--format", "{p}"],
    )
      .split("\n")
      .map((line) => /^(\S+) v(\S+)/.exec(line))
      .filter(Boolean)
      .map(([, name, version]) => `${name} ${version}`);
  const names = new Set(linked("openclaw-core", target));
  if (platform.startsWith("linux"))
    for (const name of linked("openclaw-core-init", target.replace("-gnu", "-musl"))) names.add(name);
  return [...names]
    .sort()
    .map((name) => metadata().get(name))
    .filter(({ source }) => source);
}

// ── notices ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** How a text shows which licence it is. */
const MARKS = {
  "MIT-0": /MIT No Attribution/,
  MIT: /Permission is hereby granted, free of charge[\s\S]*subject to the following/,
  "Apache-2.0": /Apache License\s+Version 2\.0/,
  ISC: /Permission to use, copy, modify, and(\/or)? distribute this software[\s\S]*above\s+copyright/,
  "BSD-3-Clause":
    /Redistribution and use in source and binary forms[\s\S]*(Neither|may not be used to endorse)/,
  "BSD-2-Clause": /Redistribution and use in source and binary forms/,
  Zlib: /provided ['‘]as-is['’]/,
  "Unicode-3.0": /UNICODE LICENSE V3/i,
  "CC0-1.0": /CC0 1\.0 Universal/,
  "CDLA-Permissive-2.0": /Community Data License Agreement/,
};

/** Files of a crate that speak of its licence; of one that compiles C, also those beside the C. */
function licenceFiles({ manifest_path, dependencies }) {
  const folder = dirname(manifest_path);
  const recursive = dependencies.some(({ name, kind }) => name === "cc" && kind === "build");
  return (
    readdirSync(folder, { recursive, withFileTypes: true })
      .filter((entry) => entry.isFile() && /^(un)?licen[cs]e|^copying|^notice|^copyright/i.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((file) => !/\.(rs|c|h|html|py)$|[\\/](test|doc|bin)s?[\\/]/.test(file.slice(folder.length)))
      .sort()
      .map((file) => ({ own: dirname(file) === folder, text: readFileSync(file, "utf8") }))
      // zstd's may be had under this licence too, and is not taken under it.
      .filter(({ text }) => !/GNU GENERAL PUBLIC LICENSE/.test(text))
  );
}

/** A text to reprint where a crate brings none. */
function standardText(licence) {
  return readFileSync(join(root, "scripts/licences", `${licence}.txt`), "utf8");
}

/** The licences chosen for a crate, and the texts to reprint for it. */
function noticesOf(crate, allowed) {
  const chosen = chooseLicences(crate.license, allowed);
  const files = licenceFiles(crate);
  const own = files.filter((file) => file.own);
  const texts = files.filter((file) => !file.own).map(({ text }) => text);
  for (const licence of chosen) {
    const fitting = own.filter(({ text }) => MARKS[licence]?.test(text));
    // Where several apply at once, some text says to what.
    if (fitting.length > 0 && chosen.length === 1) texts.push(...fitting.map(({ text }) => text));
    else if (own.length > 0) texts.push(...own.map(({ text }) => text));
    else {
      const authors = crate.authors.length > 0 ? crate.authors.join(", ") : `the authors of ${crate.name}`;
      texts.push(`Copyright (c) ${authors}\n\n${standardText(licence)}`);
    }
  }
  // Apache-2.0 asks that a NOTICE goes along.
  texts.push(...own.map(({ text }) => text).filter((text) => /^\s*NOTICE/.test(text)));
  return { chosen, texts: [...new Set(texts)] };
}

/** A licence's text without the lines that say whose copyright it is, and those lines. */
function split(text) {
  const lines = text.replaceAll("\r", "").split("\n");
  const isCopyright = (line) =>
    /^[\s*#]*(©|[Cc]opyright\s*(©|\([Cc]\)|\d)|Copyright:? (?!License)[A-Z])/.test(line) && line.length < 200;
  const body = lines
    .filter(
      (line) =>
        !isCopyright(line) &&
        !/^[\s#]*(The )?MIT License( \(MIT\))?\s*$|^\s*All rights reserved\.?\s*$/i.test(line),
    )
    .join("\n")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
  return {
    body,
    key: body.toLowerCase().replace(/[^a-z0-9]+/g, " "),
    copyrights: lines.filter(isCopyright).map((line) => line.replace(/^[\s*#]+/, "").trim()),
  };
}

/** The notices file of a platform. */
export function notices(platform, crates, allowed) {
  const entries = crates.map((crate) => ({
    title: `${crate.name} ${crate.version}`,
    ...noticesOf(crate, allowed),
  }));
  const mit = standardText("MIT");
  entries.push({
    title: "the Rust standard library (https://www.rust-lang.org)",
    chosen: ["MIT"],
    texts: [`Copyright (c) The Rust Project Developers\n\n${mit}`],
  });
  if (platform.startsWith("linux"))
    entries.push({
      title: "musl, in openclaw-core-init (https://musl.libc.org)",
      chosen: ["MIT"],
      texts: [`Copyright © 2005-2020 Rich Felker, et al.\n\n${mit}`],
    });

  const groups = new Map();
  for (const { title, chosen, texts } of entries)
    for (const text of texts) {
      const { body, key, copyrights } = split(text);
      const group = groups.get(key) ?? { body, crates: new Map() };
      groups.set(key, group);
      const user = `${title}: ${chosen.join(" AND ")}`;
      group.crates.set(user, [...new Set([...(group.crates.get(user) ?? []), ...copyrights])]);
    }
  const blocks = [...groups.values()]
    .sort((a, b) => b.crates.size - a.crates.size || (a.body < b.body ? -1 : 1))
    .map(({ body, crates: users }) => {
      const lines = [...users].flatMap(([title, copyrights]) => [
        title,
        ...copyrights.map((line) => `    ${line}`),
      ]);
      return `${lines.join("\n")}\n\n${body}\n`;
    });
  const rule = `\n${"=".repeat(100)}\n\n`;
  return [
    `${manifest.name}-${platform} contains code of others, under the licences below. Where one could be chosen, it was the one named.\n`,
    ...blocks,
  ].join(rule);
}

// ── bill of materials ─────────────────────────────────────────────────────────────────────────────────────────────

/** The bill of materials of a platform's package: CycloneDX 1.6, the same for the same Cargo.lock. */
export function billOfMaterials(platform, crates) {
  const name = `${manifest.name}-${platform}`;
  const self = `pkg:npm/${name.replace("@", "%40")}@${manifest.version}`;
  const refs = new Map(crates.map((crate) => [crate.id, `pkg:cargo/${crate.name}@${crate.version}`]));
  const components = crates.map((crate) => ({
    type: "library",
    "bom-ref": refs.get(crate.id),
    name: crate.name,
    version: crate.version,
    ...(crate.description && { description: crate.description.replace(/\s+/g, " ").trim() }),
    hashes: [{ alg: "SHA-256", content: crate.checksum }],
    licenses: [{ expression: crate.license.replace(/\s*\/\s*/g, " OR ") }],
    purl: refs.get(crate.id),
    ...(crate.repository && { externalReferences: [{ type: "vcs", url: crate.repository }] }),
  }));
  const inside = (needs) =>
    needs
      .map((id) => refs.get(id))
      .filter(Boolean)
      .sort();
  const ours = allCrates().filter(({ name }) =>
    [...["openclaw-core"], ...(platform.startsWith("linux") ? ["openclaw-core-init"] : [])].includes(name),
  );
  const dependencies = [
    { ref: self, dependsOn: [...new Set(ours.flatMap(({ needs }) => inside(needs)))].sort() },
    ...crates.map((crate) => ({ ref: refs.get(crate.id), dependsOn: inside(crate.needs) })),
  ];
  const bom = {
    $schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      component: {
        type: "library",
        "bom-ref": self,
        name,
        version: manifest.version,
        licenses: [{ expression: manifest.license }],
        purl: self,
      },
    },
    components,
    dependencies,
  };
  // By its content, so that the same sources give the same file.
  const hash = createHash("sha256").update(JSON.stringify(bom)).digest("hex");
  const uuid = [
    hash.slice(0, 8),
    hash.slice(8, 12),
    `8${hash.slice(13, 16)}`,
    `8${hash.slice(17, 20)}`,
    hash.slice(20, 32),
  ];
  return { ...bom, serialNumber: `urn:uuid:${uuid.join("-")}` };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values: options } = parseArgs({
    options: { platform: { type: "string" }, bom: { type: "string" } },
  });
  const allowed = allowedLicences();
  const platforms = options.platform?.split(",") ?? readdirSync(join(root, "npm"));
  for (const platform of platforms) {
    const crates = cratesOf(platform);
    const wrong = problems(crates, allowed);
    if (wrong.length > 0) {
      for (const line of wrong) console.error(`sbom: ${line}`);
      process.exitCode = 1;
      continue;
    }
    const text = notices(platform, crates, allowed);
    const file = join(root, "npm", platform, NOTICES);
    writeFileSync(file, text);
    console.log(`${crates.length} crates in npm/${platform}/${basename(file)}, ${text.length} bytes`);
    if (!options.bom) continue;
    mkdirSync(options.bom, { recursive: true });
    const bom = `${JSON.stringify(billOfMaterials(platform, crates), null, 1)}\n`;
    writeFileSync(join(options.bom, `openclaw-core-${platform}.cdx.json`), bom);
  }
}
