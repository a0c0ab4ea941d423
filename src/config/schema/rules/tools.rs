//! Rules about what agents run: sandboxes, tools, browsers, MCP servers, secrets.

use std::collections::HashSet;

use serde_json::Value;

use super::agents::is_blocked_key;
use super::{Report, is_true, lower, object, text};
use crate::config::schema::text::{is_absolute_path, is_safe_executable, is_windows_drive_path};

fn blocked_network(network: &str, may_join: bool) -> Option<&'static str> {
    match lower(network).as_str() {
        "host" => Some("the network mode \"host\" is not allowed in a sandbox; use \"bridge\" or \"none\""),
        mode if mode.starts_with("container:") && !may_join => {
            Some("joining another container's network is not allowed in a sandbox")
        }
        _ => None,
    }
}

pub(super) fn sandbox(value: &Value, report: &mut Report<'_>) {
    let network = value.pointer("/browser/network").and_then(Value::as_str).unwrap_or_default();
    let may_join = is_true(value, "/docker/dangerouslyAllowContainerNamespaceJoin");
    if let Some(reason) = blocked_network(network, may_join).filter(|_| lower(network) != "host") {
        report.at(&["browser", "network"], reason);
    }
}

pub(super) fn sandbox_docker(value: &Value, report: &mut Report<'_>) {
    sandbox_binds(value, report);
    if let Some(reason) =
        blocked_network(text(value, "network"), is_true(value, "/dangerouslyAllowContainerNamespaceJoin"))
    {
        report.at(&["network"], reason);
    }
    for key in ["seccompProfile", "apparmorProfile"] {
        if lower(text(value, key)) == "unconfined" {
            report.at(&[key], "the profile \"unconfined\" is not allowed in a sandbox");
        }
    }
}

pub(super) fn sandbox_browser(value: &Value, report: &mut Report<'_>) {
    sandbox_binds(value, report);
    if lower(text(value, "network")) == "host"
        && let Some(reason) = blocked_network("host", false)
    {
        report.at(&["network"], reason);
    }
}

