use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::api::Api;
use super::super::builder::Op;
use super::super::request::CompletionRequest;
use super::super::testing::{endpoint, read, read_all_ways, truncate_everywhere};
use super::Anthropic;
use crate::Code;

/// The shapes of the API reference, "Streaming messages".
fn answer(events: &[Value]) -> String {
    let mut text = String::new();
    for event in events {
        write!(text, "event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()).unwrap();
    }
    text
}

fn begin(usage: &Value) -> Value {
    json!({ "type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    } })
}

fn text(index: u32, parts: &[&str]) -> Vec<Value> {
    let mut events = vec![
        json!({ "type": "content_block_start", "index": index, "content_block": { "type": "text", "text": "" } }),
    ];
    events.extend(parts.iter().map(
        |part| json!({ "type": "content_block_delta", "index": index, "delta": { "type": "text_delta", "text": part } }),
    ));
    events.push(json!({ "type": "content_block_stop", "index": index }));
    events
}

fn tool(index: u32, id: &str, name: &str, parts: &[&str]) -> Vec<Value> {
    let mut events = vec![json!({ "type": "content_block_start", "index": index,
        "content_block": { "type": "tool_use", "id": id, "name": name, "input": {} } })];
    events.extend(parts.iter().map(|part| {
        json!({ "type": "content_block_delta", "index": index,
        "delta": { "type": "input_json_delta", "partial_json": part } })
    }));
    events.push(json!({ "type": "content_block_stop", "index": index }));
    events
}

fn finish(reason: &str, usage: &Value) -> Vec<Value> {
    vec![
        json!({ "type": "message_delta", "delta": { "stop_reason": reason, "stop_sequence": null }, "usage": usage }),
        json!({ "type": "message_stop" }),
    ]
}

fn everything() -> String {
    let mut events = vec![
        begin(&json!({ "input_tokens": 25, "output_tokens": 1, "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 30,
            "cache_creation": { "ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20 } })),
        json!({ "type": "ping" }),
        json!({ "type": "content_block_start", "index": 0,
            "content_block": { "type": "thinking", "thinking": "", "signature": "" } }),
        json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "thinking_delta", "thinking": "Überlegen… 🤔" } }),
        json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "signature_delta", "signature": "EqQBCgIYAh==" } }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "content_block_start", "index": 1,
            "content_block": { "type": "redacted_thinking", "data": "opaque" } }),
        json!({ "type": "content_block_stop", "index": 1 }),
    ];
    events.extend(text(2, &["Grüße, ", "日本", "🎉 \"quoted\"\n"]));
    events.extend(tool(
        3,
        "toolu_1",
        "weather",
        &["", "{\"city\": \"Zü", "rich\", \"n\": 9007199254740993}"],
    ));
    events.extend(tool(4, "toolu_2", "now", &[]));
    events.extend(finish("tool_use", &json!({ "output_tokens": 89 })));
    answer(&events)
}

#[test]
fn an_answer_with_everything_is_the_same_however_it_arrives() {
    let read = read_all_ways(&Anthropic, &everything());
    assert_eq!(
        read.message(),
        json!({
            "role": "assistant", "api": "anthropic-messages", "provider": "anthropic", "model": "the-model",
            "responseId": "msg_1", "responseModel": "claude-x", "stopReason": "toolUse",
            "timestamp": 1_800_000_000_000_u64,
            "usage": { "input": 25, "output": 89, "cacheRead": 100, "cacheWrite": 30, "cacheWrite1h": 20,
                "totalTokens": 244 },
            "content": [
                { "type": "thinking", "thinking": "Überlegen… 🤔", "thinkingSignature": "EqQBCgIYAh==" },
                { "type": "thinking", "thinking": "[Reasoning redacted]", "thinkingSignature": "opaque",
                    "redacted": true },
                { "type": "text", "text": "Grüße, 日本🎉 \"quoted\"\n" },
                { "type": "toolCall", "id": "toolu_1", "name": "weather",
                    "arguments": { "city": "Zürich", "n": 9_007_199_254_740_993_u64 } },
                { "type": "toolCall", "id": "toolu_2", "name": "now", "arguments": {} },
            ],
        })
    );
    assert_eq!(read.text(Op::TextDelta), "Grüße, 日本🎉 \"quoted\"\n");
    let order: Vec<_> = read.events.iter().map(|event| (event.0, event.1)).collect();
    assert_eq!(order.first(), Some(&(Op::Start, 0)));
    // Calls are ended only once the whole answer is there.
    assert_eq!(order[order.len() - 2..], [(Op::ToolEnd, 3), (Op::ToolEnd, 4)]);
}

