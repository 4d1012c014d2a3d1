//! Selects the proxy of a request from the same environment variables as curl.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use url::{Host, Url};

use super::error::TransportError;

/// The proxy settings of this process's environment.
#[derive(Debug, Clone, Default)]
pub struct ProxyRules {
    http: Option<String>,
    https: Option<String>,
    /// Rules for hosts that are connected directly; [`is_matched`] describes their forms.
    except: Vec<String>,
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Proxy {
    pub(super) host: Host<String>,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

/// The route of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// Direct connection to the server.
    Direct,
    /// The proxy receives the whole request.
    Forward(Proxy),
    /// The proxy opens a tunnel, in which the client uses TLS with the server.
    Tunnel(Proxy),
}

impl ProxyRules {
    /// Settings without a proxy.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the variables `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` with `lookup`, each also in
    /// capitals.
    ///
    /// `HTTP_PROXY` is ignored if `REQUEST_METHOD` is set: a CGI server sets it from the `Proxy` header of a request.
    #[must_use]
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| {
            let from_cgi = name == "http_proxy" && lookup("REQUEST_METHOD").is_some();
            lookup(name)
                .or_else(|| if from_cgi { None } else { lookup(&name.to_ascii_uppercase()) })
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let all = value("all_proxy");
        let except = value("no_proxy").unwrap_or_default();
        Self {
            http: value("http_proxy").or_else(|| all.clone()),
            https: value("https_proxy").or(all),
            except: except
                .split([',', ' '])
                .map(|rule| rule.trim().to_ascii_lowercase())
                .filter(|rule| !rule.is_empty())
                .collect(),
        }
    }

    /// The route to `url`.
    pub(crate) fn route(&self, url: &Url) -> Result<Route, TransportError> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        match proxy {
            Some(_) if self.is_excepted(url) => Ok(Route::Direct),
            Some(text) if url.scheme() == "https" => Ok(Route::Tunnel(Proxy::parse(text)?)),
            Some(text) => Ok(Route::Forward(Proxy::parse(text)?)),
            None => Ok(Route::Direct),
        }
    }

    fn is_excepted(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return true };
        self.except.iter().any(|rule| is_matched(rule, &host, port))
    }
}

/// Whether a rule of `no_proxy`, in lower case, matches a host. A rule is `*`, a name including all names below it,
/// an address or a network; all but networks may have a port.
fn is_matched(rule: &str, host: &Host<&str>, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    let address = match host {
        Host::Ipv4(ip) => IpAddr::V4(*ip),
        Host::Ipv6(ip) => IpAddr::V6(*ip),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let rule = match rule.rsplit_once(':') {
                Some((rule, own_port)) if own_port.parse() == Ok(port) => rule,
                Some(_) => return false,
                None => rule,
            };
            let rule = rule.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
            let front = name.strip_suffix(rule);
            return !rule.is_empty() && front.is_some_and(|front| front.is_empty() || front.ends_with('.'));
        }
    };
    if let Some((network, bits)) = rule.split_once('/') {
        return is_in_network(address, network, bits);
    }
    if let Ok(socket) = rule.parse::<SocketAddr>() {
        return socket.ip() == address && socket.port() == port;
    }
    without_brackets(rule).trim_end_matches('.').parse() == Ok(address)
}

/// Whether an address is in a network such as 10.0.0.0/8.
fn is_in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (address, without_brackets(network).parse()) {
        (IpAddr::V4(address), Ok(IpAddr::V4(network))) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            bits <= 32 && (address.to_bits() ^ network.to_bits()) & mask == 0
        }
        (IpAddr::V6(address), Ok(IpAddr::V6(network))) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
            bits <= 128 && (address.to_bits() ^ network.to_bits()) & mask == 0
        }
        _ => false,
    }
}

fn without_brackets(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, TransportError> {
        let bad = || TransportError::Proxy(without_credentials(text));
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&full).map_err(|_| bad())?;
        if url.scheme() != "http" {
            return Err(bad());
        }
        let host = url.host().ok_or_else(bad)?.to_owned();
        // Without a port, curl uses 1080. `Url` drops an explicit 80, so the text is checked for it.
        let port = match url.port() {
            Some(port) => port,
            None if full.trim_end_matches('/').ends_with(":80") => 80,
            None => 1080,
        };
        Ok(Self { host, port, authorization: basic_authorization(&url) })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

/// The address of a proxy for messages, without everything before the last `@`, even if it is malformed.
fn without_credentials(text: &str) -> String {
    let Some((credentials, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = credentials.split_once("://").map(|(scheme, _)| scheme);
    match scheme.filter(|scheme| scheme.chars().all(char::is_alphanumeric)) {
        Some(scheme) => format!("{scheme}://{host}"),
        None => host.to_owned(),
    }
}

/// The `Basic` credentials from the user name and password in `url`, if there are any (RFC 7617).
pub(crate) fn basic_authorization(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut credentials = decoded(url.username());
    credentials.push(b':');
    credentials.extend(decoded(url.password().unwrap_or_default()));
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials)))
}

#[cfg(test)]
mod tests;
