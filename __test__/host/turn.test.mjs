// A real agent turn of stock OpenClaw against the model server, with the core and without it.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startModelServer } from "../sim/model/server.mjs";
import { createHome } from "./fixture.mjs";
import { APIS, configureTurn, runTurn } from "./turn.mjs";

const note = "the kettle is on the third shelf";
let server;
before(async () => {
  server = await startModelServer();
});
after(() => server.close());

/** One turn in a home of its own. */
async function turn(t, api, core) {
  const home = await createHome();
  t.after(() => home.remove());
  await configureTurn(home, server, api);
  const statsDir = join(home.dir, "stats");
  const result = await runTurn(home, server, {
    note,
    core: core && { ...core, statsDir, runId: "turn-test" },
  });
  assert.deepEqual(result.problems, [], `${result.stdout}\n${result.stderr}`);
  return { ...result, stats: core ? await readAll(statsDir) : [] };
}

async function readAll(folder) {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".json"));
  return Promise.all(names.map(async (name) => JSON.parse(await readFile(join(folder, name), "utf8"))));
}

/** What the model saw and said, without what differs from run to run. */
function dialogue({ requests }) {
  return requests.map(({ path, stream, reply, toolResults, body }) => ({
    path,
    stream,
    reply,
    toolResults: toolResults.map(({ name, text, isError }) => ({ name, text, isError })),
    tools: body.tools.map((tool) => tool.function?.name ?? tool.name),
    keys: Object.keys(body),
  }));
}

for (const api of APIS) {
  test(`a turn over ${api} calls a tool and answers the same with the core as without it`, async (t) => {
    const stock = await turn(t, api);
    const native = await turn(t, api, { mode: "require" });
    assert.equal(native.answer, `The file says: ${note}`);
    assert.equal(native.answer, stock.answer);
    assert.deepEqual(dialogue(native), dialogue(stock));
    assert.deepEqual(
      dialogue(native).map(({ stream, toolResults }) => [stream, toolResults.map(({ name }) => name)]),
      [
        [true, []],
        [true, ["read"]],
      ],
    );
    assert.deepEqual(native.leftBehind, []);

    const config = native.stats.flatMap(({ modules }) => modules.config);
    assert.ok(
      config.some(({ attached }) => attached === "native"),
      JSON.stringify(native.stats),
    );
    const answered = config.flatMap(({ functions }) =>
      Object.values(functions).map((counts) => counts.native),
    );
    assert.ok(
      answered.reduce((sum, count) => sum + count, 0) > 0,
      "native code answered no call of the turn",
    );
  });
}

test("a turn with the core switched off reports every module as off and answers as before", async (t) => {
  const { stats, answer } = await turn(t, APIS[0], { mode: "off" });
  assert.equal(answer, `The file says: ${note}`);
  const modules = stats.flatMap((process) => Object.values(process.modules));
  assert.ok(modules.length > 0, "nothing was reported");
  assert.deepEqual([...new Set(modules.map(({ attached }) => attached))], ["off"]);
});

test("a turn fails, and says why, when the model server knows no such key", async (t) => {
  const home = await createHome();
  t.after(() => home.remove());
  await configureTurn(home, { ...server, apiKey: "sk-some-other-key" });
  const { problems, code } = await runTurn(home, server, { note });
  assert.notEqual(code, 0);
  assert.ok(
    problems.some((problem) => problem.includes("401")),
    problems.join("\n"),
  );
});
