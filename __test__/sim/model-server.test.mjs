// The model server as the APIs' own clients see it: they decide whether it speaks as the real ones do.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { inOrder, readThenAnswer } from "./model/script.mjs";
import { startModelServer } from "./model/server.mjs";

// The clients that OpenClaw itself is shipped with.
const hostRequire = createRequire(new URL("../host/package.json", import.meta.url));
const { default: OpenAI } = await import(hostRequire.resolve("openai"));
const { default: Anthropic } = await import(hostRequire.resolve("@anthropic-ai/sdk"));

const parameters = { type: "object", properties: { path: { type: "string" } }, required: ["path"] };
const chatTools = [{ type: "function", function: { name: "read", description: "Read a file", parameters } }];
const responsesTools = [
  { type: "function", name: "read", description: "Read a file", parameters, strict: false },
];
const anthropicTools = [{ name: "read", description: "Read a file", input_schema: parameters }];
const question = "What does note.txt say?";
const usage = {
  prompt: (u) => u.prompt_tokens ?? u.input_tokens,
  output: (u) => u.completion_tokens ?? u.output_tokens,
};

let script = readThenAnswer();
let server;
let openai;
let anthropic;
before(async () => {
  server = await startModelServer({ script: (turn) => script(turn) });
  openai = new OpenAI({ apiKey: server.apiKey, baseURL: server.openaiUrl, maxRetries: 0 });
  anthropic = new Anthropic({ apiKey: server.apiKey, baseURL: server.anthropicUrl, maxRetries: 0 });
});
after(() => server.close());

/** Runs `body` with another script, and puts the usual one back. */
async function scripted(replacement, body) {
  script = replacement;
  try {
    return await body();
  } finally {
    script = readThenAnswer();
  }
}

function checkUsage(counted) {
  assert.ok(usage.prompt(counted) > 0 && usage.output(counted) > 0, JSON.stringify(counted));
}

for (const stream of [false, true]) {
  const how = stream ? "streamed" : "whole";

  test(`a tool call goes round through OpenAI chat completions, ${how}`, async () => {
    const ask = async (messages) => {
      const request = { model: "sim-1", messages, tools: chatTools };
      if (!stream) return openai.chat.completions.create(request);
      return openai.chat.completions
        .stream({ ...request, stream_options: { include_usage: true } })
        .finalChatCompletion();
    };
    const messages = [{ role: "user", content: question }];
    const first = await ask(messages);
    const { message, finish_reason } = first.choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.equal(message.content, "I will read note.txt.");
    assert.deepEqual(
      message.tool_calls.map(({ type, function: f }) => [type, f.name, JSON.parse(f.arguments)]),
      [["function", "read", { path: "note.txt" }]],
    );
    checkUsage(first.usage);
    const second = await ask([
      ...messages,
      message,
      { role: "tool", tool_call_id: message.tool_calls[0].id, content: "schöne Grüße 🎈\n" },
    ]);
    assert.equal(second.choices[0].finish_reason, "stop");
    assert.equal(second.choices[0].message.content, "The file says: schöne Grüße 🎈");
    checkUsage(second.usage);
    assert.ok(
      usage.prompt(second.usage) > usage.prompt(first.usage),
      "a longer conversation counts more tokens",
    );
  });

  test(`a tool call goes round through OpenAI responses, ${how}`, async () => {
    const ask = async (input, more = {}) => {
      const request = { model: "sim-1", input, tools: responsesTools, ...more };
      return stream ? openai.responses.stream(request).finalResponse() : openai.responses.create(request);
    };
    const first = await ask(question);
    const call = first.output.find(({ type }) => type === "function_call");
    assert.equal(first.output_text, "I will read note.txt.");
    assert.deepEqual([call.name, JSON.parse(call.arguments)], ["read", { path: "note.txt" }]);
    checkUsage(first.usage);
    const output = { type: "function_call_output", call_id: call.call_id, output: "schöne Grüße 🎈\n" };
    const resent = await ask([
      { role: "user", content: question },
      ...first.output.map(({ parsed_arguments, ...item }) => item),
      output,
    ]);
    assert.equal(resent.output_text, "The file says: schöne Grüße 🎈");
    const continued = await ask([output], { previous_response_id: first.id });
    assert.equal(continued.output_text, "The file says: schöne Grüße 🎈");
    assert.equal(continued.status, "completed");
  });

  test(`a tool call goes round through Anthropic messages, ${how}`, async () => {
    const ask = async (messages) => {
      const request = { model: "sim-1", max_tokens: 100, messages, tools: anthropicTools };
      return stream ? anthropic.messages.stream(request).finalMessage() : anthropic.messages.create(request);
    };
    const messages = [{ role: "user", content: question }];
    const first = await ask(messages);
    assert.equal(first.stop_reason, "tool_use");
    assert.deepEqual(
      first.content.map(({ type, text, name, input }) => [type, text ?? name, input]),
      [
        ["text", "I will read note.txt.", undefined],
        ["tool_use", "read", { path: "note.txt" }],
      ],
    );
    checkUsage(first.usage);
    const content = [{ type: "tool_result", tool_use_id: first.content[1].id, content: "schöne Grüße 🎈\n" }];
    const second = await ask([
      ...messages,
      { role: "assistant", content: first.content },
      { role: "user", content },
    ]);
    assert.equal(second.stop_reason, "end_turn");
    assert.deepEqual(
      second.content.map(({ text }) => text),
      ["The file says: schöne Grüße 🎈"],
    );
  });
}

