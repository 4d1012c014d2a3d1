use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::{A, AAAA};

use super::*;

const TTL: Duration = Duration::from_secs(30);

fn v4(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(10, 0, 0, last)))
}

fn v6(last: u16) -> RData {
    RData::AAAA(AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)))
}

fn failed() -> Records {
    Err(Absent::Failed("refused".to_owned()))
}

fn lines(answer: &SourceAnswer) -> Vec<String> {
    answer.backends.iter().map(ToString::to_string).collect()
}

#[test]
fn the_addresses_of_both_families_are_backends() {
    let mut last = Default::default();
    let (answer, ttl) =
        addresses([Ok((vec![v4(1), v4(2)], TTL)), Ok((vec![v6(1)], TTL / 2))], &mut last, 80).unwrap();
    assert_eq!(lines(&answer), ["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"]);
    assert_eq!(ttl, TTL / 2);
    // An unusable address is skipped.
    let (answer, _) =
        addresses([Ok((vec![RData::A(A(Ipv4Addr::UNSPECIFIED)), v4(1)], TTL)), failed()], &mut last, 80)
            .unwrap();
    assert_eq!((lines(&answer).len(), answer.skipped), (2, 1));
}

#[test]
fn a_family_whose_look_up_fails_keeps_its_addresses() {
    let mut last = Default::default();
    addresses([Ok((vec![v4(1)], TTL)), Ok((vec![v6(1)], TTL))], &mut last, 80).unwrap();
    let (answer, ttl) = addresses([Ok((vec![v4(2)], TTL)), failed()], &mut last, 80).unwrap();
    assert_eq!(
        (lines(&answer), ttl),
        (vec!["10.0.0.2:80".to_owned(), "[2001:db8::1]:80".to_owned()], Duration::ZERO)
    );
    let (answer, _) = addresses([Ok((vec![v4(2)], TTL)), Err(Absent::NoRecords)], &mut last, 80).unwrap();
    assert_eq!(lines(&answer), ["10.0.0.2:80"]);
}

#[test]
fn an_empty_answer_is_an_error_and_a_name_that_does_not_exist_an_answer() {
    let mut last = Default::default();
    for families in [
        [Err(Absent::NoRecords), Err(Absent::NoRecords)],
        [failed(), Err(Absent::NoRecords)],
        [Err(Absent::NoRecords), failed()],
        [failed(), failed()],
    ] {
        addresses(families, &mut last, 80).unwrap_err();
    }
    let (answer, _) = addresses([Err(Absent::NoName), Err(Absent::NoName)], &mut last, 80).unwrap();
    assert_eq!(answer, SourceAnswer::default());
    assert_eq!(services(Err(Absent::NoName)).unwrap().0, SourceAnswer::default());
    services(Err(Absent::NoRecords)).unwrap_err();
    services(failed()).unwrap_err();
}

#[test]
fn the_priority_of_a_service_is_its_tier_and_its_weight_is_scaled() {
    let service = |priority, weight, port, target: &str| {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
    };
    let records = |records| services(Ok((records, TTL)));
    let (answer, _) = records(vec![
        service(0, 10, 8080, "One.example."),
        service(20, 0, 81, "two.example."),
        service(60_000, 5, 82, "three.example."),
        service(0, 5, 0, "four.example."),
    ])
    .unwrap();
    let expected =
        ["one.example:8080 weight=10", "two.example:81 tier=20", "three.example:82 weight=5 tier=255"];
    assert_eq!((lines(&answer), answer.skipped), (expected.map(str::to_owned).to_vec(), 1));
    let (answer, _) =
        records(vec![service(0, 60_000, 80, "a.example."), service(0, 30, 80, "b.example.")]).unwrap();
    assert_eq!(lines(&answer), ["a.example:80 weight=1000", "b.example:80"]);
    // The root as target announces that the service does not exist.
    records(vec![service(0, 0, 0, ".")]).unwrap_err();
}
