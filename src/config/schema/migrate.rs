//! What OpenClaw changes in a config as it reads it, before it looks whether the config is valid.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::rules::normalize_agent_id;

/// A config as OpenClaw validates it.
pub(super) struct Migrated<'a> {
    /// The value.
    pub(super) config: Cow<'a, Value>,
    /// The ids of `agents.entries` that the author wrote as items of `agents.list`, in that order.
    pub(super) listed_agents: Vec<String>,
    /// A roster of several agents where one is marked as the default: it needs no `agents.ownership`.
    pub(super) has_default_agent: bool,
}

/// Applies the migrations that OpenClaw applies on every read.
pub(super) fn on_read(config: &Value) -> Migrated<'_> {
    let mut migrated =
        Migrated { config: Cow::Borrowed(config), listed_agents: Vec::new(), has_default_agent: false };
    if !config.is_object() {
        return migrated;
    }
    if has_old_context_budget(config) {
        drop_old_context_budget(migrated.config.to_mut());
    }
    if let Some(discovery) =
        config.pointer("/plugins/entries/github-copilot/config/discovery").and_then(Value::as_object)
        && (discovery.contains_key("enabled") || discovery.is_empty())
    {
        drop_copilot_discovery(migrated.config.to_mut());
    }
    migrate_roster(&mut migrated);
    migrated
}

fn agents_with_budget(config: &mut Value) -> Vec<&mut Map<String, Value>> {
    let Some(Value::Object(agents)) = config.get_mut("agents") else { return Vec::new() };
    let mut found = Vec::new();
    for (key, value) in agents {
        match (key.as_str(), value) {
            ("defaults", Value::Object(defaults)) => found.push(defaults),
            ("entries", Value::Object(entries)) => {
                found.extend(entries.values_mut().filter_map(Value::as_object_mut));
            }
            ("list", Value::Array(list)) => found.extend(list.iter_mut().filter_map(Value::as_object_mut)),
            _ => {}
        }
    }
    found
}

const PROVIDER_BUDGETS: [&str; 2] = ["contextTokens", "contextWindow"];

fn has_old_context_budget(config: &Value) -> bool {
    let budget = |value: &Value| value.get("contextTokens").is_some();
    let agents = config.get("agents");
    let part = |key: &str| agents.and_then(|agents| agents.get(key));
    let providers = config.pointer("/models/providers").and_then(Value::as_object);
    part("defaults").is_some_and(budget)
        || part("entries").and_then(Value::as_object).is_some_and(|all| all.values().any(budget))
        || part("list").and_then(Value::as_array).is_some_and(|all| all.iter().any(budget))
        || providers
            .is_some_and(|all| all.values().any(|p| PROVIDER_BUDGETS.iter().any(|key| p.get(key).is_some())))
}

/// Budgets moved from agents and providers to the single models.
fn drop_old_context_budget(config: &mut Value) {
    for agent in agents_with_budget(config) {
        agent.shift_remove("contextTokens");
    }
    let providers = config.pointer_mut("/models/providers").and_then(Value::as_object_mut);
    for provider in providers.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        for key in PROVIDER_BUDGETS {
            let Some(budget) = provider.shift_remove(key) else { continue };
            let models = provider.get_mut("models").and_then(Value::as_array_mut);
            for model in models.into_iter().flatten().filter_map(Value::as_object_mut) {
                model.entry(key).or_insert_with(|| budget.clone());
            }
        }
    }
}

fn drop_copilot_discovery(config: &mut Value) {
    let plugin = config.pointer_mut("/plugins/entries/github-copilot/config").and_then(Value::as_object_mut);
    let Some(plugin) = plugin else { return };
    if let Some(Value::Object(discovery)) = plugin.get_mut("discovery") {
        discovery.shift_remove("enabled");
        if discovery.is_empty() {
            plugin.shift_remove("discovery");
        }
    }
}

