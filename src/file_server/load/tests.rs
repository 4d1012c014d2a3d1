use super::*;

fn paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

#[test]
fn promised_bytes_are_those_not_sent_yet() {
    paused(async {
        let load = Arc::new(Load::new(7));
        let mut first = load.begin(RequestKind::Client, 1000);
        let second = load.begin(RequestKind::Client, 50);
        first.sent(300);
        let report = load.report();
        assert_eq!((report.in_flight, report.unsent_bytes), (3, Some(750)));
        first.complete();
        drop(second);
        let report = load.report();
        assert_eq!((report.in_flight, report.unsent_bytes), (1, Some(0)));
        assert_eq!((load.completed(), load.aborted(), load.sent()), (1, 1, 1000));
        assert_eq!(report.boot, Some(7));
    });
}

#[test]
fn busy_time_is_the_time_with_a_client_request_in_flight() {
    paused(async {
        let load = Arc::new(Load::new(1));
        let second = Duration::from_secs(1);
        let probe = load.begin(RequestKind::Probe, 10);
        tokio::time::advance(second).await;
        assert_eq!(load.report().busy, Some(Duration::ZERO));
        probe.complete();
        let first = load.begin(RequestKind::Client, 10);
        tokio::time::advance(second).await;
        let other = load.begin(RequestKind::Client, 10);
        first.complete();
        tokio::time::advance(second).await;
        assert_eq!(load.report().busy, Some(2 * second));
        other.complete();
        tokio::time::advance(second).await;
        assert_eq!(load.report().busy, Some(2 * second));
    });
}