#[test]
fn an_answer_that_is_cut_anywhere_is_no_message() {
    truncate_everywhere(&Anthropic, &everything(), "\"message_stop\"}");
    let mut events = vec![begin(&json!({ "input_tokens": 1 }))];
    events.extend(text(0, &["Hello"]));
    events.extend(finish("end_turn", &json!({ "output_tokens": 1 })));
    truncate_everywhere(&Anthropic, &answer(&events), "\"message_stop\"}");
}

#[test]
fn counts_that_were_not_sent_are_absent() {
    let mut events = vec![begin(&json!({ "input_tokens": 3 }))];
    events.extend(text(0, &["x"]));
    events.extend(finish("end_turn", &Value::Null));
    let message = read(&Anthropic, [answer(&events).as_bytes()]).message();
    assert_eq!(message["usage"], json!({ "input": 3 }));
    let mut events = vec![json!({ "type": "message_start", "message": {} })];
    events.extend(text(0, &["x"]));
    events.extend(finish("max_tokens", &Value::Null));
    let message = read(&Anthropic, [answer(&events).as_bytes()]).message();
    assert_eq!((message.get("usage"), &message["stopReason"]), (None, &json!("length")));
}

#[test]
fn each_stop_reason_has_its_meaning() {
    for (reason, expected) in [
        ("end_turn", Ok("stop")),
        ("stop_sequence", Ok("stop")),
        ("pause_turn", Ok("stop")),
        ("max_tokens", Ok("length")),
        ("model_context_window_exceeded", Ok("length")),
        ("tool_use", Ok("toolUse")),
        ("refusal", Err("PROVIDER_STREAM: Anthropic refusal.")),
        ("sensitive", Err("PROVIDER_STREAM: Anthropic stopped the answer: sensitive")),
        ("brand_new", Err("PROVIDER_STREAM: Anthropic stopped the answer: brand_new")),
    ] {
        let mut events = vec![begin(&json!({}))];
        events.extend(text(0, &["x"]));
        events.extend(finish(reason, &json!({ "output_tokens": 5 })));
        let read = read(&Anthropic, [answer(&events).as_bytes()]);
        match expected {
            Ok(word) => assert_eq!(read.message()["stopReason"], word),
            Err(words) => assert_eq!(read.outcome, Err(words.to_owned()), "{reason}"),
        }
    }
    let refused = [
        begin(&json!({})),
        json!({ "type": "message_delta", "delta": { "stop_reason": "refusal",
            "stop_details": { "category": "cyber", "explanation": "No." } } }),
        json!({ "type": "message_stop" }),
    ];
    let read = read(&Anthropic, [answer(&refused).as_bytes()]);
    assert_eq!(read.outcome.unwrap_err(), "PROVIDER_STREAM: Anthropic refusal (category: cyber): No.");
}

#[test]
fn an_error_within_the_stream_surfaces_with_its_type() {
    let mut events = vec![begin(&json!({}))];
    events.extend(text(0, &["half an ans"]));
    events.push(json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }));
    let mut decoder = super::super::decoder::Decoder::new(&Anthropic, "anthropic", "m", 0, 1 << 20);
    let error = decoder.push(answer(&events).as_bytes()).unwrap_err();
    assert_eq!(error.code(), Code::ProviderStream);
    assert_eq!(error.details().error_type.as_deref(), Some("overloaded_error"));
    assert_eq!(error.message(), "Anthropic failed within the stream: overloaded_error: Overloaded");
}

