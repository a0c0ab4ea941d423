//! Which URLs the agent may fetch.
//!
//! A URL is admitted if it is plainly written, and every address that its host has is public. "Plainly" is stricter
//! than the URL standard: a browser reads `http://0x7f.1`, `http:\\host`, `http://a@host` and `http://%31.1.1.1`, and
//! so do some HTTP clients, but not all alike; whoever writes a URL so wants two readers to see two hosts.
//!
//! The addresses are part of the answer, because a name may lead elsewhere the next time: connect to them, as
//! [`super::fetch`] does, and not to the name.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use url::{Host, Url};

use super::address::{Special, special};
use crate::{Code, CoreError, Result};

/// What may be fetched beyond what is public.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether networks of one's own may be reached: loopback, RFC 1918, RFC 6598, unique local. Link-local addresses,
    /// the metadata services of clouds, multicast, reserved addresses and IPv6 transition forms stay out of reach.
    pub allow_private: bool,
    /// Hosts for which `allow_private` holds: a name, `*.` and a name for all beneath it, or an address. A name
    /// that is not this machine's own (`localhost`) still may not lead to loopback.
    pub allow_hosts: Vec<String>,
}

/// How names become addresses.
pub trait Resolver: Send + Sync {
    /// All addresses of a name.
    fn lookup(&self, host: &str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
}

/// The system's way: `getaddrinfo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn lookup(&self, host: &str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let host = host.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// A URL that may be fetched, from these addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// As the URL standard writes it.
    pub url: Url,
    /// Every address of its host, in the resolver's order; each one admitted.
    pub addresses: Vec<IpAddr>,
}

/// Checks a URL and resolves its host.
///
/// `SSRF_BLOCKED` if it may not be fetched, `VALIDATION` if it is no URL, `NETWORK` if its host has no address.
pub async fn check(text: &str, policy: &Policy, resolver: &dyn Resolver) -> Result<Checked> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let url = Url::parse(text)
        .map_err(|error| CoreError::new(Code::Validation, format!("the URL cannot be read: {error}")))?;
    is_plain(text, &url)?;
    resolve(url, policy, resolver).await
}

/// As [`check`], for the target of a redirect from a URL that was checked; `text` may be relative to it.
pub(super) async fn check_target(
    base: &Url,
    text: &str,
    policy: &Policy,
    resolver: &dyn Resolver,
) -> Result<Checked> {
    let url = base.join(text).map_err(|_| CoreError::new(Code::Network, "a redirect leads to no URL"))?;
    if text.contains(|c: char| c.is_ascii_control()) {
        // A reader of URLs leaves out tabs and line ends: what follows would not be what it looks like.
        return Err(blocked("a redirect to it holds control characters"));
    }
    let text = text.trim_matches(' ');
    if text.starts_with(['/', '\\']) && text.get(1..).is_some_and(|rest| rest.starts_with(['/', '\\'])) {
        // With a host, and the scheme of the base.
        is_plain(&format!("{}:{text}", base.scheme()), &url)?;
    } else if Url::parse(text).is_ok() {
        is_plain(text, &url)?;
    } else {
        is_plain(url.as_str(), &url)?;
    }
    resolve(url, policy, resolver).await
}

fn blocked(why: impl std::fmt::Display) -> CoreError {
    CoreError::new(Code::SsrfBlocked, format!("the URL may not be fetched: {why}"))
}

/// Whether it is an HTTP URL, and the text says what the URL standard reads in it.
fn is_plain(text: &str, url: &Url) -> Result<()> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(blocked(format_args!("its scheme is {}, neither http nor https", url.scheme())));
    }
    if text.contains(|c: char| c.is_ascii_control()) {
        return Err(blocked("it holds control characters"));
    }
    let rest = text
        .get(url.scheme().len()..)
        .and_then(|rest| rest.strip_prefix("://"))
        .ok_or_else(|| blocked("it does not begin with http:// or https://"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(blocked("it has more than two slashes, or no host"));
    }
    if authority.contains(['@', '\\', '%']) || !url.username().is_empty() || url.password().is_some() {
        return Err(blocked("its host is hidden behind a user name, a backslash or percent-encoding"));
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    match url.host() {
        Some(Host::Ipv4(address)) if host != address.to_string() => {
            Err(blocked(format_args!("its host is {address} in disguise")))
        }
        Some(Host::Domain(name))
            if name.trim_end_matches('.').split('.').any(str::is_empty) || name.ends_with("..") =>
        {
            Err(blocked("its host has an empty label"))
        }
        Some(_) => Ok(()),
        None => Err(blocked("it has no host")),
    }
}

/// Names that public DNS does not serve: RFC 6761, 6762, 7686, 8375, 9476, ICANN's `internal`, and what hosts files and
/// resolvers make of them.
const LOCAL_NAMES: [&str; 9] =
    ["localhost", "localdomain", "local", "internal", "home.arpa", "onion", "alt", "test", "invalid"];

async fn resolve(url: Url, policy: &Policy, resolver: &dyn Resolver) -> Result<Checked> {
    let addresses = match url.host() {
        Some(Host::Ipv4(address)) => vec![admit(address.into(), &address.to_string(), policy)?],
        Some(Host::Ipv6(address)) => vec![admit(address.into(), &address.to_string(), policy)?],
        Some(Host::Domain(host)) => {
            let name = host.trim_end_matches('.');
            let local = LOCAL_NAMES.iter().any(|local| is_beneath(name, local));
            if local && !policy.allow_private && !is_listed(name, &policy.allow_hosts) {
                return Err(blocked(format_args!("{name} is a name of local networks")));
            }
            let found = resolver.lookup(host).await.map_err(|error| {
                CoreError::new(Code::Network, format!("{name} has no address: {error}")).caused_by(error)
            })?;
            let mut addresses = Vec::with_capacity(found.len());
            for address in found {
                let address = admit(address, name, policy)?;
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            addresses
        }
        None => return Err(blocked("it has no host")),
    };
    if addresses.is_empty() {
        let host = url.host_str().unwrap_or_default();
        return Err(CoreError::new(Code::Network, format!("{host} has no address")));
    }
    Ok(Checked { url, addresses })
}

/// One address of a host that must not be admitted spoils the others: which of them is taken is not ours to say.
fn admit(address: IpAddr, host: &str, policy: &Policy) -> Result<IpAddr> {
    let Some(Special { what, private, loopback }) = special(address) else { return Ok(address) };
    let listed = is_listed(host, &policy.allow_hosts);
    let itself =
        host.parse::<IpAddr>().is_ok() || is_beneath(host, "localhost") || host == "localhost.localdomain";
    if private && (policy.allow_private || (listed && (!loopback || itself))) {
        return Ok(address);
    }
    Err(blocked(format_args!("{host} leads to {address}, which is {what}")))
}

fn is_listed(host: &str, hosts: &[String]) -> bool {
    hosts.iter().any(|listed| {
        let listed = listed.trim_end_matches('.').to_lowercase();
        match listed.strip_prefix("*.") {
            Some(above) => !above.is_empty() && host != above && is_beneath(host, above),
            None => host == listed.trim_start_matches('[').trim_end_matches(']'),
        }
    })
}

/// Whether `name` is `above` or a name beneath it.
fn is_beneath(name: &str, above: &str) -> bool {
    name.strip_suffix(above).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

#[cfg(test)]
mod tests;
