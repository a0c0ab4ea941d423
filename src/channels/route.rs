//! To which agent a message goes, and which session it belongs to: OpenClaw's `resolveAgentRoute`, to the letter.
//!
//! Bindings of the message's channel and account count, in the order in which the config lists them. The most specific kind
//! wins: a chat, the chat it belongs to, all chats of a kind, a guild and a role, a guild, a team, the account, the channel;
//! then the default agent.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Code, CoreError, Result};

/// Where a message goes. The fields are OpenClaw's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The agent.
    pub agent_id: String,
    /// The platform, in lower case.
    pub channel: String,
    /// The account, in OpenClaw's canonical form.
    pub account_id: String,
    /// How direct chats are divided into sessions.
    pub dm_scope: String,
    /// How groups are.
    pub group_scope: String,
    /// The session that the message belongs to.
    pub session_key: String,
    /// The agent's main session.
    pub main_session_key: String,
    /// `main` if both are the same, else `session`.
    pub last_route_policy: &'static str,
    /// `binding.peer`, `binding.peer.parent`, `binding.peer.wildcard`, `binding.guild+roles`, `binding.guild`,
    /// `binding.team`, `binding.account`, `binding.channel` or `default`.
    pub matched_by: &'static str,
}

/// A chat.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    kind: String,
    id: String,
}

impl Peer {
    /// Groups and channels are one kind to a binding.
    fn is_like(&self, kind: &str) -> bool {
        let fold = |kind: &str| if kind == "channel" { "group".to_owned() } else { kind.to_owned() };
        fold(&self.kind) == fold(kind)
    }
}

/// What a message is routed by.
#[derive(Clone, Debug, Default)]
pub struct Input {
    channel: String,
    default_agent_id: String,
    account_id: String,
    peer: Option<Peer>,
    parent: Option<Peer>,
    guild_id: String,
    team_id: String,
    roles: Vec<Value>,
    dm_scope: Option<String>,
    group_scope: Option<String>,
}

impl Input {
    /// Reads `{ channel, accountId?, peer?, parentPeer?, guildId?, teamId?, memberRoleIds? }` and OpenClaw's own
    /// `defaultAgentId`, `dmScope` and `groupScope`. `VALIDATION` without a channel.
    pub fn read(input: &Value) -> Result<Self> {
        let text = |name: &str| input.get(name).and_then(Value::as_str);
        if text("channel").is_none() {
            return Err(CoreError::new(Code::Validation, "`input.channel` must be a string"));
        }
        let peer = |name: &str| {
            let given = input.get(name).filter(|peer| peer.is_object())?;
            let kind = given.get("kind").and_then(Value::as_str).unwrap_or_default();
            let kind = chat_type(kind).map_or_else(|| kind.to_owned(), str::to_owned);
            Some(Peer { kind, id: id(given.get("id")) })
        };
        Ok(Self {
            channel: lower(text("channel")),
            default_agent_id: lower(text("defaultAgentId")),
            account_id: account_id(text("accountId").unwrap_or_default()),
            peer: peer("peer"),
            parent: peer("parentPeer"),
            guild_id: id(input.get("guildId")),
            team_id: id(input.get("teamId")),
            roles: input.get("memberRoleIds").and_then(Value::as_array).cloned().unwrap_or_default(),
            dm_scope: text("dmScope").map(str::to_owned),
            group_scope: text("groupScope").map(str::to_owned),
        })
    }
}

/// The chats that a binding is for.
#[derive(Clone, Debug)]
enum Chats {
    All,
    OfKind(String),
    One(Peer),
}

#[derive(Clone, Debug)]
struct Binding {
    channel: String,
    agent_id: String,
    /// None for `*`.
    account_id: Option<String>,
    chats: Chats,
    guild_id: String,
    team_id: String,
    roles: Vec<Value>,
    dm_scope: Option<String>,
    group_scope: Option<String>,
}

