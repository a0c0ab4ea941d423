//! The rules of OpenClaw that its JSON Schema cannot state.
//!
//! A rule looks at the values at one place of the config (`*` stands for any key or index), and only where the
//! schema found nothing that stops it. The rules are those of OpenClaw 2026.9; `docs/config-validation.md`
//! lists the ones that are not here because they need the installed plugins, the disk or the environment.

mod agents;
mod gateway;
mod tools;
mod values;

use serde_json::{Map, Value};

use super::explain::Finding;
pub(super) use agents::normalize_agent_id;

/// Looks at one value and reports what is wrong with it.
type Rule = fn(&Value, &mut Report<'_>);

/// Collects findings under one place of the config.
struct Report<'a> {
    base: &'a [String],
    out: &'a mut Vec<Finding>,
}

impl Report<'_> {
    /// Reports at keys below the place of the rule.
    fn at(&mut self, keys: &[&str], message: impl Into<String>) {
        let path = self.base.iter().cloned().chain(keys.iter().map(|&key| key.to_owned())).collect();
        self.out.push(Finding::new(path, message));
    }

    fn here(&mut self, message: impl Into<String>) {
        self.at(&[], message);
    }

    /// Reports what also stops the rules that look at this value as part of another.
    fn fatal_at(&mut self, keys: &[&str], message: impl Into<String>) {
        self.at(keys, message);
        if let Some(finding) = self.out.last_mut() {
            finding.fatal = true;
        }
    }
}

/// What is checked together with the schema of the core sections.
const CORE: &[(&str, Rule)] = &[
    ("agents", agents::agents),
    ("agents.defaults.authInheritance.agentId", values::not_blank),
    ("agents.defaults.heartbeat.agentId", values::not_blank),
    ("agents.defaults.sessionStore.agentId", values::not_blank),
    ("agents.defaults.systemAgent.agentId", values::not_blank),
    ("cloudWorkers.profiles.*.provider", values::not_blank),
    ("gateway.roles.definitions.*.accessPolicyPlugin", values::not_blank),
    ("hooks.mappings.*.channel", values::not_blank),
    ("mcp.servers.*.oauth.authProfileId", values::not_blank),
    ("mcp.servers.*.oauth.scope", values::not_blank),
    ("mcp.servers.*.toolFilter.exclude.*", values::not_blank),
    ("mcp.servers.*.toolFilter.include.*", values::not_blank),
    ("nodeHost.workerRuns.containerImage", values::not_blank),
    ("talk.agentId", values::not_blank),
    ("agents.defaults.decisionModel", agents::decision_model),
    ("agents.defaults.heartbeat", agents::heartbeat),
    ("agents.defaults.compaction.maxActiveTranscriptBytes", values::byte_size),
    ("agents.defaults.compaction.memoryFlush.forceFlushTranscriptBytes", values::byte_size),
    ("agents.defaults.models", agents::agent_models),
    ("agents.defaults.sandbox", tools::sandbox),
    ("agents.defaults.sandbox.browser", tools::sandbox_browser),
    ("agents.defaults.sandbox.docker", tools::sandbox_docker),
    ("agents.entries.*", agents::blocked_keys),
    ("agents.entries.*.decisionModel", agents::decision_model),
    ("agents.entries.*.heartbeat", agents::heartbeat),
    ("agents.entries.*.models", agents::agent_models),
    ("agents.entries.*.sandbox", tools::sandbox),
    ("agents.entries.*.sandbox.browser", tools::sandbox_browser),
    ("agents.entries.*.sandbox.docker", tools::sandbox_docker),
    ("agents.entries.*.tools", tools::tool_policy),
    ("agents.entries.*.tools.byProvider.*", tools::tool_policy),
    ("agents.entries.*.tools.exec", tools::exec),
    ("agents.entries.*.tools.sandbox.tools", tools::tool_policy),
    ("agents.entries.*.tools.toolsBySender.*", tools::tool_policy),
    ("bindings.*", agents::acp_binding),
    ("broadcast", agents::broadcast),
    ("browser.profiles.*", tools::browser_profile),
    ("channels", agents::channel_acp_bindings),
    ("cloudWorkers.profiles", values::trimmed_keys),
    ("cloudWorkers.profiles.*.suspendAfter", values::suspend_after),
    ("cloudWorkers.projectProfiles", values::project_profiles),
    ("cron.sessionRetention", values::session_retention),
    ("desktop.host.passwordFile", values::absolute_path),
    ("gateway", gateway::portal_ingress),
    ("gateway.portals.ingress.domain", gateway::portal_domain),
    ("gateway.publicOrigin", gateway::public_origin),
    ("gateway.remote.edgeAuth", gateway::edge_auth),
    ("gateway.roles.definitions.*.agents", gateway::role_agents),
    ("gateway.roles.definitions", gateway::role_definitions),
    ("gateway.roles", gateway::operator_roles),
    ("gateway.tls.certPath", values::not_blank),
    ("gateway.tls.keyPath", values::not_blank),
    ("hooks", values::hooks),
    ("hooks.mappings.*.transform.module", values::relative_module),
    ("mcp.apps.sandboxOrigin", values::http_origin),
    ("mcp.servers.*", tools::mcp_server),
    ("mcp.servers.*.oauth.clientMetadataUrl", values::client_metadata_url),
    ("mcp.servers.*.oauth.redirectUrl", values::http_url),
    ("mcp.servers.*.url", values::http_url),
    ("models.catalogRefresh.url", values::catalog_url),
    ("models.providers", values::model_providers),
    ("nodeHost.mcp.servers", values::trimmed_keys),
    ("nodeHost.mcp.servers.*", tools::mcp_server),
    ("nodeHost.mcp.servers.*.url", values::http_url),
    ("proxy.proxyUrl", values::http_url),
    ("secrets.egressProxy.allowedHosts.*", values::exact_host),
    ("secrets.egressProxy.bypassHosts.*", values::exact_host),
    ("secrets.providers.*", tools::secret_provider),
    ("session.maintenance", values::session_maintenance),
    ("talk", values::talk),
    ("talk.realtime", values::talk),
    ("tools", tools::tool_policy),
    ("tools.byProvider.*", tools::tool_policy),
    ("tools.exec", tools::exec),
    ("tools.sandbox.tools", tools::tool_policy),
    ("tools.subagents.tools", tools::tool_policy),
    ("tools.toolsBySender.*", tools::tool_policy),
    ("tools.web.search", tools::web_search),
    ("worktreeRoot", values::worktree_root),
    // Last, as in OpenClaw: it looks at the whole.
    ("", agents::known_agents),
];