test("a stream comes in many events, and its pieces join to the whole text", async () => {
  const text = "one  two\nthree\n\n four ";
  await scripted(
    () => ({ text }),
    async () => {
      const chat = [];
      for await (const chunk of await openai.chat.completions.create({
        model: "sim-1",
        stream: true,
        messages: [{ role: "user", content: "x" }],
      })) {
        assert.equal(chunk.usage, undefined, "usage comes only where it was asked for");
        chat.push(chunk.choices[0].delta.content ?? "");
      }
      assert.equal(chat.join(""), text);
      assert.ok(chat.filter(Boolean).length > 2);
      const deltas = [];
      for await (const event of await anthropic.messages.create({
        model: "sim-1",
        stream: true,
        max_tokens: 9,
        messages: [{ role: "user", content: "x" }],
      })) {
        if (event.type === "content_block_delta") deltas.push(event.delta.text);
      }
      assert.equal(deltas.join(""), text);
      assert.ok(deltas.length > 2);
    },
  );
});

test("several tool calls in one message arrive whole and apart", async () => {
  const toolCalls = [
    { name: "read", arguments: { path: "a.txt" } },
    { name: "read", arguments: { path: 'b"\\.txt' } },
  ];
  await scripted(
    () => ({ toolCalls }),
    async () => {
      const chat = await openai.chat.completions
        .stream({ model: "sim-1", messages: [{ role: "user", content: "x" }], tools: chatTools })
        .finalChatCompletion();
      assert.deepEqual(
        chat.choices[0].message.tool_calls.map((call) => JSON.parse(call.function.arguments)),
        toolCalls.map((call) => call.arguments),
      );
      assert.equal(new Set(chat.choices[0].message.tool_calls.map(({ id }) => id)).size, 2);
      const message = await anthropic.messages
        .stream({
          model: "sim-1",
          max_tokens: 9,
          messages: [{ role: "user", content: "x" }],
          tools: anthropicTools,
        })
        .finalMessage();
      assert.deepEqual(
        message.content.map(({ input }) => input),
        toolCalls.map((call) => call.arguments),
      );
    },
  );
});

