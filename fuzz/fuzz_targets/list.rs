//! Any list of servers: each line is a backend or a problem, and a printed list is read as the same list.
#![no_main]

use std::fmt::Write as _;

use fingerpost::internals::list::{MAX_PROBLEMS, MAX_WEIGHT, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let list = parse(bytes);
    assert!(list.problems.len() <= MAX_PROBLEMS);
    let mut printed = String::new();
    for backend in &list.backends {
        assert!((1..=MAX_WEIGHT).contains(&backend.weight()));
        writeln!(printed, "{backend}").expect("a string takes any text");
    }
    let again = parse(printed.as_bytes());
    assert!(again.problems.is_empty(), "{:?} in {printed}", again.problems);
    assert_eq!(list.backends, again.backends);
});
