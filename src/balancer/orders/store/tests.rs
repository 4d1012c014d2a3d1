use super::*;
use crate::balancer::backends::list;
use crate::balancer::orders::{OrderName, OrderRequest};

fn folder(path: &std::path::Path) -> Arc<StateFolder> {
    Arc::new(StateFolder::open(path).unwrap())
}

fn drained(folder: &StateFolder) -> OrderBook {
    let request = OrderRequest { order: OrderName::Drain, weight: None, note: None, until: None };
    let order = request.validate(SystemTime::now()).unwrap();
    let id = list::parse_address("a:1").unwrap();
    let book = OrderBook::default().with(&[id], &order, "test", None, SystemTime::UNIX_EPOCH).unwrap();
    store(folder, &book).unwrap();
    book
}

fn reopen(folder: Arc<StateFolder>) -> Orders {
    Orders::open(Some(folder), None, None, SystemTime::now()).0
}

#[test]
fn a_new_folder_is_not_a_loss() {
    let place = tempfile::tempdir().unwrap();
    let orders = reopen(folder(place.path()));
    assert_eq!((orders.loss(), &*orders.book()), (None, &OrderBook::default()));
}

#[test]
fn one_damaged_or_missing_file_loses_no_order() {
    for name in [FILE, BACKUP] {
        for damage in [Some("fingerpost"), None] {
            let place = tempfile::tempdir().unwrap();
            let folder = folder(place.path());
            let book = drained(&folder);
            match damage {
                Some(text) => std::fs::write(folder.file(name), text).unwrap(),
                None => std::fs::remove_file(folder.file(name)).unwrap(),
            }
            for _ in 0..2 {
                let orders = reopen(Arc::clone(&folder));
                assert_eq!((orders.loss(), &*orders.book()), (None, &book), "{name} {damage:?}");
            }
        }
    }
}

#[test]
fn a_loss_is_reported_until_an_operator_removes_the_report() {
    let place = tempfile::tempdir().unwrap();
    let folder = folder(place.path());
    drained(&folder);
    for name in [FILE, BACKUP] {
        std::fs::write(folder.file(name), "x").unwrap();
    }
    for _ in 0..2 {
        let orders = reopen(Arc::clone(&folder));
        assert_eq!(*orders.book(), OrderBook::default());
        assert!(orders.loss().is_some());
    }
    std::fs::remove_file(folder.file(LOSS)).unwrap();
    assert_eq!(reopen(folder).loss(), None);
}

#[test]
fn missing_orders_beside_a_state_are_a_loss() {
    let place = tempfile::tempdir().unwrap();
    let folder = folder(place.path());
    std::fs::write(folder.file(STATE_FILE), "").unwrap();
    assert!(reopen(folder).loss().is_some());
}

#[test]
fn a_file_of_a_newer_version_is_read_as_far_as_possible() {
    let place = tempfile::tempdir().unwrap();
    let folder = folder(place.path());
    let body =
        br#"{"later":1,"orders":[{"backend":"http://a:1","order":"drain","given_at":"2026-01-01T00:00:00Z"},
            {"backend":"http://b:1","order":"throttle"}]}"#;
    folder.write(FILE, 9, body).unwrap();
    let orders = reopen(Arc::clone(&folder));
    assert_eq!(orders.book().backends().count(), 1);
    assert!(orders.loss().is_some() && folder.file("orders.json.damaged").exists());
}
