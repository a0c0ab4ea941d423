// The documentation as a site: the same pages that GitHub shows, a sidebar, a search that needs no server, and the API.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitepress";

const docs = fileURLToPath(new URL("..", import.meta.url));
const root = resolve(docs, "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const repository = manifest.repository.url.replace(/^git\+|\.git$/g, "");

/** An anchor as GitHub makes it of a heading, so that one link is right in both places. */
const anchor = (heading) =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{N}\p{Pc}\- ]/gu, "")
    .replaceAll(" ", "-");

/**
 * A link as the site needs it. README.md is a folder's index here. What lies outside of docs/ is on GitHub: the link
 * must lead to something all the same, or the build fails.
 */
function target(href, page) {
  if (/^[a-z][a-z+.-]*:|^\/\/|^#/i.test(href)) return href;
  const [path, hash] = href.split("#");
  const file = resolve(docs, dirname(page), decodeURIComponent(path));
  if (!relative(docs, file).startsWith("..")) return href.replace(/README\.md(?=#|$)/, "index.md");
  if (!existsSync(file)) throw new Error(`docs/${page} links to ${href}, and nothing is there`);
  const kind = statSync(file).isDirectory() ? "tree" : "blob";
  return `${repository}/${kind}/main/${relative(root, file)}${hash === undefined ? "" : `#${hash}`}`;
}

/** The pages of a folder that the API's generator made, under their own names. */
function generated(folder) {
  const path = join(docs, "api", folder);
  if (!existsSync(path)) return [];
  return readdirSync(path)
    .filter((file) => file.endsWith(".md"))
    .sort((left, right) => left.localeCompare(right))
    .map((file) => ({ text: file.slice(0, -3), link: `/api/${folder}/${file.slice(0, -3)}` }));
}

const group = (text, items, collapsed) => ({
  text,
  ...(collapsed !== undefined && { collapsed }),
  items: items.map((item) => (Array.isArray(item) ? { text: item[0], link: item[1] } : item)),
});

const sidebar = [
  group("Start", [
    ["Five minutes", "/start"],
    ["As a library", "/library"],
  ]),
  group("Capabilities", [
    ["Config", "/config"],
    ["What validation equals", "/config-validation"],
    ["Event store", "/events"],
    ["Mirror and `events` command", "/events-mirror"],
    ["Import of OpenClaw's sessions", "/events-import"],
    ["One log for several gateways", "/events-nats"],
    ["Secrets", "/secrets"],
    ["Auth profiles", "/auth"],
    ["Messages, paths, URLs", "/validation"],
    ["Redaction", "/redaction"],
    ["Model providers", "/providers"],
    ["Tools", "/tools"],
    ["Sandbox", "/sandbox"],
    ["Sandbox in OpenClaw", "/sandbox-openclaw"],
    group(
      "Channels",
      [
        ["What a channel is", "/channels/"],
        ["In OpenClaw", "/channels/openclaw"],
        ["Telegram", "/channels/telegram"],
        ["Discord", "/channels/discord"],
        ["Slack", "/channels/slack"],
        ["Signal", "/channels/signal"],
        ["Matrix", "/channels/matrix"],
        ["WhatsApp", "/channels/whatsapp"],
      ],
      false,
    ),
  ]),
  group("Migration", [["Module by module", "/migration"]]),
  group("Operating", [["Running it", "/operating"]]),
  group("Security", [
    ["Security model", "/security/"],
    ["The escape suite", "/security/escape-suite"],
  ]),
  group("Benchmarks", [
    ["All figures", "/benchmarks/"],
    ["One day", "/benchmarks/day"],
  ]),
  group("Extending", [
    ["A channel", "/extending/channel"],
    ["A model provider", "/extending/provider"],
    ["A sandbox backend", "/extending/sandbox-backend"],
    ["A swapped function", "/extending/swapped-function"],
    ["Simulated platforms", "/channels/simulators"],
    ["Dependencies", "/dependencies"],
  ]),
  group("API", [
    ["Everything that is exported", "/api/"],
    group("Classes", generated("classes"), true),
    group("Functions", generated("functions"), true),
    group("Interfaces", generated("interfaces"), true),
    group("Types", generated("types"), true),
  ]),
];

export default defineConfig({
  title: "@openclaw/core",
  description: manifest.description,
  lang: "en",
  cleanUrls: false,
  // None: browsers ask for one otherwise.
  head: [["link", { rel: "icon", href: "data:," }]],
  lastUpdated: false,
  rewrites: (id) => id.replace(/(^|\/)README\.md$/, "$1index.md"),
  srcExclude: ["node_modules/**"],
  // The search's index is one chunk, and loaded with the first search.
  vite: { build: { chunkSizeWarningLimit: 4096 } },
  markdown: {
    anchor: { slugify: anchor },
    languageAlias: { mjs: "js", "rust,ignore": "rust", "rust,no_run": "rust", mermaid: "text" },
    config(md) {
      // Before VitePress's own rule, which looks whether a page is there.
      md.core.ruler.push("openclaw-links", ({ tokens, env }) => {
        for (const token of tokens.flatMap(({ children }) => children ?? [])) {
          if (token.type !== "link_open") continue;
          token.attrSet("href", target(token.attrGet("href"), env.relativePath));
        }
      });
    },
  },
  themeConfig: {
    nav: [
      { text: "Start", link: "/start" },
      { text: "Operating", link: "/operating" },
      { text: "Security", link: "/security/" },
      { text: "API", link: "/api/" },
    ],
    sidebar,
    outline: [2, 3],
    search: { provider: "local", options: { miniSearch: { searchOptions: { fuzzy: 0.2, prefix: true } } } },
    socialLinks: [{ icon: "github", link: repository }],
    footer: { message: `${manifest.license} licence · version ${manifest.version}` },
  },
});
