//! A source of backends, as the operator names it after `--backends`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::engine::{EngineAddress, EngineUrlError};

/// A source of backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceAddress {
    /// A list of servers on this machine.
    File(PathBuf),
    /// A source that is read over the network.
    Remote(RemoteAddress),
}

/// A source that is read over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RemoteAddress {
    /// The addresses of a name, with the port of the servers.
    Dns {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// The SRV records of a name.
    DnsService(String),
    /// A list of servers, or targets in the format of Prometheus.
    Http(Url),
    /// The registrations in an engine.
    Engine(EngineAddress),
}

/// A text does not name a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceAddressError {
    #[error(
        "it must be file:PATH, dns://name:port, dns+srv://name, a URL with http:// or https://, or redis://host:6379"
    )]
    Form,
    #[error("it must have a name and a port, such as dns://mirrors.example:8080")]
    Dns,
    #[error("it must be a name without a port, such as dns+srv://_http._tcp.mirrors.example")]
    DnsService,
    #[error(transparent)]
    Engine(#[from] EngineUrlError),
}

/// The longest name in DNS, in bytes.
const MAX_NAME_BYTES: usize = 253;

impl FromStr for SourceAddress {
    type Err = SourceAddressError;

    fn from_str(text: &str) -> Result<Self, SourceAddressError> {
        match text.strip_prefix("file:").filter(|path| !path.is_empty()) {
            Some(path) => Ok(Self::File(PathBuf::from(path))),
            None => text.parse().map(Self::Remote),
        }
    }
}

impl FromStr for RemoteAddress {
    type Err = SourceAddressError;

    fn from_str(text: &str) -> Result<Self, SourceAddressError> {
        let is_name = |name: &str| {
            (1..=MAX_NAME_BYTES).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if let Some(name) = text.strip_prefix("dns+srv://") {
            return if is_name(name) {
                Ok(Self::DnsService(name.to_owned()))
            } else {
                Err(SourceAddressError::DnsService)
            };
        }
        if let Some(rest) = text.strip_prefix("dns://") {
            let parts = rest.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
            return match parts {
                Some((name, port)) if is_name(name) && port > 0 => {
                    Ok(Self::Dns { name: name.to_owned(), port })
                }
                _ => Err(SourceAddressError::Dns),
            };
        }
        if EngineAddress::has_scheme(text) {
            return Ok(Self::Engine(text.parse()?));
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Http(url)),
            _ => Err(SourceAddressError::Form),
        }
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Remote(address) => write!(formatter, "{address}"),
        }
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { name, port } => write!(formatter, "dns://{name}:{port}"),
            Self::DnsService(name) => write!(formatter, "dns+srv://{name}"),
            // User, password and query may be secrets.
            Self::Http(url) => {
                let query = if url.query().is_some() { "?..." } else { "" };
                write!(formatter, "{}{}{query}", url.origin().ascii_serialization(), url.path())
            }
            Self::Engine(address) => write!(formatter, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_without_secrets() {
        for (text, shown) in [
            ("file:a list.txt", "file:a list.txt"),
            ("dns://mirrors.example:8080", "dns://mirrors.example:8080"),
            ("dns+srv://_http._tcp.x.example", "dns+srv://_http._tcp.x.example"),
            ("http://user:secret@h:81/list?token=secret", "http://h:81/list?..."),
            ("https://h/sd.json", "https://h/sd.json"),
            ("redis://user@h/2", "redis://h:6379/2"),
        ] {
            assert_eq!(text.parse::<SourceAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_invalid_source_is_an_error_that_shows_a_valid_one() {
        for (text, part) in [
            ("", "file:PATH"),
            ("list.txt", "file:PATH"),
            ("file:", "file:PATH"),
            ("ftp://h/", "file:PATH"),
            ("dns://name", "dns://mirrors.example:8080"),
            ("dns://:80", "dns://mirrors.example:8080"),
            ("dns://name:0", "dns://mirrors.example:8080"),
            ("dns+srv://name:80", "dns+srv://_http"),
            ("redis://user:secret@h", "fleet.password_file"),
        ] {
            let message = text.parse::<SourceAddress>().unwrap_err().to_string();
            assert!(message.contains(part) && !message.contains("secret"), "{message}");
        }
    }
}