#[test]
fn tool_arguments_that_are_no_complete_object_are_an_error_and_nothing_is_repaired() {
    for broken in
        ["{\"a\": 1", "[1]", "\"x\"", "{'a': 1}", "{\"a\": 1,}", "{\"a\": 1} {}", "null", "{\"a\": NaN}"]
    {
        let mut events = vec![begin(&json!({}))];
        events.extend(tool(0, "t", "run", &[broken]));
        events.extend(finish("tool_use", &json!({})));
        let read = read(&Anthropic, [answer(&events).as_bytes()]);
        let error = read.outcome.unwrap_err();
        assert!(error.contains("no complete JSON object"), "{broken}: {error}");
        assert!(!read.events.iter().any(|event| event.0 == Op::ToolEnd));
    }
    // Nested far deeper than a parser that recurses could go.
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let mut events = vec![begin(&json!({}))];
    events.extend(tool(0, "t", "run", &[&deep]));
    events.extend(finish("tool_use", &json!({})));
    assert!(read(&Anthropic, [answer(&events).as_bytes()]).outcome.is_ok());
}

#[test]
fn a_message_that_stops_within_a_tool_call_is_an_error() {
    let mut events = vec![begin(&json!({}))];
    events.extend(tool(0, "t", "run", &["{}"]));
    events.pop();
    events.extend(finish("tool_use", &json!({})));
    let error = read(&Anthropic, [answer(&events).as_bytes()]).outcome.unwrap_err();
    assert!(error.contains("within a tool call"), "{error}");
}

#[test]
fn a_surrogate_pair_that_the_server_cuts_in_two_is_whole_again() {
    let delta = |text: &str| {
        format!(
            "data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    };
    let head = answer(&[
        begin(&json!({})),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
    ]);
    let tail = answer(
        &[vec![json!({ "type": "content_block_stop", "index": 0 })], finish("end_turn", &json!({}))].concat(),
    );
    let whole = format!("{head}{}{}{}{tail}", delta("a\\ud83c"), delta("\\udf89b"), delta("c"));
    let read_whole = read_all_ways(&Anthropic, &whole);
    assert_eq!(read_whole.message()["content"][0]["text"], "a🎉bc");
    // A half that stays alone is what JavaScript makes of it in UTF-8.
    let alone = format!("{head}{}{}{tail}", delta("a\\ud83c"), delta("b"));
    assert_eq!(read(&Anthropic, [alone.as_bytes()]).message()["content"][0]["text"], "a\u{FFFD}b");
    let last = format!("{head}{}{tail}", delta("a\\ud83c"));
    let last = read(&Anthropic, [last.as_bytes()]);
    assert_eq!(last.message()["content"][0]["text"], "a\u{FFFD}");
    assert_eq!(last.text(Op::TextDelta), "a\u{FFFD}");
}

#[test]
fn what_makes_no_sense_is_an_error_and_what_is_unknown_is_not() {
    for (wrong, words) in [
        ("data: {\"type\":\"content_block_delta\",\"index\":0}\n\n", "without index or content"),
        ("data: {\"type\":\n\n", "EOF"),
        ("data: []\n\n", "invalid type"),
        ("data: hello\n\n", "expected value"),
        (
            "data: {\"type\":\"content_block_delta\",\"index\":7,\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n",
            "not open",
        ),
    ] {
        let whole = format!("{}{wrong}", answer(&[begin(&json!({}))]));
        let error = read(&Anthropic, [whole.as_bytes()]).outcome.unwrap_err();
        assert!(error.starts_with("PROVIDER_STREAM") && error.contains(words), "{wrong:?}: {error}");
    }
    let invalid = [answer(&[begin(&json!({}))]).as_bytes(), b"data: {\"type\":\"\xFF\"}\n\n"].concat();
    assert!(read(&Anthropic, [&invalid[..]]).outcome.unwrap_err().contains("not UTF-8"));

    let mut events = vec![begin(&json!({}))];
    events.push(json!({ "type": "a_new_kind", "x": 1 }));
    events
        .push(json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "hologram" } }));
    events.push(json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "hologram_delta" } }));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.extend(text(1, &["seen"]));
    events.extend(finish("end_turn", &json!({})));
    let message = read(&Anthropic, [answer(&events).as_bytes()]).message();
    assert_eq!(message["content"], json!([{ "type": "text", "text": "seen" }]));
}

// ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────

fn payload(request: &Value) -> Value {
    let request = CompletionRequest::from_json(&request.to_string()).unwrap();
    let call = Anthropic.request(&request, &endpoint("https://api.anthropic.com")).unwrap();
    serde_json::from_slice(&call.body).unwrap()
}

