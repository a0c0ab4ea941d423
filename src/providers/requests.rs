//! What each API is sent: one conversation with everything in it, and what an API cannot be told.

use serde_json::{Value, json};

use super::api::{Api, HttpRequest};
use super::gemini::Gemini;
use super::ollama::Ollama;
use super::openai_chat::OpenAiChat;
use super::openai_responses::OpenAiResponses;
use super::request::CompletionRequest;
use super::testing::endpoint;
use crate::{Code, Result};

const BASE: &str = "http://127.0.0.1:1/v9";

fn encode(api: &dyn Api, request: &Value) -> Result<HttpRequest> {
    api.request(&CompletionRequest::from_json(&request.to_string()).unwrap(), &endpoint(BASE))
}

fn body(api: &dyn Api, request: &Value) -> Value {
    serde_json::from_slice(&encode(api, request).unwrap().body).unwrap()
}

fn parameters() -> Value {
    json!({ "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"] })
}

/// A conversation that came by `api`, with a picture, reasoning, two calls, a failed one and a picture as a result.
fn conversation(api: &str, model: &str, thinking: &str, text: Option<&str>, call: Option<&str>) -> Value {
    let mut assistant = json!({ "role": "assistant", "api": api, "provider": "p", "model": model, "timestamp": 1, "content": [
        { "type": "thinking", "thinking": "Hm…", "thinkingSignature": thinking },
        { "type": "text", "text": "I look." },
        { "type": "toolCall", "id": "call_1|fc_1", "name": "read", "arguments": { "path": "ä" } },
        { "type": "toolCall", "id": "call_2|fc_2", "name": "read", "arguments": {} },
    ] });
    if let Some(text) = text {
        assistant["content"][1]["textSignature"] = text.into();
    }
    if let Some(call) = call {
        assistant["content"][2]["thoughtSignature"] = call.into();
    }
    json!({
        "model": model,
        "system": "Be brief.",
        "messages": [
            { "role": "user", "content": [{ "type": "text", "text": "What is it?" },
                { "type": "image", "mimeType": "image/png", "data": "aGk=" }] },
            assistant,
            { "role": "toolResult", "toolCallId": "call_1|fc_1", "toolName": "read", "isError": true,
                "content": [{ "type": "text", "text": "no" }, { "type": "text", "text": "such file" }] },
            { "role": "toolResult", "toolCallId": "call_2|fc_2", "toolName": "read",
                "content": [{ "type": "image", "mimeType": "image/png", "data": "aGk=" }] },
            { "role": "user", "content": "And now?" },
        ],
        "tools": [{ "name": "read", "description": "Reads", "parameters": parameters() }],
        "maxTokens": 100, "temperature": 0.5,
    })
}

fn image_url() -> Value {
    json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,aGk=" } })
}

#[test]
fn chat_completions_are_sent_as_the_reference_has_them() {
    let request = conversation("openai-completions", "m", "reasoning_content", None, None);
    let call = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": "read", "arguments": arguments } });
    assert_eq!(
        body(&OpenAiChat, &request),
        json!({
            "model": "m",
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": [{ "type": "text", "text": "What is it?" }, image_url()] },
                { "role": "assistant", "content": "I look.", "reasoning_content": "Hm…",
                    "tool_calls": [call("call_1", "{\"path\":\"ä\"}"), call("call_2", "{}")] },
                { "role": "tool", "content": "no\nsuch file", "tool_call_id": "call_1" },
                { "role": "tool", "content": "(see attached image)", "tool_call_id": "call_2" },
                { "role": "user", "content": [
                    { "type": "text", "text": "Image(s) from tool result #2 (read):" }, image_url()] },
                { "role": "user", "content": "And now?" },
            ],
            "stream": true, "stream_options": { "include_usage": true },
            "tools": [{ "type": "function", "function": {
                "name": "read", "description": "Reads", "parameters": parameters() } }],
            "max_tokens": 100, "temperature": 0.5,
        })
    );
}

