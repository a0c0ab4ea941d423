//! What servers send beside the reference: compatible ones, old ones, broken ones.

use serde_json::{Value, json};

use super::api::{Api, Framing};
use super::builder::Op;
use super::gemini::Gemini;
use super::ollama::Ollama;
use super::openai_chat::OpenAiChat;
use super::openai_responses::OpenAiResponses;
use super::testing::{Read, read, read_all_ways};

fn frames(api: &dyn Api, events: &[Value]) -> String {
    let frame = |event: &Value| match api.framing() {
        Framing::Sse => format!("data: {event}\n\n"),
        Framing::Ndjson => format!("{event}\n"),
    };
    events.iter().map(frame).collect()
}

fn chat(deltas: &[Value], reason: &str) -> Read {
    let chunk = |delta: &Value, reason: Value| {
        json!({ "id": "c1", "model": "the-model",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] })
    };
    let mut events: Vec<_> = deltas.iter().map(|delta| chunk(delta, Value::Null)).collect();
    events.push(chunk(&json!({}), reason.into()));
    read_all_ways(&OpenAiChat, &(frames(&OpenAiChat, &events) + "data: [DONE]\n\n"))
}

fn error(read: &Read) -> &str {
    read.outcome.as_ref().expect_err("it is taken for a good answer")
}

// ── chat completions ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn calls_are_told_apart_by_number_by_id_or_by_order() {
    let call = |value: Value| json!({ "tool_calls": [value] });
    let expected = json!([
        { "type": "toolCall", "id": "a", "name": "f", "arguments": { "n": 1 } },
        { "type": "toolCall", "id": "b", "name": "g", "arguments": { "n": 2 } },
    ]);
    let first = |index: Value, id: &str, name: &str| {
        call(json!({ "index": index, "id": id, "function": { "name": name, "arguments": "{\"n\":" } }))
    };
    let more = |index: Value, id: Value, text: &str| {
        call(json!({ "index": index, "id": id, "function": { "arguments": text } }))
    };
    for deltas in [
        // As the reference has it.
        [
            first(json!(0), "a", "f"),
            more(json!(0), Value::Null, "1}"),
            first(json!(1), "b", "g"),
            more(json!(1), Value::Null, "2}"),
        ],
        // Both are number 0.
        [
            first(json!(0), "a", "f"),
            more(json!(0), Value::Null, "1}"),
            first(json!(0), "b", "g"),
            more(json!(0), Value::Null, "2}"),
        ],
        // No numbers, interleaved.
        [
            first(Value::Null, "a", "f"),
            first(Value::Null, "b", "g"),
            more(Value::Null, json!("a"), "1}"),
            more(Value::Null, json!("b"), "2}"),
        ],
        // Neither number nor id after the first.
        [
            first(Value::Null, "a", "f"),
            more(Value::Null, Value::Null, "1}"),
            first(Value::Null, "b", "g"),
            more(Value::Null, Value::Null, "2}"),
        ],
    ] {
        let message = chat(&deltas, "tool_calls").message();
        assert_eq!(message["content"], expected, "{deltas:?}");
    }
}

#[test]
fn a_call_that_a_server_was_told_to_make_ends_with_stop_and_is_a_call_all_the_same() {
    let delta =
        json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{}" } }] });
    assert_eq!(chat(std::slice::from_ref(&delta), "stop").message()["stopReason"], "toolUse");
    // Without a call there is none, whatever the server says.
    assert_eq!(chat(&[json!({ "content": "x" })], "tool_calls").message()["stopReason"], "stop");
}

