//! Rules about single values of the other sections.

use serde_json::Value;

use super::gateway::is_loopback_name;
use super::{Report, lower, object, text};
use crate::config::schema::text::{
    is_byte_size, is_dns_name, is_exact_host, parse_duration, parse_http_origin, parse_url,
};

pub(super) fn trimmed_keys(value: &Value, report: &mut Report<'_>) {
    for (key, _) in object(value, "").filter(|(key, _)| key.is_empty() || key.trim() != *key) {
        report.fatal_at(&[key], "a name must not be empty or have spaces around it");
    }
}

pub(super) fn suspend_after(value: &Value, report: &mut Report<'_>) {
    let text = value.as_str().unwrap_or_default();
    let has_unit = text.ends_with(|c: char| "smhdSMHD".contains(c));
    if !has_unit || parse_duration(text, "ms").is_none_or(|ms| ms < 60_000.0) {
        report.here("expected a duration of at least 1m");
    }
}

pub(super) fn project_profiles(value: &Value, report: &mut Report<'_>) {
    for (key, _) in object(value, "") {
        let mut segments = key.split('/');
        let host = segments.next().unwrap_or_default();
        let rest: Vec<&str> = segments.collect();
        let plain = |segment: &&str| !segment.is_empty() && *segment != "." && *segment != "..";
        let good = *key == key.trim().to_lowercase()
            && is_dns_name(host)
            && rest.len() >= 2
            && rest.iter().all(plain)
            && key.strip_suffix(".git").is_none();
        if !good {
            report.fatal_at(&[key], "expected host/owner/repo in lower case, without .git");
        }
    }
}

fn duration_or_false(value: &Value, default_unit: &str) -> bool {
    match value {
        Value::Bool(_) => true,
        Value::String(text) => parse_duration(text, default_unit).is_some(),
        other => parse_duration(&other.to_string(), default_unit).is_some(),
    }
}

pub(super) fn session_retention(value: &Value, report: &mut Report<'_>) {
    if !duration_or_false(value, "h") {
        report.here("invalid duration (use ms, s, m, h, d)");
    }
}

pub(super) fn byte_size(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|text| !is_byte_size(text)) {
        report.here("expected a byte size such as 2mb");
    }
}

pub(super) fn session_maintenance(value: &Value, report: &mut Report<'_>) {
    let as_text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for key in ["pruneAfter", "archiveDashboardAfter", "preserveRecent", "resetArchiveRetention"] {
        let Some(value) = value.get(key) else { continue };
        let off =
            value == &Value::Bool(false) || (key == "archiveDashboardAfter" && value.as_f64() == Some(0.0));
        if !off && parse_duration(&as_text(value), "d").is_none_or(|ms| ms <= 0.0) {
            report.at(&[key], "expected a positive duration such as 30d");
        }
    }
    for key in ["maxDiskBytes", "highWaterBytes"] {
        let Some(value) = value.get(key).filter(|value| !value.is_boolean()) else { continue };
        if !is_byte_size(&as_text(value)) {
            report.at(&[key], "invalid size (use b, kb, mb, gb, tb)");
        }
    }
}

pub(super) fn absolute_path(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|path| !path.trim().starts_with('/')) {
        report.here("expected an absolute path");
    }
}

pub(super) fn worktree_root(value: &Value, report: &mut Report<'_>) {
    let path = value.as_str().unwrap_or_default().trim();
    if !path.starts_with('/') && path != "~" && !path.starts_with("~/") {
        report.here("worktreeRoot must be an absolute path or start with ~");
    }
}

pub(super) fn not_blank(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|text| text.trim().is_empty()) {
        report.here("must not be blank");
    }
}

pub(super) fn http_origin(value: &Value, report: &mut Report<'_>) {
    if value.as_str().and_then(parse_http_origin).is_none() {
        report.here("expected an HTTP(S) origin without a path, query or credentials");
    }
}

pub(super) fn http_url(value: &Value, report: &mut Report<'_>) {
    let url = value.as_str().and_then(parse_url);
    if !url.is_some_and(|url| matches!(url.scheme.as_str(), "http" | "https")) {
        report.here("expected an http:// or https:// URL");
    }
}

pub(super) fn client_metadata_url(value: &Value, report: &mut Report<'_>) {
    let url = value.as_str().and_then(parse_url);
    let has_path =
        |rest: &str| rest.starts_with('/') && !matches!(rest.as_bytes(), [b'/'] | [b'/', b'?' | b'#', ..]);
    if !url.is_some_and(|url| url.scheme == "https" && has_path(url.rest)) {
        report.here("expected an https:// URL with a path");
    }
}

