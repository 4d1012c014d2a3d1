use proptest::prelude::*;

use super::*;

const MODIFIED: i64 = 0x2ebc_98a1;

fn at(seconds: i64, nanoseconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanoseconds)
}

fn tag(modified: Time, changed: Time, now: SystemTime) -> String {
    Validators::new(modified, changed, 1000, now).etag.to_str().unwrap().to_owned()
}

#[test]
fn the_tag_of_a_settled_file_is_time_and_length_in_hexadecimal() {
    let validators = Validators::new((MODIFIED, 5), (MODIFIED + 99, 7), 1000, at(MODIFIED + 100, 0));
    assert_eq!(validators.etag, "\"2ebc98a1-3e8\"");
    assert_eq!(validators.last_modified.as_ref().unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert!(!validators.is_provisional);
    assert_eq!(validators.with_suffix("br").etag, "\"2ebc98a1-3e8-br\"");
}

#[test]
fn a_recently_modified_file_has_a_tag_with_its_ctime() {
    let modified = (MODIFIED, 0);
    let first = tag(modified, (MODIFIED, 5), at(MODIFIED, 100));
    assert!(first.starts_with("W/\"2ebc98a1-3e8-"), "{first}");
    assert_ne!(first, tag(modified, (MODIFIED, 6), at(MODIFIED, 100)));
    // The tag is strong as soon as another change would have another time.
    assert_eq!(format!("W/{}", tag(modified, (MODIFIED, 5), at(MODIFIED, 300_000_000))), first);
    // Whole seconds are less precise.
    assert!(tag(modified, (MODIFIED, 0), at(MODIFIED, 999_999_999)).starts_with("W/"));
    assert_eq!(tag(modified, (MODIFIED, 5), at(MODIFIED + 1, 0)), "\"2ebc98a1-3e8\"");
    let too_recent = Validators::new(modified, modified, 1000, at(MODIFIED, 100));
    assert!(too_recent.is_provisional && too_recent.last_modified.is_some());
    assert!(too_recent.with_suffix("br").etag.to_str().unwrap().ends_with("-br\""));
}

#[test]
fn a_meaningless_time_is_not_sent_as_last_modified() {
    let now = at(MODIFIED, 0);
    for seconds in [0, 1, -1, i64::MIN] {
        let of = |changed| Validators::new((seconds, 0), (changed, 1), 1000, now);
        let validators = of(MODIFIED - 1000);
        let tag = validators.etag.to_str().unwrap();
        assert!(tag.starts_with("W/\""), "{seconds} {tag}");
        assert_ne!(validators.etag, of(MODIFIED - 999).etag);
        assert_eq!((validators.modified, validators.last_modified), (None, None), "{seconds}");
        assert!(!validators.is_provisional);
    }
}

#[test]
fn no_date_lies_in_the_future() {
    let now = at(MODIFIED, 0);
    for seconds in [MODIFIED + 1, MODIFIED + 86_400, LAST_SECOND, LAST_SECOND + 1, i64::MAX] {
        let validators = Validators::new((seconds, 0), (MODIFIED - 10, 1), 1000, now);
        assert_eq!((validators.modified, &validators.last_modified), (None, &None), "{seconds}");
        assert!(validators.is_provisional && !validators.etag.to_str().unwrap().starts_with("W/"));
    }
    assert!(Validators::new((LAST_SECOND, 0), (0, 1), 1, at(LAST_SECOND + 5, 0)).last_modified.is_some());
}

#[test]
fn a_weak_tag_matches_only_in_the_weak_comparison() {
    let validators = Validators::new((1, 0), (7, 1), 1000, at(MODIFIED, 0));
    let weak = validators.etag.as_bytes();
    assert!(validators.matches_weakly(weak) && validators.matches_weakly(&weak[2..]));
    assert!(!validators.matches_strongly(weak) && !validators.matches_strongly(&weak[2..]));
    let validators = Validators::new((MODIFIED, 0), (MODIFIED, 0), 1000, at(MODIFIED + 9, 0));
    let strong = validators.etag.as_bytes();
    let weakened = [b"W/", strong].concat();
    assert!(validators.matches_weakly(strong) && validators.matches_weakly(&weakened));
    assert!(validators.matches_strongly(strong) && !validators.matches_strongly(&weakened));
}

#[test]
fn times_are_compared_with_the_lower_precision() {
    for (sibling, original, expected) in [
        ((7, 0), (7, 123_456_789), false),
        ((6, 0), (7, 123_456_789), true),
        ((7, 123_456_000), (7, 123_456_789), false),
        ((7, 123_455_000), (7, 123_456_789), true),
        ((7, 123_456_700), (7, 123_456_789), false),
        ((7, 123_000_000), (7, 123_456_789), false),
        ((7, 123_456_788), (7, 123_456_789), true),
        ((7, 123_456_789), (7, 0), false),
        ((-7, 0), (-7, 5), false),
        ((-8, 0), (-7, 5), true),
    ] {
        assert_eq!(is_older(sibling, original), expected, "{sibling:?} {original:?}");
    }
}

proptest! {
    #[test]
    fn any_times_give_validators(
        modified: i64, changed: i64, nanoseconds in 0_u32..1_000_000_000, length: u64, now in 0_u64..1 << 40,
    ) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let validators = Validators::new((modified, nanoseconds), (changed, nanoseconds), length, now);
        prop_assert!(validators.modified.is_none_or(|modified| modified <= now));
        prop_assert!(validators.matches_weakly(validators.etag.as_bytes()));
        let _ = is_older((modified, nanoseconds), (changed, nanoseconds));
    }
}
