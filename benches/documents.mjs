// JSON5 documents such as people keep: an openclaw.json with comments, bare keys and trailing commas.
import { random } from "./measure.mjs";

const words =
  "main helper review research support night travel home garden ledger archive build deploy".split(" ");
const models = ["anthropic/claude-opus", "openai/gpt", "google/gemini-pro", "ollama/llama"];

/** A document of about this many bytes (never fewer), and the JSON text of the same value. */
export function document(bytes, seed = 1) {
  const next = random(seed);
  const pick = (items) => items[Math.floor(next() * items.length)];
  const int = (bound) => Math.floor(next() * bound);
  let text = `// The gateway's config.
{
  gateway: { port: ${18000 + int(1000)}, bind: 'loopback', auth: { mode: "token", token: '\${TOKEN}' } },
  logging: { level: 'info', redact: true, },
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
        tools: { allow: ['read', "write", 'exec'], deny: [], timeoutMs: ${int(1e5)}, ratio: .${int(100)} },
        heartbeat: { every: '${int(59) + 1}m', mask: 0x${int(65536).toString(16)}, max: +${int(1000)}, },
      },\n`;
  }
  return text + end;
}
