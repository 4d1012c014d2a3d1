//! The list of servers as text: one backend a line.
//!
//! ```text
//! # a comment
//! 127.0.0.1:8081
//! [2001:db8::7]:8081          weight=2
//! https://mirror.example/pub  weight=4 tier=1 zone=eu   # port 443, files below /pub
//! mirror2.example:8080        expect=text:I%20am%20a%20file
//! ```
//!
//! Parsing is pure and never fails as a whole: every line is a backend, blank, or a [`ListProblem`].

use std::collections::HashMap;
use std::sync::Arc;

use super::{Backend, BackendId, HTTP, HTTPS};
use crate::balancer::expectation::Expectation;

mod address;

pub(crate) use address::parse as parse_address;

/// The largest number of backends. The others are ignored and reported.
pub(crate) const MAX_BACKENDS: usize = 100_000;
/// The longest line without its comment, in bytes.
const MAX_LINE_BYTES: usize = 1024;
/// The largest number of stored problems. The others are only counted.
pub const MAX_PROBLEMS: usize = 100;
/// The largest `weight=`.
pub const MAX_WEIGHT: u32 = 1000;
/// The weight of a line without one.
pub(crate) const DEFAULT_WEIGHT: u32 = 1;
/// The tier of a line without one.
pub(crate) const DEFAULT_TIER: u8 = 0;
/// The longest `zone=`, in bytes.
const MAX_ZONE_BYTES: usize = 64;
/// The longest part of an invalid word in a message, in characters.
const SHOWN_CHARACTERS: usize = 60;

/// A parsed list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// The backends in the order of their lines, each identity once.
    pub backends: Vec<Backend>,
    /// The problems in the order of the lines; at most [`MAX_PROBLEMS`].
    pub problems: Vec<ListProblem>,
    /// The number of problems beyond [`MAX_PROBLEMS`].
    pub unlisted_problems: usize,
}

impl List {
    /// Whether the text is not a list: it has lines with content, and each of them is invalid.
    ///
    /// A text without content is a valid, empty list.
    pub(crate) fn is_garbage(&self) -> bool {
        self.backends.is_empty() && !self.problems.is_empty()
    }

    fn report(&mut self, line: usize, reason: LineError) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(ListProblem { line, reason });
        } else {
            self.unlisted_problems += 1;
        }
    }
}

/// A line that is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ListProblem {
    /// The number of the line; the first is 1.
    pub line: usize,
    /// The reason.
    pub reason: LineError,
}

/// The reason why a line is ignored. Messages quote words of the line and escape all but visible text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("the file is UTF-16; save it as UTF-8")]
    Utf16,
    #[error("the line is not UTF-8 text; write names in ASCII (xn--...)")]
    NotUtf8,
    #[error("the line is {bytes} bytes long; at most {MAX_LINE_BYTES} are read")]
    TooLong { bytes: usize },
    #[error("{word}: no port; write host:port")]
    NoPort { word: String },
    #[error("{word}: the port must be a number from 1 to 65535")]
    Port { word: String },
    #[error("{word}: the scheme must be http:// or https://")]
    UnknownScheme { word: String },
    #[error(
        "{word}: the host must be a name of letters, digits, '-', '_' and '.' (others as xn--...), or an IP address"
    )]
    Host { word: String },
    #[error("{word}: an IPv6 address needs brackets, as in [::1]:8081")]
    NoBrackets { word: String },
    #[error(
        "{word}: clients cannot connect to this address; write the address at which they reach the server"
    )]
    Unreachable { word: String },
    #[error("{word}: the base path must have no '.', '..' or empty segment, no query and no fragment")]
    BasePath { word: String },
    #[error("{word}: only attributes such as weight=2 may follow the server")]
    NotAnAttribute { word: String },
    #[error("{word}: unknown attribute; the attributes are weight, tier, zone, expect, proof and origin")]
    UnknownAttribute { word: String },
    #[error("{word}: the line has this attribute twice")]
    RepeatedAttribute { word: String },
    #[error(
        "{word}: a weight is a whole number from 1 to {MAX_WEIGHT}; to take a server out, remove its line"
    )]
    Weight { word: String },
    #[error("{word}: a tier is a whole number from 0 to 255; the lowest is used first")]
    Tier { word: String },
    #[error("{word}: a zone is 1 to {MAX_ZONE_BYTES} letters, digits, '-', '_' and '.'")]
    Zone { word: String },
    #[error("{word}: an expectation is text:SUBSTRING, with %20 for a space, or sha-256: and 64 digits")]
    Expectation { word: String },
    #[error("{word}: a proof is the path of a file in the form of a URL, such as /dists/stable/InRelease")]
    Proof { word: String },
    #[error("{id} is already in line {first}, which is used")]
    Duplicate { id: BackendId, first: usize },
    #[error("the list has more than {MAX_BACKENDS} servers; this one and {more} more are ignored")]
    TooMany { more: usize },
}

