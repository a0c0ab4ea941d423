//! The rules of OpenClaw that its JSON Schema cannot state.
//!
//! A rule looks at the values at one place of the config (`*` stands for any key or index), and only where the
//! schema found nothing that stops it. The rules are those of OpenClaw 2026.9; `docs/config-validation.md`
//! lists the ones that are not here because they need the installed plugins, the disk or the environment.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::explain::Finding;
use super::text::{
    is_absolute_path, is_byte_size, is_dns_name, is_exact_host, is_safe_executable, is_windows_drive_path, parse_duration,
    parse_http_origin, parse_model_ref, parse_url,
};

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
    ("agents", agents),
    ("agents.defaults.authInheritance.agentId", not_blank),
    ("agents.defaults.heartbeat.agentId", not_blank),
    ("agents.defaults.sessionStore.agentId", not_blank),
    ("agents.defaults.systemAgent.agentId", not_blank),
    ("cloudWorkers.profiles.*.provider", not_blank),
    ("gateway.roles.definitions.*.accessPolicyPlugin", not_blank),
    ("hooks.mappings.*.channel", not_blank),
    ("mcp.servers.*.oauth.authProfileId", not_blank),
    ("mcp.servers.*.oauth.scope", not_blank),
    ("mcp.servers.*.toolFilter.exclude.*", not_blank),
    ("mcp.servers.*.toolFilter.include.*", not_blank),
    ("nodeHost.workerRuns.containerImage", not_blank),
    ("talk.agentId", not_blank),
    ("agents.defaults.decisionModel", decision_model),
    ("agents.defaults.heartbeat", heartbeat),
    ("agents.defaults.compaction.maxActiveTranscriptBytes", byte_size),
    ("agents.defaults.compaction.memoryFlush.forceFlushTranscriptBytes", byte_size),
    ("agents.defaults.models", agent_models),
    ("agents.defaults.sandbox", sandbox),
    ("agents.defaults.sandbox.browser", sandbox_browser),
    ("agents.defaults.sandbox.docker", sandbox_docker),
    ("agents.entries.*", blocked_keys),
    ("agents.entries.*.decisionModel", decision_model),
    ("agents.entries.*.heartbeat", heartbeat),
    ("agents.entries.*.models", agent_models),
    ("agents.entries.*.sandbox", sandbox),
    ("agents.entries.*.sandbox.browser", sandbox_browser),
    ("agents.entries.*.sandbox.docker", sandbox_docker),
    ("agents.entries.*.tools", tool_policy),
    ("agents.entries.*.tools.byProvider.*", tool_policy),
    ("agents.entries.*.tools.exec", exec),
    ("agents.entries.*.tools.sandbox.tools", tool_policy),
    ("agents.entries.*.tools.toolsBySender.*", tool_policy),
    ("bindings.*", acp_binding),
    ("broadcast", broadcast),
    ("browser.profiles.*", browser_profile),
    ("channels", channel_acp_bindings),
    ("cloudWorkers.profiles", trimmed_keys),
    ("cloudWorkers.profiles.*.suspendAfter", suspend_after),
    ("cloudWorkers.projectProfiles", project_profiles),
    ("cron.sessionRetention", session_retention),
    ("desktop.host.passwordFile", absolute_path),
    ("gateway", portal_ingress),
    ("gateway.portals.ingress.domain", portal_domain),
    ("gateway.publicOrigin", public_origin),
    ("gateway.remote.edgeAuth", edge_auth),
    ("gateway.roles.definitions.*.agents", role_agents),
    ("gateway.roles.definitions", role_definitions),
    ("gateway.roles", operator_roles),
    ("gateway.tls.certPath", not_blank),
    ("gateway.tls.keyPath", not_blank),
    ("hooks", hooks),
    ("hooks.mappings.*.transform.module", relative_module),
    ("mcp.apps.sandboxOrigin", http_origin),
    ("mcp.servers.*", mcp_server),
    ("mcp.servers.*.oauth.clientMetadataUrl", client_metadata_url),
    ("mcp.servers.*.oauth.redirectUrl", http_url),
    ("mcp.servers.*.url", http_url),
    ("models.catalogRefresh.url", catalog_url),
    ("models.providers", model_providers),
    ("nodeHost.mcp.servers", trimmed_keys),
    ("nodeHost.mcp.servers.*", mcp_server),
    ("nodeHost.mcp.servers.*.url", http_url),
    ("proxy.proxyUrl", http_url),
    ("secrets.egressProxy.allowedHosts.*", exact_host),
    ("secrets.egressProxy.bypassHosts.*", exact_host),
    ("secrets.providers.*", secret_provider),
    ("session.maintenance", session_maintenance),
    ("talk", talk),
    ("talk.realtime", talk),
    ("tools", tool_policy),
    ("tools.byProvider.*", tool_policy),
    ("tools.exec", exec),
    ("tools.sandbox.tools", tool_policy),
    ("tools.subagents.tools", tool_policy),
    ("tools.toolsBySender.*", tool_policy),
    ("tools.web.search", web_search),
    ("worktreeRoot", worktree_root),
    // Last, as in OpenClaw: it looks at the whole.
    ("", known_agents),
];

