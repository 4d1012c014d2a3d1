//! The command line as a person meets it.

use super::support::program::fingerpost;

#[test]
fn version() {
    let output = fingerpost().arg("--version").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("fingerpost "));
}