fn refused_field(request: &Value) -> String {
    let refused = CompletionRequest::from_json(&request.to_string())
        .and_then(|request| Anthropic.request(&request, &endpoint("https://api.anthropic.com")));
    let error = refused.err().expect("it was taken");
    assert_eq!(error.code(), Code::ProviderRequest, "{error}");
    error.details().path.clone().unwrap()
}

#[test]
fn two_turns_with_tools_thinking_and_images_are_encoded_as_the_reference_says() {
    let request = json!({
        "model": "claude-x", "system": "Be brief.", "maxTokens": 9000, "stop": ["END"], "cache": "long",
        "serviceTier": "standard_only", "thinking": { "budgetTokens": 2048 }, "parallelToolCalls": false,
        "tools": [
            { "name": "a", "description": "A", "parameters": { "type": "object", "properties": {} } },
            { "name": "b", "description": "B", "parameters": { "properties": { "x": { "type": "integer" } } } },
        ],
        "messages": [
            { "role": "user", "content": "Hi", "timestamp": 1 },
            { "role": "assistant", "api": "anthropic-messages", "model": "claude-x", "provider": "p",
                "stopReason": "toolUse", "usage": {}, "content": [
                { "type": "thinking", "thinking": "Hm", "thinkingSignature": "sig" },
                { "type": "thinking", "thinking": "[Reasoning redacted]", "thinkingSignature": "opaque", "redacted": true },
                { "type": "text", "text": "Looking" },
                { "type": "text", "text": " " },
                { "type": "toolCall", "id": "t1", "name": "a", "arguments": {} },
                { "type": "toolCall", "id": "t2", "name": "b", "arguments": { "x": 1 } },
            ] },
            { "role": "toolResult", "toolCallId": "t1", "toolName": "a", "isError": true, "content": [] },
            { "role": "toolResult", "toolCallId": "t2", "toolName": "b", "content": [
                { "type": "text", "text": "see" }, { "type": "image", "data": "iVBOR", "mimeType": "image/png" },
            ] },
        ],
        "extra": { "metadata": { "user_id": "u" }, "max_tokens": 9001 },
    });
    let cache = json!({ "type": "ephemeral", "ttl": "1h" });
    assert_eq!(
        payload(&request),
        json!({
            "model": "claude-x", "max_tokens": 9001, "stream": true,
            "system": [{ "type": "text", "text": "Be brief.", "cache_control": cache }],
            "messages": [
                { "role": "user", "content": [{ "type": "text", "text": "Hi" }] },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "Hm", "signature": "sig" },
                    { "type": "redacted_thinking", "data": "opaque" },
                    { "type": "text", "text": "Looking" },
                    { "type": "tool_use", "id": "t1", "name": "a", "input": {} },
                    { "type": "tool_use", "id": "t2", "name": "b", "input": { "x": 1 } },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t1", "is_error": true,
                        "content": [{ "type": "text", "text": "[tool error with no output]" }] },
                    { "type": "tool_result", "tool_use_id": "t2", "cache_control": cache, "content": [
                        { "type": "text", "text": "see" },
                        { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "iVBOR" } },
                    ] },
                ] },
            ],
            "tools": [
                { "name": "a", "description": "A", "input_schema": { "type": "object", "properties": {} } },
                { "name": "b", "description": "B", "cache_control": cache,
                    "input_schema": { "type": "object", "properties": { "x": { "type": "integer" } } } },
            ],
            "tool_choice": { "type": "auto", "disable_parallel_tool_use": true },
            "stop_sequences": ["END"], "thinking": { "type": "enabled", "budget_tokens": 2048 },
            "service_tier": "standard_only", "metadata": { "user_id": "u" },
        })
    );
}

#[test]
fn another_apis_signature_is_not_sent_and_its_thinking_becomes_text() {
    let request = json!({ "model": "m", "messages": [
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "api": "openai-responses", "content": [
            { "type": "thinking", "thinking": "Hm", "thinkingSignature": "foreign" },
            { "type": "thinking", "thinking": "x", "thinkingSignature": "foreign", "redacted": true },
            { "type": "text", "text": "Yes" },
        ] },
        { "role": "user", "content": [{ "type": "text", "text": "And?" }] },
    ] });
    assert_eq!(
        payload(&request)["messages"][1]["content"],
        json!([{ "type": "text", "text": "Hm" }, { "type": "text", "text": "Yes" }])
    );
}

