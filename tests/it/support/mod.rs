//! Support for the tests: the real program, raw HTTP, groups of servers and misbehaving peers.
//!
//! - [`program`]: starts `fingerpost` and reads its output.
//! - [`http`]: requests as bytes, and answers parsed without an HTTP library, which would repair them.
//! - [`misbehaving`]: a server with named faults, and [`downloads`]: runs the client.
//! - [`engine`]: Redis or Valkey. [`dns`]: a DNS server with scripted answers.
//! - [`black_hole`]: addresses that never answer.
//! - [`fleet`]: several file servers and a balancer for them.
//! - [`lone`]: a balancer with one server.
//! - [`operated`]: a balancer with a state folder and the commands of operators.
//! - [`seccomp`]: commands whose system calls the kernel refuses.
//! - [`load`]: continuous requests during a test.
//! - [`tools`]: nginx and other programs of the machine.
//!
//! Every wait polls a condition until a deadline; no test relies on a sleep. All processes and threads end on drop.

use std::time::{Duration, Instant};

use sha2::Digest;

pub mod black_hole;
pub mod dns;
pub mod downloads;
pub mod engine;
pub mod fleet;
pub mod http;
pub mod load;
pub mod lone;
#[allow(dead_code, reason = "each test crate uses some of the faults")]
pub mod misbehaving;
pub mod operated;
pub mod program;
pub mod seccomp;
pub mod tools;

/// The digest of these bytes as hexadecimal digits.
pub fn digits<D: Digest>(bytes: &[u8]) -> String {
    D::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// Maximum time of one wait. It is far longer than needed, because machines that build are slow.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` returns a value, and returns the value.
///
/// # Panics
/// After [`DEADLINE`], with `what` in the message.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_at_most(DEADLINE, what, condition)
}

/// The same with another deadline, for conditions that need a long time.
///
/// # Panics
/// After `most`, with `what` in the message.
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
/// After [`DEADLINE`], with `what` in the message.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
