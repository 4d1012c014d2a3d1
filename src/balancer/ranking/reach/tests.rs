use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::limits::UtcTime;
use super::*;
use crate::balancer::backends::list;
use crate::balancer::geography::NetworkTable;
use crate::balancer::policy::{LoadSlab, PolicyName, ServerFilter as _, Timestamp};
use crate::balancer::ranking::selection::Eligibility;

const TABLE: &str = "192.0.2.0/24 country=DE lat=52.5 lon=13.4\n198.51.100.0/24 country=US asn=7\n";

/// Candidates with these attributes.
fn entries(lines: &[&str]) -> Vec<BackendEntry> {
    let lines: Vec<_> = (0..).zip(lines).map(|(number, line)| format!("h{number}:1 {line}")).collect();
    let text = lines.join("\n");
    let list = list::parse(text.as_bytes());
    assert_eq!(list.problems, []);
    let (mut slab, now) = (LoadSlab::default(), Instant::now());
    let entry = |backend: &crate::balancer::backends::Backend| {
        let mut entry = BackendEntry::new(backend.clone(), &mut slab, now);
        entry.list_as(backend, None);
        entry.eligibility = Eligibility::Chosen(1.0);
        entry
    };
    list.backends.iter().map(entry).collect()
}

fn geography() -> Geography {
    Geography { table: NetworkTable::parse(TABLE.as_bytes()).unwrap().into(), databases: Vec::new() }
}

fn reach(entries: &[BackendEntry], spill_factor: u32) -> Reach {
    Reach::new(1, entries, Some(&geography()), &ServerAddresses::new(), spill_factor).unwrap()
}

fn client(address: &str) -> ReachClient {
    ReachClient { address: Some(address.parse().unwrap()), is_https: false, wanted: None }
}

/// The sets of the view of a client, as numbers of servers.
fn sets(reach: &Reach, client: &ReachClient) -> Vec<Vec<u32>> {
    let view = ClientViews::default().of(reach, client);
    let numbers = |set: MirrorSet<'_>| (0..64).filter(|number| set.contains(*number)).collect();
    view.near().chain([view.allowed()]).map(numbers).collect()
}

#[test]
fn a_view_has_a_set_for_each_band_with_a_server() {
    // Prague is 280 km from Berlin.
    let entries =
        entries(&["country=FR", "country=DE", "", "country=CZ lat=50.1 lon=14.4", "asn=7 country=JP"]);
    let reach = reach(&entries, 4);
    assert_eq!(sets(&reach, &client("192.0.2.1")), [vec![1], vec![1, 3], vec![0, 1, 3], vec![0, 1, 2, 3, 4]]);
    assert_eq!(sets(&reach, &client("198.51.100.1")), [vec![4], vec![0, 1, 2, 3, 4]]);
    assert_eq!(sets(&reach, &client("203.0.113.1")), [[0, 1, 2, 3, 4]]);
    let german = GeoPlace { country: Some("DE".parse().unwrap()), ..GeoPlace::default() };
    let wanted = ReachClient { wanted: Some(german), ..client("198.51.100.1") };
    assert_eq!(sets(&reach, &wanted), [vec![1], vec![0, 1, 3], vec![0, 1, 2, 3, 4]]);
}

#[test]
fn a_list_without_rules_has_no_reach() {
    assert!(Reach::new(1, &entries(&["weight=2", ""]), None, &ServerAddresses::new(), 4).is_none());
    assert!(Reach::new(1, &entries(&["", "not=DE"]), None, &ServerAddresses::new(), 4).is_some());
}

#[test]
fn the_address_of_a_name_gives_the_place_of_a_server() {
    let entries = entries(&["", "", "country=FR"]);
    let addresses = [("h0", "192.0.2.5"), ("h2", "192.0.2.6")]
        .map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
    let reach = Reach::new(1, &entries, Some(&geography()), &addresses.into(), 4).unwrap();
    // The last one is in the same entry of the table, although its line names another country.
    assert_eq!(sets(&reach, &client("192.0.2.1")), [vec![0, 2], vec![0, 1, 2]]);
}

#[test]
fn views_are_made_again_for_another_reach() {
    let (one, other) = (entries(&["only=DE", ""]), entries(&["", "only=DE"]));
    let mut views = ClientViews::default();
    let american = client("198.51.100.1");
    assert!(views.of(&reach(&one, 4), &american).allowed().contains(1));
    let changed = Reach { id: 2, ..reach(&other, 4) };
    assert!(!views.of(&changed, &american).allowed().contains(1));
}

