use super::*;

fn source() -> Source {
    Source::new(RedirectChain::new("http://a/f".parse().unwrap(), 0), String::new())
}

#[test]
fn the_back_off_doubles_up_to_its_maximum() {
    let settings = PlanSettings::default();
    assert_eq!(backoff(&settings, 1, 1.0), Duration::from_millis(500));
    assert_eq!(backoff(&settings, 3, 1.0), Duration::from_secs(2));
    assert_eq!(backoff(&settings, 3, 0.0), Duration::from_secs(1));
    assert_eq!(backoff(&settings, 60, 1.0), settings.backoff_max);
}

#[test]
fn the_rate_follows_the_bytes() {
    let start = Instant::now();
    let mut source = source();
    source.on_response_head(Duration::from_millis(10), start);
    for step in 1..=100 {
        source.on_bytes(100_000, start + Duration::from_millis(50 * step));
    }
    let rate = source.rate().unwrap();
    assert!((rate - 2e6).abs() < 1e3, "{rate}");
}

#[test]
fn an_absurd_retry_after_does_not_panic() {
    let mut source = source();
    let failure = RunFailure::Passing { retry_after: Some(Duration::MAX) };
    source.failed(failure, 0, &PlanSettings::default(), 0.5, Instant::now());
    assert_eq!(source.availability, Availability::Excluded);
}
