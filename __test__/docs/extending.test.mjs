// The pages under docs/extending, followed in a copy of the repository: each block of code goes where its page says, what a
// page asks for in words is done here, and then its commands are run as they stand. All four pages share one copy, so that
// the crate is compiled once.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { after, before, describe, test } from "node:test";
import { hostNode } from "../../scripts/setup.mjs";
import { blocksOf, root, SHOWN } from "./pages.mjs";

/** What takes longer on a busy machine does not come any more. */
const HANGS_MS = 900_000;

/** A file of the page's own. */
const file = (path) => ({ path, edit: (_, code) => code });
/** Into a file, before or behind a text that is there. */
const ahead = (path, text) => ({ path, edit: (old, code) => swap(old, text, `${code}${text}`) });
const behind = (path, text) => ({ path, edit: (old, code) => swap(old, text, `${text}${code}`) });
/** In place of what a pattern finds. */
const instead = (path, pattern) => ({ path, edit: (old, code) => swap(old, pattern.exec(old)?.[0], code) });
/** At the end of a list of the file's own. */
const last = (path, list) => ({
  path,
  edit: (old, code) => {
    const end = old.indexOf("\n];", old.indexOf(list)) + 1;
    assert.ok(end > 0, `${path} has no ${list}`);
    return old.slice(0, end) + code + old.slice(end);
  },
});
/** Said in words by the page: in a file, this becomes that everywhere. */
const words = (path, text, becomes) => ({ path, edit: (old) => swap(old, text, becomes) });
const shown = undefined;

function swap(old, text, becomes) {
  assert.ok(text && old.includes(text), `there is no ${text}`);
  return old.replaceAll(text, () => becomes);
}

const header = "src/node/header.d.ts";
const modules = "openclaw/modules.ts";