impl Binding {
    /// None if it is for nothing, or no binding of routes.
    fn read(binding: &Value) -> Option<Self> {
        let binding = binding.as_object()?;
        if binding.get("type").and_then(Value::as_str) == Some("acp") {
            return None;
        }
        let empty = Map::new();
        let matches = binding.get("match").and_then(Value::as_object).unwrap_or(&empty);
        let text = |name: &str| matches.get(name).and_then(Value::as_str);
        let channel = lower(text("channel"));
        if channel.is_empty() {
            return None;
        }
        let chats = match matches.get("peer").filter(|peer| is_truthy(peer)) {
            None => Chats::All,
            Some(peer) => {
                let kind = chat_type(peer.get("kind").and_then(Value::as_str)?)?;
                match id(peer.get("id")).as_str() {
                    "" => return None,
                    "*" => Chats::OfKind(kind.to_owned()),
                    id => Chats::One(Peer { kind: kind.to_owned(), id: id.to_owned() }),
                }
            }
        };
        let account = trim(text("accountId").unwrap_or_default());
        let session = binding.get("session");
        let scope = |name: &str| session.and_then(|s| s.get(name)).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            channel,
            agent_id: binding.get("agentId").and_then(Value::as_str).unwrap_or_default().to_owned(),
            account_id: (account != "*").then(|| account_id(account)),
            chats,
            guild_id: id(matches.get("guildId")),
            team_id: id(matches.get("teamId")),
            roles: matches.get("roles").and_then(Value::as_array).cloned().unwrap_or_default(),
            dm_scope: scope("dmScope"),
            group_scope: scope("groupScope"),
        })
    }

    fn is_for_any_chat(&self) -> bool {
        matches!(self.chats, Chats::All)
    }

    fn is_for(&self, peer: &Peer) -> bool {
        matches!(&self.chats, Chats::One(one) if one.is_like(&peer.kind) && one.id == peer.id)
    }

    /// Whether guild, team and roles are the message's, as far as the binding names any.
    fn fits(&self, input: &Input) -> bool {
        (self.guild_id.is_empty() || self.guild_id == input.guild_id)
            && (self.team_id.is_empty() || self.team_id == input.team_id)
            && (self.roles.is_empty() || self.roles.iter().any(|role| input.roles.contains(role)))
    }
}

/// The agents of a config.
#[derive(Clone, Debug, Default)]
struct Agents {
    /// Canonical ids, in the config's order; one may stand twice.
    ids: Vec<String>,
    /// Those whose id is more than white space.
    known: Vec<String>,
    /// Whether the config lists agents at all.
    listed: bool,
    /// The one that is meant where none is named.
    fallback: Option<String>,
    /// The one of older configs that is marked as the default.
    marked: Option<String>,
}

impl Agents {
    fn read(config: &Value) -> Self {
        let agents = config.get("agents").filter(|agents| agents.is_object());
        let mut found: Vec<(Option<String>, bool)> = Vec::new();
        let mut listed = false;
        let is_default = |entry: &Value| entry.get("default") == Some(&Value::Bool(true));
        if let Some(entries) = agents.and_then(|agents| agents.get("entries")) {
            listed = true;
            let entries = entries.as_object().into_iter().flatten().filter(|(_, entry)| entry.is_object());
            found.extend(entries.map(|(id, entry)| (Some(id.clone()), is_default(entry))));
        } else if let Some(list) = agents.and_then(|agents| agents.get("list")) {
            listed = true;
            let list = list.as_array().into_iter().flatten().filter(|e| e.is_object() || e.is_array());
            found.extend(list.map(|entry| {
                (entry.get("id").and_then(Value::as_str).map(str::to_owned), is_default(entry))
            }));
        }
        let ids: Vec<String> =
            found.iter().map(|(id, _)| agent_id(id.as_deref().unwrap_or_default())).collect();
        let known = found
            .iter()
            .filter_map(|(id, _)| id.as_deref())
            .filter(|id| !trim(id).is_empty())
            .map(agent_id)
            .collect();
        let explicit = agents.and_then(|a| a.get("ownership")).and_then(Value::as_str) == Some("explicit");
        let mut marks = found.iter().zip(&ids).filter(|((_, marked), _)| *marked).map(|(_, id)| id);
        let marked = match (marks.next(), marks.next()) {
            (Some(id), None) if !explicit => Some(id.clone()),
            _ => None,
        };
        let mut read = Self { ids, known, listed, fallback: None, marked };
        read.fallback = if explicit {
            let recorded = agents
                .and_then(|agents| agents.get("defaults")?.get("systemAgent")?.get("agentId")?.as_str())
                .map(trim)
                .filter(|id| !id.is_empty())
                .map(agent_id);
            recorded.filter(|id| read.all().contains(id))
        } else {
            read.marked.clone().or_else(|| read.sole())
        };
        read
    }