/** The client's error for a request that must be refused. */
async function refusal(promise) {
  const error = await promise.then(
    () => assert.fail("the request was accepted"),
    (error) => error,
  );
  assert.ok(error instanceof OpenAI.APIError || error instanceof Anthropic.APIError, String(error));
  return error;
}

const user = { role: "user", content: "hello" };
const toolCall = (id) => ({ id, type: "function", function: { name: "read", arguments: "{}" } });

describe("OpenAI chat completions refuses, as the API does,", () => {
  const cases = [
    ["a model that it does not have", { model: "gpt-none" }, 404, /does not exist/, "model_not_found"],
    ["no messages", { messages: [] }, 400, /empty array/, "empty_array"],
    [
      "a role that there is not",
      { messages: [{ role: "robot", content: "x" }] },
      400,
      /Supported values are/,
      "invalid_value",
    ],
    [
      "a user message without content",
      { messages: [{ role: "user", content: null }] },
      400,
      /expected a string, got null/,
    ],
    [
      "a tool call without its result",
      { messages: [user, { role: "assistant", tool_calls: [toolCall("call_1")] }, user] },
      400,
      /did not have response messages: call_1/,
    ],
    [
      "one result of two",
      {
        messages: [
          user,
          { role: "assistant", tool_calls: [toolCall("a"), toolCall("b")] },
          { role: "tool", tool_call_id: "a", content: "" },
        ],
      },
      400,
      /response messages: b/,
    ],
    [
      "a result without its call",
      { messages: [user, { role: "tool", tool_call_id: "call_1", content: "x" }] },
      400,
      /must be a response to a preceeding message/,
    ],
    [
      "a result after another message",
      {
        messages: [
          user,
          { role: "assistant", tool_calls: [toolCall("a")] },
          { role: "tool", tool_call_id: "a", content: "" },
          user,
          { role: "tool", tool_call_id: "a", content: "" },
        ],
      },
      400,
      /preceeding/,
    ],
    [
      "arguments that are not text",
      {
        messages: [
          user,
          {
            role: "assistant",
            tool_calls: [{ id: "a", type: "function", function: { name: "read", arguments: {} } }],
          },
        ],
      },
      400,
      /arguments/,
      "invalid_type",
    ],
    ["an empty list of tools", { tools: [] }, 400, /empty array/, "empty_array"],
    [
      "a tool in Anthropic's shape",
      { tools: anthropicTools },
      400,
      /tools\[0\]\.type/,
      "missing_required_parameter",
    ],
    [
      "a tool name with a dot",
      { tools: [{ type: "function", function: { name: "fs.read" } }] },
      400,
      /does not match pattern/,
      "invalid_value",
    ],
    [
      "a schema that is no object",
      { tools: [{ type: "function", function: { name: "read", parameters: { type: "string" } } }] },
      400,
      /schema must be a JSON Schema/,
      "invalid_function_parameters",
    ],
    ["a tool choice without tools", { tool_choice: "auto" }, 400, /only allowed when 'tools'/],
    [
      "stream options without a stream",
      { stream_options: { include_usage: true } },
      400,
      /only allowed when 'stream'/,
    ],
    [
      "two limits at once",
      { max_tokens: 5, max_completion_tokens: 5 },
      400,
      /at the same time/,
      "invalid_parameter_combination",
    ],
    ["a limit of nothing", { max_tokens: 0 }, 400, /below minimum/, "integer_below_min_value"],
    ["too high a temperature", { temperature: 2.5 }, 400, /above maximum/, "decimal_above_max_value"],
    [
      "a parameter it does not know",
      { max_output_tokens: 5 },
      400,
      /Unrecognized request argument supplied: max_output_tokens/,
    ],
  ];
  for (const [what, change, status, message, code = null] of cases) {
    test(what, async () => {
      const error = await refusal(
        openai.chat.completions.create({ model: "sim-1", messages: [user], ...change }),
      );
      assert.equal(error.status, status);
      assert.match(error.message, message);
      assert.equal(error.code, code);
      assert.equal(error.type, "invalid_request_error");
    });
  }
});

