//! The parser of load reports, with arbitrary input.

use std::time::Duration;

use fingerpost::internals::load_report::{LoadReport, MOST_COUNTED, MOST_IN_FLIGHT, parse};
use proptest::prelude::*;

fn counts() -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(0..=MOST_COUNTED)
}

prop_compose! {
    fn reports()(
        in_flight in 0..=MOST_IN_FLIGHT,
        unsent_bytes in counts(),
        completed in counts(),
        busy in proptest::option::of(0..=300_000_000_000_000_u64),
        sent_bytes in counts(),
        boot in counts(),
    ) -> LoadReport {
        let busy = busy.map(Duration::from_micros);
        LoadReport { in_flight, unsent_bytes, completed, busy, sent_bytes, boot }
    }
}

proptest! {
    #[test]
    fn a_printed_report_parses_to_the_same_report(report in reports()) {
        let parsed = parse(report.to_string().as_bytes()).unwrap();
        prop_assert_eq!(parsed.report, report);
        prop_assert_eq!(parsed.clamped, 0);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = parse(&[b"JSON ", &bytes[..]].concat());
    }

    #[test]
    fn any_number_is_limited_to_its_range(in_flight in any::<f64>(), busy in any::<f64>(), boot in any::<f64>()) {
        let metrics = format!("\"in_flight\":{in_flight:e},\"busy_seconds\":{busy:e},\"boot\":{boot:e}");
        if let Ok(parsed) = parse(format!("JSON {{\"named_metrics\":{{{metrics}}}}}").as_bytes()) {
            prop_assert!(parsed.report.in_flight <= MOST_IN_FLIGHT);
            prop_assert!(parsed.report.boot.unwrap() <= MOST_COUNTED);
        }
    }
}