#[test]
fn reasoning_goes_back_only_to_the_model_it_came_from() {
    let request = conversation("openai-completions", "m", "reasoning_content", None, Some("c2ln"));
    let own = body(&OpenAiChat, &request);
    assert_eq!(
        own["messages"][2]["tool_calls"][0]["extra_content"],
        json!({ "google": { "thought_signature": "c2ln" } })
    );
    for (field, value) in [("model", "other"), ("api", "anthropic-messages")] {
        let mut request = request.clone();
        request["messages"][1][field] = value.into();
        let message = &body(&OpenAiChat, &request)["messages"][2];
        assert_eq!(message.get("reasoning_content"), None, "{field}");
        assert_eq!(message["tool_calls"][0].get("extra_content"), None, "{field}");
    }
    let detail = "{\"type\":\"reasoning.encrypted\",\"id\":\"call_1\",\"data\":\"x\"}";
    let request = conversation("openai-completions", "m", "reasoning", None, Some(detail));
    let message = &body(&OpenAiChat, &request)["messages"][2];
    assert_eq!(
        message["reasoning_details"],
        json!([{ "type": "reasoning.encrypted", "id": "call_1", "data": "x" }])
    );
    assert_eq!(message["reasoning"], "Hm…");
}

#[test]
fn every_field_of_a_request_has_its_place_in_chat_completions() {
    let request = json!({
        "model": "gpt-5.5-2026-04-23", "messages": [{ "role": "user", "content": "x" }],
        "tools": [{ "name": "now", "description": "", "parameters": {} }],
        "toolChoice": { "name": "now" }, "parallelToolCalls": false, "stop": ["a", "b"], "serviceTier": "flex",
        "thinking": { "effort": "high" }, "cache": "long", "temperature": 0,
        "responseFormat": { "type": "jsonSchema", "name": "n", "schema": { "type": "object" }, "strict": true },
        "extra": { "top_p": 0.5, "temperature": 1, "seed": 7 },
    });
    let body = body(&OpenAiChat, &request);
    for (field, value) in [
        ("tool_choice", json!({ "type": "function", "function": { "name": "now" } })),
        ("parallel_tool_calls", json!(false)),
        ("stop", json!(["a", "b"])),
        ("service_tier", json!("flex")),
        ("reasoning_effort", json!("high")),
        ("temperature", json!(1)),
        ("top_p", json!(0.5)),
        ("seed", json!(7)),
        (
            "response_format",
            json!({ "type": "json_schema",
                "json_schema": { "name": "n", "schema": { "type": "object" }, "strict": true } }),
        ),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    // A tool without arguments has an object of none.
    assert_eq!(body["tools"][0]["function"]["parameters"], json!({ "type": "object", "properties": {} }));
}

#[test]
fn openai_and_azure_are_told_apart_from_servers_that_speak_as_they_do() {
    let request = json!({ "model": "m", "maxTokens": 5, "messages": [{ "role": "user", "content": "x" }] });
    let request = CompletionRequest::from_json(&request.to_string()).unwrap();
    let send = |base: &str| {
        let sent = OpenAiChat.request(&request, &endpoint(base)).unwrap();
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        let header = |name: &str| sent.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (
            sent.url.to_string(),
            header("authorization"),
            header("api-key"),
            body.get("max_completion_tokens").is_some(),
        )
    };
    let bearer = Some("Bearer test-key".to_owned());
    assert_eq!(
        send("https://api.openai.com/v1"),
        ("https://api.openai.com/v1/chat/completions".into(), bearer.clone(), None, true)
    );
    assert_eq!(
        send("https://openrouter.ai/api/v1/"),
        ("https://openrouter.ai/api/v1/chat/completions".into(), bearer, None, false)
    );
    assert_eq!(
        send("https://x.openai.azure.com/openai/deployments/d?api-version=2026-01-01"),
        (
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2026-01-01".into(),
            None,
            Some("test-key".into()),
            true
        )
    );
}

#[test]
fn a_longer_cache_is_asked_for_only_where_it_is_known() {
    let sent = |api: &dyn Api, base: &str, model: &str| {
        let request =
            json!({ "model": model, "cache": "long", "messages": [{ "role": "user", "content": "x" }] });
        let request = CompletionRequest::from_json(&request.to_string()).unwrap();
        let body: Value =
            serde_json::from_slice(&api.request(&request, &endpoint(base)).unwrap().body).unwrap();
        (body.get("prompt_cache_retention").cloned(), body.get("prompt_cache_options").cloned())
    };
    let openai = "https://api.openai.com/v1";
    for api in [&OpenAiChat as &dyn Api, &OpenAiResponses] {
        for model in ["gpt-5.5", "gpt-5.5-2026-04-23", "gpt-4.1", "gpt-5"] {
            assert_eq!(sent(api, openai, model), (Some(json!("24h")), None), "{model}");
        }
        for model in ["gpt-5.6", "gpt-6-mini", "gpt-5.12"] {
            assert_eq!(sent(api, openai, model), (None, Some(json!({ "ttl": "30m" }))), "{model}");
        }
        for model in ["gpt-4o", "gpt-5.5-nano", "o3", "é-2026-04-23"] {
            assert_eq!(sent(api, openai, model), (None, None), "{model}");
        }
        assert_eq!(sent(api, "https://openrouter.ai/api/v1", "gpt-5.5"), (None, None));
    }
}

#[test]
fn responses_are_sent_as_the_reference_has_them() {
    let reasoning = json!({ "id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "x==" });
    let text = "{\"v\":1,\"id\":\"msg_1\",\"phase\":\"commentary\"}";
    let request = conversation("openai-responses", "m", &reasoning.to_string(), Some(text), None);
    let picture =
        json!({ "type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aGk=" });
    let call = |number: u32, arguments: &str| {
        json!({ "type": "function_call", "call_id": format!("call_{number}"),
        "name": "read", "arguments": arguments, "id": format!("fc_{number}") })
    };
    assert_eq!(
        body(&OpenAiResponses, &request),
        json!({
            "model": "m", "instructions": "Be brief.",
            "input": [
                { "type": "message", "role": "user",
                    "content": [{ "type": "input_text", "text": "What is it?" }, picture] },
                reasoning,
                { "type": "message", "role": "assistant", "status": "completed", "id": "msg_1", "phase": "commentary",
                    "content": [{ "type": "output_text", "text": "I look.", "annotations": [] }] },
                call(1, "{\"path\":\"ä\"}"),
                call(2, "{}"),
                { "type": "function_call_output", "call_id": "call_1", "output": "no\nsuch file" },
                { "type": "function_call_output", "call_id": "call_2", "output": [picture] },
                { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "And now?" }] },
            ],
            "stream": true, "store": false,
            "tools": [{ "type": "function", "name": "read", "description": "Reads", "parameters": parameters(),
                "strict": false }],
            "max_output_tokens": 100, "temperature": 0.5,
        })
    );
    // To another model neither reasoning nor ids mean anything.
    let mut other = request;
    other["messages"][1]["model"] = "other".into();
    let input = &body(&OpenAiResponses, &other)["input"];
    assert_eq!(input[1]["type"], "message");
    assert_eq!((input[1].get("id"), input[2].get("id")), (None, None));
}

#[test]
fn every_field_of_a_request_has_its_place_in_responses() {
    let request = json!({
        "model": "m", "messages": [{ "role": "user", "content": "x" }],
        "tools": [{ "name": "now", "description": "", "parameters": {} }],
        "toolChoice": "required", "parallelToolCalls": true, "serviceTier": "priority",
        "thinking": { "effort": "low" }, "cache": "long",
        "responseFormat": { "type": "jsonSchema", "name": "n", "schema": { "type": "object" } },
        "extra": { "store": true },
    });
    let body = body(&OpenAiResponses, &request);
    for (field, value) in [
        ("tool_choice", json!("required")),
        ("parallel_tool_calls", json!(true)),
        ("service_tier", json!("priority")),
        ("reasoning", json!({ "effort": "low", "summary": "auto" })),
        ("include", json!(["reasoning.encrypted_content"])),
        ("store", json!(true)),
        ("text", json!({ "format": { "type": "json_schema", "name": "n", "schema": { "type": "object" } } })),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
}

#[test]
fn gemini_is_sent_what_the_reference_has() {
    let model = "gemini-3-pro-preview";
    let request = conversation("google-generative-ai", model, "c2ln", Some("dGV4dA=="), Some("Y2FsbA=="));
    let sent = encode(&Gemini, &request).unwrap();
    assert_eq!(sent.url.as_str(), format!("{BASE}/models/{model}:streamGenerateContent?alt=sse"));
    assert_eq!(sent.headers["x-goog-api-key"], "test-key");
    let picture = json!({ "inlineData": { "mimeType": "image/png", "data": "aGk=" } });
    assert_eq!(
        serde_json::from_slice::<Value>(&sent.body).unwrap(),
        json!({
            "contents": [
                { "role": "user", "parts": [{ "text": "What is it?" }, picture] },
                { "role": "model", "parts": [
                    { "thought": true, "text": "Hm…", "thoughtSignature": "c2ln" },
                    { "text": "I look.", "thoughtSignature": "dGV4dA==" },
                    { "functionCall": { "name": "read", "args": { "path": "ä" }, "id": "call_1|fc_1" },
                        "thoughtSignature": "Y2FsbA==" },
                    { "functionCall": { "name": "read", "args": {}, "id": "call_2|fc_2" } },
                ] },
                { "role": "user", "parts": [
                    { "functionResponse": { "name": "read", "response": { "error": "no\nsuch file" },
                        "id": "call_1|fc_1" } },
                    { "functionResponse": { "name": "read", "response": { "output": "(see attached image)" },
                        "id": "call_2|fc_2", "parts": [picture] } },
                ] },
                { "role": "user", "parts": [{ "text": "And now?" }] },
            ],
            "systemInstruction": { "parts": [{ "text": "Be brief." }] },
            "tools": [{ "functionDeclarations": [
                { "name": "read", "description": "Reads", "parametersJsonSchema": parameters() }] }],
            "generationConfig": { "temperature": 0.5, "maxOutputTokens": 100 },
        })
    );
}

#[test]
fn gemini_gets_no_signature_of_another_model_and_old_models_no_picture_in_a_result() {
    let mut request = conversation("anthropic-messages", "gemini-3-flash", "c2ln", None, Some("Y2FsbA=="));
    let parts = |request: &Value| body(&Gemini, request)["contents"][1]["parts"].clone();
    let unsigned = "skip_thought_signature_validator";
    assert_eq!(
        parts(&request),
        json!([
            { "text": "I look." },
            { "functionCall": { "name": "read", "args": { "path": "ä" } }, "thoughtSignature": unsigned },
            { "functionCall": { "name": "read", "args": {} } },
        ])
    );
    for model in ["gemma-3-27b-it", "gemini-2.5-flash"] {
        request["model"] = model.into();
        assert_eq!(parts(&request)[1].get("thoughtSignature"), None, "{model}");
    }
    let contents = &body(&Gemini, &request)["contents"];
    assert_eq!(contents[2]["parts"][1]["functionResponse"].get("parts"), None);
    assert_eq!(contents[3]["parts"][0]["text"], "Tool result image:");
    assert_eq!(contents[3]["parts"][1]["inlineData"]["data"], "aGk=");
}

#[test]
fn every_field_of_a_request_has_its_place_at_gemini() {
    let mut request = json!({
        "model": "gemini-3-flash", "messages": [{ "role": "user", "content": "x" }],
        "tools": [{ "name": "now", "description": "n", "parameters": {} }],
        "toolChoice": { "name": "now" }, "stop": ["a"], "thinking": { "effort": "low" },
        "responseFormat": { "type": "jsonSchema", "schema": { "type": "object" } },
        "extra": { "generationConfig": { "topK": 3 }, "cachedContent": "cachedContents/1" },
    });
    let sent = body(&Gemini, &request);
    assert_eq!(
        sent["generationConfig"],
        json!({ "stopSequences": ["a"], "thinkingConfig": { "includeThoughts": true, "thinkingLevel": "LOW" },
            "responseMimeType": "application/json", "responseJsonSchema": { "type": "object" }, "topK": 3 })
    );
    assert_eq!(sent["cachedContent"], "cachedContents/1");
    assert_eq!(
        sent["toolConfig"]["functionCallingConfig"],
        json!({ "mode": "ANY", "allowedFunctionNames": ["now"] })
    );
    assert_eq!(sent["tools"][0]["functionDeclarations"][0].get("parametersJsonSchema"), None);
    for (model, thinking, config) in [
        (
            "gemini-2.5-pro",
            json!({ "effort": "high" }),
            json!({ "includeThoughts": true, "thinkingBudget": 32768 }),
        ),
        ("gemini-2.5-flash", json!({ "effort": "none" }), json!({ "thinkingBudget": 0 })),
        (
            "gemini-3-pro",
            json!({ "effort": "medium" }),
            json!({ "includeThoughts": true, "thinkingLevel": "HIGH" }),
        ),
        (
            "gemini-flash-latest",
            json!({ "effort": "medium" }),
            json!({ "includeThoughts": true, "thinkingLevel": "MEDIUM" }),
        ),
        (
            "gemma-4-31b-it",
            json!({ "effort": "low" }),
            json!({ "includeThoughts": true, "thinkingLevel": "MINIMAL" }),
        ),
        (
            "gemini-3-pro",
            json!({ "budgetTokens": 99 }),
            json!({ "includeThoughts": true, "thinkingBudget": 99 }),
        ),
    ] {
        request["model"] = model.into();
        request["thinking"] = thinking;
        assert_eq!(body(&Gemini, &request)["generationConfig"]["thinkingConfig"], config, "{model}");
    }
}

#[test]
fn a_model_name_cannot_lead_elsewhere_at_gemini() {
    for model in ["../v1/x", "a/../b", "a?key=1", "a:b", "a#b", "", "/a", "ä"] {
        let request = CompletionRequest { model: model.into(), ..CompletionRequest::default() };
        let error = Gemini.request(&request, &endpoint(BASE)).err().unwrap_or_else(|| panic!("{model}"));
        assert_eq!((error.code(), error.details().path.as_deref()), (Code::ProviderRequest, Some("model")));
    }
    let request = CompletionRequest { model: "tunedModels/a-1".into(), ..CompletionRequest::default() };
    let sent = Gemini.request(&request, &endpoint(BASE)).unwrap();
    assert_eq!(sent.url.path(), "/v9/tunedModels/a-1:streamGenerateContent");
}

#[test]
fn ollama_is_sent_what_the_reference_has() {
    let request = conversation("ollama", "gpt-oss:20b", "", None, None);
    let call = |id: &str, arguments: Value| json!({ "id": id, "function": { "name": "read", "arguments": arguments } });
    assert_eq!(
        body(&Ollama, &request),
        json!({
            "model": "gpt-oss:20b",
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "What is it?", "images": ["aGk="] },
                { "role": "assistant", "content": "I look.", "thinking": "Hm…",
                    "tool_calls": [call("call_1|fc_1", json!({ "path": "ä" })), call("call_2|fc_2", json!({}))] },
                { "role": "tool", "content": "no\nsuch file", "tool_name": "read", "tool_call_id": "call_1|fc_1" },
                { "role": "tool", "content": "", "tool_name": "read", "tool_call_id": "call_2|fc_2",
                    "images": ["aGk="] },
                { "role": "user", "content": "And now?" },
            ],
            "stream": true,
            "tools": [{ "type": "function", "function": {
                "name": "read", "description": "Reads", "parameters": parameters() } }],
            "options": { "num_predict": 100, "temperature": 0.5 },
        })
    );
}

