//! Rules about how the Gateway is reached.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::agents::is_agent_id;
use super::{Report, object, text};
use crate::config::schema::text::{is_dns_name, parse_http_origin, parse_url};

pub(super) fn is_loopback_name(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

pub(super) fn public_origin(value: &Value, report: &mut Report<'_>) {
    let origin = value.as_str().and_then(parse_http_origin);
    if !origin.is_some_and(|url| url.scheme == "https" || is_loopback_name(&url.host)) {
        report.here("expected a bare HTTPS origin (HTTP on loopback alone)");
    }
}

pub(super) fn portal_domain(value: &Value, report: &mut Report<'_>) {
    let domain = value.as_str().unwrap_or_default();
    let bare = domain.is_ascii() && domain.len() <= 220 && domain.contains('.') && is_dns_name(domain);
    if !bare || domain.parse::<std::net::IpAddr>().is_ok() {
        report.here("expected a bare DNS domain");
    }
}

pub(super) fn portal_ingress(gateway: &Value, report: &mut Report<'_>) {
    let Some(ingress) = gateway.pointer("/portals/ingress") else { return };
    let origins = gateway.pointer("/controlUi/allowedOrigins").and_then(Value::as_array);
    let origins = origins.into_iter().flatten().chain(gateway.get("publicOrigin")).filter_map(Value::as_str);
    let domain = text(ingress, "domain").to_lowercase();
    let conflicts = |origin: &str| {
        parse_url(origin).is_some_and(|url| url.host == domain || url.host.ends_with(&format!(".{domain}")))
    };
    if origins.filter(|origin| !origin.is_empty()).any(conflicts) {
        report.at(
            &["portals", "ingress", "domain"],
            "portals need a domain apart from the Gateway's own origins",
        );
    }
    let port = gateway.get("port").and_then(Value::as_f64).unwrap_or(18789.0);
    if ingress.get("port").and_then(Value::as_f64) == Some(port) {
        report.at(&["portals", "ingress", "port"], "portals need a port apart from the Gateway's");
    }
}

pub(super) fn edge_auth(value: &Value, report: &mut Report<'_>) {
    const OWNED: [&str; 8] = [
        "connection",
        "content-length",
        "host",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "upgrade",
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

pub(super) fn operator_roles(value: &Value, report: &mut Report<'_>) {
    // Names lose the spaces around them before they are compared.
    let name = text(value, "default").trim();
    if !object(value, "/definitions").any(|(role, _)| role.trim() == name) {
        report.at(&["default"], "gateway.roles.default must name a role of gateway.roles.definitions");
    }
}

pub(super) fn role_definitions(value: &Value, report: &mut Report<'_>) {
    if value.as_object().is_some_and(Map::is_empty) {
        report.here("gateway.roles.definitions must hold at least one role");
    }
}

pub(super) fn role_agents(value: &Value, report: &mut Report<'_>) {
    let ids = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    if ids.map(str::trim).any(|id| !is_agent_id(id)) {
        report.fatal_at(&[], "expected \"*\" or a list of agent ids");
    }
}

fn tailscale_mode(gateway: &Value) -> Option<&str> {
    let mode = gateway.pointer("/tailscale/mode").and_then(Value::as_str);
    mode.filter(|mode| matches!(*mode, "serve" | "funnel"))
}

pub(super) fn tailscale_bind(gateway: &Value, report: &mut Report<'_>) {
    let Some(mode) = tailscale_mode(gateway) else { return };
    let bind = gateway.get("bind").and_then(Value::as_str).unwrap_or("loopback");
    let host = text(gateway, "customBindHost").trim().parse::<std::net::Ipv4Addr>();
    if bind != "loopback" && !(bind == "custom" && host.is_ok_and(|host| host.is_loopback())) {
        report.at(&["bind"], format!("gateway.tailscale.mode={mode} needs gateway.bind to be loopback"));
    }
}

pub(super) fn tailscale_auth(gateway: &Value, report: &mut Report<'_>) {
    let Some(mode) = tailscale_mode(gateway) else { return };
    if gateway.pointer("/auth/mode").is_some_and(|auth| auth == "none") {
        report.at(&["auth", "mode"], format!("gateway.tailscale.mode={mode} needs gateway authentication"));
    }
}
