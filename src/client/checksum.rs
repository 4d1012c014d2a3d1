//! Digests of files: supported algorithms, text forms, computation.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::range::ByteRange;
use crate::hex::hex;

/// Size of the longest digest, in bytes.
const MAX_BYTES: usize = 64;

/// A digest algorithm. SHA-1 detects accidental damage, but not forgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    /// SHA-256, which `get` asks servers for.
    Sha256,
    /// SHA-512.
    Sha512,
    /// SHA-1.
    Sha1,
}

impl Algorithm {
    /// All algorithms, most preferred first.
    pub(super) const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::Sha1];

    /// The algorithm with this name, with or without hyphen, ignoring case.
    pub(super) fn named(name: &str) -> Option<Self> {
        let is_name =
            |own: &str| name.eq_ignore_ascii_case(own) || name.eq_ignore_ascii_case(&own.replace('-', ""));
        Self::ALL.into_iter().find(|algorithm| is_name(algorithm.name()))
    }

    /// Its name in the IANA registry used by RFC 5854.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
            Self::Sha1 => "sha-1",
        }
    }

    /// Size of the digest, in bytes.
    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
        }
    }
}

/// A digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Checksum {
    algorithm: Algorithm,
    /// Unused bytes are zero.
    bytes: [u8; MAX_BYTES],
}

impl Checksum {
    /// The digest with these bytes; `None` if their number is wrong.
    pub(super) fn new(algorithm: Algorithm, digest: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_BYTES];
        bytes
            .get_mut(..algorithm.length())?
            .copy_from_slice(Some(digest).filter(|digest| digest.len() == algorithm.length())?);
        Some(Self { algorithm, bytes })
    }

    /// Parses hexadecimal digits, or base64.
    pub(super) fn parse(algorithm: Algorithm, text: &str) -> Option<Self> {
        if text.len() != algorithm.length() * 2 {
            return Self::new(algorithm, &STANDARD.decode(text).ok()?);
        }
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).ok().filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
            u8::from_str_radix(digits, 16).ok()
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        Self::new(algorithm, &bytes?)
    }

    /// Parses `sha-256=HEX`, the format of [`Display`](fmt::Display).
    pub(super) fn parse_named(text: &str) -> Option<Self> {
        let (name, digest) = text.split_once('=')?;
        Self::parse(Algorithm::named(name)?, digest)
    }

    /// The algorithm.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits, without the name of the algorithm.
    pub(super) fn hex(&self) -> String {
        hex(self.bytes.get(..self.algorithm.length()).unwrap_or(&self.bytes))
    }

    /// Whether both digests have the same algorithm and differ. Digests of different algorithms cannot be
    /// compared.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.bytes != other.bytes
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Checksum({self})")
    }
}

impl Serialize for Checksum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_named(&text).ok_or_else(|| serde::de::Error::custom("not a digest"))
    }
}

/// An incremental digest computation.
#[derive(Debug, Clone)]
pub(super) enum ChecksumHasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
    /// SHA-1.
    Sha1(Sha1),
}

impl ChecksumHasher {
    /// A computation without input.
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
        }
    }

    /// The algorithm.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
            Self::Sha1(_) => Algorithm::Sha1,
        }
    }

    /// Adds the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all added bytes.
    pub(super) fn finish(self) -> Checksum {
        let algorithm = self.algorithm();
        let mut bytes = [0; MAX_BYTES];
        let digest: &[u8] = match self {
            Self::Sha256(hasher) => &hasher.finalize(),
            Self::Sha512(hasher) => &hasher.finalize(),
            Self::Sha1(hasher) => &hasher.finalize(),
        };
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        Checksum { algorithm, bytes }
    }
}

/// Digests of the pieces of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Size of each piece but the last, in bytes; at least 1.
    pub length: u64,
    /// The size of the file.
    pub size: u64,
    /// Digests of the pieces, in order.
    pub digests: Arc<[Checksum]>,
}

impl Pieces {
    /// The pieces that have bytes in `range`, with their digests.
    pub(super) fn touching(&self, range: ByteRange) -> impl Iterator<Item = (ByteRange, Checksum)> + '_ {
        let last = range.end.min(self.size).saturating_sub(1) / self.length;
        let numbers = range.start / self.length..=last;
        numbers.filter(move |_| !range.is_empty()).filter_map(|number| {
            let start = number.saturating_mul(self.length);
            let piece = ByteRange::new(start, start.saturating_add(self.length).min(self.size));
            let digest = self.digests.get(usize::try_from(number).ok()?)?;
            (!piece.is_empty()).then_some((piece, *digest))
        })
    }
}

#[cfg(test)]
mod tests;
