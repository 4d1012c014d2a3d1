use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::balancer::backends::list;
use crate::balancer::health::{FailureKind, HealthCheckConfig, ProbeFailure, ProbeOutcome};
use crate::balancer::policy::{LoadSlab, MonotonicClock, PolicyName};

#[test]
fn extreme_values_in_a_state_file_do_no_harm() {
    let most = r#"{"secs":18446744073709551615,"nanos":999999999}"#;
    let numbers =
        r#""in_flight":4294967295,"completed":18446744073709551615,"sent_bytes":18446744073709551615"#;
    let text = format!(
        r#"{{"saved_at":{most},"backends":[{{"backend":"http://a:1",
        "redirects":18446744073709551615,"work":[1e38,0,0,0,0,0,0,3e38],"cost":1e-38,
        "health":{{"state":"suspect","age":{most},"failures":4294967295,"has_answered":true,"last_failure":null,
        "failure_rate":1e30}},
        "estimate":{{"response_time":{most},"capacity":{{"last":{{{numbers},"busy":{most}}},"age":{most},
        "busy_seconds":-1e308,"requests":1e308,"bytes":1e308,"booked":1e308}}}},
        "history":{{"events":[],"hours":[{{"period":18446744073709551615,"observed":4294967295,"available":9}}],
        "days":[{{"period":0,"observed":0,"available":4294967295}}]}}}}]}}"#
    );
    let mut memory = serde_json::from_str::<Snapshot>(&text).unwrap().into_memory();
    let (now, wall) = (Instant::now(), SystemTime::now());
    let clock = MonotonicClock::new(now);
    let health_check = HealthCheckConfig {
        fall: 3,
        rise: 2,
        interval: Duration::from_secs(2),
        backoff_max: Duration::from_secs(30),
        slow_start: Duration::ZERO,
    };
    let backend = list::parse(b"a:1").backends.remove(0);
    let mut entries = [BackendEntry::new(backend, &mut LoadSlab::default(), now)];
    memory.restore(&mut entries[0], &clock, now, wall);
    let took = Duration::from_millis(5);
    for outcome in [
        ProbeOutcome::Success { connect: took, first_byte: took, total: took, report: None },
        ProbeOutcome::Failure(ProbeFailure { kind: FailureKind::Refused, detail: String::new() }),
    ] {
        let _ = entries[0].observe(&outcome, &health_check, &clock, now + took);
    }
    let mut random = SmallRng::seed_from_u64(1);
    let table =
        RoutingTable::build(0, &mut entries, PolicyName::Adaptive, &health_check, &clock, now, &mut random);
    let stored =
        serde_json::to_string(&Snapshot::of(&table, &ReportedSources::default(), &clock, now + took, wall))
            .unwrap();
    assert!(serde_json::from_str::<Snapshot>(&stored).is_ok(), "{stored}");
    let available = table.entries[0].history.availability(table.entries[0].health.state(), wall);
    assert!(available.month.is_none_or(|share| (0.0..=1.0).contains(&share)), "{available:?}");
}
