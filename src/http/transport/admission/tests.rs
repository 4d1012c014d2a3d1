use super::*;

#[test]
fn one_too_many_is_refused_until_another_leaves() {
    let connections = Arc::new(Connections::new(2, 100));
    let address = Some(IpAddr::from([127, 0, 0, 1]));
    let (first, admission) = connections.enter(address);
    assert_eq!(admission, Admission::Granted);
    let second = connections.enter(None);
    assert_eq!(connections.enter(address).1, Admission::TooMany);
    drop(first);
    assert_eq!(connections.enter(address).1, Admission::Granted);
    drop(second);
    assert_eq!(connections.live(), 0);
}

#[test]
fn one_address_cannot_take_every_place() {
    let connections = Arc::new(Connections::new(100, 3));
    let greedy = Some(IpAddr::from([10, 0, 0, 1]));
    let held: Vec<_> = (0..3).map(|_| connections.enter(greedy)).collect();
    assert_eq!(connections.enter(greedy).1, Admission::TooMany);
    assert_eq!(connections.enter(Some(IpAddr::from([10, 0, 0, 2]))).1, Admission::Granted);
    drop(held);
    assert_eq!(connections.enter(greedy).1, Admission::Granted);
}

#[test]
fn the_addresses_of_one_ipv6_network_count_together() {
    let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:2"));
    assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
    assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
}
#[test]
fn who_is_refused_takes_no_place_from_others() {
    let connections = Arc::new(Connections::new(4, 3));
    let greedy = Some(IpAddr::from([10, 0, 0, 1]));
    let served: Vec<_> = (0..3).map(|_| connections.enter(greedy)).collect();
    let refused: Vec<_> = (0..REFUSED_AT_ONCE).map(|_| connections.enter(greedy)).collect();
    assert!(refused.iter().all(|(_, admission)| *admission == Admission::TooMany));
    assert_eq!(connections.enter(greedy).1, Admission::FarTooMany);
    assert_eq!(connections.live(), 3);
    let other = connections.enter(Some(IpAddr::from([10, 0, 0, 2])));
    assert_eq!(other.1, Admission::Granted);
    assert_eq!(connections.enter(None).1, Admission::FarTooMany);
    drop((served, other));
    // The places of the address are free again after its connections have ended.
    assert_eq!(connections.enter(greedy).1, Admission::Granted);
    drop(refused);
}
