//! What the stories are told with: the real program, raw HTTP, fleets and misbehaving peers.
//!
//! - [`program`]: starts `fingerpost` and reads what it prints.
//! - [`http`]: requests as bytes and answers taken apart, without an HTTP library that would repair either.
//! - [`peer`]: a server with a named misbehaviour, for probes.
//! - [`misbehaving`]: a file server with named misbehaviours, and [`downloads`]: the client that meets it.
//! - [`black_hole`]: addresses that say nothing at all.
//! - [`fleet`]: several file servers and a balancer in front of them.
//! - [`lone`]: a balancer with one server.
//! - [`seccomp`]: commands that the kernel refuses a system call.
//! - [`load`]: clients that ask all the while.
//!
//! Every wait has a deadline and polls a condition; nothing sleeps and hopes. Everything ends on drop.

use std::time::{Duration, Instant};

use sha2::Digest;

pub mod black_hole;
pub mod downloads;
pub mod fleet;
pub mod http;
pub mod load;
pub mod lone;
#[allow(dead_code, reason = "each story takes the misbehaviour it needs")]
pub mod misbehaving;
pub mod peer;
pub mod program;
#[cfg(target_os = "linux")]
pub mod seccomp;

/// The digest of these bytes in hexadecimal digits.
pub fn digits<D: Digest>(bytes: &[u8]) -> String {
    D::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// The longest any one wait may take. Far beyond what is needed, since machines that build are slow.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value, and gives it back.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_at_most(DEADLINE, what, condition)
}

/// The same with another deadline, for what is slow on purpose.
///
/// # Panics
/// After `most`, naming `what` was waited for.
#[track_caller]
pub fn wait_at_most<T>(most: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < most, "waited {most:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` is true.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was waited for.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