/// Applies the core rules wherever the schema found nothing fatal. `has_default_agent` tells of a roster that
/// had an agent marked as the default.
pub(super) fn core(config: &Value, found: &[Finding], has_default_agent: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    let stopped = |path: &[String], findings: &[Finding]| {
        let concerns = |f: &Finding| f.fatal && (f.path.starts_with(path) || path.starts_with(&f.path));
        found.iter().any(concerns) || findings.iter().any(concerns)
    };
    tools::secret_refs(config, &mut |path, value| {
        if !stopped(path, &[]) {
            tools::secret_ref(value, &mut Report { base: path, out: &mut out });
        }
    });
    for (pattern, rule) in CORE {
        each(config, pattern, &mut |path, value| {
            if !stopped(path, &out) {
                rule(value, &mut Report { base: path, out: &mut out });
            }
        });
    }
    if has_default_agent {
        out.retain(|finding| finding.message != agents::OWNERSHIP);
    }
    out
}

/// The checks that OpenClaw makes on a config whose core sections are in order; the first that fails ends them.
const AFTERWARDS: &[(&str, Rule)] = &[
    ("", tools::sandbox_env),
    ("", agents::agent_dirs),
    ("agents.entries.*.identity.avatar", agents::avatar),
    ("gateway", gateway::tailscale_bind),
    ("gateway", gateway::tailscale_auth),
    ("", agents::model_policies),
];

/// Applies what OpenClaw checks after the schema and before channels and plugins.
pub(super) fn afterwards(config: &Value) -> Vec<Finding> {
    let mut out = Vec::new();
    for (pattern, rule) in AFTERWARDS {
        each(config, pattern, &mut |path, value| rule(value, &mut Report { base: path, out: &mut out }));
        if !out.is_empty() {
            break;
        }
    }
    out
}

/// What OpenClaw says of settings that name a channel. `knows` tells whether there is such a channel.
pub(super) fn channel_names(config: &Value, knows: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut out = Vec::new();
    let plugin_is_named = |id: &str| {
        let plugins = config.get("plugins");
        let list = plugins.and_then(|plugins| plugins.get("allow")).and_then(Value::as_array);
        let named = |name: &str| name.trim().to_lowercase() == id.to_lowercase();
        list.is_some_and(|list| list.iter().filter_map(Value::as_str).any(named))
            || object(config, "/plugins/entries").any(|(entry, _)| named(entry))
    };
    for (id, _) in object(config, "/channels") {
        let name = id.trim();
        let is_known =
            matches!(name, "defaults" | "modelByChannel") || (knows(name) && name != INTERNAL_CHANNEL);
        if !name.is_empty() && !is_known && !plugin_is_named(name) {
            let path = vec!["channels".to_owned(), name.to_owned()];
            out.push(Finding::new(path, format!("unknown channel id: {name}")));
        }
    }
    for pattern in ["agents.defaults.heartbeat.target", "agents.entries.*.heartbeat.target"] {
        each(config, pattern, &mut |path, target| {
            let Some(target) = target.as_str() else { return };
            let name = target.trim().to_lowercase();
            if name.is_empty() {
                out.push(Finding::new(path.to_vec(), "heartbeat target must not be empty"));
            } else if !matches!(name.as_str(), "owner" | "last" | "none")
                && !CHANNEL_ALIASES.contains(&name.as_str())
                && (!knows(&name) || name == INTERNAL_CHANNEL)
            {
                out.push(Finding::new(path.to_vec(), format!("unknown heartbeat target: {target}")));
            }
        });
    }
    each(config, "tools.web.search.provider", &mut |path, provider| {
        if provider.as_str().is_some_and(|provider| provider.trim().is_empty()) {
            out.push(Finding::new(path.to_vec(), "web_search provider must not be empty"));
        }
    });
    out
}