    fn all(&self) -> Vec<String> {
        if !self.listed {
            return vec!["main".to_owned()];
        }
        let mut all: Vec<String> = Vec::new();
        for id in &self.ids {
            if !all.contains(id) {
                all.push(id.clone());
            }
        }
        all
    }

    fn sole(&self) -> Option<String> {
        match self.ids.as_slice() {
            [] if !self.listed => Some("main".to_owned()),
            [one] => Some(one.clone()),
            _ => None,
        }
    }

    /// The one that is meant where none is named; an error if there are several.
    fn default(&self, surface: &str, hint: &str) -> Result<String> {
        if let Some(id) = self.marked.clone().or_else(|| self.sole()) {
            return Ok(id);
        }
        if self.all().is_empty() {
            let message = "No agents configured. Run `openclaw onboard` or `openclaw agents add` first.";
            return Err(CoreError::new(Code::Validation, message));
        }
        Err(selection_required(surface, hint))
    }

    /// The agent of this name, if the config has it.
    fn existing(&self, name: &str) -> Result<String> {
        let trimmed = trim(name);
        if trimmed.is_empty() {
            return match &self.fallback {
                Some(id) => Ok(id.clone()),
                None => self.default(
                    "agent lookup",
                    "Pass an explicit agent id instead of relying on an implicit route.",
                ),
            };
        }
        let id = agent_id(trimmed);
        if self.known.contains(&id) || id == "main" || self.known.is_empty() {
            return Ok(id);
        }
        let hint = format!("Update the binding agentId \"{trimmed}\" to a configured agent.");
        Err(selection_required("route binding", &hint))
    }
}

/// OpenClaw's own words.
fn selection_required(surface: &str, hint: &str) -> CoreError {
    let message = format!("Multiple agents are configured, but {surface} has no explicit owner. {hint}");
    CoreError::new(Code::Validation, message)
}

/// The bindings and agents of a config.
#[derive(Clone, Debug)]
pub struct Router {
    bindings: Vec<Binding>,
    agents: Agents,
    dm_scope: Option<String>,
    group_scope: Option<String>,
    main_key: String,
    /// Canonical names, and the ids that are the same person, in lower case.
    links: Vec<(String, Vec<String>)>,
}

impl Router {
    /// Reads a config as OpenClaw has it once it is loaded. What is not of OpenClaw's form is passed over.
    pub fn new(config: &Value) -> Self {
        let session = config.get("session");
        let text = |name: &str| session.and_then(|s| s.get(name)).and_then(Value::as_str);
        let links = session.and_then(|session| session.get("identityLinks")).and_then(Value::as_object);
        let links = links.into_iter().flatten().filter_map(|(name, ids)| {
            let ids =
                ids.as_array()?.iter().map(|id| lower(id.as_str())).filter(|id| !id.is_empty()).collect();
            Some((trim(name).to_owned(), ids)).filter(|(name, _)| !name.is_empty())
        });
        let bindings = config.get("bindings").and_then(Value::as_array);
        Self {
            bindings: bindings.into_iter().flatten().filter_map(Binding::read).collect(),
            agents: Agents::read(config),
            dm_scope: text("dmScope").map(str::to_owned),
            group_scope: text("groupScope").map(str::to_owned),
            main_key: Some(lower(text("mainKey"))).filter(|k| !k.is_empty()).unwrap_or_else(|| "main".into()),
            links: links.collect(),
        }
    }