describe("OpenAI responses refuses, as the API does,", () => {
  const cases = [
    [
      "a parameter of chat completions",
      { max_tokens: 50 },
      /Unknown parameter: 'max_tokens'/,
      "unknown_parameter",
    ],
    ["fewer tokens than it can answer in", { max_output_tokens: 3 }, />= 16/, "integer_below_min_value"],
    [
      "a call without its output",
      { input: [{ type: "function_call", call_id: "c1", name: "read", arguments: "{}" }] },
      /No tool output found for function call c1/,
    ],
    [
      "an output without its call",
      { input: [{ type: "function_call_output", call_id: "c1", output: "x" }] },
      /No tool call found for function call output with call_id c1/,
    ],
    [
      "a response that it never gave",
      { previous_response_id: "resp_none" },
      /not found/,
      "previous_response_not_found",
    ],
    [
      "a tool in the shape of chat completions",
      { tools: chatTools },
      /tools\[0\]\.name/,
      "missing_required_parameter",
    ],
    [
      "input text where output text belongs",
      { input: [{ role: "assistant", content: [{ type: "input_text", text: "x" }] }] },
      /Supported values are/,
      "invalid_value",
    ],
  ];
  for (const [what, change, message, code = null] of cases) {
    test(what, async () => {
      const error = await refusal(openai.responses.create({ model: "sim-1", input: "hello", ...change }));
      assert.equal(error.status, 400);
      assert.match(error.message, message);
      assert.equal(error.code, code);
    });
  }

  test("a response that was not to be stored", async () => {
    const { id } = await openai.responses.create({ model: "sim-1", input: "hello", store: false });
    const error = await refusal(
      openai.responses.create({ model: "sim-1", input: "more", previous_response_id: id }),
    );
    assert.equal(error.code, "previous_response_not_found");
  });
});

