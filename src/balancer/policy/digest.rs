//! Hashes that are the same on every balancer, in every build: for consistent hashing and as short names.

/// FNV-1a over 64 bits with the finishing steps of `MurmurHash3`, which spread the last bytes over all bits.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
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