/** For each page, where its blocks of code go, in their order, and what it says in words. */
const PAGES = {
  channel: {
    blocks: [
      file("src/channels/bulletin/mod.rs"),
      ahead("src/channels/mod.rs", "pub mod channel;\n"),
      last("src/channels/platform.rs", "pub const PLATFORMS"),
      ahead(header, "/** Channels by platform and account. */"),
      file("src/channels/bulletin/tests.rs"),
      file("__test__/unit/bulletin.test.mjs"),
      last("openclaw/adapters/channel-table.ts", "export const PLATFORMS"),
      behind(
        "__test__/unit/channel-accounts.test.mjs",
        '    "core-whatsapp": { "whatsapp:+1555": "1555", "+1555": "1555" },\n',
      ),
    ],
    words: [
      words(modules, '"WhatsAppChannel",', '"WhatsAppChannel", "BulletinChannel",'),
      words(modules, "core-matrix and core-whatsapp,", "core-matrix, core-whatsapp and core-bulletin,"),
    ],
  },
  provider: {
    blocks: [
      file("src/providers/parrot.rs"),
      ahead("src/providers/mod.rs", "pub mod provider;\n"),
      behind("src/node/providers.rs", '        "ollama" => Box::new(ollama::Ollama),\n'),
      behind("src/node/script.js", '      OllamaProvider: of("ollama", "OllamaProvider"),\n'),
      behind(
        header,
        "export declare class OllamaProvider extends Provider { constructor(options: ProviderOptions) }\n",
      ),
      file("__test__/unit/parrot.test.mjs"),
      last("openclaw/model-providers.ts", "export const FAMILIES"),
    ],
    words: [
      words("src/node/providers.rs", "use crate::providers::{\n", "use crate::providers::{\n    parrot,\n"),
      words(
        "openclaw/model-providers.ts",
        '  | "OllamaProvider";',
        '  | "OllamaProvider"\n  | "ParrotProvider";',
      ),
      words(modules, '"OllamaProvider",', '"OllamaProvider", "ParrotProvider",'),
    ],
  },
  "sandbox-backend": {
    blocks: [
      file("src/sandbox/unshare.rs"),
      behind("src/sandbox/mod.rs", "mod process;\n"),
      behind(
        "src/sandbox/policy.rs",
        "    /// Windows: a job object and a restricted token.\n    JobObject,\n",
      ),
      behind("src/sandbox/policy.rs", '            Self::JobObject => "jobobject",\n'),
      behind("src/sandbox/policy.rs", "            BackendName::JobObject,\n"),
      behind("src/sandbox/probe.rs", "        Arc::new(super::linux::Linux::new(BackendName::Landlock)),\n"),
      file("__test__/unit/unshare.test.mjs"),
    ],
    words: [words("src/node/sandbox.rs", "| 'jobobject'", "| 'jobobject' | 'unshare'")],
  },
  "swapped-function": {
    blocks: [
      shown,
      ahead(modules, "/** A transport is called as it is"),
      instead(
        modules,
        /^ {4}replaces: \[fn\("src\/sessions\/session-key-utils\.ts".*\n {4}attaches: "library",\n/m,
      ),
      file("openclaw/adapters/types.ts"),
      ahead("openclaw/swap.ts", "import { validationReplacements }"),
      behind("openclaw/swap.ts", "  providers: providerReplacements,\n"),
      file("__test__/host/types.test.mjs"),
    ],
    words: [],
  },
};

/** Neither built things, but what tests need, nor what is not the repository's. */
const LEFT = /^(?:\.git|\.cache|target|fuzz\/target|docs\/(?:api|\.vitepress)|.*node_modules)$/;

describe("the pages on extending", { timeout: HANGS_MS }, () => {
  let copy;
  // A test run within a test run would run nothing, and say that it is well.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;

  before(() => {
    copy = mkdtempSync(join(tmpdir(), "openclaw-core-extending-"));
    const links = [];
    cpSync(root, copy, {
      recursive: true,
      filter(source) {
        const path = relative(root, source).replaceAll("\\", "/");
        if (path.endsWith("node_modules")) links.push(path);
        return !LEFT.test(path);
      },
    });
    for (const path of links) symlinkSync(join(root, path), join(copy, path));
    const metadata = spawnSync("cargo", ["metadata", "--no-deps", "--format-version", "1"], {
      cwd: root,
      encoding: "utf8",
    });
    env.CARGO_TARGET_DIR = JSON.parse(metadata.stdout).target_directory;
    env.PATH = [dirname(hostNode()), env.PATH].join(delimiter);
  });
  after(() => rmSync(copy, { recursive: true, force: true }));

  const named = readdirSync(join(root, "docs/extending")).map((name) => name.replace(".md", ""));
  test("each page is followed", () => assert.deepEqual(named.sort(), Object.keys(PAGES).sort()));

  for (const [name, { blocks, words }] of Object.entries(PAGES)) {
    test(`what docs/extending/${name}.md has its reader write has its place`, () => {
      const code = blocksOf(`docs/extending/${name}.md`).filter(
        ({ language }) => language !== "sh" && !SHOWN.includes(language),
      );
      assert.equal(code.length, blocks.length);
      const edits = code.map((block, index) => ({ ...blocks[index], code: block.code }));
      for (const { path, edit, code: text } of [...edits.filter(({ edit }) => edit), ...words]) {
        const target = join(copy, path);
        mkdirSync(dirname(target), { recursive: true });
        const old = existsSync(target) ? readFileSync(target, "utf8") : "";
        writeFileSync(target, edit(old, text));
      }
    });
  }

  test("cargo fmt breaks the lists that have become too long", () => {
    const { status, stderr } = spawnSync("cargo", ["fmt", "--all"], { cwd: copy, env, encoding: "utf8" });
    assert.equal(status, 0, stderr);
  });

  for (const name of Object.keys(PAGES)) {
    for (const { page, line, language, code } of blocksOf(`docs/extending/${name}.md`)) {
      if (language !== "sh") continue;
      test(`${page}:${line} works`, () => {
        // The profile that `cargo test` has compiled the dependencies with already.
        const text = code.replaceAll("--profile quick", "--debug");
        const { status, stdout, stderr } = spawnSync("bash", ["-c", `set -e -o pipefail\n${text}`], {
          ...{ cwd: copy, env, encoding: "utf8", timeout: HANGS_MS },
        });
        assert.equal(status, 0, `${stdout.slice(-8000)}\n${stderr.slice(-8000)}`);
        const tests = /^test result: .* (\d+) passed|^ℹ pass (\d+)|^# pass (\d+)/m.exec(stdout);
        if (/cargo test|node --test/.test(code)) assert.ok(Number(tests?.slice(1).find(Boolean)) > 0, stdout);
      });
    }
  }
});