#[test]
fn effort_structured_output_and_tool_choice_have_their_fields() {
    let ask = |more: Value| {
        let mut request =
            json!({ "model": "claude-opus-4-7", "messages": [{ "role": "user", "content": "Hi" }] });
        for (name, value) in more.as_object().unwrap() {
            request[name] = value.clone();
        }
        request
    };
    let body = payload(&ask(json!({ "thinking": { "effort": "minimal" },
        "responseFormat": { "type": "jsonSchema", "schema": { "type": "object" } } })));
    assert_eq!(body["thinking"], json!({ "type": "adaptive", "display": "summarized" }));
    assert_eq!(
        body["output_config"],
        json!({ "effort": "low", "format": { "type": "json_schema", "schema": { "type": "object" } } })
    );
    assert_eq!(body["max_tokens"], 4096);
    let tools = json!([{ "name": "t", "description": "", "parameters": {} }]);
    let tools = &tools;
    for (choice, expected) in [
        (json!("auto"), json!({ "type": "auto" })),
        (json!("none"), json!({ "type": "none" })),
        (json!("required"), json!({ "type": "any" })),
        (json!({ "name": "t" }), json!({ "type": "tool", "name": "t" })),
    ] {
        assert_eq!(payload(&ask(json!({ "tools": tools, "toolChoice": choice })))["tool_choice"], expected);
    }
    for (more, field) in [
        (json!({ "responseFormat": { "type": "json" } }), "responseFormat"),
        (json!({ "thinking": { "budgetTokens": 100 } }), "thinking.budgetTokens"),
        (json!({ "thinking": { "budgetTokens": 2000 }, "maxTokens": 2000 }), "thinking.budgetTokens"),
        (json!({ "thinking": { "budgetTokens": 2000 }, "temperature": 1 }), "temperature"),
        (json!({ "thinking": { "effort": "low" }, "temperature": 1 }), "temperature"),
        (
            json!({ "thinking": { "budgetTokens": 2000 }, "tools": tools, "toolChoice": "required" }),
            "toolChoice",
        ),
        (
            json!({ "thinking": { "effort": "low" }, "tools": tools, "toolChoice": { "name": "t" } }),
            "toolChoice",
        ),
        (
            json!({ "model": "claude-3-7-sonnet", "thinking": { "effort": "low" }, "maxTokens": 2047 }),
            "thinking.effort",
        ),
        (json!({ "model": "claude-3-7-sonnet", "thinking": { "effort": "much" } }), "thinking.effort"),
        (
            json!({ "responseFormat": { "type": "jsonSchema", "schema": {}, "strict": false } }),
            "responseFormat.strict",
        ),
        (json!({ "responseFormat": { "type": "jsonSchema", "schema": {}, "x": 1 } }), "responseFormat.x"),
        (json!({ "tools": [{ "name": "t", "input_schema": {} }] }), "tools[0].input_schema"),
        (json!({ "tools": [{ "name": "t", "strict": true }] }), "tools[0].strict"),
        (json!({ "tools": tools, "toolChoice": { "name": "t", "type": "function" } }), "toolChoice.type"),
        (json!({ "thinking": { "effort": "low", "display": "full" } }), "thinking.display"),
        // What JavaScript writes for NaN and Infinity.
        (json!({ "maxTokens": null }), "maxTokens"),
        (json!({ "temperature": null }), "temperature"),
        (json!({ "thinking": { "budgetTokens": null } }), "thinking.budgetTokens"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "x", "cache_control": {} }] }] }),
            "messages[0].content[0].cache_control",
        ),
        (json!({ "thinking": {} }), "thinking"),
        (json!({ "toolChoice": "required" }), "toolChoice"),
        (json!({ "toolChoice": "sometimes" }), "toolChoice"),
        (json!({ "cache": "forever" }), "cache"),
        (json!({ "maxTokens": 0 }), "maxTokens"),
        (json!({ "stop": [1] }), "stop[0]"),
        (json!({ "topK": 4 }), "topK"),
        (json!({ "model": "" }), "model"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": null }), "messages"),
        (json!({ "messages": [{ "role": "system", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "toolCall" }] }] }),
            "messages[0].content[0].type",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image", "data": "", "mimeType": "image/bmp" }] }] }),
            "messages[0].content[0].mimeType",
        ),
        (
            json!({ "messages": [{ "role": "assistant", "content": [{ "type": "thinking" }] }] }),
            "messages[0].content[0].thinking",
        ),
    ] {
        assert_eq!(refused_field(&ask(more.clone())), field, "{more}");
    }
}