pub(super) fn sandbox_binds(value: &Value, report: &mut Report<'_>) {
    let binds = value.get("binds").and_then(Value::as_array).into_iter().flatten();
    for (index, bind) in binds.enumerate() {
        let Some(bind) = bind.as_str() else { continue };
        let drive = if is_windows_drive_path(bind) { 2 } else { 0 };
        let source = match bind.get(drive..).and_then(|rest| rest.find(':')) {
            Some(colon) => bind.get(..drive + colon).unwrap_or(bind),
            None => bind,
        };
        if !(source.starts_with('/') || is_windows_drive_path(source) || source.starts_with(r"\\?\")) {
            report.at(&["binds", &index.to_string()], "a bind mount needs an absolute source path");
        }
    }
}

pub(super) fn tool_policy(value: &Value, report: &mut Report<'_>) {
    let has = |key: &str| value.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if has("allow") && has("alsoAllow") {
        report.here("a tool policy cannot set both allow and alsoAllow; merge alsoAllow into allow");
    }
}

pub(super) fn exec(value: &Value, report: &mut Report<'_>) {
    if value.get("mode").is_some() && (value.get("security").is_some() || value.get("ask").is_some()) {
        report.at(&["mode"], "mode cannot be combined with security or ask");
    }
}

pub(super) fn web_search(value: &Value, report: &mut Report<'_>) {
    const OLD_PROVIDERS: [&str; 12] = [
        "brave",
        "duckduckgo",
        "exa",
        "firecrawl",
        "gemini",
        "grok",
        "kimi",
        "minimax",
        "ollama",
        "perplexity",
        "searxng",
        "tavily",
    ];
    for (key, entry) in object(value, "") {
        if is_blocked_key(key) {
            report.at(&[key], "tools.web.search must not have keys that JavaScript reserves");
        } else if key == "apiKey" || (OLD_PROVIDERS.contains(&key.as_str()) && entry.is_object()) {
            report.at(&[key], "provider settings belong into plugins.entries.<plugin>.config.webSearch");
        }
    }
}

pub(super) fn browser_profile(value: &Value, report: &mut Report<'_>) {
    let driver = text(value, "driver");
    let has = |key: &str| value.get(key).is_some_and(|value| value != "");
    if !matches!(driver, "existing-session" | "extension") && !has("cdpPort") && !has("cdpUrl") {
        report.here("a profile needs cdpPort or cdpUrl");
    }
    if driver != "existing-session" && has("userDataDir") {
        report.here("userDataDir is for driver=\"existing-session\" alone");
    }
    if driver == "extension" && has("cdpUrl") {
        report.here("cdpUrl is not for driver=\"extension\", whose relay owns the endpoint");
    }
}

pub(super) fn mcp_server(value: &Value, report: &mut Report<'_>) {
    const OLD_KEYS: [&str; 8] = [
        "connectTimeout",
        "connect_timeout",
        "timeout",
        "workingDirectory",
        "supports_parallel_tool_calls",
        "ssl_verify",
        "client_cert",
        "client_key",
    ];
    for key in OLD_KEYS.into_iter().filter(|key| value.get(key).is_some()) {
        report.here(format!("Unrecognized key: \"{key}\""));
    }
    if value.get("disabled").is_some() {
        report.at(&["disabled"], "unsupported key; use \"enabled\"");
    }
    if value.pointer("/oauth/identity").is_some_and(|identity| identity == "per-requester") {
        let message =
            "oauth.identity \"per-requester\" needs auth \"oauth\" and an HTTP server, without a command";
        let http = !text(value, "url").is_empty()
            && value.get("command").is_none()
            && text(value, "transport") != "stdio";
        if text(value, "auth") != "oauth" || !http {
            report.at(&["oauth", "identity"], message);
        }
        if value.pointer("/oauth/authProfileId").is_some() {
            report.at(&["oauth", "authProfileId"], "not together with oauth.identity \"per-requester\"");
        }
    }
    if text(value, "transport") == "stdio" && text(value, "command").trim().is_empty() {
        report.at(&["transport"], "\"stdio\" transport requires a non-empty command");
    }
}

pub(super) fn secret_provider(value: &Value, report: &mut Report<'_>) {
    let Some(command) =
        value.get("command").and_then(Value::as_str).filter(|_| text(value, "source") == "exec")
    else {
        return;
    };
    if !command.is_empty() && (!is_safe_executable(command) || !is_absolute_path(command)) {
        report.at(&["command"], "expected an absolute path that no shell would read otherwise");
    }
    let dirs =
        value.get("trustedDirs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for (index, _) in dirs.enumerate().filter(|(_, dir)| !dir.is_empty() && !is_absolute_path(dir)) {
        report.at(&["trustedDirs", &index.to_string()], "expected an absolute path");
    }
}

/// Visits every reference to a secret outside channels and plugins.
pub(super) fn secret_refs(config: &Value, found: &mut dyn FnMut(&[String], &Value)) {
    fn visit(value: &Value, path: &mut Vec<String>, found: &mut dyn FnMut(&[String], &Value)) {
        if let Value::Object(all) = value
            && all.len() == 3
            && ["source", "provider", "id"].iter().all(|key| all.get(*key).is_some_and(Value::is_string))
        {
            return found(path, value);
        }
        let mut step = |key: String, child: &Value| {
            path.push(key);
            visit(child, path, found);
            path.pop();
        };
        match value {
            Value::Object(all) => all.iter().for_each(|(key, child)| step(key.clone(), child)),
            Value::Array(all) => {
                all.iter().enumerate().for_each(|(index, child)| step(index.to_string(), child));
            }
            _ => {}
        }
    }
    for (key, section) in
        object(config, "").filter(|(key, _)| !matches!(key.as_str(), "channels" | "plugins"))
    {
        visit(section, &mut vec![key.clone()], found);
    }
}

pub(super) fn secret_ref(value: &Value, report: &mut Report<'_>) {
    let id = text(value, "id");
    let good = match text(value, "source") {
        "file" => is_file_ref(id),
        "exec" => is_exec_ref(id),
        _ => true,
    };
    if !good {
        report.at(&["id"], "not the id of a secret in a provider of this source");
    }
}

fn is_file_ref(id: &str) -> bool {
    let escaped = |segment: &str| segment.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    id == "value" || id.strip_prefix('/').is_some_and(|pointer| pointer.split('/').all(escaped))
}

fn is_exec_ref(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.len() <= 256
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "._:/#-".contains(c))
        && !id.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Docker reads environment files line by line.
pub(super) fn sandbox_env(config: &Value, report: &mut Report<'_>) {
    let defaults = config.pointer("/agents/defaults/sandbox").unwrap_or(&Value::Null);
    let mut seen = HashSet::new();
    for (id, agent) in object(config, "/agents/entries") {
        let own = agent.get("sandbox").unwrap_or(&Value::Null);
        let chosen = |key: &str| match (text(own, key).trim(), text(defaults, key).trim()) {
            ("", default) => default,
            (own, _) => own,
        };
        if !matches!(chosen("backend"), "" | "docker" | "podman") {
            continue;
        }
        let shared = chosen("scope") == "shared";
        let own_env = if shared { None } else { own.pointer("/docker/env").and_then(Value::as_object) };
        let env = object(defaults, "/docker/env")
            .filter(|(key, _)| !own_env.is_some_and(|own| own.contains_key(*key)));
        let own_env = own_env.into_iter().flatten();
        let all = env.map(|entry| (false, entry)).chain(own_env.map(|entry| (true, entry)));
        for (is_own, (key, value)) in all {
            let value = value.as_str().unwrap_or_default();
            let mut letters = key.chars();
            let portable = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
            if portable && !value.contains(['\r', '\n', '\0']) {
                continue;
            }
            let mut keys = if is_own { vec!["agents", "entries", id] } else { vec!["agents", "defaults"] };
            keys.extend(["sandbox", "docker", "env", key]);
            if seen.insert(keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>()) {
                report.at(&keys, "a sandbox variable needs a portable name and a value of a single line");
            }
        }
    }
}