#[test]
fn every_field_of_a_request_has_its_place_at_ollama() {
    let mut request = json!({
        "model": "gpt-oss:20b", "messages": [{ "role": "user", "content": "x" }], "stop": ["a"],
        "tools": [{ "name": "now", "description": "n", "parameters": {} }], "toolChoice": "none",
        "thinking": { "effort": "low" }, "responseFormat": { "type": "json" },
        "extra": { "keep_alive": "1h", "options": { "num_ctx": 9 } },
    });
    let sent = body(&Ollama, &request);
    assert_eq!(sent["options"], json!({ "stop": ["a"], "num_ctx": 9 }));
    assert_eq!(
        (&sent["think"], &sent["format"], &sent["keep_alive"]),
        (&json!("low"), &json!("json"), &json!("1h"))
    );
    assert_eq!(sent.get("tools"), None);
    request["model"] = "qwen3".into();
    assert_eq!(body(&Ollama, &request)["think"], json!(true));
    request["thinking"] = json!({ "effort": "none" });
    assert_eq!(body(&Ollama, &request)["think"], json!(false));
}

#[test]
fn what_an_api_cannot_be_told_is_an_error_that_names_the_field() {
    let cases: [(&dyn Api, &str, Value); 17] = [
        (&OpenAiChat, "toolChoice", json!({ "toolChoice": "required" })),
        (&OpenAiResponses, "toolChoice", json!({ "toolChoice": { "name": "read" } })),
        (&Gemini, "toolChoice", json!({ "toolChoice": "required" })),
        (&OpenAiChat, "thinking.budgetTokens", json!({ "thinking": { "budgetTokens": 1024 } })),
        (&OpenAiResponses, "thinking.budgetTokens", json!({ "thinking": { "budgetTokens": 1024 } })),
        (&OpenAiResponses, "stop", json!({ "stop": ["a"] })),
        (&Gemini, "parallelToolCalls", json!({ "parallelToolCalls": false })),
        (&Gemini, "cache", json!({ "cache": "long" })),
        (&Gemini, "thinking.effort", json!({ "thinking": { "effort": "extreme" } })),
        (&Gemini, "extra.generationConfig", json!({ "extra": { "generationConfig": 1 } })),
        (&Ollama, "toolChoice", json!({ "toolChoice": "required" })),
        (&Ollama, "toolChoice", json!({ "toolChoice": { "name": "read" } })),
        (&Ollama, "parallelToolCalls", json!({ "parallelToolCalls": false })),
        (&Ollama, "cache", json!({ "cache": "long" })),
        (&Ollama, "serviceTier", json!({ "serviceTier": "flex" })),
        (&Ollama, "thinking.budgetTokens", json!({ "thinking": { "budgetTokens": 1024 } })),
        (&Ollama, "thinking.effort", json!({ "thinking": { "effort": "extreme" } })),
    ];
    for (api, field, more) in cases {
        let mut request = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }] });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = encode(api, &request).err().unwrap_or_else(|| panic!("{} {field}", api.id()));
        assert_eq!((error.code(), error.details().path.as_deref()), (Code::ProviderRequest, Some(field)));
        assert!(error.message().contains(field), "{error}");
    }
    let nameless = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" },
        { "role": "toolResult", "toolCallId": "c", "content": "x" }] });
    for api in [&Gemini as &dyn Api, &Ollama] {
        let error = encode(api, &nameless).err().unwrap();
        assert_eq!(error.details().path.as_deref(), Some("messages[1].toolName"));
    }
}