#[test]
fn models_that_do_not_adapt_get_openclaws_budgets() {
    let body = |model: &str, effort: &str, most: Option<u64>| {
        let mut request = json!({ "model": model, "messages": [{ "role": "user", "content": "Hi" }], "thinking": { "effort": effort } });
        if let Some(most) = most {
            request["maxTokens"] = most.into();
        }
        payload(&request)
    };
    for model in [
        "claude-opus-4-6",
        "claude-opus-4.8",
        "claude-sonnet-4-6-20260301",
        "anthropic.claude-sonnet-5-v1:0",
        "claude-opus-5-5",
        "claude-fable-5",
        "claude-mythos-preview",
        "opus",
    ] {
        assert_eq!(body(model, "high", None)["thinking"]["type"], "adaptive", "{model}");
    }
    for model in [
        "claude-3-7-sonnet-20250219",
        "claude-opus-4-20250514",
        "claude-sonnet-4-5-20250929",
        "claude-opus-4-5",
        "claude-haiku-4-5",
        "MiniMax-M2",
    ] {
        let body = body(model, "medium", None);
        assert_eq!(body["thinking"], json!({ "type": "enabled", "budget_tokens": 8192 }), "{model}");
        assert_eq!((&body["max_tokens"], body.get("output_config")), (&json!(4096 + 8192), None));
    }
    for (effort, most, budget) in
        [("minimal", 9000, 1024), ("max", 30_000, 16_384), ("high", 16_384, 15_360), ("low", 2048, 1024)]
    {
        let body = body("claude-haiku-4-5", effort, Some(most));
        assert_eq!(
            (&body["thinking"]["budget_tokens"], &body["max_tokens"]),
            (&json!(budget), &json!(most)),
            "{effort}"
        );
    }
    assert_eq!(body("claude-haiku-4-5", "none", None)["thinking"], json!({ "type": "disabled" }));
    assert_eq!(body("claude-opus-4-6", "xhigh", None)["output_config"]["effort"], "high");
}

#[test]
fn a_signature_goes_back_only_to_the_provider_and_the_model_it_came_from() {
    let blocks = |provider: Value, model: Value| {
        let request = json!({ "model": "claude-x", "messages": [
            { "role": "user", "content": "Hi" },
            { "role": "assistant", "api": "anthropic-messages", "provider": provider, "model": model,
                "content": [{ "type": "thinking", "thinking": "Hm", "thinkingSignature": "sig" }] },
            { "role": "user", "content": "And?" },
        ] });
        payload(&request)["messages"][1]["content"][0]["type"].clone()
    };
    // The tests' endpoint is that of the provider "p".
    assert_eq!(blocks(json!("p"), json!("claude-x")), "thinking");
    assert_eq!(blocks(Value::Null, Value::Null), "thinking");
    assert_eq!(blocks(json!("minimax"), json!("claude-x")), "text");
    assert_eq!(blocks(json!("p"), json!("claude-y")), "text");
}

#[test]
fn a_call_that_nobody_answered_gets_openclaws_result() {
    let call = |id: &str| json!({ "type": "toolCall", "id": id, "name": "f", "arguments": {} });
    let request = json!({ "model": "m", "messages": [
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": [call("a"), call("b")] },
        { "role": "toolResult", "toolCallId": "b", "toolName": "f", "content": "ok" },
        { "role": "user", "content": "Stop." },
        { "role": "assistant", "content": [call("c")] },
    ] });
    let result = |id: &str, words: &str, failed: bool| {
        let mut result = json!({ "type": "tool_result", "tool_use_id": id, "content": [{ "type": "text", "text": words }] });
        if failed {
            result["is_error"] = true.into();
        }
        result
    };
    let messages = &payload(&request)["messages"];
    assert_eq!(
        messages[2],
        json!({ "role": "user", "content": [result("b", "ok", false), result("a", "No result provided", true)] })
    );
    assert_eq!(messages[5], json!({ "role": "user", "content": [result("c", "No result provided", true)] }));
}

