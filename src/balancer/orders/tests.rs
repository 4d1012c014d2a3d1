use std::time::Duration;

use super::*;

fn order(name: OrderName, weight: Option<u32>, until: Option<&str>) -> Order {
    let request = OrderRequest { order: name, weight, note: None, until: until.map(str::to_owned) };
    request.validate(SystemTime::UNIX_EPOCH).unwrap()
}

fn id(address: &str) -> BackendId {
    list::parse_address(address).unwrap()
}

fn shown(book: &OrderBook) -> Vec<String> {
    let records = book.records().into_iter();
    records.map(|OrderRecord { backend, order }| format!("{backend} {order}")).collect()
}

#[test]
fn a_later_order_replaces_an_earlier_one_of_its_kind() {
    let mut book = OrderBook::default();
    let mut give = |order: Order| {
        book = book.with(&[id("a:1")], &order, "test", None, SystemTime::UNIX_EPOCH).unwrap();
        shown(&book)
    };
    assert_eq!(give(order(OrderName::Drain, None, None)), ["http://a:1 drain"]);
    assert_eq!(give(order(OrderName::Weight, Some(2), None)), ["http://a:1 drain", "http://a:1 weight 2"]);
    assert_eq!(give(order(OrderName::Disable, None, None)), ["http://a:1 weight 2", "http://a:1 disable"]);
    assert_eq!(give(order(OrderName::Enable, None, None)), ["http://a:1 weight 2"]);
    assert_eq!(give(order(OrderName::Weight, None, None)), Vec::<String>::new());
}

#[test]
fn an_order_ends_at_its_time() {
    let drain = order(OrderName::Drain, None, Some("2h"));
    let book =
        OrderBook::default().with(&[id("a:1"), id("b:1")], &drain, "", None, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(book.without_ended(SystemTime::UNIX_EPOCH + Duration::from_secs(7199)), None);
    let ended = book.without_ended(SystemTime::UNIX_EPOCH + Duration::from_hours(2));
    assert_eq!(ended, Some(OrderBook::default()));
}

#[test]
fn a_request_with_a_contradiction_is_refused_with_its_reason() {
    for (json, words) in [
        (r#"{"order":"drain","weight":2}"#, "only the order weight"),
        (r#"{"order":"weight","weight":0}"#, "from 1 to 1000"),
        (r#"{"order":"weight","weight":1001}"#, "from 1 to 1000"),
        (r#"{"order":"enable","until":"2h"}"#, "has an end"),
        (r#"{"order":"drain","until":"soon"}"#, "not a time"),
        (r#"{"order":"drain","note":"two\nlines"}"#, "one line"),
    ] {
        let request: OrderRequest = serde_json::from_str(json).unwrap();
        assert!(request.validate(SystemTime::UNIX_EPOCH).unwrap_err().contains(words), "{json}");
    }
}

#[test]
fn records_of_a_newer_version_are_counted_and_the_others_are_read() {
    let json = r#"[
            {"backend":"http://a:1","order":"drain","note":"n","given_at":"2026-01-01T00:00:00Z","later":1},
            {"backend":"http://b:1","order":"throttle","given_at":"2026-01-01T00:00:00Z"},
            {"backend":"http://c:1","order":"weight","weight":3,"given_at":"2026-01-01T00:00:00Z"}]"#;
    let (book, unreadable) = OrderBook::from_records(serde_json::from_str(json).unwrap());
    assert_eq!(shown(&book), ["http://a:1 drain: n", "http://c:1 weight 3"]);
    assert_eq!(unreadable, 1);
    let records = serde_json::to_value(book.records()).unwrap();
    assert_eq!(OrderBook::from_records(serde_json::from_value(records).unwrap()), (book, 0));
}

#[test]
fn a_name_is_an_authority_or_an_address_and_must_be_unambiguous() {
    let list = list::parse(b"a:1\nhttps://a:1\nb:1\nhttp://c:80/pub\n").backends;
    let find = |name| find(name, &list, &OrderBook::default()).map(|id| id.to_string());
    assert_eq!(find("b:1").as_deref(), Ok("http://b:1"));
    assert_eq!(find("B:1").as_deref(), Ok("http://b:1"));
    assert_eq!(find("http://b:1").as_deref(), Ok("http://b:1"));
    assert_eq!(find("c:80").as_deref(), Ok("http://c:80/pub"));
    assert_eq!(find("http://c/pub/").as_deref(), Ok("http://c:80/pub"));
    assert_eq!(find("https://a:1").as_deref(), Ok("https://a:1"));
    let ambiguous = find("a:1").unwrap_err().to_string();
    assert_eq!(ambiguous, "a:1 is ambiguous: http://a:1, https://a:1; write the URL");
    for unknown in ["a:2", "b", "", "http://", "http://c", "x/y"] {
        assert!(matches!(find(unknown), Err(NameError::Unknown(_))), "{unknown}");
    }
}
