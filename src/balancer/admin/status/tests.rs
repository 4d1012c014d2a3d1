use super::*;

fn report() -> StatusReport {
    let backend = |address: &str, reason: &str, traffic: &str, response_ms| BackendStatus {
        address: address.to_owned(),
        state: "up".to_owned(),
        reason: reason.to_owned(),
        since: "2026-01-01T00:00:00Z".to_owned(),
        traffic: traffic.to_owned(),
        share: 1.0,
        redirects: 7,
        booked_bytes: None,
        expected_seconds: None,
        load_report: "none".to_owned(),
        response_ms,
        connect_ms: None,
        first_byte_ms: None,
        total_ms: None,
        in_flight: None,
        drained_in_seconds: None,
        orders: Vec::new(),
        seen_by: None,
        orders_applied: None,
        weight: 1,
        tier: 0,
        zone: None,
        sources: vec!["file:list.txt".to_owned()],
    };
    let backends = vec![
        backend("http://a:1", "answers", "yes", Some(1234.5)),
        backend("http://b.example:80", "odd\u{1b}[31m", "no, a lower tier is used", None),
    ];
    let (mode, warnings) = ("normal".to_owned(), Vec::new());
    StatusReport {
        mode,
        generation: 1,
        table_age_seconds: 0.0,
        warnings,
        last_reload: None,
        sources: Vec::new(),
        backends,
    }
}

#[test]
fn the_columns_of_a_table_are_aligned() {
    let text = report().text(None);
    let [_, heading, first, second] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let at = heading.find("WHY").unwrap();
    assert_eq!((first.find("answers"), second.find("odd")), (Some(at), Some(at)), "{text}");
    assert!(second.ends_with("odd\\u{1b}[31m; traffic: no, a lower tier is used"), "{text}");
    assert_eq!(report().text(Some(120)), text);
}

#[test]
fn a_narrow_terminal_gets_lines_that_fit() {
    let text = report().text(Some(60));
    assert!(text.lines().all(|line| line.len() <= 60), "{text}");
    assert!(
        text.contains(
            "\nhttp://a:1\n  up since 2026-01-01T00:00:00Z\n  1234.50 ms, 7 redirects (100.0 %)\n  answers\n"
        ),
        "{text}"
    );
}
