// The documentation as a reader has it: the site is built and served, and every page is opened in a headless Chromium, wide
// and as narrow as a telephone.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium, installed } from "../../scripts/setup.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const docs = join(root, "docs");
const dist = join(docs, ".vitepress", "dist");
/** What takes longer on a busy machine does not come any more. */
const HANGS_MS = 600_000;
/** One page, on a busy machine. */
const PAGE_MS = 120_000;
/** Pages that are open at once. */
const TABS = 4;
/** By a timer: a tab behind another one paints nothing, and would wait for ever. */
const POLL = { polling: 20 };
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".woff2": "font/woff2",
  ".ico": "image/x-icon",
};

const browser = chromium();
/** The one thing that no package registry of ours brings. */
const missing = browser
  ? false
  : "THE SITE WAS OPENED IN NO BROWSER: there is no Chromium here; install the package `chromium` of your distribution";

/** Builds the site as a reader does; what it starts ends with it. */
async function build() {
  for (const folder of [docs, join(root, "__test__", "site")])
    assert.ok(
      installed(folder),
      `the packages of ${folder} are not there: run \`npm run setup -- --only site\``,
    );
  const child = spawn("npm", ["--prefix", docs, "run", "build"], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const hangs = setTimeout(() => process.kill(-child.pid, "SIGKILL"), HANGS_MS);
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
  const [code] = await once(child, "close");
  clearTimeout(hangs);
  // Also for a link to a page that is not there.
  assert.equal(code, 0, output);
}

/** Serves the site as it was built, on the loopback interface. */
async function serve() {
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    let file = join(dist, path);
    if (existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html");
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
    response.end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** The paths of all pages. */
function pages() {
  return readdirSync(dist, { recursive: true })
    .map((file) => `/${String(file).replaceAll("\\", "/")}`)
    .filter((file) => file.endsWith(".html") && file !== "/404.html")
    .sort();
}

before(build);

test("the site is built, and every page of docs/ is in it", () => {
  const sources = readdirSync(docs, { recursive: true })
    .map((file) => String(file).replaceAll("\\", "/"))
    .filter((file) => file.endsWith(".md") && !file.startsWith("node_modules/"))
    .map((file) => `/${file.replace(/(^|\/)README\.md$/, "$1index.md").replace(/\.md$/, ".html")}`);
  assert.deepEqual(pages(), sources.sort());
  assert.ok(pages().includes("/api/classes/EventStore.html"), "the API was not made");
});

describe("the site in a browser", { skip: missing, timeout: HANGS_MS }, () => {
  let server;
  let origin;
  let chrome;
  let profile;
  /** What was seen of each page: its anchors, links and width. */
  const seen = new Map();
  const wrong = [];

  before(
    async () => {
      server = await serve();
      origin = `http://127.0.0.1:${server.address().port}`;
      profile = mkdtempSync(join(tmpdir(), "openclaw-core-site-"));
      const { default: puppeteer } = await import("puppeteer-core");
      chrome = await puppeteer.launch({
        executablePath: browser,
        userDataDir: profile,
        args: [
          "--headless",
          "--no-sandbox",
          "--disable-gpu",
          "--no-first-run",
          "--disable-background-networking",
          "--disable-component-update",
          "--disable-sync",
        ],
      });
      const waiting = pages();
      await Promise.all(
        Array.from({ length: TABS }, async () => {
          const tab = await open();
          for (let path = waiting.shift(); path; path = waiting.shift()) await visit(tab, path);
          await tab.close();
        }),
      );
    },
    { timeout: HANGS_MS },
  );
  after(async () => {
    await chrome?.close();
    server?.closeAllConnections();
    server?.close();
    if (profile) rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });

  /** A tab that tells of everything that goes wrong in it. */
  async function open() {
    const tab = await chrome.newPage();
    tab.setDefaultTimeout(PAGE_MS);
    const at = () => new URL(tab.url()).pathname;
    tab.on("console", (message) => {
      if (message.type() === "error") wrong.push(`${at()}: console: ${message.text()}`);
    });
    tab.on("pageerror", (error) => wrong.push(`${at()}: ${error}`));
    tab.on("requestfailed", (request) => {
      // A page that is left takes back what it has asked for ahead of time.
      if (request.failure()?.errorText === "net::ERR_ABORTED") return;
      wrong.push(`${at()}: ${request.url()}: ${request.failure()?.errorText}`);
    });
    tab.on("response", (response) => {
      if (response.status() >= 400) wrong.push(`${at()}: ${response.url()}: ${response.status()}`);
    });
    return tab;
  }

  /** Once it is hydrated: before, its links are not yet those of the application. */
  async function ready(tab) {
    await tab.waitForFunction(() => document.querySelector("#app")?.__vue_app__ !== undefined, POLL);
  }

  async function visit(tab, path) {
    try {
      await look(tab, path);
    } catch (error) {
      throw new Error(`${path}: ${error.message}`, { cause: error });
    }
  }

  async function look(tab, path) {
    await tab.setViewport({ width: 1280, height: 900 });
    await tab.goto(`${origin}${path}`, { waitUntil: "load" });
    await ready(tab);
    const page = await tab.evaluate(() => ({
      title: document.title,
      anchors: [...document.querySelectorAll("[id]")].map(({ id }) => id),
      links: [...document.querySelectorAll("a[href]")].map(({ href }) => href),
      images: [...document.images].filter((image) => image.complete && image.naturalWidth === 0).length,
    }));
    await tab.setViewport({ width: 390, height: 844 });
    page.sideways = await tab.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      if (scrollWidth <= clientWidth) return [];
      const wide = [...document.querySelectorAll(".vp-doc *")].filter(
        (element) => element.getBoundingClientRect().right > clientWidth + 1,
      );
      return [
        `${scrollWidth} of ${clientWidth} px`,
        ...wide.slice(0, 3).map(({ outerHTML }) => outerHTML.slice(0, 120)),
      ];
    });
    seen.set(path, page);
  }

  test("opens without an error, a failed request or a picture that is not there", () => {
    assert.deepEqual(wrong, []);
    assert.deepEqual([...seen.keys()].sort(), pages());
    for (const [path, { title, images }] of seen) {
      assert.notEqual(title, "", path);
      assert.equal(images, 0, `${path} has ${images} broken images`);
    }
  });

  test("links to pages and anchors that are there", () => {
    const broken = [];
    let links = 0;
    for (const [path, page] of seen) {
      for (const href of page.links) {
        const url = new URL(href);
        if (url.origin !== origin) continue;
        links++;
        const target = seen.get(url.pathname.endsWith("/") ? `${url.pathname}index.html` : url.pathname);
        const anchor = decodeURIComponent(url.hash.slice(1));
        if (!target) broken.push(`${path}: ${url.pathname}`);
        else if (anchor && !target.anchors.includes(anchor))
          broken.push(`${path}: ${url.pathname}#${anchor}`);
      }
    }
    assert.deepEqual(broken, []);
    assert.ok(links > seen.size, "the pages have no links");
  });

  test("scrolls sideways nowhere at 390 px", () => {
    const wide = [...seen].filter(([, { sideways }]) => sideways.length > 0);
    assert.deepEqual(
      wide.map(([path, { sideways }]) => [path, ...sideways]),
      [],
    );
  });

  test("finds what is searched for, and opens it", async () => {
    const tab = await open();
    await tab.setViewport({ width: 1280, height: 900 });
    await tab.goto(`${origin}/`, { waitUntil: "load" });
    await ready(tab);
    await tab.click(".VPNavBarSearch button");
    await tab.waitForSelector("#localsearch-input");
    await tab.type("#localsearch-input", "bubblewrap");
    const result = await tab.waitForSelector(".VPLocalSearchBox .result");
    const href = await result.evaluate(({ href }) => href);
    await result.click();
    await tab.waitForFunction((path) => location.pathname === path, POLL, new URL(href).pathname);
    await tab.waitForFunction(
      () => document.querySelector("main")?.textContent.toLowerCase().includes("bubblewrap"),
      POLL,
    );
    await tab.close();
    assert.deepEqual(wrong, []);
  });
});