/// What OpenClaw says of a memory plugin that is not there.
pub(super) fn memory_slot(config: &Value, knows: &dyn Fn(&str) -> bool) -> Option<Finding> {
    // The first is offered for installation; the others were part of OpenClaw once.
    const EXCUSED: [&str; 4] =
        ["memory-lancedb", "google-antigravity-auth", "google-gemini-cli-auth", "skill-workshop"];
    let name = config.pointer("/plugins/slots/memory").and_then(Value::as_str)?.trim();
    let excused =
        name.is_empty() || name.eq_ignore_ascii_case("none") || EXCUSED.contains(&lower(name).as_str());
    let path = ["plugins", "slots", "memory"].map(str::to_owned).to_vec();
    (!excused && !knows(name)).then(|| Finding::new(path, format!("plugin not found: {name}")))
}

/// Described by the schema, but for OpenClaw's own tests.
const INTERNAL_CHANNEL: &str = "qa-channel";

/// Further names of bundled channels.
const CHANNEL_ALIASES: [&str; 11] = [
    "gchat",
    "google-chat",
    "imsg",
    "internet-relay-chat",
    "lark",
    "nc",
    "nc-talk",
    "teams",
    "twitch-chat",
    "zl",
    "zlu",
];

/// Calls `visit` with each value that a pattern names.
fn each(config: &Value, pattern: &str, visit: &mut dyn FnMut(&[String], &Value)) {
    let keys: Vec<&str> = if pattern.is_empty() { Vec::new() } else { pattern.split('.').collect() };
    walk(config, &keys, &mut Vec::new(), visit);
}

fn walk(value: &Value, keys: &[&str], path: &mut Vec<String>, visit: &mut dyn FnMut(&[String], &Value)) {
    let [key, rest @ ..] = keys else { return visit(path, value) };
    let mut step = |name: String, child: &Value| {
        path.push(name);
        walk(child, rest, path, visit);
        path.pop();
    };
    match value {
        Value::Object(all) if *key == "*" => all.iter().for_each(|(name, child)| step(name.clone(), child)),
        Value::Array(all) if *key == "*" => {
            all.iter().enumerate().for_each(|(i, child)| step(i.to_string(), child));
        }
        Value::Object(all) => {
            if let Some(child) = all.get(*key) {
                step((*key).to_owned(), child);
            }
        }
        _ => {}
    }
}

fn object<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn lower(text: &str) -> String {
    text.trim().to_lowercase()
}

fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer) == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use agents::is_policy_ref;

    fn paths(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| finding.path.join(".")).collect()
    }

    #[test]
    fn agent_ids_are_normalized_as_openclaw_does() {
        for (id, expected) in [
            ("Main", "main"),
            (" a b ", "a-b"),
            ("-x-", "x"),
            ("ä", "main"),
            ("a--b", "a--b"),
            ("a!!b", "a-b"),
            ("a!-b", "a--b"),
            ("_a", "_a"),
        ] {
            assert_eq!(normalize_agent_id(id), expected, "{id:?}");
        }
    }

    #[test]
    fn a_rule_is_silent_where_the_schema_found_something_fatal() {
        let config = json!({ "worktreeRoot": "relative", "browser": { "profiles": { "a": {}, "b": { "headless": 1 } } } });
        let mut fatal =
            Finding::new(vec!["browser".into(), "profiles".into(), "b".into(), "headless".into()], "");
        fatal.fatal = true;
        let config = json!({ "agents": { "entries": { "main": {} } }, "worktreeRoot": config["worktreeRoot"], "browser": config["browser"] });
        assert_eq!(paths(&core(&config, &[fatal], false)), ["browser.profiles.a", "worktreeRoot"]);
    }

    #[test]
    fn the_first_later_check_that_fails_ends_them() {
        let config = json!({
            "agents": { "entries": { "main": { "identity": { "avatar": "../x.png" }, "modelPolicy": { "allow": ["nope"] } } } },
            "gateway": { "bind": "lan", "tailscale": { "mode": "serve" } },
        });
        assert_eq!(paths(&afterwards(&config)), ["agents.entries.main.identity.avatar"]);
    }

    #[test]
    fn model_policies_take_refs_prefixes_and_aliases() {
        for good in ["openai/gpt-5", "openai/*", "a/b/*", "a/b/c", "openrouter:auto"] {
            assert!(is_policy_ref(good), "{good}");
        }
        for bad in ["", "*", "/*", "openai", "a/b*", "a//b", "a/ /b", "a/*/b"] {
            assert!(!is_policy_ref(bad), "{bad}");
        }
    }
}
