// JSON5 documents such as people keep: an openclaw.json with comments, bare keys and trailing commas.
import { random } from "./measure.mjs";

const words =
  "main helper review research support night travel home garden ledger archive build deploy".split(" ");
const models = ["anthropic/claude-opus", "openai/gpt", "google/gemini-pro", "ollama/llama"];

/** A document of about this many bytes, never fewer; `valid` leaves out what OpenClaw's schema does not know. */
export function document(bytes, seed = 1, { valid = false } = {}) {
  const next = random(seed);
  const pick = (items) => items[Math.floor(next() * items.length)];
  const int = (bound) => Math.floor(next() * bound);
  const extra = (text) => (valid ? "" : `, ${text}`);
  let text = `// The gateway's config.
{
  gateway: { port: ${18000 + int(1000)}, bind: 'loopback', auth: { mode: "token", token: '\${TOKEN}' } },
  logging: { level: 'info', consoleLevel: "warn", },
  agents: {
    list: [\n`;
  const end = "    ],\n  },\n}\n";
  for (let index = 0; text.length + end.length < bytes; index++) {
    const name = `${pick(words)}-${index}`;
    if (index % 3 === 0) text += `      // ${pick(words)} and ${pick(words)}, since ${2020 + int(6)}\n`;
    text += `      {
        id: '${name}', default: ${index === 0}, model: "${pick(models)}",
        workspace: "~/agents/${name}",
        identity: { name: 'Größe "${name}"', emoji: '🦞' },
        tools: { allow: ['read', "write", 'exec'], deny: []${extra(`timeoutMs: ${int(1e5)}, ratio: .${int(100)}`)} },
        heartbeat: { every: '${int(59) + 1}m'${extra(`mask: 0x${int(65536).toString(16)}, max: +${int(1000)}`)}, },
      },\n`;
  }
  return text + end;
}
