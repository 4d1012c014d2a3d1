//! The form in which servers register in the engine and balancers find them. `docs/fleet.md` documents it.
//!
//! The value of a server's key is `GENERATION BOOT ADDRESS attribute=value...`. Without an address, the server has left.

use std::time::Duration;

/// The start of the names of keys with a registration; the rest is the address of the server.
pub(crate) const SERVER_KEYS: &str = "server:";
/// The name of the key whose value changes with each registration, so that balancers poll only this key.
pub(crate) const CHANGES_KEY: &str = "servers-changed";
/// The longest registration, in bytes.
pub(crate) const MAX_BYTES: usize = 1024;
/// The time for which a lease is valid without a renewal.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// The interval of renewals.
pub(crate) const RENEWAL: Duration = Duration::from_secs(3);
/// The time for which balancers can read that a server has left.
pub(crate) const FAREWELL: Duration = Duration::from_mins(1);

/// The address and the attributes of a registration, in the syntax of the list of servers; empty if the server has left.
/// `None` if `value` is not a registration.
pub(crate) fn line_of(value: &[u8]) -> Option<&str> {
    let text = str::from_utf8(value).ok().filter(|text| text.len() <= MAX_BYTES)?;
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.splitn(3, ' ');
    let (generation, boot) = (parts.next()?, parts.next()?);
    (is_number(generation) && is_number(boot)).then(|| parts.next().unwrap_or_default())
}