#[test]
fn lists_of_models_are_read() {
    let list = |api: &dyn Api, body: Value| api.models(&body.to_string()).unwrap();
    let openrouter = json!({ "data": [{ "id": "x/y", "name": "Y", "context_length": 9, "top_provider": { "max_completion_tokens": 3 } }, {}] });
    let page = list(&OpenAiChat, openrouter);
    let [model] = &page.models[..] else { panic!("{page:?}") };
    assert_eq!((&*model.id, model.name.as_deref()), ("x/y", Some("Y")));
    assert_eq!((model.context_window, model.max_output, page.next), (Some(9), Some(3), None));
    let google = json!({ "models": [{ "name": "models/g", "displayName": "G", "inputTokenLimit": 5, "outputTokenLimit": 2 }], "nextPageToken": "p" });
    let page = list(&Gemini, google);
    assert_eq!((&*page.models[0].id, page.models[0].context_window), ("g", Some(5)));
    let next = Gemini.models_request(&endpoint(BASE), page.next.as_deref()).unwrap();
    assert_eq!(next.url.query(), Some("pageSize=1000&pageToken=p"));
    let page = list(&Ollama, json!({ "models": [{ "name": "llama3:8b", "size": 1 }] }));
    assert_eq!(page.models[0].id, "llama3:8b");
    for api in [&OpenAiChat as &dyn Api, &Gemini, &Ollama] {
        assert_eq!(api.models("{\"x\":1}").unwrap_err().code(), Code::ProviderStream);
        assert_eq!(api.models("<html>").unwrap_err().code(), Code::ProviderStream);
    }
}