#[test]
fn a_limit_leaves_what_is_whole_and_no_call_that_it_cut() {
    let call = |id: &str, arguments: &str| json!({ "tool_calls": [{ "index": i32::from(id != "a"), "id": id, "function": { "name": "f", "arguments": arguments } }] });
    let read = chat(&[json!({ "content": "x" }), call("a", "{\"n\":1}"), call("b", "{\"n\":")], "length");
    let message = read.message();
    assert_eq!(message["stopReason"], "length");
    assert_eq!(
        message["content"],
        json!([{ "type": "text", "text": "x" }, { "type": "toolCall", "id": "a", "name": "f", "arguments": { "n": 1 } }])
    );
    let ended: Vec<_> =
        read.events.iter().filter(|event| event.0 == Op::ToolEnd).map(|event| event.1).collect();
    assert_eq!(ended, [1]);
    assert_eq!(chat(&[call("a", "")], "length").message()["content"], json!([]));
    // Where calls come whole, they are.
    let google = json!({ "candidates": [{ "content": { "parts": [{ "functionCall": { "name": "f", "args": { "n": 1 } } }] }, "finishReason": "MAX_TOKENS" }] });
    let ollama = [
        json!({ "message": { "tool_calls": [{ "function": { "name": "f", "arguments": { "n": 1 } } }] } }),
        json!({ "done": true, "done_reason": "length" }),
    ];
    for message in [
        read_all_ways(&Gemini, &frames(&Gemini, &[google])).message(),
        read_all_ways(&Ollama, &frames(&Ollama, &ollama)).message(),
    ] {
        assert_eq!(
            (&message["stopReason"], &message["content"][0]["arguments"]),
            (&json!("length"), &json!({ "n": 1 }))
        );
    }
    let item = json!({ "type": "function_call", "id": "f", "call_id": "k", "name": "n", "arguments": "" });
    let cut = responses(&[
        json!({ "type": "response.output_item.added", "output_index": 0, "item": item }),
        json!({ "type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "f", "delta": "{\"x\":" }),
        json!({ "type": "response.incomplete", "response": { "status": "incomplete", "incomplete_details": { "reason": "max_output_tokens" } } }),
    ]);
    assert_eq!((&cut.message()["stopReason"], &cut.message()["content"]), (&json!("length"), &json!([])));
}

#[test]
fn reasoning_between_tags_is_dropped_and_calls_come_after_it() {
    let content = |text: &str| json!({ "content": text });
    let text = |deltas: &[Value], reason: &str| chat(deltas, reason).message()["content"].clone();
    let hello = json!([{ "type": "text", "text": "hello" }]);
    assert_eq!(text(&[content("<think>x</think>hello")], "stop"), hello);
    assert_eq!(
        text(&[content("<thi"), content("nk>x < y`"), content("</think>hel"), content("lo")], "stop"),
        hello
    );
    assert_eq!(text(&[content("use `<think>` "), content("<b>")], "stop")[0]["text"], "use `<think>` <b>");
    // Never closed: it was none.
    assert_eq!(text(&[content("<think>hello")], "stop"), json!([{ "type": "text", "text": "hello" }]));
    let call =
        json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{}" } }] });
    let blocks = text(&[content("<think>x</think>a <"), call], "tool_calls");
    assert_eq!((&blocks[0]["text"], &blocks[1]["name"]), (&json!("a <"), &json!("f")));
    assert_eq!(text(&[content("<think>x</think>hello")], "length"), hello);
}

#[test]
fn a_message_is_one_answer_however_many_were_asked_for() {
    let choice = |number: u32, text: &str| json!({ "index": number, "delta": { "content": text }, "finish_reason": "stop" });
    let events = [
        json!({ "choices": [choice(1, "No"), choice(0, "Yes")] }),
        json!({ "choices": [choice(1, " way")] }),
        json!({ "choices": [choice(0, " sir")] }),
    ];
    let message = read_all_ways(&OpenAiChat, &(frames(&OpenAiChat, &events) + "data: [DONE]\n\n")).message();
    assert_eq!(message["content"][0]["text"], "Yes sir");
    let candidate = |number: u32, text: &str| json!({ "candidates": [{ "index": number, "content": { "parts": [{ "text": text }] }, "finishReason": "STOP" }] });
    let events = [candidate(0, "Yes"), candidate(1, "No"), candidate(0, " sir")];
    assert_eq!(read_all_ways(&Gemini, &frames(&Gemini, &events)).message()["content"][0]["text"], "Yes sir");
}

#[test]
fn arguments_that_are_an_object_and_calls_without_ids_are_taken() {
    let delta = json!({ "tool_calls": [{ "function": { "name": "f", "arguments": { "n": 1 } } }] });
    let message = chat(&[delta], "tool_calls").message();
    assert_eq!(message["content"][0]["arguments"], json!({ "n": 1 }));
    let id = message["content"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("call_") && id.len() == 29, "{id}");
    let old = json!({ "function_call": { "name": "f", "arguments": "{\"n\":" } });
    let rest = json!({ "function_call": { "arguments": "1}" } });
    let message = chat(&[old, rest], "function_call").message();
    assert_eq!(
        (&message["content"][0]["arguments"], &message["stopReason"]),
        (&json!({ "n": 1 }), &json!("toolUse"))
    );
}

#[test]
fn arguments_that_are_no_object_are_never_a_call() {
    for arguments in
        ["{\"a\":1}}", "{\"a\":1", "[1]", "\"x\"", "null", "{'a':1}", "{\"a\":1,}", "{\"a\":NaN}", "{} {}"]
    {
        let delta = json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "f", "arguments": arguments } }] });
        let read = chat(&[delta], "tool_calls");
        assert!(error(&read).contains("no complete JSON object"), "{arguments}: {read:?}");
        assert!(!read.events.iter().any(|event| event.0 == Op::ToolEnd), "{arguments}");
    }
}

