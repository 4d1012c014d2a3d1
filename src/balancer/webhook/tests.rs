use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::balancer::backends::list;
use crate::balancer::health::{FailureKind, HealthCheckConfig, ProbeFailure, ProbeOutcome};
use crate::balancer::policy::{LoadSlab, MonotonicClock, PolicyName};
use crate::balancer::ranking::table::BackendEntry;

#[test]
fn a_backend_is_notified_after_a_time_and_once_and_so_is_its_return() {
    let health_check = HealthCheckConfig {
        fall: 1,
        rise: 1,
        interval: Duration::from_secs(2),
        backoff_max: Duration::from_secs(30),
        slow_start: Duration::ZERO,
    };
    let (start, took) = (Instant::now(), Duration::from_millis(1));
    let up = || ProbeOutcome::Success { connect: took, first_byte: took, total: took, report: None };
    let down = || ProbeOutcome::Failure(ProbeFailure { kind: FailureKind::Refused, detail: String::new() });
    let clock = MonotonicClock::new(start);
    let backend = list::parse(b"a:1").backends.remove(0);
    let mut entries = [BackendEntry::new(backend, &mut LoadSlab::default(), start)];
    let mut notifier = Notifier::default();
    let mut random = SmallRng::seed_from_u64(1);
    let mut observe = |seconds: u64, outcome: ProbeOutcome| {
        let now = start + Duration::from_secs(seconds);
        let _ = entries[0].observe(&outcome, &health_check, &clock, now);
        let name = PolicyName::Random;
        let table = RoutingTable::build(0, &mut entries, name, &health_check, &clock, now, &mut random);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let notifications = notifier.observe(&table, Duration::from_mins(5), now, wall);
        let shown = |notification: &Notification| {
            format!("{} {}", notification.event, wall_clock::text(notification.since))
        };
        notifications.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(observe(0, up()), Vec::<String>::new());
    assert_eq!(observe(10, down()), ["no-backend 1970-01-01T00:00:10Z"]);
    assert_eq!(observe(309, down()), Vec::<String>::new());
    assert_eq!(observe(310, down()), ["down 1970-01-01T00:00:10Z"]);
    assert_eq!(observe(311, down()), Vec::<String>::new());
    assert_eq!(observe(320, up()), ["up 1970-01-01T00:05:20Z", "backend-again 1970-01-01T00:00:10Z"]);
    // A short failure is not notified.
    assert_eq!(observe(330, down()).len(), 1);
    assert_eq!(observe(340, up()).len(), 1);
}

#[test]
fn a_certificate_is_notified_once_before_its_end_and_again_only_for_another_end() {
    let mut notifier = Notifier::default();
    let days = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_hours(24 * days);
    let mut observe = |today: u64, end: u64| {
        let ends = vec![("own.pem".to_owned(), days(end)), ("other.pem".to_owned(), days(1000))];
        let notifications = notifier.observe_certificates(ends, days(today));
        let shown = |notification: &Notification| {
            let since = wall_clock::text(notification.since);
            format!("{} {} {since}", notification.event, notification.certificate.as_deref().unwrap())
        };
        notifications.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(observe(0, 20), Vec::<String>::new());
    assert_eq!(observe(7, 20), ["certificate-expiry own.pem 1970-01-07T00:00:00Z"]);
    assert_eq!(observe(8, 20), Vec::<String>::new());
    assert_eq!(observe(9, 100), Vec::<String>::new());
    assert_eq!(observe(90, 100).len(), 1);
}
