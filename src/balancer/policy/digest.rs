//! Hashes that are the same on every balancer, in every build: for consistent hashing and as short names.

/// Eight bytes at a time (little-endian, the last ones filled up with zeros), each spread over all bits as `MurmurHash3`
/// does in the end; the length tells such zeros from others.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash ^ u64::from_le_bytes(*word)));
    mix(hash ^ u64::from_le_bytes(last))
}

/// The number that stands for a backend of this authority (`host:port`) in [`super::Avoid`]: 24 bits,
/// as [`super::SecondChance`] has room for. Two backends with the same number are avoided together, if at all.
#[must_use]
pub fn identity(authority: &str) -> u32 {
    (digest(authority.as_bytes()) >> 40) as u32
}

/// Spreads every bit of `hash` over all of them.
pub(super) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