#[test]
fn reasoning_comes_under_several_names_and_in_parts() {
    for name in ["reasoning_content", "reasoning", "reasoning_text"] {
        let message = chat(&[json!({ name: "a" }), json!({ name: "b", "content": "c" })], "stop").message();
        let thinking = json!({ "type": "thinking", "thinking": "ab", "thinkingSignature": name });
        assert_eq!(message["content"], json!([thinking, { "type": "text", "text": "c" }]));
    }
    let details = json!([{ "type": "reasoning.text", "text": "a" }]);
    let message = chat(&[json!({ "reasoning": "a", "reasoning_details": details })], "stop").message();
    assert_eq!(message["content"][0]["thinking"], "a");
    let message = chat(&[json!({ "reasoning_details": details })], "stop").message();
    assert_eq!(message["content"][0]["thinkingSignature"], "reasoning_details");
    let parts = json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": "a" }] }, { "type": "text", "text": "b" }]);
    let message = chat(&[json!({ "content": parts })], "stop").message();
    assert_eq!(
        message["content"],
        json!([{ "type": "thinking", "thinking": "a" }, { "type": "text", "text": "b" }])
    );
}

#[test]
fn what_belongs_to_a_call_is_kept_with_it() {
    let call = json!({ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{}" },
        "extra_content": { "google": { "thought_signature": "c2ln" } } });
    let message = chat(&[json!({ "tool_calls": [call] })], "tool_calls").message();
    assert_eq!(message["content"][0]["thoughtSignature"], "c2ln");
    let detail = json!({ "type": "reasoning.encrypted", "id": "a", "data": "x" });
    let call = json!({ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{}" } });
    for deltas in [
        [json!({ "reasoning_details": [detail] }), json!({ "tool_calls": [call] })],
        [json!({ "tool_calls": [call] }), json!({ "reasoning_details": [detail] })],
    ] {
        let message = chat(&deltas, "tool_calls").message();
        assert_eq!(message["content"][0]["thoughtSignature"], detail.to_string());
    }
}

#[test]
fn a_surrogate_pair_in_two_deltas_is_one_character() {
    let delta = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let answer = format!("{}{}{end}", delta("a\\ud83d"), delta("\\ude00b"));
    assert_eq!(read_all_ways(&OpenAiChat, &answer).message()["content"][0]["text"], "a😀b");
}

#[test]
fn nothing_but_the_end_mark_ends_a_chat() {
    let chunk = json!({ "choices": [{ "delta": { "content": "x" }, "finish_reason": "stop" }] });
    let without = read(&OpenAiChat, [frames(&OpenAiChat, &[chunk]).as_bytes()]);
    assert!(error(&without).contains("incomplete"), "{without:?}");
    let reasonless = read(
        &OpenAiChat,
        [&b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n"[..]],
    );
    assert!(error(&reasonless).contains("incomplete"), "{reasonless:?}");
    let nothing = read(&OpenAiChat, [&b""[..]]);
    assert!(error(&nothing).contains("incomplete"), "{nothing:?}");
}

#[test]
fn counts_are_those_of_openclaw() {
    let counts = |usage: Value| {
        let events = [
            json!({ "choices": [{ "delta": { "content": "x" }, "finish_reason": "stop" }], "usage": usage }),
        ];
        let answer = frames(&OpenAiChat, &events) + "data: [DONE]\n\n";
        read(&OpenAiChat, [answer.as_bytes()]).message().get("usage").cloned().unwrap_or_default()
    };
    assert_eq!(
        counts(json!({ "prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_hit_tokens": 4 })),
        json!({ "input": 6, "output": 2, "cacheRead": 4, "totalTokens": 12 })
    );
    assert_eq!(counts(json!({ "completion_tokens": 2 })), json!({ "output": 2 }));
    // More is cached than there is: no count below 0.
    assert_eq!(
        counts(
            json!({ "prompt_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": { "cached_tokens": 5 } })
        ),
        json!({ "input": 0, "output": 0, "cacheRead": 5, "totalTokens": 5 })
    );
    // What is counted once is not forgotten.
    let chunk = |usage: Value| json!({ "choices": [{ "delta": { "content": "x" }, "finish_reason": "stop" }], "usage": usage });
    let events = [
        chunk(json!({ "prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6 })),
        chunk(json!({ "completion_tokens": 2 })),
        chunk(json!({})),
    ];
    let answer = frames(&OpenAiChat, &events) + "data: [DONE]\n\n";
    let usage = read(&OpenAiChat, [answer.as_bytes()]).message()["usage"].clone();
    assert_eq!(usage, json!({ "input": 5, "output": 2, "totalTokens": 7 }));
    for nonsense in [json!({}), json!(7), json!({ "prompt_tokens": -1 }), json!({ "prompt_tokens": "9" })] {
        assert_eq!(counts(nonsense.clone()), Value::Null, "{nonsense}");
    }
}

// ── responses ───────────────────────────────────────────────────────────────────────────────────────────────────────

fn responses(events: &[Value]) -> Read {
    read_all_ways(&OpenAiResponses, &frames(&OpenAiResponses, events))
}

#[test]
fn items_without_events_of_their_own_are_taken_from_the_end() {
    let output = json!([
        { "type": "reasoning", "id": "rs", "summary": [{ "type": "summary_text", "text": "a" }, { "text": "b" }] },
        { "type": "web_search_call", "id": "ws", "status": "completed" },
        { "type": "message", "id": "m", "content": [{ "type": "output_text", "text": "c" }, { "type": "refusal", "refusal": "d" }] },
        { "type": "function_call", "id": "f", "call_id": "k", "name": "n", "arguments": "{\"x\":1}", "status": "completed" },
    ]);
    let message = responses(&[json!({ "type": "response.completed", "response": { "id": "r", "status": "completed", "output": output } })]).message();
    assert_eq!(message["content"][0]["thinking"], "a\n\nb");
    assert_eq!(message["content"][1]["text"], "cd");
    assert_eq!(
        message["content"][2],
        json!({ "type": "toolCall", "id": "k|f", "name": "n", "arguments": { "x": 1 } })
    );
    assert_eq!((&message["stopReason"], &message["responseId"]), (&json!("toolUse"), &json!("r")));
}

#[test]
fn arguments_that_are_said_in_full_count_over_those_in_pieces() {
    let item = |arguments: &str, status: &str| json!({ "type": "function_call", "id": "f", "call_id": "k", "name": "n", "arguments": arguments, "status": status });
    let events = |arguments: &str, status: &str| {
        vec![
            json!({ "type": "response.output_item.added", "output_index": 0, "item": item("", "in_progress") }),
            json!({ "type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "f", "delta": "{\"x\":" }),
            json!({ "type": "response.output_item.done", "output_index": 0, "item": item(arguments, status) }),
            json!({ "type": "response.completed", "response": { "status": "completed" } }),
        ]
    };
    assert_eq!(
        responses(&events("{\"x\":2}", "completed")).message()["content"][0]["arguments"],
        json!({ "x": 2 })
    );
    assert!(error(&responses(&events("{\"x\":2}", "incomplete"))).contains("is incomplete"));
    assert!(error(&responses(&events("", "completed"))).contains("no complete JSON object"));
}

#[test]
fn text_of_responses_is_neither_doubled_nor_lost() {
    let added = |number: u32, item: Value| json!({ "type": "response.output_item.added", "output_index": number, "item": item });
    let done = |number: u32, item: Value| json!({ "type": "response.output_item.done", "output_index": number, "item": item });
    let delta = |number: u32, id: &str, text: &str| json!({ "type": "response.output_text.delta", "output_index": number, "item_id": id, "delta": text });
    let end = |output: Value| json!({ "type": "response.completed", "response": { "status": "completed", "output": output } });
    let item = |id: &str, text: &str| json!({ "type": "message", "id": id, "content": [{ "type": "output_text", "text": text }] });
    let begun = json!({ "type": "message", "id": "m1", "content": [] });
    let reasoning = json!({ "type": "reasoning", "id": "rs", "summary": [] });
    for (what, events) in [
        (
            "the end names and counts the items otherwise",
            vec![
                added(0, reasoning.clone()),
                done(0, reasoning.clone()),
                added(1, begun.clone()),
                delta(1, "m1", "Hello"),
                end(json!([item("other", "Hello")])),
            ],
        ),
        (
            "a delta before its item",
            vec![
                delta(0, "m1", "Hel"),
                added(0, begun.clone()),
                delta(0, "m1", "lo"),
                done(0, item("m1", "Hello")),
                end(json!([item("m1", "Hello")])),
            ],
        ),
        ("no items at all", vec![delta(0, "m1", "Hello"), end(json!([]))]),
        ("no items at all, but at the end", vec![delta(0, "m1", "Hello"), end(json!([item("m1", "Hello")]))]),
        (
            "the item's end says more than its deltas",
            vec![
                added(0, begun.clone()),
                delta(0, "m1", "Hel"),
                done(0, item("m1", "Hello")),
                end(json!([])),
            ],
        ),
    ] {
        let read = responses(&events);
        let content = read.message()["content"].clone();
        let texts: Vec<_> =
            content.as_array().unwrap().iter().filter_map(|block| block["text"].as_str()).collect();
        assert_eq!(texts, ["Hello"], "{what}");
        assert_eq!(read.text(Op::TextDelta), "Hello", "{what}");
    }
    // A second item of a kind is another one.
    let events = [
        added(0, begun.clone()),
        delta(0, "m1", "a"),
        done(0, item("m1", "a")),
        end(json!([item("m1", "a"), item("m2", "b")])),
    ];
    assert_eq!(responses(&events).message()["content"][1]["text"], "b");
    // Of reasoning and its summary, that counts which comes first.
    let thought = |kind: &str, text: &str| json!({ "type": format!("response.{kind}.delta"), "output_index": 0, "item_id": "rs", "delta": text });
    let both = json!({ "type": "reasoning", "id": "rs", "summary": [{ "text": "sum" }], "content": [{ "text": "raw" }] });
    for (first, second, expected) in [
        (thought("reasoning_text", "raw"), thought("reasoning_summary_text", "sum"), "raw"),
        (thought("reasoning_summary_text", "sum"), thought("reasoning_text", "raw"), "sum"),
    ] {
        let events = [added(0, reasoning.clone()), first, second, done(0, both.clone()), end(json!([both]))];
        assert_eq!(responses(&events).message()["content"][0]["thinking"], expected);
    }
    // Arguments without their call are no call without arguments.
    let call = json!({ "type": "function_call", "id": "f", "call_id": "k", "name": "n" });
    let events = [
        json!({ "type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "f", "delta": "{\"x\":1}" }),
        done(0, call),
        end(json!([])),
    ];
    assert!(error(&responses(&events)).contains("has not begun"));
}

#[test]
fn azure_and_servers_without_numbers_are_understood() {
    let message = responses(&[
        json!({ "type": "response.output_item.added", "item": { "type": "message", "id": "m" } }),
        json!({ "type": "response.text.delta", "item_id": "m", "delta": "a" }),
        json!({ "type": "response.output_text.delta", "delta": "b" }),
        json!({ "type": "response.output_item.done", "item": { "type": "message", "id": "m", "phase": "final_answer" } }),
        json!({ "type": "response.completed", "response": { "status": "completed" } }),
    ])
    .message();
    let signature = "{\"v\":1,\"id\":\"m\",\"phase\":\"final_answer\"}";
    assert_eq!(message["content"], json!([{ "type": "text", "text": "ab", "textSignature": signature }]));
}

#[test]
fn failures_of_responses_say_what_the_api_says() {
    for (event, words) in [
        (
            json!({ "type": "error", "error": { "type": "tokens", "code": "c", "message": "slow down" } }),
            "tokens: slow down",
        ),
        (json!({ "type": "error", "code": 5, "message": "x" }), "x"),
        (
            json!({ "type": "response.failed", "response": { "error": { "code": "server_error", "message": "y" } } }),
            "server_error: y",
        ),
        (json!({ "type": "response.failed" }), "does not say why"),
        (json!({ "type": "response.completed", "response": { "status": "cancelled" } }), "cancelled"),
        (json!({ "type": "response.completed" }), "without its response"),
    ] {
        let read = responses(std::slice::from_ref(&event));
        assert!(error(&read).contains(words), "{event}: {read:?}");
    }
}

// ── Gemini ──────────────────────────────────────────────────────────────────────────────────────────────────────────

fn gemini(parts: &[Value]) -> Read {
    let last = parts.len() - 1;
    let chunk = |(at, part): (usize, &Value)| {
        json!({ "responseId": "r", "candidates": [{ "content": { "parts": [part] },
        "finishReason": if at == last { json!("STOP") } else { Value::Null } }] })
    };
    let events: Vec<_> = parts.iter().enumerate().map(chunk).collect();
    read_all_ways(&Gemini, &frames(&Gemini, &events))
}

#[test]
fn a_signed_part_is_a_block_of_its_own() {
    let message = gemini(&[
        json!({ "text": "a" }),
        json!({ "text": "b", "thoughtSignature": "czE=" }),
        json!({ "text": "c", "thoughtSignature": "czI=" }),
        json!({ "text": "d" }),
        json!({ "thoughtSignature": "czM=" }),
    ])
    .message();
    assert_eq!(
        message["content"],
        json!([
            { "type": "text", "text": "a" },
            { "type": "text", "text": "b", "textSignature": "czE=" },
            { "type": "text", "text": "c", "textSignature": "czI=" },
            { "type": "text", "text": "d" },
            { "type": "text", "text": "", "textSignature": "czM=" },
        ])
    );
}

#[test]
fn calls_of_gemini_have_ids_of_their_own() {
    let call = |id: Value| json!({ "functionCall": { "id": id, "name": "f" } });
    let message =
        gemini(&[call(json!("a")), call(json!("a")), call(Value::Null), call(Value::Null)]).message();
    let ids: Vec<_> =
        message["content"].as_array().unwrap().iter().map(|block| block["id"].as_str().unwrap()).collect();
    assert_eq!(ids[0], "a");
    let unique: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), 4, "{ids:?}");
    assert_eq!(message["content"][3]["arguments"], json!({}));
    assert_eq!(message["stopReason"], "toolUse");
}

#[test]
fn a_call_of_gemini_that_comes_after_the_reason_is_a_call() {
    let events = [
        json!({ "candidates": [{ "content": { "parts": [{ "text": "x" }] }, "finishReason": "STOP" }] }),
        json!({ "candidates": [{ "content": { "parts": [{ "functionCall": { "name": "f" } }] } }] }),
    ];
    assert_eq!(read_all_ways(&Gemini, &frames(&Gemini, &events)).message()["stopReason"], "toolUse");
}

#[test]
fn gemini_repeats_its_counts_and_the_last_known_are_kept() {
    let chunk = |counts: Value, reason: Value| {
        json!({ "usageMetadata": counts,
        "candidates": [{ "content": { "parts": [{ "text": "x" }] }, "finishReason": reason }] })
    };
    let events = [
        chunk(json!({ "promptTokenCount": 5, "thoughtsTokenCount": 3 }), Value::Null),
        chunk(json!({ "promptTokenCount": 5, "candidatesTokenCount": 2 }), json!("STOP")),
    ];
    let message = read(&Gemini, [frames(&Gemini, &events).as_bytes()]).message();
    assert_eq!(message["usage"], json!({ "input": 5, "output": 5, "reasoning": 3, "totalTokens": 10 }));
}

// ── Ollama ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn ollama_ends_with_the_line_that_says_so() {
    let line = json!({ "message": { "content": "x" }, "done": false });
    assert!(error(&read(&Ollama, [frames(&Ollama, &[line]).as_bytes()])).contains("incomplete"));
    let answer = "{\"message\":{\"content\":\"x\"},\"done\":true}\n";
    assert_eq!(read_all_ways(&Ollama, answer).message()["stopReason"], "stop");
}

#[test]
fn calls_of_ollama_come_behind_all_text() {
    let say = |text: &str| json!({ "message": { "content": text } });
    let call = json!({ "message": { "content": "", "tool_calls": [{ "id": "a", "function": { "name": "f", "arguments": { "x": 1 } } }] } });
    let answer = frames(&Ollama, &[say("a"), call, say("b"), json!({ "done": true, "done_reason": "stop" })]);
    assert_eq!(
        read_all_ways(&Ollama, &answer).message()["content"],
        json!([{ "type": "text", "text": "ab" }, { "type": "toolCall", "id": "a", "name": "f", "arguments": { "x": 1 } }])
    );
}

#[test]
fn calls_of_ollama_may_be_text_and_lack_ids() {
    let call = |arguments: Value| json!({ "function": { "name": "f", "arguments": arguments } });
    let answer = frames(
        &Ollama,
        &[
            json!({ "created_at": "t1", "message": { "content": "", "tool_calls": [call(json!("{\"n\":1}")), call(json!({ "n": 2 })), call(Value::Null)] } }),
            json!({ "message": { "content": "" }, "done": true, "done_reason": "stop" }),
        ],
    );
    let message = read_all_ways(&Ollama, &answer).message();
    let blocks = message["content"].as_array().unwrap();
    let arguments: Vec<_> = blocks.iter().map(|block| block["arguments"].clone()).collect();
    assert_eq!(arguments, [json!({ "n": 1 }), json!({ "n": 2 }), json!({})]);
    let ids: std::collections::HashSet<_> =
        blocks.iter().map(|block| block["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

// ── all ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn events_that_make_no_sense_are_errors_and_those_that_nobody_knows_are_not() {
    let apis: [&dyn Api; 4] = [&OpenAiChat, &OpenAiResponses, &Gemini, &Ollama];
    for api in apis {
        for nonsense in ["{", "[]", "7", "\"x\"", "{\"a\":1}}", "<html>"] {
            let answer = if api.framing() == Framing::Sse {
                format!("data: {nonsense}\n\n")
            } else {
                format!("{nonsense}\n")
            };
            let read = read(api, [answer.as_bytes()]);
            assert!(error(&read).contains("makes no sense"), "{} {nonsense}: {read:?}", api.id());
        }
        let unknown =
            frames(api, &[json!({ "type": "news", "object": "of tomorrow", "x": { "y": [1, null] } })]);
        let read = read(api, [unknown.as_bytes()]);
        assert!(error(&read).contains("incomplete"), "{}: {read:?}", api.id());
    }
}

#[test]
fn a_flood_of_calls_is_refused() {
    let calls = |one: &str| vec![one; 5000].join(",");
    let chat = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{}]}}}}]}}\n\n",
        calls("{\"function\":{\"name\":\"f\"},\"id\":\"\"}")
    );
    let google = format!(
        "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{}]}}}}]}}\n\n",
        calls("{\"functionCall\":{\"name\":\"f\"}}")
    );
    let ollama =
        format!("{{\"message\":{{\"tool_calls\":[{}]}}}}\n", calls("{\"function\":{\"name\":\"f\"}}"));
    for (api, answer) in [(&Gemini as &dyn Api, google), (&Ollama, ollama)] {
        assert!(error(&read(api, [answer.as_bytes()])).contains("too many tool calls"), "{}", api.id());
    }
    // Without ids they are all one, whose arguments never come.
    assert!(error(&read(&OpenAiChat, [chat.as_bytes()])).contains("incomplete"));
}