    /// Where a message goes. `VALIDATION` where OpenClaw throws: several agents are configured and none is named, or the
    /// one that is named does not exist.
    pub fn resolve(&self, input: &Input) -> Result<Route> {
        if let Some((binding, matched_by)) = self.binding(input) {
            let agent = self.agents.existing(&binding.agent_id)?;
            let scopes = (binding.dm_scope.as_deref(), binding.group_scope.as_deref());
            return Ok(self.route(input, agent, matched_by, scopes));
        }
        let named = Some(input.default_agent_id.clone()).filter(|id| !id.is_empty());
        let agent = if let Some(id) = named.or_else(|| self.agents.fallback.clone()) {
            id
        } else {
            let (channel, account) = (&input.channel, &input.account_id);
            let example =
                json!({ "agentId": "<agentId>", "match": { "channel": channel, "accountId": account } });
            let hint = format!(
                "Add a channel-wide binding for {channel}:{account}: {example}. Replace <agentId> with a configured \
                 agent, then restart the Gateway."
            );
            self.agents.default(&format!("{channel} account {account} routing"), &hint)?
        };
        Ok(self.route(input, self.agents.existing(&agent)?, "default", (None, None)))
    }

    fn binding(&self, input: &Input) -> Option<(&Binding, &'static str)> {
        let find = |wanted: &dyn Fn(&Binding) -> bool| {
            self.bindings.iter().find(|binding| {
                binding.channel == input.channel
                    && binding.account_id.as_ref().is_none_or(|account| *account == input.account_id)
                    && wanted(binding)
                    && binding.fits(input)
            })
        };
        let (peer, parent) = (input.peer.as_ref(), input.parent.as_ref());
        let guild = Some(input.guild_id.as_str()).filter(|id| !id.is_empty());
        let team = Some(input.team_id.as_str()).filter(|id| !id.is_empty());
        None.or_else(|| Some((find(&|b| peer.is_some_and(|peer| b.is_for(peer)))?, "binding.peer")))
            .or_else(|| Some((find(&|b| parent.is_some_and(|peer| b.is_for(peer)))?, "binding.peer.parent")))
            .or_else(|| {
                let of_kind =
                    |b: &Binding, peer: &Peer| matches!(&b.chats, Chats::OfKind(kind) if peer.is_like(kind));
                Some((find(&|b| peer.is_some_and(|peer| of_kind(b, peer)))?, "binding.peer.wildcard"))
            })
            .or_else(|| {
                let (guild, roles) = (guild?, !input.roles.is_empty());
                let wanted =
                    |b: &Binding| b.is_for_any_chat() && b.guild_id == guild && !b.roles.is_empty() && roles;
                Some((find(&wanted)?, "binding.guild+roles"))
            })
            .or_else(|| {
                let guild = guild?;
                let wanted = |b: &Binding| b.is_for_any_chat() && b.guild_id == guild && b.roles.is_empty();
                Some((find(&wanted)?, "binding.guild"))
            })
            .or_else(|| {
                let team = team?;
                let wanted = |b: &Binding| b.is_for_any_chat() && b.guild_id.is_empty() && b.team_id == team;
                Some((find(&wanted)?, "binding.team"))
            })
            .or_else(|| {
                let wanted = |b: &Binding| is_wide(b) && b.account_id.is_some();
                Some((find(&wanted)?, "binding.account"))
            })
            .or_else(|| Some((find(&|b| is_wide(b) && b.account_id.is_none())?, "binding.channel")))
    }

