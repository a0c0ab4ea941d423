// One real agent turn of stock OpenClaw against the model server: what `npm start` shows and the host tests check.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

/** The APIs in which OpenClaw can speak to the model server. */
export const APIS = ["openai-completions", "openai-responses", "anthropic-messages"];

/**
 * Gives the home a config that points OpenClaw at the server. It is JSON5 with comments and an include, as people
 * write it, so that JSON.parse alone cannot read it. With `plugin`, the folder of the package, the agent works in its
 * sandbox.
 */
export async function configureTurn(home, server, api = "openai-completions", { plugin } = {}) {
  const baseUrl = api === "anthropic-messages" ? server.anthropicUrl : server.openaiUrl;
  await home.write(
    "openclaw.json",
    `// The scratch config of one agent turn.
{
  gateway: { mode: 'local', bind: 'loopback', port: ${home.port}, auth: { mode: 'token', token: '${home.token}' } },
  agents: {
    defaults: {
      model: { primary: 'loopback/${server.models[0]}' },
      workspace: ${JSON.stringify(home.workspace)},
      skipBootstrap: true, // nobody to introduce itself to${
        plugin
          ? `
      sandbox: { mode: 'all', backend: 'bwrap', scope: 'agent', workspaceAccess: 'rw' },`
          : ""
      }
    },
  },${
    plugin
      ? `
  plugins: { load: { paths: [${JSON.stringify(plugin)}] }, entries: { core: { enabled: true } } },`
      : ""
  }
  /* Where the model is, and what it can do. */
  models: { $include: './models.json5' },
}
`,
  );
  await home.write(
    "models.json5",
    `{
  providers: {
    loopback: {
      baseUrl: '${baseUrl}',
      apiKey: '${server.apiKey}',
      api: '${api}',
      models: [
        {
          id: '${server.models[0]}', name: 'Loopback', reasoning: false, input: ['text'],
          cost: { input: 1, output: 2, cacheRead: 0, cacheWrite: 0 },
          contextWindow: +128e3, // a number that only JSON5 knows
          maxTokens: 4096,
        },
      ],
    },
  },
}
`,
  );
}

/**
 * Puts a note into the workspace and asks the agent what it says. Gives the record of the run, with `answer` (what the
 * agent said, undefined if it failed), `report` (OpenClaw's own JSON) and `problems` (empty when the turn went as it must:
 * the model asked for the file, OpenClaw ran the tool, and the answer quotes what was in it).
 */
export async function runTurn(home, server, { note, core, timeoutMs = 600_000 } = {}) {
  await writeFile(join(home.workspace, "note.txt"), `${note}\n`);
  const before = server.requests.length;
  const run = await home.openclaw(
    ["agent", "--local", "--agent", "main", "--message", "What does note.txt say?", "--json"],
    { core, timeoutMs },
  );
  const report = parse(run.stdout);
  const answer = report?.payloads?.map(({ text }) => text).join("\n");
  const requests = server.requests.slice(before);
  const problems = [];
  if (run.timedOut) problems.push(`the turn did not end within ${timeoutMs / 1000} s`);
  else if (run.code !== 0) problems.push(`OpenClaw ended with code ${run.code}`);
  for (const { path, status, error } of requests)
    if (status !== 200) problems.push(`the model server refused ${path} with ${status}: ${error}`);
  const asked = requests.find(({ reply }) => reply?.toolCalls?.length);
  if (!asked) problems.push("the model was not asked for a tool call");
  const answered = requests.find(({ toolResults }) => toolResults?.some(({ text }) => text.includes(note)));
  if (!answered) problems.push("no tool result with the note came back to the model");
  if (!answer?.includes(note)) problems.push("the answer does not quote the note");
  return { ...run, report, answer, requests, problems };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
