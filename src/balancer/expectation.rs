//! The content that a probe expects. Without it, any 200 is a success, even the one of a captive portal or of a default
//! virtual host.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::hex::hex;

/// After a change of a file, a server may send the old content for this time.
const RECENT: Duration = Duration::from_secs(3);

/// The expected body of a probe answer. Except for a file, the text (`Display`) parses to an equal expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// The body contains this text.
    Text(Box<str>),
    /// The body has this SHA-256 digest.
    Sha256([u8; 32]),
    /// The body is the current content of a file of this machine.
    File {
        /// The file. If it is not a regular file, or if it changed a moment ago, any body is accepted.
        path: PathBuf,
        /// The expected body if the file does not exist.
        default: &'static [u8],
    },
}

/// The error for a text that is not an expectation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it must be text:SUBSTRING, or sha-256: and 64 hexadecimal digits")]
pub(crate) struct NotAnExpectation;

impl Expectation {
    /// Whether `body` meets the expectation.
    pub(crate) fn is_met(&self, body: &[u8]) -> bool {
        match self {
            Self::Text(text) => memchr::memmem::find(body, text.as_bytes()).is_some(),
            Self::Sha256(digest) => Sha256::digest(body).as_slice() == digest,
            Self::File { path, default } => is_content(path, default, body).unwrap_or(true),
        }
    }
}

fn is_content(path: &Path, default: &[u8], body: &[u8]) -> io::Result<bool> {
    match path.symlink_metadata() {
        // A symbolic link may lead out of the served directory; the servers do not follow such a link.
        Ok(file) if !file.is_file() || is_recent(&file) => Ok(true),
        Ok(file) => Ok(file.len() == body.len() as u64 && std::fs::read(path)? == body),
        // The folder changed when the file was deleted.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(body == default
            || path.parent().is_some_and(|folder| folder.metadata().is_ok_and(|folder| is_recent(&folder)))),
        Err(error) => Err(error),
    }
}

fn is_recent(file: &Metadata) -> bool {
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(file.ctime().try_into().unwrap_or(0));
    // After the clock was set back, every change is recent.
    changed.elapsed().map_or(true, |age| age < RECENT)
}

impl FromStr for Expectation {
    type Err = NotAnExpectation;

    fn from_str(value: &str) -> Result<Self, NotAnExpectation> {
        if let Some(text) = value.strip_prefix("text:").filter(|text| !text.is_empty()) {
            return Ok(Self::Text(text.into()));
        }
        let digits = value.strip_prefix("sha-256:").filter(|digits| digits.len() == 64);
        let digits = digits.map(str::as_bytes).ok_or(NotAnExpectation)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().try_fold(0, |value, digit| {
                let digit = char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit.map(|digit| value << 4 | digit).ok_or(NotAnExpectation)
            })?;
        }
        Ok(Self::Sha256(digest))
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "text:{text}"),
            Self::Sha256(digest) => write!(formatter, "sha-256:{}", hex(digest)),
            Self::File { path, .. } => write!(formatter, "the content of {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
