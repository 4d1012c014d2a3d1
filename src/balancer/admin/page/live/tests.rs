use super::listeners::{MOST_LISTENERS, QUEUE};
use super::*;

fn view(cell: &str) -> PageView {
    let cells = std::array::from_fn(|at| if at == 1 { cell.to_owned() } else { String::new() });
    PageView {
        rows: vec![BackendRow { key: "http://a:1".to_owned(), severity: 0, cells }],
        ..PageView::default()
    }
}

#[test]
fn a_message_has_the_changed_cells_only() {
    let text = changes::between(&view("up"), &view("down\n"), "a is down");
    let expected = "event: changes\ndata: {\"cells\":[[0,1,\"down\\n\"]],\"parts\":{},\"announcement\":\"a is down\"}\n\n";
    assert_eq!(text, expected);
    assert_eq!(
        changes::between(&view("up"), &view("up"), ""),
        "event: changes\ndata: {\"cells\":[],\"parts\":{}}\n\n"
    );
    assert!(!PageView::default().has_the_rows_of(&view("up")));
}

#[actix_web::test]
async fn a_listener_that_does_not_read_is_cut_and_keeps_its_place_until_its_connection_ends() {
    let balancer = crate::balancer::Balancer::builder().start().unwrap();
    let access = crate::balancer::admin::access::Access::open(None, ([127, 0, 0, 1], 1).into()).unwrap();
    let access = Arc::new(arc_swap::ArcSwap::from_pointee(access));
    let admin = Admin { balancer: Arc::clone(&balancer.0), access, reload: None, fault_injection: false };
    let mut task = LivePageTask::new(&admin, ListenerMetrics::default());
    let slow = task.listen().unwrap();
    let mut quick = task.listen().unwrap();
    for _ in 0..QUEUE + 5 {
        assert!(quick.next().await.is_some());
        task.update_listeners();
    }
    let Listeners { senders, metrics, .. } = &task.listeners;
    assert_eq!((senders.len(), metrics.cut.get(), metrics.open.get()), (1, 1, 2));
    let others: Vec<Messages> = std::iter::from_fn(|| task.listen()).collect();
    assert_eq!((others.len(), task.listeners.metrics.refused.get()), (MOST_LISTENERS - 2, 1));
    drop(slow);
    assert!(task.listen().is_some());
}