pub(super) fn catalog_url(value: &Value, report: &mut Report<'_>) {
    let url = value.as_str().and_then(parse_url);
    if !url.is_some_and(|url| url.scheme == "https" || (url.scheme == "http" && is_loopback_name(&url.host)))
    {
        report.here("models.catalogRefresh.url must use https, or http on localhost");
    }
}

pub(super) fn hooks(value: &Value, report: &mut Report<'_>) {
    let has_default = !text(value, "defaultSessionKey").trim().is_empty();
    let mappings = value.get("mappings").and_then(Value::as_array).into_iter().flatten();
    for (index, mapping) in mappings.enumerate() {
        let is_agent = mapping.get("action").is_none_or(|action| action == "agent");
        let has_key = has_default || !text(mapping, "sessionKey").trim().is_empty();
        if is_agent
            && text(mapping, "sessionMode") == "persistent"
            && !has_key
            && mapping.get("transform").is_none()
        {
            report.at(
                &["mappings", &index.to_string(), "sessionKey"],
                "a persistent mapping needs sessionKey, hooks.defaultSessionKey or a transform",
            );
        }
    }
}

pub(super) fn relative_module(value: &Value, report: &mut Report<'_>) {
    let path = value.as_str().unwrap_or_default().trim();
    let leaves = path.split(['/', '\\']).any(|part| part == "..");
    if path.is_empty() || path.starts_with(['/', '~']) || path.contains(':') || leaves {
        report.here("expected a relative path that stays inside its folder");
    }
}

pub(super) fn model_providers(value: &Value, report: &mut Report<'_>) {
    for (id, provider) in object(value, "").filter(|(id, _)| !BUNDLED_PROVIDERS.contains(&lower(id).as_str()))
    {
        if text(provider, "baseUrl").is_empty() {
            report.at(&[id, "baseUrl"], "a custom model provider must declare baseUrl");
        }
        if !provider.get("models").is_some_and(Value::is_array) {
            report.at(&[id, "models"], "a custom model provider must declare models");
        }
    }
}

/// The providers that come with OpenClaw: settings for them may leave out what it knows of them.
const BUNDLED_PROVIDERS: &[&str] = &[
    "amazon-bedrock",
    "amazon-bedrock-mantle",
    "anthropic",
    "anthropic-vertex",
    "arcee",
    "azure-openai-responses",
    "byteplus",
    "byteplus-plan",
    "cerebras",
    "chutes",
    "claude-cli",
    "clawrouter",
    "cloudflare-ai-gateway",
    "codex",
    "comfy",
    "copilot-proxy",
    "dashscope",
    "deepinfra",
    "deepseek",
    "fal",
    "fireworks",
    "github-copilot",
    "gmi",
    "gmi-cloud",
    "gmicloud",
    "google",
    "google-antigravity",
    "google-gemini-cli",
    "google-vertex",
    "groq",
    "huggingface",
    "kilocode",
    "kimi",
    "kimi-coding",
    "litellm",
    "lmstudio",
    "meta",
    "microsoft-foundry",
    "minimax",
    "minimax-portal",
    "mistral",
    "modelstudio",
    "moonshot",
    "moonshot-ai",
    "moonshotai",
    "nvidia",
    "novita",
    "novita-ai",
    "novitaai",
    "ollama",
    "ollama-cloud",
    "openai",
    "opencode",
    "opencode-go",
    "openrouter",
    "qianfan",
    "qwen",
    "qwen-token-plan",
    "qwencloud",
    "sglang",
    "stepfun",
    "stepfun-plan",
    "synthetic",
    "tencent-tokenhub",
    "tencent-tokenplan",
    "together",
    "venice",
    "vercel-ai-gateway",
    "vllm",
    "volcengine",
    "volcengine-plan",
    "vydra",
    "x-ai",
    "xai",
    "xiaomi",
    "xiaomi-token-plan",
    "z.ai",
    "z-ai",
    "zai",
];

pub(super) fn exact_host(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|host| !is_exact_host(host)) {
        report.here("expected a host name without a scheme, path, wildcard or port");
    }
}

pub(super) fn talk(value: &Value, report: &mut Report<'_>) {
    let provider = lower(text(value, "provider"));
    let providers: Vec<&String> = object(value, "/providers").map(|(name, _)| name).collect();
    if !provider.is_empty() && !providers.is_empty() && !providers.contains(&&provider) {
        report.at(
            &["provider"],
            format!("provider must be one of the providers beside it (missing \"{provider}\")"),
        );
    }
    if provider.is_empty() && providers.len() > 1 {
        report.at(&["provider"], "provider is required beside several providers");
    }
}
