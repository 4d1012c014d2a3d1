use super::*;

#[test]
fn the_thread_sleeps_while_too_many_files_are_too_young() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "x").unwrap();
    let root = Arc::new(Root::open(folder.path()).unwrap());
    let (_asked, receiver) = std::sync::mpsc::sync_channel(1);
    let mut hasher = DigestThread::new(root, Arc::default(), receiver, None);
    for number in 0..=MAX_REQUESTS / 2 {
        hasher.wait_for(number.to_string().into_bytes().into(), SETTLED);
    }
    let too_recent = hasher.too_recent.front().unwrap().0;
    for walk in [None, Some(Walk::new())] {
        hasher.walk = walk;
        assert!(!hasher.work());
        assert_eq!(hasher.next_work(None), too_recent);
        assert_eq!(hasher.next_work(Some(too_recent - SETTLED)), too_recent - SETTLED);
    }
    hasher.too_recent.clear();
    assert!(hasher.next_work(None) > Instant::now());
}

#[test]
fn a_file_settles_two_seconds_after_its_change() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    for (changed, millis) in [
        ((1000, 0), 2000),
        ((999, 500_000_000), 1500),
        ((998, 0), 0),
        ((0, 0), 0),
        ((-5, 0), 0),
        ((1001, 0), 1000),
        ((1002, 0), 0),
        ((i64::MAX, u32::MAX), 0),
    ] {
        assert_eq!(settles_in(changed, now), Duration::from_millis(millis), "{changed:?}");
    }
}