/// Applies the core rules wherever the schema found nothing fatal. `has_default_agent` tells of a roster that
/// had an agent marked as the default.
pub(super) fn core(config: &Value, found: &[Finding], has_default_agent: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    let stopped = |path: &[String], findings: &[Finding]| {
        let concerns = |f: &Finding| f.fatal && (f.path.starts_with(path) || path.starts_with(&f.path));
        found.iter().any(concerns) || findings.iter().any(concerns)
    };
    secret_refs(config, &mut |path, value| {
        if !stopped(path, &[]) {
            secret_ref(value, &mut Report { base: path, out: &mut out });
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
        out.retain(|finding| finding.message != OWNERSHIP);
    }
    out
}

/// The checks that OpenClaw makes on a config whose core sections are in order; the first that fails ends them.
const AFTERWARDS: &[(&str, Rule)] = &[
    ("", sandbox_env),
    ("", agent_dirs),
    ("agents.entries.*.identity.avatar", avatar),
    ("gateway", tailscale_bind),
    ("gateway", tailscale_auth),
    ("", model_policies),
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
        let known = matches!(name, "defaults" | "modelByChannel") || (knows(name) && name != INTERNAL_CHANNEL);
        if !name.is_empty() && !known && !plugin_is_named(name) {
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
    const EXCUSED: [&str; 4] = ["memory-lancedb", "google-antigravity-auth", "google-gemini-cli-auth", "skill-workshop"];
    let name = config.pointer("/plugins/slots/memory").and_then(Value::as_str)?.trim();
    let excused = name.is_empty() || name.eq_ignore_ascii_case("none") || EXCUSED.contains(&lower(name).as_str());
    let path = ["plugins", "slots", "memory"].map(str::to_owned).to_vec();
    (!excused && !knows(name)).then(|| Finding::new(path, format!("plugin not found: {name}")))
}

/// Described by the schema, but for OpenClaw's own tests.
const INTERNAL_CHANNEL: &str = "qa-channel";

/// Further names of bundled channels.
const CHANNEL_ALIASES: [&str; 11] = [
    "gchat", "google-chat", "imsg", "internet-relay-chat", "lark", "nc", "nc-talk", "teams", "twitch-chat", "zl",
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
        Value::Array(all) if *key == "*" => all.iter().enumerate().for_each(|(i, child)| step(i.to_string(), child)),
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

/// The name under which OpenClaw knows an agent.
pub(super) fn normalize_agent_id(id: &str) -> String {
    let trimmed = id.trim();
    let lower = trimmed.to_lowercase();
    if is_agent_id(trimmed) {
        return lower;
    }
    let mut name = String::with_capacity(lower.len());
    for c in lower.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-' {
            name.push(c);
        } else if !name.ends_with('\u{0}') {
            // A run of other characters is one hyphen; hyphens that were there stay as many as they are.
            name.push('\u{0}');
        }
    }
    let name = name.replace('\u{0}', "-");
    let name: String = name.trim_matches('-').chars().take(64).collect();
    if name.is_empty() { "main".to_owned() } else { name }
}

fn is_agent_id(id: &str) -> bool {
    let mut chars = id.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    first && id.len() <= 64 && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

const OWNERSHIP: &str =
    "several agents need agents.ownership=\"explicit\" (or, in older configs, one default=true marker)";

fn agents(value: &Value, report: &mut Report<'_>) {
    let entries: Vec<_> = object(value, "/entries").collect();
    if entries.is_empty() {
        report.at(&["entries"], "agents.entries must hold at least one agent");
    }
    let mut seen = HashSet::new();
    for (key, _) in &entries {
        let id = normalize_agent_id(key);
        if seen.contains(&id) {
            report.at(&["entries", key], format!("two keys of agents.entries mean the agent \"{id}\"; rename one"));
        }
        seen.insert(id);
    }
    let marked = entries.iter().filter(|(_, entry)| is_true(entry, "/default")).count();
    let explicit = text(value, "ownership") == "explicit";
    if marked > 1 {
        report.at(&["entries"], format!("at most one agent may have default=true (found {marked})"));
    }
    if explicit && marked > 0 {
        report.at(&["ownership"], "agents.ownership=\"explicit\" excludes default=true markers");
    }
    if entries.len() > 1 && marked == 0 && !explicit {
        report.at(&["ownership"], OWNERSHIP);
    }
}

fn blocked_keys(agent: &Value, report: &mut Report<'_>) {
    if let Some((key, _)) = object(agent, "").find(|(key, _)| is_blocked_key(key)) {
        report.at(&[key], "an agent must not have keys that JavaScript reserves");
    }
}

fn is_blocked_key(key: &str) -> bool {
    matches!(key, "__proto__" | "prototype" | "constructor")
}

fn known_agents(config: &Value, report: &mut Report<'_>) {
    let ids: Vec<&String> =
        object(config, "/agents/entries").filter(|(_, entry)| entry.is_object()).map(|(id, _)| id).collect();
    let mut known: HashSet<String> = ids.iter().map(|id| normalize_agent_id(id)).collect();
    if ids.is_empty() {
        known.insert("main".to_owned());
    }
    let unknown = |id: &str| format!("Unknown agent id \"{id}\" (not in agents.entries).");
    for keys in [
        &["agents", "defaults", "heartbeat", "agentId"][..],
        &["agents", "defaults", "systemAgent", "agentId"],
        &["talk", "agentId"],
    ] {
        let id = keys.iter().try_fold(config, |value, key| value.get(key)).and_then(Value::as_str);
        if let Some(id) = id.map(str::trim).filter(|id| !known.contains(&normalize_agent_id(id))) {
            report.at(keys, unknown(id));
        }
    }
    let bindings = config.get("bindings").and_then(Value::as_array).into_iter().flatten();
    for (index, binding) in bindings.enumerate().filter(|_| !ids.is_empty()) {
        if let Some(id) = binding.get("agentId").and_then(Value::as_str)
            && id != "main"
            && !known.contains(&normalize_agent_id(id))
        {
            report.at(&["bindings", &index.to_string(), "agentId"], unknown(id));
        }
    }
    for (peer, entry) in object(config, "/broadcast").filter(|(peer, _)| *peer != "strategy") {
        if ids.is_empty() && !is_qualified(peer) {
            continue;
        }
        let (agents, below) = match entry {
            Value::Array(agents) => (agents.as_slice(), false),
            entry => (entry.get("agents").and_then(Value::as_array).map_or(&[][..], Vec::as_slice), true),
        };
        for (index, id) in agents.iter().enumerate() {
            if let Some(id) = id.as_str().filter(|id| !ids.iter().any(|known| known == id)) {
                let index = index.to_string();
                let keys = if below { vec!["broadcast", peer, "agents", &index] } else { vec!["broadcast", peer, &index] };
                report.at(&keys, unknown(id));
            }
        }
    }
}

/// `channel:peer`
fn is_qualified(peer: &str) -> bool {
    peer.split_once(':').is_some_and(|(channel, id)| {
        let mut chars = channel.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic())
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
            && !id.is_empty()
            && !id.starts_with(['\n', '\r'])
    })
}

fn broadcast(value: &Value, report: &mut Report<'_>) {
    for (peer, entry) in object(value, "") {
        match entry {
            Value::Object(_) if !is_qualified(peer) => {
                report.at(&[peer], "Group options require a channel-qualified key (<channel>:<peerId>).");
            }
            Value::Array(agents) if is_qualified(peer) && agents.len() > 16 => {
                report.at(&[peer], "Agent group threads support at most 16 agents.");
            }
            _ => {}
        }
    }
}

fn acp_binding(value: &Value, report: &mut Report<'_>) {
    let peer = value.pointer("/match/peer/id").and_then(Value::as_str).unwrap_or_default();
    if text(value, "type") == "acp" && peer.trim().is_empty() {
        report.at(&["match", "peer"], "ACP bindings require match.peer.id to target a concrete conversation.");
    }
}

fn channel_acp_bindings(value: &Value, report: &mut Report<'_>) {
    fn visit(value: &Value, path: &mut Vec<String>, report: &mut Report<'_>) {
        if let Some(Value::Object(_) | Value::Array(_)) = value.get("bindings").and_then(|bindings| bindings.get("acp")) {
            let keys: Vec<&str> = path.iter().map(String::as_str).chain(["bindings", "acp"]).collect();
            report.at(&keys, "channel-local ACP bindings were removed; use top-level bindings[] entries");
        }
        let mut step = |key: String, child: &Value| {
            path.push(key);
            visit(child, path, report);
            path.pop();
        };
        match value {
            Value::Object(all) => all.iter().for_each(|(key, child)| step(key.clone(), child)),
            Value::Array(all) => all.iter().enumerate().for_each(|(index, child)| step(index.to_string(), child)),
            _ => {}
        }
    }
    visit(value, &mut Vec::new(), report);
}

fn decision_model(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|model| !model.trim().is_empty() && parse_model_ref(model).is_none()) {
        report.here("Expected provider/model, or an empty string to disable decision models.");
    }
}

fn agent_models(value: &Value, report: &mut Report<'_>) {
    for (name, entry) in object(value, "") {
        let exact = !name.contains('*') && parse_model_ref(name).is_some();
        for key in ["pickerRuntimes", "codeMode"] {
            if !exact && entry.get(key).is_some() {
                report.at(&[name, key], format!("{key} requires an exact provider/model entry"));
            }
        }
    }
}

fn heartbeat(value: &Value, report: &mut Report<'_>) {
    let every = text(value, "every");
    if !every.is_empty() && parse_duration(every, "m").is_none() {
        report.at(&["every"], "invalid duration (use ms, s, m, h)");
    }
    let Some(active) = value.get("activeHours") else { return };
    for (key, latest) in [("start", "23:59"), ("end", "24:00")] {
        let time = text(active, key);
        let form = matches!(time.as_bytes(), [b'0'..=b'2', b'0'..=b'9', b':', b'0'..=b'5', b'0'..=b'9']);
        if !time.is_empty() && !(form && time <= latest) {
            report.at(&["activeHours", key], format!("invalid time (use \"HH:MM\", at most {latest})"));
        }
    }
}

fn blocked_network(network: &str, may_join: bool) -> Option<&'static str> {
    match lower(network).as_str() {
        "host" => Some("the network mode \"host\" is not allowed in a sandbox; use \"bridge\" or \"none\""),
        mode if mode.starts_with("container:") && !may_join => {
            Some("joining another container's network is not allowed in a sandbox")
        }
        _ => None,
    }
}

