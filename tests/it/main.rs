//! The real binary, on free ports, against real and misbehaving peers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed test may panic"
)]
#![allow(clippy::disallowed_types, reason = "these tests wait for real processes in real time")]

#[test]
fn version() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_fingerpost")).arg("--version").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("fingerpost "));
}
