use super::*;

#[test]
fn an_end_is_a_duration_or_a_time_with_any_offset() {
    let now = humantime::parse_rfc3339("2026-12-01T00:00:00Z").unwrap();
    for (given, end) in [
        ("2h", "2026-12-01T02:00:00Z"),
        ("1h 30m", "2026-12-01T01:30:00Z"),
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
        ("2026-12-24t18:00:00.5z", "2026-12-24T18:00:00Z"),
        ("2026-12-24T18:00:00+01:30", "2026-12-24T16:30:00Z"),
        ("2026-12-24T18:00:00-02:00", "2026-12-24T20:00:00Z"),
    ] {
        assert_eq!(parse_end(given, now).map(text).as_deref(), Ok(end), "{given}");
    }
    for (given, words) in [
        ("", "is not a time"),
        ("soon", "is not a time"),
        ("2026-12-24", "is not a time"),
        ("2026-12-24T18:00:00+99:00", "is not a time"),
        ("2026-12-24T18:00:00\u{e9}+1:00", "is not a time"),
        ("0s", "in the past"),
        ("2025-12-24T18:00:00Z", "in the past"),
        ("2y", "more than a year"),
        ("9999999999999y", "not a time"),
    ] {
        assert!(parse_end(given, now).unwrap_err().contains(words), "{given}");
    }
}