/// `agents.list` becomes `agents.entries`; a config without agents has the agent `main`.
fn migrate_roster(migrated: &mut Migrated<'_>) {
    let agents = match migrated.config.get("agents") {
        None => Map::new(),
        Some(Value::Object(agents)) => agents.clone(),
        Some(_) => return,
    };
    let mut agents = agents;
    let mut changed = false;
    if !agents.contains_key("entries")
        && let Some(list) = agents.get("list")
    {
        let Some(entries) = entries_from_list(list) else { return };
        migrated.listed_agents = entries.keys().cloned().collect();
        agents.shift_remove("list");
        agents.insert("entries".into(), Value::Object(entries));
        changed = true;
    }
    let explicit = agents.get("ownership").is_some_and(|ownership| ownership == "explicit");
    match agents.get_mut("entries") {
        None => {
            if !explicit {
                agents.insert("entries".into(), one_main_agent());
                changed = true;
            }
        }
        Some(Value::Object(entries)) if entries.is_empty() => {
            if !explicit {
                agents.insert("entries".into(), one_main_agent());
                changed = true;
            }
        }
        Some(Value::Object(entries)) => {
            let marks = |entry: &Value| entry.get("default").cloned();
            let odd = entries.values().filter_map(marks).any(|mark| !mark.is_boolean());
            let marked = entries.values().filter_map(marks).filter(|mark| mark == &Value::Bool(true)).count();
            if !odd && !explicit && marked == 1 {
                migrated.has_default_agent = entries.values().filter(|entry| entry.is_object()).count() > 1;
                for entry in entries.values_mut().filter_map(Value::as_object_mut) {
                    entry.shift_remove("default");
                }
                changed = true;
            }
        }
        Some(_) => {}
    }
    if changed && let Value::Object(root) = migrated.config.to_mut() {
        root.insert("agents".into(), Value::Object(agents));
    }
}

fn one_main_agent() -> Value {
    let mut entries = Map::new();
    entries.insert("main".into(), Value::Object(Map::new()));
    Value::Object(entries)
}

/// A list converts only if it is in order; otherwise it stays, and is refused as an unknown key.
fn entries_from_list(list: &Value) -> Option<Map<String, Value>> {
    let mut entries = Map::new();
    for agent in list.as_array()? {
        let mut agent = agent.as_object()?.clone();
        let id = agent.shift_remove("id")?;
        let id = id.as_str()?;
        if id.is_empty() || normalize_agent_id(id) != id || entries.contains_key(id) {
            return None;
        }
        entries.insert(id.to_owned(), Value::Object(agent));
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_agents_becomes_entries_by_id() {
        let config =
            json!({ "agents": { "list": [{ "id": "b", "name": "B", "default": true }, { "id": "a" }] } });
        let migrated = on_read(&config);
        assert_eq!(*migrated.config, json!({ "agents": { "entries": { "b": { "name": "B" }, "a": {} } } }));
        assert_eq!(migrated.listed_agents, ["b", "a"]);
        assert!(migrated.has_default_agent);
    }

    #[test]
    fn a_list_with_two_equal_ids_stays() {
        let config = json!({ "agents": { "list": [{ "id": "a" }, { "id": "a" }] } });
        assert_eq!(*on_read(&config).config, config);
    }

    #[test]
    fn a_config_without_agents_has_one() {
        assert_eq!(*on_read(&json!({})).config, json!({ "agents": { "entries": { "main": {} } } }));
        let explicit = json!({ "agents": { "ownership": "explicit" } });
        assert_eq!(*on_read(&explicit).config, explicit);
    }

    #[test]
    fn budgets_of_a_provider_go_to_its_models() {
        let config = json!({
            "agents": { "defaults": { "contextTokens": 1 }, "entries": { "main": {} } },
            "models": { "providers": { "p": { "contextWindow": 9, "models": [{ "id": "a" }, { "id": "b", "contextWindow": 5 }] } } },
        });
        let expected = json!({
            "agents": { "defaults": {}, "entries": { "main": {} } },
            "models": { "providers": { "p": { "models": [{ "id": "a", "contextWindow": 9 }, { "id": "b", "contextWindow": 5 }] } } },
        });
        assert_eq!(*on_read(&config).config, expected);
    }
}