    fn route(
        &self,
        input: &Input,
        agent_id: String,
        matched_by: &'static str,
        (dm, group): (Option<&str>, Option<&str>),
    ) -> Route {
        let or = |own: Option<&str>, asked: &Option<String>, config: &Option<String>, default: &str| {
            own.or(asked.as_deref()).or(config.as_deref()).unwrap_or(default).to_owned()
        };
        let dm_scope = or(dm, &input.dm_scope, &self.dm_scope, "main");
        let group_scope = or(group, &input.group_scope, &self.group_scope, "per-group");
        let main_session_key = format!("agent:{agent_id}:{}", self.main_key);
        let session_key = self
            .own_session(input, &agent_id, &dm_scope, &group_scope)
            .unwrap_or_else(|| main_session_key.clone());
        Route {
            last_route_policy: if session_key == main_session_key { "main" } else { "session" },
            agent_id,
            channel: input.channel.clone(),
            account_id: input.account_id.clone(),
            dm_scope,
            group_scope,
            session_key,
            main_session_key,
            matched_by,
        }
    }

    /// The session's key; none for the main session.
    fn own_session(&self, input: &Input, agent: &str, dm_scope: &str, group_scope: &str) -> Option<String> {
        let peer = input.peer.as_ref()?;
        let id = if peer.id.is_empty() { "unknown" } else { peer.id.as_str() };
        let channel = if input.channel.is_empty() { "unknown" } else { input.channel.as_str() };
        if peer.kind == "direct" {
            let id = match dm_scope {
                "main" => return None,
                _ => lower(Some(self.linked(&input.channel, id).unwrap_or(id))),
            };
            return match dm_scope {
                "per-account-channel-peer" => {
                    Some(format!("agent:{agent}:{channel}:{}:direct:{id}", input.account_id))
                }
                "per-channel-peer" => Some(format!("agent:{agent}:{channel}:direct:{id}")),
                "per-peer" => Some(format!("agent:{agent}:direct:{id}")),
                _ => None,
            };
        }
        if group_scope == "main" {
            return None;
        }
        // Ids that the platform tells apart by case.
        let keeps_case =
            matches!((channel, peer.kind.as_str()), ("signal", "group") | ("matrix", "channel" | "group"));
        let id = if keeps_case { id.to_owned() } else { lower(Some(id)) };
        Some(format!("agent:{agent}:{channel}:{}:{id}", peer.kind))
    }

    /// The name under which a person is known on all platforms.
    fn linked(&self, channel: &str, id: &str) -> Option<&str> {
        let own = lower(Some(id));
        let scoped = if channel.is_empty() { own.clone() } else { lower(Some(&format!("{channel}:{id}"))) };
        let known = |ids: &[String]| ids.iter().any(|known| *known == own || *known == scoped);
        self.links.iter().find(|(_, ids)| known(ids)).map(|(name, _)| name.as_str())
    }
}

/// Whether a binding is for all chats, whatever their guild and team.
fn is_wide(binding: &Binding) -> bool {
    binding.is_for_any_chat() && binding.guild_id.is_empty() && binding.team_id.is_empty()
}

/// As JavaScript takes it for true.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// `String.prototype.trim`.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(super::chunk::is_space)
}

/// Without white space around it, in lower case.
pub(super) fn lower(text: Option<&str>) -> String {
    text.map(|text| trim(text).to_lowercase()).unwrap_or_default()
}

/// An id as bindings have it: a text, or a number.
fn id(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => trim(text).to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn chat_type(kind: &str) -> Option<&'static str> {
    match lower(Some(kind)).as_str() {
        "direct" | "dm" => Some("direct"),
        "group" => Some("group"),
        "channel" => Some("channel"),
        _ => None,
    }
}

/// Letters, digits, `_` and `-`, at most 64 of them; none if nothing is left.
fn canonical(name: &str) -> Option<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let (trimmed, lowered) = (trim(name), lower(Some(name)));
    let valid = trimmed.len() <= 64
        && trimmed.chars().all(word)
        && trimmed.starts_with(|c: char| c.is_ascii_alphanumeric());
    if valid {
        return Some(lowered);
    }
    let mut out = String::new();
    let mut replacing = false;
    for c in lowered.chars() {
        if word(c) {
            out.push(c);
        } else if !replacing {
            out.push('-');
        }
        replacing = !word(c);
    }
    let out = out.trim_matches('-');
    let out = out.get(..64).unwrap_or(out);
    (!out.is_empty()).then(|| out.to_owned())
}

