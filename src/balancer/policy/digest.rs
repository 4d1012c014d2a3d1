//! Hashes that are equal on every balancer and in every build, for consistent hashing and short identifiers.

/// A 64-bit hash of `bytes`; not cryptographic.
///
/// It processes eight bytes at a time (little-endian, zero-padded) and spreads them with the finalizer of `MurmurHash3`.
/// The length is hashed too, so that padding differs from real zeros.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let last = match bytes.last_chunk::<8>() {
        _ if rest.is_empty() => 0,
        Some(end) => u64::from_le_bytes(*end) >> (64 - 8 * rest.len()),
        None => rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash ^ u64::from_le_bytes(*word)));
    mix(hash ^ last)
}

/// A 24-bit hash of a backend's authority (`host:port`), for [`Avoid`](super::Avoid) and
/// [`RetryAvoidance`](super::RetryAvoidance). If two backends have the same hash, a request that avoids one avoids both.
#[must_use]
pub fn identity(authority: &str) -> u32 {
    (digest(authority.as_bytes()) >> 40) as u32
}

/// The finalizer of `MurmurHash3`: spreads every bit of `hash` over all bits.
pub(super) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
