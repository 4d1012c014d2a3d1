use super::*;

const DIGEST_OF_ABC: &str = "sha-256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_text_is_searched_in_the_body() {
    let expectation: Expectation = "text:a file: I".parse().unwrap();
    assert!(expectation.is_met(b"\xFFthis is a file: I think"));
    assert!(!expectation.is_met(b"A file: I"));
    assert!(!expectation.is_met(b""));
}

#[test]
fn a_digest_is_compared_with_the_digest_of_the_whole_body() {
    for value in [DIGEST_OF_ABC.to_owned(), DIGEST_OF_ABC.to_uppercase().replace("SHA", "sha")] {
        let expectation: Expectation = value.parse().unwrap();
        assert!(expectation.is_met(b"abc"));
        assert!(!expectation.is_met(b"abcd"));
        assert_eq!(expectation.to_string(), DIGEST_OF_ABC);
    }
}

#[test]
fn other_values_are_an_error() {
    let digits = DIGEST_OF_ABC.get(8..).unwrap();
    for value in [
        "",
        "text",
        "text:",
        "abc",
        "sha-256:",
        "sha-256:ba78",
        &format!("sha-256:{digits}0"),
        &format!("sha-256:+{}", &digits[1..]),
        &format!("sha-256:{}\u{e4}", &digits[2..]),
        &format!("sha256:{digits}"),
    ] {
        assert_eq!(value.parse::<Expectation>(), Err(NotAnExpectation), "{value}");
    }
}
