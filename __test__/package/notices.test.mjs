// What is told of the crates in the binary: their licences, their notices, the bill of materials.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import {
  allCrates,
  allowedLicences,
  billOfMaterials,
  chooseLicences,
  cratesOf,
  NOTICES,
  notices,
  problems,
} from "../../scripts/sbom.mjs";
import { manifest, platform, root } from "./packed.mjs";

const allowed = allowedLicences();

describe("licences", () => {
  test("every crate that any build may use has one that is allowed, and comes from crates.io", () => {
    assert.ok(allCrates().length > 300);
    assert.deepEqual(problems(allCrates(), allowed), []);
  });

  test("a crate with another licence, with none, or from elsewhere is named", () => {
    const crates = [
      { name: "free", version: "1.0.0", license: "MIT OR GPL-3.0-only" },
      { name: "copyleft", version: "1.0.0", license: "GPL-3.0-only" },
      { name: "and", version: "1.0.0", license: "MIT AND GPL-3.0-only" },
      { name: "silent", version: "1.0.0", license: null },
      { name: "git", version: "1.0.0", license: "MIT", source: "git+https://example.com/git" },
    ];
    assert.deepEqual(
      problems(crates, allowed).map((line) => line.split(" ")[0]),
      ["copyleft", "and", "silent", "git"],
    );
  });

  test("of what may be chosen, the preferred is taken; parts that are all asked for are all kept", () => {
    const choose = (expression) => chooseLicences(expression, ["MIT", "Apache-2.0", "ISC", "Zlib"]);
    assert.deepEqual(choose("Apache-2.0 OR MIT"), ["MIT"]);
    assert.deepEqual(choose("Apache-2.0/MIT"), ["MIT"]);
    assert.deepEqual(choose("Apache-2.0 AND ISC"), ["Apache-2.0", "ISC"]);
    assert.deepEqual(choose("(MIT OR Zlib) AND ISC"), ["MIT", "ISC"]);
    assert.deepEqual(choose("GPL-2.0 AND MIT OR Zlib"), ["Zlib"]);
    assert.equal(choose("Apache-2.0 WITH LLVM-exception"), undefined);
    assert.throws(() => choose("MIT OR"), /unreadable/);
    assert.throws(() => choose("(MIT"), /unreadable/);
    assert.throws(() => choose("MIT Zlib"), /unreadable/);
  });
});

for (const name of readdirSync(join(root, "npm")).sort())
  describe(name, () => {
    const crates = cratesOf(name);

    test("the notices name each crate, and reprint what its licence asks for", () => {
      const text = notices(name, crates, allowed);
      const lines = new Set(text.split("\n"));
      for (const { name, version, license } of crates) {
        const title = `${name} ${version}: ${chooseLicences(license, allowed).join(" AND ")}`;
        assert.ok(lines.has(title), title);
      }
      assert.ok(text.includes("Permission is hereby granted, free of charge"));
      assert.ok(text.includes("Version 2.0, January 2004"));
      assert.ok(!text.includes("GNU GENERAL PUBLIC LICENSE"));
      // What crates compile from C has authors of its own.
      const holders = [
        "The Rust Project Developers",
        "Meta Platforms",
        "Brian Smith",
        "The Chromium Authors",
      ];
      if (name.startsWith("linux")) holders.push("Microsoft Corporation, Daan Leijen", "Rich Felker");
      for (const holder of holders) assert.ok(new RegExp(`Copyright.*${holder}`).test(text), holder);
    });

    test("the bill of materials holds each crate once, with its checksum, and all they depend on", () => {
      const bom = billOfMaterials(name, crates);
      assert.deepEqual(bom, billOfMaterials(name, crates));
      assert.equal(bom.metadata.component.purl, `pkg:npm/%40openclaw/core-${name}@${manifest.version}`);
      const refs = bom.components.map((component) => component["bom-ref"]);
      assert.equal(new Set(refs).size, crates.length);
      for (const { hashes } of bom.components) assert.match(hashes[0].content, /^[0-9a-f]{64}$/);
      const known = new Set([...refs, bom.metadata.component["bom-ref"]]);
      const reached = new Set(bom.dependencies.flatMap(({ dependsOn }) => dependsOn));
      for (const { ref, dependsOn } of bom.dependencies)
        for (const each of [ref, ...dependsOn]) assert.ok(known.has(each), each);
      assert.deepEqual(
        refs.filter((ref) => !reached.has(ref)),
        [],
      );
    });
  });

test("the notices in the package are those of these sources", () => {
  const packed = readFileSync(join(root, "npm", platform, NOTICES), "utf8");
  assert.ok(packed === notices(platform, cratesOf(platform), allowed), "run `node scripts/sbom.mjs`");
});
