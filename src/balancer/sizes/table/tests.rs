use super::*;

fn seconds(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000_000)
}

fn look_up(table: &SizeTable, path: &str, at: u64) -> SizeLookup {
    table.look_up(path.as_bytes(), digest(path.as_bytes()), None, seconds(at))
}

fn learn(table: &SizeTable, path: &str, size: u64, at: u64) {
    let found = FoundSize { bytes: size, tag: tag_digest(b"\"1\"") };
    table.learn(path.as_bytes(), digest(path.as_bytes()), found, seconds(at));
}

fn bytes(found: SizeLookup) -> f32 {
    found.size.unwrap().bytes()
}

#[test]
fn a_path_is_wanted_from_its_second_request_until_it_is_offered() {
    let table = SizeTable::default();
    assert_eq!(table.expected(b"/a", digest(b"/a")), None);
    assert!(!look_up(&table, "/a", 1).is_wanted);
    assert!(look_up(&table, "/a", 2).is_wanted);
    table.mark_offered(digest(b"/a"), seconds(2));
    assert!(!look_up(&table, "/a", 3).is_wanted);
    assert!(look_up(&table, "/a", 1000).is_wanted);
}

#[test]
fn a_size_is_known_to_its_class_for_a_day() {
    let table = SizeTable::default();
    for size in [0, 10, 1000, 12_345_678, 5_000_000_000] {
        let path = format!("/{size}");
        learn(&table, &path, size, 100);
        let found = look_up(&table, &path, 5000);
        let ratio = (f64::from(bytes(found)) + 0.1) / (size as f64 + 0.1);
        assert!((0.8..1.25).contains(&ratio), "{size}: {found:?}");
        assert!(!found.is_wanted);
        assert_eq!(look_up(&table, &path, 90_000), SizeLookup { is_wanted: true, ..found });
    }
}

#[test]
fn a_client_with_another_version_causes_a_look_up_at_most_every_ten_minutes() {
    let table = SizeTable::default();
    learn(&table, "/a", 1000, 100);
    let is_wanted =
        |tag: &str, at: u64| table.look_up(b"/a", digest(b"/a"), Some(tag.as_bytes()), seconds(at)).is_wanted;
    assert!(!is_wanted("\"2\"", 200));
    assert!(!is_wanted("\"1\"", 1000));
    assert!(!is_wanted(" W/\"1\"", 1000));
    assert!(is_wanted("\"2\"", 1000));
    table.mark_offered(digest(b"/a"), seconds(1000));
    assert!(!is_wanted("\"2\"", 1001));
    assert_eq!(look_up(&table, "/a", 1001).size, look_up(&table, "/a", 200).size);
    assert!(is_wanted("\"2\"", 2000));
    // A server without entity tags does not show a change.
    let untagged = FoundSize { bytes: 1000, tag: 0 };
    table.learn(b"/a", digest(b"/a"), untagged, seconds(2000));
    assert!(!is_wanted("\"2\"", 3000));
}

#[test]
fn a_false_size_is_limited_and_moves_the_mean_of_similar_files_little() {
    let table = SizeTable::default();
    learn(&table, "/a.iso", 1_000_000, 1);
    learn(&table, "/b.iso", u64::MAX, 1);
    let claimed = bytes(look_up(&table, "/b.iso", 2));
    assert!((0.8e12..1.25e12).contains(&claimed), "{claimed}");
    let mean = bytes(look_up(&table, "/c.iso", 2));
    assert!(mean < 3e6, "{mean}");
    (0..50).for_each(|number| learn(&table, &format!("/{number}.iso"), 1_000_000, 1));
    let mean = bytes(look_up(&table, "/c.iso", 2));
    assert!(mean < 1.1e6, "{mean}");
}

#[test]
fn an_unknown_path_has_the_mean_of_its_extension_or_directory() {
    let table = SizeTable::default();
    learn(&table, "/x/a.iso", 1_000_000, 1);
    learn(&table, "/y/plain", 50, 1);
    assert_eq!(look_up(&table, "/z/b.iso", 2).size, Some(ExpectedSize::Mean(1e6)));
    assert_eq!(look_up(&table, "/y/other", 2).size, Some(ExpectedSize::Mean(50.0)));
    assert_eq!(look_up(&table, "/z/other", 2).size, None);
}

#[test]
fn a_million_paths_fit_and_single_requests_displace_no_size() {
    let table = SizeTable::default();
    let path = |number: u32| format!("/pool/{number}.deb");
    (0..1_000_000).for_each(|number| learn(&table, &path(number), 1000, 1));
    for number in 1_000_000..1_500_000 {
        assert_eq!(look_up(&table, &path(number), 2).size, Some(ExpectedSize::Mean(1000.0)));
    }
    let known = (0..1_000_000).filter(|number| table.find(digest(path(*number).as_bytes())).is_some());
    assert!(known.count() > 940_000);
    assert!(size_of::<Bucket>() * BUCKETS + MEANS * 4 <= 16_000_000);
}