#[test]
fn arguments_that_come_whole_and_in_deltas_are_taken_once() {
    let ask = |pieces: &[&str]| {
        let mut events = vec![begin(&json!({}))];
        let mut call = tool(0, "t", "f", pieces);
        call[0]["content_block"]["input"] = json!({ "a": 1 });
        events.extend(call);
        events.extend(finish("tool_use", &json!({})));
        read_all_ways(&Anthropic, &answer(&events)).message()["content"][0]["arguments"].clone()
    };
    assert_eq!(ask(&[]), json!({ "a": 1 }));
    assert_eq!(ask(&["", "{\"a\":", "2}"]), json!({ "a": 2 }));
}

#[test]
fn a_limit_leaves_what_is_whole_and_no_call_that_it_cut() {
    for (pieces, whole) in [(&["{\"a\":"][..], false), (&[], false), (&["{\"a\":1}"], true)] {
        for closed in [true, false] {
            let mut events = vec![begin(&json!({}))];
            events.extend(text(0, &["Hello"]));
            let mut call = tool(1, "t", "f", pieces);
            if !closed {
                call.pop();
            }
            events.extend(call);
            events.extend(finish("max_tokens", &json!({})));
            let read = read_all_ways(&Anthropic, &answer(&events));
            let message = read.message();
            assert_eq!(
                (&message["stopReason"], &message["content"][0]["text"]),
                (&json!("length"), &json!("Hello"))
            );
            assert_eq!(message["content"].get(1).is_some(), whole, "{pieces:?}");
            assert_eq!(read.events.iter().any(|event| event.0 == Op::ToolEnd), whole, "{pieces:?}");
        }
    }
}

#[test]
fn the_url_and_the_headers_are_right_for_each_base_and_key() {
    let request =
        CompletionRequest::from_json(r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#).unwrap();
    for (base, expected) in [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
        ("https://proxy/anthropic/v1", "https://proxy/anthropic/v1/messages"),
        ("https://proxy/a?api-version=3", "https://proxy/a/v1/messages?api-version=3"),
    ] {
        let call = Anthropic.request(&request, &endpoint(base)).unwrap();
        assert_eq!(call.url.as_str(), expected);
        assert_eq!(call.headers["x-api-key"], "test-key");
        assert!(call.headers["x-api-key"].is_sensitive());
        assert_eq!(call.headers["anthropic-version"], "2023-06-01");
    }
    let mut oauth = endpoint("https://api.anthropic.com");
    oauth.key = Some(crate::secrets::Secret::copy_of(b"sk-ant-oat01-xyz"));
    let call = Anthropic.request(&request, &oauth).unwrap();
    assert_eq!(call.headers["authorization"], "Bearer sk-ant-oat01-xyz");
    assert!(call.headers.get("x-api-key").is_none());
    for wrong in ["", "api.anthropic.com", "file:///etc", "mailto:x@y"] {
        let error = Anthropic.request(&request, &endpoint(wrong)).err().expect(wrong);
        assert_eq!(error.details().path.as_deref(), Some("baseUrl"));
    }
}

#[test]
fn models_are_listed_page_by_page() {
    let page = Anthropic
        .models(r#"{"data":[{"type":"model","id":"claude-a","display_name":"A","max_input_tokens":200000,"max_tokens":64000},{"id":"claude-b"}],"has_more":true,"last_id":"claude-b"}"#)
        .unwrap();
    assert_eq!(page.next.as_deref(), Some("claude-b"));
    assert_eq!(page.models.len(), 2);
    assert_eq!((page.models[0].context_window, page.models[0].max_output), (Some(200_000), Some(64_000)));
    let call = Anthropic.models_request(&endpoint("https://h"), page.next.as_deref()).unwrap();
    assert_eq!(call.url.as_str(), "https://h/v1/models?limit=1000&after_id=claude-b");
    assert_eq!(Anthropic.models(r#"{"data":[],"has_more":false,"last_id":null}"#).unwrap().next, None);
    assert_eq!(Anthropic.models("<html>").unwrap_err().code(), Code::ProviderStream);
}