/// Parses a list. Accepts any bytes, in linear time.
#[must_use]
pub fn parse(text: &[u8]) -> List {
    let mut list = List::default();
    if text.starts_with(&[0xFF, 0xFE]) || text.starts_with(&[0xFE, 0xFF]) {
        list.report(1, LineError::Utf16);
        return list;
    }
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut first_lines: HashMap<BackendId, usize> = HashMap::new();
    let mut first_left_out = None;
    let mut left_out: usize = 0;
    for (line, bytes) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        match parse_line(bytes) {
            Ok(None) => {}
            Ok(Some(backend)) => {
                if let Some(first) = first_lines.get(&backend.id) {
                    list.report(line, LineError::Duplicate { id: backend.id, first: *first });
                } else if list.backends.len() < MAX_BACKENDS {
                    first_lines.insert(backend.id.clone(), line);
                    list.backends.push(backend);
                } else {
                    first_left_out.get_or_insert(line);
                    left_out += 1;
                }
            }
            Err(reason) => list.report(line, reason),
        }
    }
    if let Some(line) = first_left_out {
        list.report(line, LineError::TooMany { more: left_out - 1 });
    }
    list
}

/// Parses one line without its line feed; `None` for a blank line or a comment.
fn parse_line(bytes: &[u8]) -> Result<Option<Backend>, LineError> {
    let content = bytes.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
    if content.is_empty() {
        return Ok(None);
    }
    if content.len() > MAX_LINE_BYTES {
        return Err(LineError::TooLong { bytes: content.len() });
    }
    let content = std::str::from_utf8(content).map_err(|_| LineError::NotUtf8)?;
    let mut words = content.split_ascii_whitespace();
    words.next().map(|address| from_words(address, words)).transpose()
}

/// The backend of the words of a line.
pub(crate) fn from_words<'a>(
    address: &str,
    attributes: impl Iterator<Item = &'a str>,
) -> Result<Backend, LineError> {
    let id = parse_address(address)?;
    let (weight, tier, zone, expectation) = (DEFAULT_WEIGHT, DEFAULT_TIER, None, None);
    let mut backend = Backend { id, weight, tier, zone, expectation, proof: None, is_origin: false };
    let mut keys = Vec::new();
    for word in attributes {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "origin" if key == word => backend.is_origin = true,
            _ if key == word => return Err(LineError::NotAnAttribute { word: shown(word) }),
            "weight" => backend.weight = self::weight(word, value)?,
            "tier" => backend.tier = self::tier(word, value)?,
            "zone" => backend.zone = Some(self::zone(word, value)?),
            "expect" => backend.expectation = Some(self::expectation(word, value)?),
            "proof" => backend.proof = Some(proof(word, value)?),
            _ => return Err(LineError::UnknownAttribute { word: shown(word) }),
        }
        if keys.contains(&key) {
            return Err(LineError::RepeatedAttribute { word: shown(word) });
        }
        keys.push(key);
    }
    Ok(backend)
}

fn weight(word: &str, value: &str) -> Result<u32, LineError> {
    number(value)
        .filter(|weight| (1..=MAX_WEIGHT).contains(weight))
        .ok_or_else(|| LineError::Weight { word: shown(word) })
}

fn tier(word: &str, value: &str) -> Result<u8, LineError> {
    number(value).ok_or_else(|| LineError::Tier { word: shown(word) })
}

fn zone(word: &str, value: &str) -> Result<Arc<str>, LineError> {
    let is_valid = (1..=MAX_ZONE_BYTES).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_valid { Ok(value.into()) } else { Err(LineError::Zone { word: shown(word) }) }
}

/// Decodes and parses an expectation. It is percent-encoded, because a word contains no space and `#` starts a comment.
fn expectation(word: &str, value: &str) -> Result<Arc<Expectation>, LineError> {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8().ok();
    let expectation = decoded.and_then(|value| value.parse::<Expectation>().ok());
    expectation.map(Arc::new).ok_or_else(|| LineError::Expectation { word: shown(word) })
}

/// Parses the path of a proof. It may have no slash at its start.
fn proof(word: &str, value: &str) -> Result<Arc<str>, LineError> {
    let path = format!("/{}", value.trim_start_matches('/'));
    let is_valid = path.len() > 1
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}?#".contains(&byte))
        && path.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | ".."));
    if is_valid { Ok(path.into()) } else { Err(LineError::Proof { word: shown(word) }) }
}

/// Parses a number that has only digits; `str::parse` would accept a sign, too.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A word of the list for a message: truncated, and escaped for terminals and logs.
fn shown(word: &str) -> String {
    let mut text: String = word.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_default).collect();
    if word.chars().nth(SHOWN_CHARACTERS).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests;