fn agent_id(name: &str) -> String {
    canonical(name).unwrap_or_else(|| "main".to_owned())
}

/// OpenClaw's canonical form of an account's name; `default` for none.
pub fn account_id(name: &str) -> String {
    canonical(name)
        .filter(|id| !["__proto__", "prototype", "constructor"].contains(&id.as_str()))
        .unwrap_or_else(|| "default".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(config: &Value, input: &Value) -> Route {
        Router::new(config).resolve(&Input::read(input).unwrap()).unwrap()
    }

    #[test]
    fn the_most_specific_binding_wins() {
        let bind = |agent: &str, matches: Value| {
            let mut matches = matches;
            matches["channel"] = "discord".into();
            json!({ "agentId": agent, "match": matches })
        };
        let agents = ["peer", "kind", "roles", "guild", "team", "account", "channel"];
        let agents: Vec<_> = agents.into_iter().map(|id| json!({ "id": id })).collect();
        let config = json!({
            "agents": { "list": agents },
            "bindings": [
                bind("channel", json!({ "accountId": "*" })),
                bind("account", json!({})),
                bind("team", json!({ "teamId": "T" })),
                bind("guild", json!({ "guildId": "G" })),
                bind("roles", json!({ "guildId": "G", "roles": ["admin"] })),
                bind("kind", json!({ "peer": { "kind": "group", "id": "*" } })),
                bind("peer", json!({ "peer": { "kind": "channel", "id": 7 } })),
            ],
        });
        let by = |input: Value| {
            let mut input = input;
            input["channel"] = " Discord".into();
            let route = routed(&config, &input);
            (route.agent_id, route.matched_by)
        };
        let is = |agent: &str, by| (agent.to_owned(), by);
        assert_eq!(by(json!({ "peer": { "kind": "group", "id": "7" } })), is("peer", "binding.peer"));
        assert_eq!(
            by(json!({ "parentPeer": { "kind": "channel", "id": 7 } })),
            is("peer", "binding.peer.parent")
        );
        assert_eq!(
            by(json!({ "peer": { "kind": "channel", "id": "8" } })),
            is("kind", "binding.peer.wildcard")
        );
        let direct = json!({ "kind": "direct", "id": "8" });
        assert_eq!(
            by(json!({ "peer": direct, "guildId": "G", "memberRoleIds": ["x", "admin"] })),
            is("roles", "binding.guild+roles")
        );
        assert_eq!(by(json!({ "guildId": "G", "memberRoleIds": ["x"] })), is("guild", "binding.guild"));
        assert_eq!(by(json!({ "teamId": "T" })), is("team", "binding.team"));
        assert_eq!(by(json!({})), is("account", "binding.account"));
        assert_eq!(by(json!({ "accountId": "second" })), is("channel", "binding.channel"));
    }

    #[test]
    fn several_agents_without_a_binding_are_an_error_that_shows_one() {
        let config = json!({ "agents": { "list": [{ "id": "a" }, { "id": "b" }] } });
        let input = Input::read(&json!({ "channel": "telegram" })).unwrap();
        let error = Router::new(&config).resolve(&input).unwrap_err();
        assert_eq!(error.code(), Code::Validation);
        assert!(
            error.message().contains(r#"{"agentId":"<agentId>","match":{"channel":"telegram""#),
            "{error}"
        );
    }

    #[test]
    fn a_person_who_is_known_on_two_platforms_has_one_session() {
        let config = json!({
            "session": { "dmScope": "per-peer", "identityLinks": { "Alice": ["telegram:42", "discord:77"] } },
        });
        let key = |channel: &str, id: &str| {
            routed(&config, &json!({ "channel": channel, "peer": { "kind": "dm", "id": id } })).session_key
        };
        assert_eq!(key("telegram", "42"), "agent:main:direct:alice");
        assert_eq!(key("discord", "77"), key("telegram", "42"));
        assert_ne!(key("discord", "42"), key("telegram", "42"));
    }
}