describe("Anthropic messages refuses, as the API does,", () => {
  const use = (id) => ({ role: "assistant", content: [{ type: "tool_use", id, name: "read", input: {} }] });
  const result = (id) => ({
    role: "user",
    content: [{ type: "tool_result", tool_use_id: id, content: "x" }],
  });
  const cases = [
    ["no limit", { max_tokens: undefined }, /max_tokens: Field required/],
    ["no messages", { messages: [] }, /at least one message is required/],
    [
      "an assistant who speaks first",
      { messages: [{ role: "assistant", content: "hi" }] },
      /first message must use the "user" role/,
    ],
    [
      "a system message",
      { messages: [{ role: "system", content: "be good" }, user] },
      /Unexpected role "system"/,
    ],
    [
      "empty text",
      { messages: [{ role: "user", content: [{ type: "text", text: "" }] }] },
      /text content blocks must be non-empty/,
    ],
    ["blank text", { messages: [{ role: "user", content: " \n" }] }, /must contain non-whitespace text/],
    [
      "a prefill that ends in a space",
      { messages: [user, { role: "assistant", content: "well " }] },
      /trailing whitespace/,
    ],
    [
      "a tool use without its result",
      { tools: anthropicTools, messages: [user, use("t1"), user] },
      /ids were found without `tool_result` blocks immediately after: t1/,
    ],
    [
      "a result behind other content",
      {
        tools: anthropicTools,
        messages: [
          user,
          use("t1"),
          { role: "user", content: [{ type: "text", text: "so:" }, ...result("t1").content] },
        ],
      },
      /immediately after: t1/,
    ],
    [
      "a result without its use",
      { tools: anthropicTools, messages: [user, { role: "assistant", content: "hm" }, result("t9")] },
      /unexpected `tool_use_id` found in `tool_result` blocks: t9/,
    ],
    ["tool blocks without tools", { messages: [user, use("t1"), result("t1")] }, /must define tools/],
    [
      "an id with a dot",
      { tools: anthropicTools, messages: [user, use("t.1"), result("t.1")] },
      /String should match pattern/,
    ],
    ["a tool in OpenAI's shape", { tools: chatTools }, /Input tag 'function'/],
    [
      "a tool without a schema",
      { tools: [{ name: "read" }] },
      /tools\.0\.custom\.input_schema: Field required/,
    ],
    ["two tools of one name", { tools: [...anthropicTools, ...anthropicTools] }, /Tool names must be unique/],
    ["too high a temperature", { temperature: 1.5 }, /range: 0\.\.1/],
    ["a parameter it does not know", { n: 1 }, /n: Extra inputs are not permitted/],
    [
      "a budget beyond the limit",
      { max_tokens: 1024, thinking: { type: "enabled", budget_tokens: 1024 } },
      /must be greater than `thinking.budget_tokens`/,
    ],
    [
      "five cache marks",
      {
        messages: [
          {
            role: "user",
            content: Array.from({ length: 5 }, () => ({
              type: "text",
              text: "x",
              cache_control: { type: "ephemeral" },
            })),
          },
        ],
      },
      /Found 5/,
    ],
  ];
  for (const [what, change, message] of cases) {
    test(what, async () => {
      const error = await refusal(
        anthropic.messages.create({ model: "sim-1", max_tokens: 10, messages: [user], ...change }),
      );
      assert.equal(error.status, 400);
      assert.match(error.error.error.message, message);
      assert.equal(error.error.error.type, "invalid_request_error");
      assert.match(error.requestID, /^req_/);
      assert.equal(error.error.request_id, error.requestID);
    });
  }

  test("a model that it does not have", async () => {
    const error = await refusal(
      anthropic.messages.create({ model: "claude-none", max_tokens: 10, messages: [user] }),
    );
    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.equal(error.error.error.type, "not_found_error");
  });

  test("but joins neighbours of one role", async () => {
    const { content } = await anthropic.messages.create({
      model: "sim-1",
      max_tokens: 10,
      messages: [user, { role: "user", content: "there" }],
    });
    assert.equal(content[0].text, "You said: hello\nthere");
  });
});

describe("authentication", () => {
  test("a wrong key is refused by every API in its own words", async () => {
    const options = { apiKey: "sk-wrong-key", maxRetries: 0 };
    const wrongOpenai = new OpenAI({ ...options, baseURL: server.openaiUrl });
    const wrongAnthropic = new Anthropic({ ...options, baseURL: server.anthropicUrl });
    const chat = await refusal(wrongOpenai.chat.completions.create({ model: "sim-1", messages: [user] }));
    assert.ok(chat instanceof OpenAI.AuthenticationError);
    assert.equal(chat.code, "invalid_api_key");
    assert.doesNotMatch(chat.message, /sk-wrong-key/);
    assert.ok((await refusal(wrongOpenai.models.list())) instanceof OpenAI.AuthenticationError);
    const message = await refusal(
      wrongAnthropic.messages.create({ model: "sim-1", max_tokens: 9, messages: [user] }),
    );
    assert.ok(message instanceof Anthropic.AuthenticationError);
    assert.equal(message.error.error.message, "invalid x-api-key");
  });

  test("no key, no version and no JSON are refused with the API's status", async () => {
    const post = (path, headers, body = "{}") =>
      fetch(server.url + path, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body,
      });
    assert.equal((await post("/v1/chat/completions", {})).status, 401);
    assert.equal((await post("/v1/messages", { "anthropic-version": "2023-06-01" })).status, 401);
    const unversioned = await post("/v1/messages", { "x-api-key": server.apiKey });
    assert.equal(unversioned.status, 400);
    assert.equal((await unversioned.json()).error.message, "anthropic-version: header is required");
    const key = { authorization: `Bearer ${server.apiKey}` };
    assert.equal((await post("/v1/chat/completions", key, "{")).status, 400);
    assert.equal((await post("/v1/chat/completions", { ...key, "content-type": "text/plain" })).status, 400);
    assert.equal((await post("/v1/nothing", key)).status, 404);
    assert.equal((await fetch(`${server.url}/v1/responses`, { headers: key })).status, 405);
  });
});