fn sandbox(value: &Value, report: &mut Report<'_>) {
    let network = value.pointer("/browser/network").and_then(Value::as_str).unwrap_or_default();
    let may_join = is_true(value, "/docker/dangerouslyAllowContainerNamespaceJoin");
    if let Some(reason) = blocked_network(network, may_join).filter(|_| lower(network) != "host") {
        report.at(&["browser", "network"], reason);
    }
}

fn sandbox_docker(value: &Value, report: &mut Report<'_>) {
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

fn sandbox_browser(value: &Value, report: &mut Report<'_>) {
    sandbox_binds(value, report);
    if lower(text(value, "network")) == "host"
        && let Some(reason) = blocked_network("host", false)
    {
        report.at(&["network"], reason);
    }
}

fn sandbox_binds(value: &Value, report: &mut Report<'_>) {
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

fn tool_policy(value: &Value, report: &mut Report<'_>) {
    let has = |key: &str| value.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if has("allow") && has("alsoAllow") {
        report.here("a tool policy cannot set both allow and alsoAllow; merge alsoAllow into allow");
    }
}

fn exec(value: &Value, report: &mut Report<'_>) {
    if value.get("mode").is_some() && (value.get("security").is_some() || value.get("ask").is_some()) {
        report.at(&["mode"], "mode cannot be combined with security or ask");
    }
}

fn web_search(value: &Value, report: &mut Report<'_>) {
    const OLD_PROVIDERS: [&str; 12] = [
        "brave", "duckduckgo", "exa", "firecrawl", "gemini", "grok", "kimi", "minimax", "ollama", "perplexity",
        "searxng", "tavily",
    ];
    for (key, entry) in object(value, "") {
        if is_blocked_key(key) {
            report.at(&[key], "tools.web.search must not have keys that JavaScript reserves");
        } else if key == "apiKey" || (OLD_PROVIDERS.contains(&key.as_str()) && entry.is_object()) {
            report.at(&[key], "provider settings belong into plugins.entries.<plugin>.config.webSearch");
        }
    }
}

fn browser_profile(value: &Value, report: &mut Report<'_>) {
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

fn trimmed_keys(value: &Value, report: &mut Report<'_>) {
    for (key, _) in object(value, "").filter(|(key, _)| key.is_empty() || key.trim() != *key) {
        report.fatal_at(&[key], "a name must not be empty or have spaces around it");
    }
}

fn suspend_after(value: &Value, report: &mut Report<'_>) {
    let text = value.as_str().unwrap_or_default();
    let has_unit = text.ends_with(|c: char| "smhdSMHD".contains(c));
    if !has_unit || parse_duration(text, "ms").is_none_or(|ms| ms < 60_000.0) {
        report.here("expected a duration of at least 1m");
    }
}

fn project_profiles(value: &Value, report: &mut Report<'_>) {
    for (key, _) in object(value, "") {
        let mut segments = key.split('/');
        let host = segments.next().unwrap_or_default();
        let rest: Vec<&str> = segments.collect();
        let plain = |segment: &&str| !segment.is_empty() && *segment != "." && *segment != "..";
        let good = *key == key.trim().to_lowercase()
            && is_dns_name(host)
            && rest.len() >= 2
            && rest.iter().all(plain)
            && !key.ends_with(".git");
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

fn session_retention(value: &Value, report: &mut Report<'_>) {
    if !duration_or_false(value, "h") {
        report.here("invalid duration (use ms, s, m, h, d)");
    }
}

fn byte_size(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|text| !is_byte_size(text)) {
        report.here("expected a byte size such as 2mb");
    }
}

fn session_maintenance(value: &Value, report: &mut Report<'_>) {
    let as_text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for key in ["pruneAfter", "archiveDashboardAfter", "preserveRecent", "resetArchiveRetention"] {
        let Some(value) = value.get(key) else { continue };
        let off = value == &Value::Bool(false) || (key == "archiveDashboardAfter" && value.as_f64() == Some(0.0));
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

fn absolute_path(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|path| !path.trim().starts_with('/')) {
        report.here("expected an absolute path");
    }
}

fn worktree_root(value: &Value, report: &mut Report<'_>) {
    let path = value.as_str().unwrap_or_default().trim();
    if !path.starts_with('/') && path != "~" && !path.starts_with("~/") {
        report.here("worktreeRoot must be an absolute path or start with ~");
    }
}

fn not_blank(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|text| text.trim().is_empty()) {
        report.here("must not be blank");
    }
}

fn is_loopback_name(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

fn public_origin(value: &Value, report: &mut Report<'_>) {
    let origin = value.as_str().and_then(parse_http_origin);
    if !origin.is_some_and(|url| url.scheme == "https" || is_loopback_name(&url.host)) {
        report.here("expected a bare HTTPS origin (HTTP on loopback alone)");
    }
}

fn http_origin(value: &Value, report: &mut Report<'_>) {
    if value.as_str().and_then(parse_http_origin).is_none() {
        report.here("expected an HTTP(S) origin without a path, query or credentials");
    }
}

fn http_url(value: &Value, report: &mut Report<'_>) {
    let url = value.as_str().and_then(parse_url);
    if !url.is_some_and(|url| matches!(url.scheme.as_str(), "http" | "https")) {
        report.here("expected an http:// or https:// URL");
    }
}

fn client_metadata_url(value: &Value, report: &mut Report<'_>) {
    let url = value.as_str().and_then(parse_url);
    let has_path = |rest: &str| rest.starts_with('/') && !matches!(rest.as_bytes(), [b'/'] | [b'/', b'?' | b'#', ..]);
    if !url.is_some_and(|url| url.scheme == "https" && has_path(url.rest)) {
        report.here("expected an https:// URL with a path");
    }
}

fn catalog_url(value: &Value, report: &mut Report<'_>) {
    let url = value.as_str().and_then(parse_url);
    if !url.is_some_and(|url| url.scheme == "https" || (url.scheme == "http" && is_loopback_name(&url.host))) {
        report.here("models.catalogRefresh.url must use https, or http on localhost");
    }
}

fn portal_domain(value: &Value, report: &mut Report<'_>) {
    let domain = value.as_str().unwrap_or_default();
    let bare = domain.is_ascii() && domain.len() <= 220 && domain.contains('.') && is_dns_name(domain);
    if !bare || domain.parse::<std::net::IpAddr>().is_ok() {
        report.here("expected a bare DNS domain");
    }
}

fn portal_ingress(gateway: &Value, report: &mut Report<'_>) {
    let Some(ingress) = gateway.pointer("/portals/ingress") else { return };
    let origins = gateway.pointer("/controlUi/allowedOrigins").and_then(Value::as_array);
    let origins = origins.into_iter().flatten().chain(gateway.get("publicOrigin")).filter_map(Value::as_str);
    let domain = text(ingress, "domain").to_lowercase();
    let conflicts = |origin: &str| {
        parse_url(origin).is_some_and(|url| url.host == domain || url.host.ends_with(&format!(".{domain}")))
    };
    if origins.filter(|origin| !origin.is_empty()).any(conflicts) {
        report.at(&["portals", "ingress", "domain"], "portals need a domain apart from the Gateway's own origins");
    }
    let port = gateway.get("port").and_then(Value::as_f64).unwrap_or(18789.0);
    if ingress.get("port").and_then(Value::as_f64) == Some(port) {
        report.at(&["portals", "ingress", "port"], "portals need a port apart from the Gateway's");
    }
}

fn edge_auth(value: &Value, report: &mut Report<'_>) {
    const OWNED: [&str; 8] = [
        "connection", "content-length", "host", "sec-websocket-extensions", "sec-websocket-key",
        "sec-websocket-protocol", "sec-websocket-version", "upgrade",
    ];
    let mut seen = HashSet::new();
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let Some(headers) = value.as_object() else { return };
    if headers.is_empty() {
        report.here("the headers of edgeAuth must not be empty");
    }
    for name in headers.keys() {
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || !name.chars().all(token) {
            return report.at(&[name], "not the name of an HTTP header");
        }
        if OWNED.contains(&lower.as_str()) {
            return report.at(&[name], "the transport owns this header");
        }
        if !seen.insert(lower) {
            return report.at(&[name], "this header stands twice, written differently");
        }
    }
}

fn operator_roles(value: &Value, report: &mut Report<'_>) {
    // Names lose the spaces around them before they are compared.
    let name = text(value, "default").trim();
    if !object(value, "/definitions").any(|(role, _)| role.trim() == name) {
        report.at(&["default"], "gateway.roles.default must name a role of gateway.roles.definitions");
    }
}

fn role_definitions(value: &Value, report: &mut Report<'_>) {
    if value.as_object().is_some_and(Map::is_empty) {
        report.here("gateway.roles.definitions must hold at least one role");
    }
}

fn role_agents(value: &Value, report: &mut Report<'_>) {
    let ids = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    if ids.map(str::trim).any(|id| !is_agent_id(id)) {
        report.fatal_at(&[], "expected \"*\" or a list of agent ids");
    }
}

fn tailscale_mode(gateway: &Value) -> Option<&str> {
    let mode = gateway.pointer("/tailscale/mode").and_then(Value::as_str);
    mode.filter(|mode| matches!(*mode, "serve" | "funnel"))
}

fn tailscale_bind(gateway: &Value, report: &mut Report<'_>) {
    let Some(mode) = tailscale_mode(gateway) else { return };
    let bind = gateway.get("bind").and_then(Value::as_str).unwrap_or("loopback");
    let host = text(gateway, "customBindHost").trim().parse::<std::net::Ipv4Addr>();
    if bind != "loopback" && !(bind == "custom" && host.is_ok_and(|host| host.is_loopback())) {
        report.at(&["bind"], format!("gateway.tailscale.mode={mode} needs gateway.bind to be loopback"));
    }
}

fn tailscale_auth(gateway: &Value, report: &mut Report<'_>) {
    let Some(mode) = tailscale_mode(gateway) else { return };
    if gateway.pointer("/auth/mode").is_some_and(|auth| auth == "none") {
        report.at(&["auth", "mode"], format!("gateway.tailscale.mode={mode} needs gateway authentication"));
    }
}

fn hooks(value: &Value, report: &mut Report<'_>) {
    let has_default = !text(value, "defaultSessionKey").trim().is_empty();
    let mappings = value.get("mappings").and_then(Value::as_array).into_iter().flatten();
    for (index, mapping) in mappings.enumerate() {
        let is_agent = mapping.get("action").is_none_or(|action| action == "agent");
        let has_key = has_default || !text(mapping, "sessionKey").trim().is_empty();
        if is_agent && text(mapping, "sessionMode") == "persistent" && !has_key && mapping.get("transform").is_none() {
            report.at(
                &["mappings", &index.to_string(), "sessionKey"],
                "a persistent mapping needs sessionKey, hooks.defaultSessionKey or a transform",
            );
        }
    }
}

fn relative_module(value: &Value, report: &mut Report<'_>) {
    let path = value.as_str().unwrap_or_default().trim();
    let leaves = path.split(['/', '\\']).any(|part| part == "..");
    if path.is_empty() || path.starts_with(['/', '~']) || path.contains(':') || leaves {
        report.here("expected a relative path that stays inside its folder");
    }
}

fn mcp_server(value: &Value, report: &mut Report<'_>) {
    const OLD_KEYS: [&str; 8] = [
        "connectTimeout", "connect_timeout", "timeout", "workingDirectory", "supports_parallel_tool_calls",
        "ssl_verify", "client_cert", "client_key",
    ];
    for key in OLD_KEYS.into_iter().filter(|key| value.get(key).is_some()) {
        report.here(format!("Unrecognized key: \"{key}\""));
    }
    if value.get("disabled").is_some() {
        report.at(&["disabled"], "unsupported key; use \"enabled\"");
    }
    if value.pointer("/oauth/identity").is_some_and(|identity| identity == "per-requester") {
        let message = "oauth.identity \"per-requester\" needs auth \"oauth\" and an HTTP server, without a command";
        let http = !text(value, "url").is_empty() && value.get("command").is_none() && text(value, "transport") != "stdio";
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

fn model_providers(value: &Value, report: &mut Report<'_>) {
    for (id, provider) in object(value, "").filter(|(id, _)| !BUNDLED_PROVIDERS.contains(&lower(id).as_str())) {
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
    "amazon-bedrock", "amazon-bedrock-mantle", "anthropic", "anthropic-vertex", "arcee",
    "azure-openai-responses", "byteplus", "byteplus-plan", "cerebras", "chutes", "claude-cli", "clawrouter",
    "cloudflare-ai-gateway", "codex", "comfy", "copilot-proxy", "dashscope", "deepinfra", "deepseek", "fal",
    "fireworks", "github-copilot", "gmi", "gmi-cloud", "gmicloud", "google", "google-antigravity",
    "google-gemini-cli", "google-vertex", "groq", "huggingface", "kilocode", "kimi", "kimi-coding",
    "litellm", "lmstudio", "meta", "microsoft-foundry", "minimax", "minimax-portal", "mistral",
    "modelstudio", "moonshot", "moonshot-ai", "moonshotai", "nvidia", "novita", "novita-ai", "novitaai",
    "ollama", "ollama-cloud", "openai", "opencode", "opencode-go", "openrouter", "qianfan", "qwen",
    "qwen-token-plan", "qwencloud", "sglang", "stepfun", "stepfun-plan", "synthetic", "tencent-tokenhub",
    "tencent-tokenplan", "together", "venice", "vercel-ai-gateway", "vllm", "volcengine", "volcengine-plan",
    "vydra", "x-ai", "xai", "xiaomi", "xiaomi-token-plan", "z.ai", "z-ai", "zai",
];

fn exact_host(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|host| !is_exact_host(host)) {
        report.here("expected a host name without a scheme, path, wildcard or port");
    }
}

fn secret_provider(value: &Value, report: &mut Report<'_>) {
    let Some(command) = value.get("command").and_then(Value::as_str).filter(|_| text(value, "source") == "exec") else {
        return;
    };
    if !command.is_empty() && !(is_safe_executable(command) && is_absolute_path(command)) {
        report.at(&["command"], "expected an absolute path that no shell would read otherwise");
    }
    let dirs = value.get("trustedDirs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for (index, _) in dirs.enumerate().filter(|(_, dir)| !dir.is_empty() && !is_absolute_path(dir)) {
        report.at(&["trustedDirs", &index.to_string()], "expected an absolute path");
    }
}

/// Visits every reference to a secret outside channels and plugins.
fn secret_refs(config: &Value, found: &mut dyn FnMut(&[String], &Value)) {
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
            Value::Array(all) => all.iter().enumerate().for_each(|(index, child)| step(index.to_string(), child)),
            _ => {}
        }
    }
    for (key, section) in object(config, "").filter(|(key, _)| !matches!(key.as_str(), "channels" | "plugins")) {
        visit(section, &mut vec![key.clone()], found);
    }
}

fn secret_ref(value: &Value, report: &mut Report<'_>) {
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

fn talk(value: &Value, report: &mut Report<'_>) {
    let provider = lower(text(value, "provider"));
    let providers: Vec<&String> = object(value, "/providers").map(|(name, _)| name).collect();
    if !provider.is_empty() && !providers.is_empty() && !providers.contains(&&provider) {
        report.at(&["provider"], format!("provider must be one of the providers beside it (missing \"{provider}\")"));
    }
    if provider.is_empty() && providers.len() > 1 {
        report.at(&["provider"], "provider is required beside several providers");
    }
}

/// Docker reads environment files line by line.
fn sandbox_env(config: &Value, report: &mut Report<'_>) {
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
        let env = object(defaults, "/docker/env").filter(|(key, _)| !own_env.is_some_and(|own| own.contains_key(*key)));
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

fn agent_dirs(config: &Value, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for (_, agent) in object(config, "/agents/entries") {
        let dir = text(agent, "agentDir").trim().trim_end_matches('/');
        if !dir.is_empty() && !seen.insert(dir) {
            return report.at(&["agents", "entries"], "two agents have one agentDir; give each its own");
        }
    }
}

fn avatar(value: &Value, report: &mut Report<'_>) {
    let avatar = value.as_str().unwrap_or_default().trim();
    let start = avatar.to_ascii_lowercase();
    if ["data:", "http://", "https://"].iter().any(|scheme| start.starts_with(scheme)) {
        return;
    }
    let mut letters = start.split_once(':').map_or("", |(scheme, _)| scheme).chars();
    let has_scheme = letters.next().is_some_and(|c| c.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
        && !is_windows_drive_path(avatar);
    if has_scheme || avatar.starts_with('~') {
        return report.here("an avatar is a path in the workspace, an http(s) URL or a data URI");
    }
    let mut depth = 0_i32;
    for part in avatar.split('/') {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if depth < 0 {
            return report.here("an avatar must stay inside the agent's workspace");
        }
    }
}

fn model_policies(config: &Value, report: &mut Report<'_>) {
    let aliases = |models: Option<&Value>| {
        let models = models.and_then(Value::as_object).into_iter().flat_map(Map::values);
        models.map(|entry| lower(text(entry, "alias"))).filter(|alias| !alias.is_empty()).collect::<HashSet<_>>()
    };
    let shared = aliases(config.pointer("/agents/defaults/models"));
    let mut check = |owner: &Value, path: &[&str], own: &HashSet<String>| {
        let refs = owner.pointer("/modelPolicy/allow").and_then(Value::as_array).into_iter().flatten();
        for (index, name) in refs.enumerate() {
            let name = name.as_str().unwrap_or_default().trim();
            let alias = lower(name);
            if !shared.contains(&alias) && !own.contains(&alias) && !is_policy_ref(name) {
                let index = index.to_string();
                report.at(&[path, &["modelPolicy", "allow", &index]].concat(), "invalid model policy ref");
            }
        }
    };
    if let Some(defaults) = config.pointer("/agents/defaults") {
        check(defaults, &["agents", "defaults"], &HashSet::new());
    }
    for (id, agent) in object(config, "/agents/entries") {
        check(agent, &["agents", "entries", id], &aliases(agent.get("models")));
    }
}

/// `provider/model`, or `provider/*` and deeper.
fn is_policy_ref(name: &str) -> bool {
    if matches!(lower(name).as_str(), "openrouter:auto" | "openrouter:free") {
        return true;
    }
    let segment = |segment: &&str| {
        !segment.is_empty() && !segment.contains(|c: char| c == '*' || c.is_whitespace() || c.is_control())
    };
    let exact = parse_model_ref(name).is_some_and(|(provider, model)| {
        std::iter::once(provider).chain(model.split('/')).all(|part| segment(&part))
    });
    exact || name.strip_suffix('*').map(str::trim_end).and_then(|name| name.strip_suffix('/')).is_some_and(|prefix| {
        prefix.split('/').map(str::trim).all(|part| segment(&part))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| finding.path.join(".")).collect()
    }

    #[test]
    fn agent_ids_are_normalized_as_openclaw_does() {
        for (id, expected) in [("Main", "main"), (" a b ", "a-b"), ("-x-", "x"), ("ä", "main"), ("a--b", "a--b"), ("a!!b", "a-b"), ("a!-b", "a--b"), ("_a", "_a")] {
            assert_eq!(normalize_agent_id(id), expected, "{id:?}");
        }
    }

    #[test]
    fn a_rule_is_silent_where_the_schema_found_something_fatal() {
        let config = json!({ "worktreeRoot": "relative", "browser": { "profiles": { "a": {}, "b": { "headless": 1 } } } });
        let mut fatal = Finding::new(vec!["browser".into(), "profiles".into(), "b".into(), "headless".into()], "");
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
