//! Rules about agents, and about what is bound to them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Report, is_true, lower, object, text};
use crate::config::schema::text::{is_windows_drive_path, parse_duration, parse_model_ref};

/// The name under which OpenClaw knows an agent.
pub(in super::super) fn normalize_agent_id(id: &str) -> String {
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

pub(super) fn is_agent_id(id: &str) -> bool {
    let mut chars = id.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    first && id.len() <= 64 && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

pub(super) const OWNERSHIP: &str =
    "several agents need agents.ownership=\"explicit\" (or, in older configs, one default=true marker)";

pub(super) fn agents(value: &Value, report: &mut Report<'_>) {
    let entries: Vec<_> = object(value, "/entries").collect();
    if entries.is_empty() {
        report.at(&["entries"], "agents.entries must hold at least one agent");
    }
    let mut seen = HashSet::new();
    for (key, _) in &entries {
        let id = normalize_agent_id(key);
        if seen.contains(&id) {
            report.at(
                &["entries", key],
                format!("two keys of agents.entries mean the agent \"{id}\"; rename one"),
            );
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

pub(super) fn blocked_keys(agent: &Value, report: &mut Report<'_>) {
    if let Some((key, _)) = object(agent, "").find(|(key, _)| is_blocked_key(key)) {
        report.at(&[key], "an agent must not have keys that JavaScript reserves");
    }
}

pub(super) fn is_blocked_key(key: &str) -> bool {
    matches!(key, "__proto__" | "prototype" | "constructor")
}

pub(super) fn known_agents(config: &Value, report: &mut Report<'_>) {
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
                let keys = if below {
                    vec!["broadcast", peer, "agents", &index]
                } else {
                    vec!["broadcast", peer, &index]
                };
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

pub(super) fn broadcast(value: &Value, report: &mut Report<'_>) {
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

pub(super) fn acp_binding(value: &Value, report: &mut Report<'_>) {
    let peer = value.pointer("/match/peer/id").and_then(Value::as_str).unwrap_or_default();
    if text(value, "type") == "acp" && peer.trim().is_empty() {
        report
            .at(&["match", "peer"], "ACP bindings require match.peer.id to target a concrete conversation.");
    }
}

pub(super) fn channel_acp_bindings(value: &Value, report: &mut Report<'_>) {
    fn visit(value: &Value, path: &mut Vec<String>, report: &mut Report<'_>) {
        if let Some(Value::Object(_) | Value::Array(_)) =
            value.get("bindings").and_then(|bindings| bindings.get("acp"))
        {
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
            Value::Array(all) => {
                all.iter().enumerate().for_each(|(index, child)| step(index.to_string(), child));
            }
            _ => {}
        }
    }
    visit(value, &mut Vec::new(), report);
}

pub(super) fn decision_model(value: &Value, report: &mut Report<'_>) {
    if value.as_str().is_some_and(|model| !model.trim().is_empty() && parse_model_ref(model).is_none()) {
        report.here("Expected provider/model, or an empty string to disable decision models.");
    }
}

pub(super) fn agent_models(value: &Value, report: &mut Report<'_>) {
    for (name, entry) in object(value, "") {
        let exact = !name.contains('*') && parse_model_ref(name).is_some();
        for key in ["pickerRuntimes", "codeMode"] {
            if !exact && entry.get(key).is_some() {
                report.at(&[name, key], format!("{key} requires an exact provider/model entry"));
            }
        }
    }
}

pub(super) fn heartbeat(value: &Value, report: &mut Report<'_>) {
    let every = text(value, "every");
    if !every.is_empty() && parse_duration(every, "m").is_none() {
        report.at(&["every"], "invalid duration (use ms, s, m, h)");
    }
    let Some(active) = value.get("activeHours") else { return };
    for (key, latest) in [("start", "23:59"), ("end", "24:00")] {
        let time = text(active, key);
        let form = matches!(time.as_bytes(), [b'0'..=b'2', b'0'..=b'9', b':', b'0'..=b'5', b'0'..=b'9']);
        if !time.is_empty() && (!form || time > latest) {
            report.at(&["activeHours", key], format!("invalid time (use \"HH:MM\", at most {latest})"));
        }
    }
}

pub(super) fn agent_dirs(config: &Value, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for (_, agent) in object(config, "/agents/entries") {
        let dir = text(agent, "agentDir").trim().trim_end_matches('/');
        if !dir.is_empty() && !seen.insert(dir) {
            return report.at(&["agents", "entries"], "two agents have one agentDir; give each its own");
        }
    }
}

pub(super) fn avatar(value: &Value, report: &mut Report<'_>) {
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

pub(super) fn model_policies(config: &Value, report: &mut Report<'_>) {
    let aliases = |models: Option<&Value>| {
        let models = models.and_then(Value::as_object).into_iter().flat_map(Map::values);
        models
            .map(|entry| lower(text(entry, "alias")))
            .filter(|alias| !alias.is_empty())
            .collect::<HashSet<_>>()
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
pub(super) fn is_policy_ref(name: &str) -> bool {
    if matches!(lower(name).as_str(), "openrouter:auto" | "openrouter:free") {
        return true;
    }
    let segment = |segment: &&str| {
        !segment.is_empty() && !segment.contains(|c: char| c == '*' || c.is_whitespace() || c.is_control())
    };
    let exact = parse_model_ref(name).is_some_and(|(provider, model)| {
        std::iter::once(provider).chain(model.split('/')).all(|part| segment(&part))
    });
    exact
        || name
            .strip_suffix('*')
            .map(str::trim_end)
            .and_then(|name| name.strip_suffix('/'))
            .is_some_and(|prefix| prefix.split('/').map(str::trim).all(|part| segment(&part)))
}
