//! Parses the first word of a line, the address of a backend. Its normalised form becomes a part of `Location` headers.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{BackendId, HTTP, HTTPS, LineError, number, shown};

/// The longest name of the DNS (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 253;
/// The longest label of a name.
const MAX_LABEL_BYTES: usize = 63;

/// Parses `host:port`, `[v6]:port`, or a URL with an optional port and base path.
pub(crate) fn parse(word: &str) -> Result<BackendId, LineError> {
    let (scheme, rest, default_port) = match word.split_once("://") {
        None => (HTTP, word, None),
        Some((name, rest)) if name.eq_ignore_ascii_case("http") => (HTTP, rest, Some(80)),
        Some((name, rest)) if name.eq_ignore_ascii_case("https") => (HTTPS, rest, Some(443)),
        Some(_) => return Err(LineError::UnknownScheme { word: shown(word) }),
    };
    let (authority, base_path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = split_port(word, authority)?;
    let port = match port {
        Some(digits) => number::<u16>(digits)
            .filter(|port| *port != 0)
            .ok_or_else(|| LineError::Port { word: shown(word) })?,
        None => default_port.ok_or_else(|| LineError::NoPort { word: shown(word) })?,
    };
    let mut text = String::with_capacity(word.len() + "http://:65535".len());
    text.push_str(scheme);
    push_host(word, host, &mut text)?;
    // Writing to a string cannot fail.
    let _ = write!(text, ":{port}");
    push_base_path(word, base_path, &mut text)?;
    Ok(BackendId(text.into()))
}

/// Splits host and port. The host keeps its brackets.
fn split_port<'a>(word: &str, authority: &'a str) -> Result<(&'a str, Option<&'a str>), LineError> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or_else(|| LineError::Host { word: shown(word) })?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(LineError::Host { word: shown(word) }),
        };
    }
    match authority.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Err(LineError::NoBrackets { word: shown(word) }),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn push_host(word: &str, host: &str, text: &mut String) -> Result<(), LineError> {
    let invalid = || LineError::Host { word: shown(word) };
    if let Some(inner) = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        // A zone index (`%eth0`) is valid on one machine only. `Ipv6Addr` does not parse it.
        let address: Ipv6Addr = inner.parse().map_err(|_| invalid())?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(LineError::Unreachable { word: shown(word) });
        }
        let _ = write!(text, "[{address}]");
        return Ok(());
    }
    if ends_in_a_number(host) {
        let address: Ipv4Addr = host.parse().map_err(|_| invalid())?;
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err(LineError::Unreachable { word: shown(word) });
        }
        let _ = write!(text, "{address}");
        return Ok(());
    }
    // A URL parser refuses `xn--a`, for example, because it encodes no name.
    let is_url_host = || url::Host::parse(host).is_ok();
    if host.len() > MAX_NAME_BYTES || !host.split('.').all(is_label) || !is_url_host() {
        return Err(invalid());
    }
    text.extend(host.chars().map(|character| character.to_ascii_lowercase()));
    Ok(())
}

/// Whether a URL parser treats this host as an IPv4 address (WHATWG URL, "ends in a number"). Such a host must be in
/// dotted form, because clients disagree about `127.1` and `0x7f000001`.
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    is_decimal || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn push_base_path(word: &str, base_path: &str, text: &mut String) -> Result<(), LineError> {
    let base_path = base_path.strip_suffix('/').unwrap_or(base_path);
    // The first part is the empty text before the leading slash.
    for part in base_path.split('/').skip(1) {
        if !is_path_segment(part) {
            return Err(LineError::BasePath { word: shown(word) });
        }
        text.push('/');
        text.push_str(part);
    }
    Ok(())
}

/// Whether `part` is a path segment (RFC 3986, section 3.3) that no client removes as a dot segment.
fn is_path_segment(part: &str) -> bool {
    let plain = part.to_ascii_lowercase().replace("%2e", ".");
    if part.is_empty() || plain == "." || plain == ".." {
        return false;
    }
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        let is_allowed = match byte {
            b'%' => {
                let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
                is_digit(bytes.next()) && is_digit(bytes.next())
            }
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte),
        };
        if !is_allowed {
            return false;
        }
    }
    true
}
