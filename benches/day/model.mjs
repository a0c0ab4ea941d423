// The model of the day. It answers what stands open in the conversation that it is sent, whatever became of earlier tries:
// each question that no answer of its own has named yet.
import { startModelServer } from "../../__test__/sim/model/server.mjs";
import { begun, ended, fileOf, numbersOf } from "./script.mjs";

const textOf = (content) => (typeof content === "string" ? content : JSON.stringify(content ?? ""));
const WORDS = "the quick brown fox jumps over a lazy dog and then it rests for a while near the river".split(
  " ",
);

/** `asked` and `answered` count how often the model met a question and gave its whole answer. */
export async function startModel({ streamWords }) {
  const weather = { outage: false, limited: 0 };
  const asked = new Map();
  const answered = new Map();
  const offered = new Map();
  let requests = 0;
  const count = (map, number) => map.set(number, (map.get(number) ?? 0) + 1);

  function script(turn) {
    requests++;
    const primary = turn.model === "sim-1";
    if (primary && weather.outage)
      return requests % 2
        ? { error: { status: 503, type: "server_error", message: "The server is overloaded" } }
        : { text: "This answer breaks off before it has begun", cutAfter: 3 };
    if (primary && weather.limited > 0) {
      weather.limited--;
      return {
        error: {
          status: 429,
          type: "rate_limit_error",
          message: "Rate limit reached",
          headers: { "retry-after": "1" },
        },
      };
    }
    const open = new Map();
    const closed = new Set();
    const calls = new Map();
    for (const { role, content, tool_calls } of turn.body.messages) {
      const text = textOf(content);
      if (role === "user")
        for (const [, number, ask] of text.matchAll(/ask(\d{4}) (plain|edit|stream)/g))
          open.set(Number(number), ask);
      // Whoever says so: OpenClaw's Telegram repeats the last questions and answers below each new question.
      for (const number of numbersOf(text, "end")) closed.add(number);
      if (role !== "assistant") continue;
      const made = JSON.stringify([tool_calls, Array.isArray(content) ? content : []]);
      for (const number of numbersOf(made, "day-")) count(calls, number);
    }
    for (const number of closed) open.delete(number);
    for (const number of open.keys()) count(asked, number);
    if (open.size === 0) return { text: "NO_REPLY" };
    for (const [number, ask] of open) {
      if (ask !== "edit") continue;
      const call = steps(number, turn).at(calls.get(number) ?? 0);
      if (call) return { toolCalls: [call] };
    }
    const numbers = [...open.keys()];
    const long = [...open.values()].includes("stream");
    const length = long ? streamWords : 20;
    const words = Array.from(
      { length },
      (_, index) => WORDS[index % WORDS.length] + (index % 12 === 11 ? "." : ""),
    );
    for (const number of numbers) count(answered, number);
    return {
      text: [...numbers.map(begun), ...words, ...numbers.map(ended)].join(" "),
      eventDelayMs: long ? 5 : 15,
    };
  }

  /** Writes a file, changes it, adds it to a journal by a command, and looks at it. */
  function steps(number, { body, tools }) {
    for (const { name, function: own, input_schema } of body.tools ?? [])
      offered.set(own?.name ?? name, own?.parameters ?? input_schema);
    const path = fileOf(number);
    const edit = JSON.stringify(offered.get("edit") ?? {}).includes('"edits"')
      ? { path, edits: [{ oldText: "draft", newText: "final" }] }
      : { path, oldText: "draft", newText: "final" };
    return [
      { name: "write", arguments: { path, content: `draft ${number}\n` } },
      { name: "edit", arguments: edit },
      { name: "exec", arguments: { command: `cat ${path} >> journal.txt` } },
      { name: "read", arguments: { path } },
    ].filter(({ name }) => tools.includes(name));
  }

  const server = await startModelServer({ script, models: ["sim-1", "sim-2"] });
  return { ...server, weather, asked, answered, offered, count: () => requests };
}