test("models are listed, and tokens counted, for who asks", async () => {
  assert.deepEqual(
    (await openai.models.list()).data.map(({ id }) => id),
    ["sim-1"],
  );
  assert.deepEqual(
    (await anthropic.models.list()).data.map(({ id }) => id),
    ["sim-1"],
  );
  const short = await anthropic.messages.countTokens({ model: "sim-1", messages: [user] });
  const long = await anthropic.messages.countTokens({
    model: "sim-1",
    messages: [{ role: "user", content: "hello ".repeat(100) }],
  });
  assert.ok(long.input_tokens > short.input_tokens);
});

test("an error that the script asks for reaches the client with its status, type and headers", async () => {
  await scripted(
    () => ({
      error: { status: 429, type: "rate_limit_error", message: "slow down", headers: { "retry-after": "7" } },
    }),
    async () => {
      const error = await refusal(
        anthropic.messages.create({ model: "sim-1", max_tokens: 9, messages: [user] }),
      );
      assert.ok(error instanceof Anthropic.RateLimitError);
      assert.equal(error.headers.get("retry-after"), "7");
      assert.equal(error.error.error.type, "rate_limit_error");
      assert.ok(
        (await refusal(openai.responses.create({ model: "sim-1", input: "x" }))) instanceof
          OpenAI.RateLimitError,
      );
    },
  );
});

test("a stream that the script cuts ends in an error at the client, not in a short answer", async () => {
  await scripted(
    () => ({ text: "one two three four", cutAfter: 3 }),
    async () => {
      await assert.rejects(
        openai.chat.completions.stream({ model: "sim-1", messages: [user] }).finalChatCompletion(),
      );
      await assert.rejects(
        anthropic.messages.stream({ model: "sim-1", max_tokens: 9, messages: [user] }).finalMessage(),
      );
    },
  );
});

test("an error in the middle of a stream reaches the client", async () => {
  await scripted(
    () => ({
      text: "one two three",
      failAfter: { events: 3, type: "overloaded_error", message: "Overloaded" },
    }),
    async () => {
      await assert.rejects(
        anthropic.messages.stream({ model: "sim-1", max_tokens: 9, messages: [user] }).finalMessage(),
        /Overloaded/,
      );
      await assert.rejects(
        openai.chat.completions.stream({ model: "sim-1", messages: [user] }).finalChatCompletion(),
        /Overloaded/,
      );
    },
  );
});

test("a script that calls a tool which was not offered, or that has run out, is the server's fault and shows in the log", async () => {
  await scripted(inOrder({ toolCalls: [{ name: "write", arguments: {} }] }), async () => {
    const error = await refusal(
      openai.chat.completions.create({ model: "sim-1", messages: [user], tools: chatTools }),
    );
    assert.equal(error.status, 500);
    assert.match(server.requests.at(-1).error, /the script calls write, which was not on offer \(read\)/);
    await refusal(openai.chat.completions.create({ model: "sim-1", messages: [user] }));
    assert.match(server.requests.at(-1).error, /1 replies and was asked for one more/);
  });
});

test("a client that leaves a stream ends it at the server", async () => {
  await scripted(
    () => ({ text: "word ".repeat(500), eventDelayMs: 5 }),
    async () => {
      for await (const _ of await openai.chat.completions.create({
        model: "sim-1",
        stream: true,
        messages: [user],
      }))
        break;
      const record = server.requests.at(-1);
      const deadline = performance.now() + 5000;
      while (record.endedMs === undefined && performance.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 10));
      assert.equal(record.aborted, true);
      assert.ok(record.events < 400, `${record.events} events were written`);
    },
  );
});
