//! Any load report: each value is within its limits, and a printed report is read as the same report.
#![no_main]

use fingerpost::internals::load_report::{MOST_COUNTED, MOST_IN_FLIGHT, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(parsed) = parse(bytes) else { return };
    let report = parsed.report;
    assert!(report.in_flight <= MOST_IN_FLIGHT);
    let counts = [report.unsent_bytes, report.completed, report.sent_bytes, report.boot];
    assert!(counts.into_iter().flatten().all(|count| count <= MOST_COUNTED));
    let again = parse(report.to_string().as_bytes()).expect("a printed report is valid");
    assert_eq!((again.report, again.clamped), (report, 0));
});
