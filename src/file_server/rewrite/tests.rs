use std::time::SystemTime;

use actix_web::test::TestRequest;

use super::*;

const TAG: &str = "\"2ebc98a1-3e8\"";

fn validators(etag: &'static str, is_provisional: bool) -> Validators {
    let modified = (0x2ebc_98a1, 0);
    let etag = HeaderValue::from_static(etag);
    Validators { etag, is_provisional, ..Validators::new(modified, modified, 1000, SystemTime::now()) }
}

fn request(lines: &[(&'static str, &str)]) -> ServiceRequest {
    let request = TestRequest::get();
    lines.iter().fold(request, |request, line| request.append_header(*line)).to_srv_request()
}

#[track_caller]
fn check(tag: &'static str, lines: &[(&'static str, &str)], name: &HeaderName, expected: Option<&str>) {
    check_of(&validators(tag, false), lines, name, expected);
}

#[track_caller]
fn check_of(
    validators: &Validators,
    lines: &[(&'static str, &str)],
    name: &HeaderName,
    expected: Option<&str>,
) {
    let mut request = request(lines);
    let rewritten = Rewritten::apply(&mut request, validators, 1000);
    let value = request.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(value, expected, "{lines:?}");
    assert!(request.headers().get_all(name).count() <= 1, "{lines:?}");
    rewritten.restore(&mut request);
    let restored: Vec<_> = request.headers().get_all(name).collect();
    let original: Vec<_> = lines.iter().filter(|line| *name == line.0).map(|line| line.1).collect();
    assert_eq!(restored, original, "{lines:?}");
}

#[test]
fn conditions_on_the_tag_become_conditions_without_a_tag() {
    for (value, expected) in [
        (TAG, "*"),
        ("*", "*"),
        ("\"a\", \"2ebc98a1-3e8\"", "*"),
        ("W/\"2ebc98a1-3e8\"", "\"\""),
        ("W/*", "\"\""),
        ("\"a\"", "\"\""),
        ("garbage", "\"\""),
        ("", "\"\""),
    ] {
        check(TAG, &[("if-match", value)], &header::IF_MATCH, Some(expected));
    }
    for (value, expected) in [(TAG, "*"), ("W/\"2ebc98a1-3e8\"", "*"), ("*", "*"), ("\"a\"", "\"\"")] {
        check(TAG, &[("if-none-match", value)], &header::IF_NONE_MATCH, Some(expected));
    }
    check(TAG, &[("if-none-match", "\"a\""), ("if-none-match", TAG)], &header::IF_NONE_MATCH, Some("*"));
}

#[test]
fn a_weak_tag_matches_only_in_the_weak_comparison() {
    const WEAK: &str = "W/\"1-2\"";
    check(WEAK, &[("if-none-match", "\"1-2\"")], &header::IF_NONE_MATCH, Some("*"));
    check(WEAK, &[("if-none-match", WEAK)], &header::IF_NONE_MATCH, Some("*"));
    check(WEAK, &[("if-match", WEAK)], &header::IF_MATCH, Some("\"\""));
    check(WEAK, &[("if-range", WEAK)], &header::IF_RANGE, Some(WEAK));
}

#[test]
fn an_if_range_that_matches_is_removed() {
    check(TAG, &[("if-range", TAG)], &header::IF_RANGE, None);
    check(TAG, &[("if-range", "\"a\"")], &header::IF_RANGE, Some("\"a\""));
    check(TAG, &[("if-range", "yesterday")], &header::IF_RANGE, Some("yesterday"));
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    check(TAG, &[("if-range", date)], &header::IF_RANGE, Some(date));
    check_of(&validators(TAG, true), &[("if-range", date)], &header::IF_RANGE, Some("\"\""));
}

#[test]
fn the_first_satisfiable_part_replaces_all_parts() {
    for (value, expected) in [
        ("bytes=500-599,0-9", Some("bytes=500-599")),
        ("Bytes = 0-9, 10-19", Some("bytes=0-19")),
        ("bytes=-10", Some("bytes=990-999")),
        ("bytes=10-", Some("bytes=10-")),
        ("bytes=5-1", None),
        ("bytes=0-99999999999999999999", Some("bytes=0-999")),
        ("bytes=1000-", Some("bytes=1000-")),
        ("lines=0-1", None),
        ("", None),
    ] {
        check(TAG, &[("range", value)], &header::RANGE, expected);
    }
}