#[test]
fn months_begin_as_in_the_calendar() {
    let time = |text: &str| UtcTime::of(humantime::parse_rfc3339(text).unwrap());
    let mut month = time("2023-12-31T23:59:59Z");
    assert_eq!(month.hour, 23);
    for (first, last) in [
        ("2024-01-01T00:00:00Z", "2024-01-31T23:59:59Z"),
        ("2024-02-01T00:00:00Z", "2024-02-29T23:59:59Z"),
        ("2024-03-01T00:00:00Z", "2024-03-31T23:59:59Z"),
        ("2024-04-01T00:00:00Z", "2024-04-30T23:59:59Z"),
    ] {
        assert_eq!(time(first).month, month.month + 1, "{first}");
        month = time(last);
        assert_eq!(time(first).month, month.month, "{last}");
    }
    assert_eq!(time("2000-02-29T12:00:00Z").month, time("2000-02-01T12:00:00Z").month);
    assert_eq!(time("2101-01-01T00:00:00Z").month, time("2100-01-01T00:00:00Z").month + 12);
}

#[test]
fn hours_and_months_end_by_the_clock() {
    let mut entries = entries(&["hours=22-06", "monthly_bytes=1000", ""]);
    let at = |text: &str| humantime::parse_rfc3339(text).unwrap();
    let reach = Arc::new(reach(&entries, 4));
    let table = |entries: &[BackendEntry], wall: SystemTime| {
        TableReach::new(Arc::clone(&reach), entries, PolicyName::Adaptive, Timestamp(0), wall)
    };
    let view = ClientViews::default().of(&reach, &client("203.0.113.1"));
    let admitted = |table: &TableReach| {
        (0..3).filter(|number| table.admitted(&view, None).admits(*number)).collect::<Vec<_>>()
    };
    let (night, day) = (at("2026-11-30T23:30:00Z"), at("2026-12-01T06:00:00Z"));
    let first = table(&entries, night);
    assert_eq!(admitted(&first), [0, 1, 2]);
    first.redirected(entries.get(1).unwrap(), 1000.0);
    assert_eq!(admitted(&table(&entries, night + Duration::from_mins(1))), [0, 2]);
    // The bytes survive a restart.
    let remembered = entries.get(1).unwrap().usage.as_ref().unwrap().remember();
    let usage = ServerUsage::default();
    usage.restore(remembered);
    entries.get_mut(1).unwrap().usage = Some(usage.into());
    assert_eq!(admitted(&table(&entries, night + Duration::from_mins(2))), [0, 2]);
    assert_eq!(admitted(&table(&entries, day)), [1, 2]);
}

#[test]
fn redirects_are_limited_until_the_second_ends() {
    let entries = entries(&["max_redirects=3", ""]);
    let (reach, wall) = (Arc::new(reach(&entries, 4)), SystemTime::now());
    let table = |milliseconds: u64| {
        let now = Timestamp(Duration::from_millis(milliseconds).as_nanos() as u64);
        TableReach::new(Arc::clone(&reach), &entries, PolicyName::Adaptive, now, wall)
    };
    let view = ClientViews::default().of(&reach, &client("203.0.113.1"));
    let limited = entries.first().unwrap();
    let redirect = |table: &TableReach| {
        limited.load.record_redirect(1.0, Timestamp(0));
        table.redirected(limited, 1.0);
        table.admitted(&view, None).admits(0)
    };
    let first = table(5000);
    assert!(redirect(&first) && redirect(&first) && !redirect(&first));
    assert!(!table(5900).admitted(&view, None).admits(0));
    assert!(table(6000).admitted(&view, None).admits(0));
}

#[test]
fn a_near_server_gets_at_most_its_multiple_of_the_fair_share() {
    let entries = entries(&["country=DE", "", "", "", "", "", "", ""]);
    let reach = Arc::new(reach(&entries, 2));
    let table =
        TableReach::new(Arc::clone(&reach), &entries, PolicyName::Random, Timestamp(0), SystemTime::now());
    let view = ClientViews::default().of(&reach, &client("192.0.2.1"));
    let near = table.admitted(&view, None).near(view.near().next().unwrap());
    let mut count = 0;
    for _ in 0..4000 {
        let chosen = usize::from(!near.admits(0));
        count += 1 - chosen;
        table.redirected(entries.get(chosen).unwrap(), 1.0);
    }
    // Two eighths, and the burst.
    assert!((1000..1030).contains(&count), "{count}");
    // As one of all servers, it has no limit.
    assert!(table.admitted(&view, None).admits(0));
}
