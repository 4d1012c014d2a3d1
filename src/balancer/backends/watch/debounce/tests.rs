use super::*;
use crate::balancer::backends::list;

struct Scenario {
    debouncer: Debouncer,
    now: Instant,
}

impl Scenario {
    fn new(in_force: &str) -> Self {
        let servers = list::parse(in_force.as_bytes()).backends.len();
        Self { debouncer: Debouncer::new(in_force.into(), servers), now: Instant::now() }
    }

    fn later(&mut self, milliseconds: u64) -> &mut Self {
        self.now += Duration::from_millis(milliseconds);
        self
    }

    fn read(&mut self, text: &str) -> String {
        self.read_on(text, Trigger::Noticed)
    }

    fn read_on(&mut self, text: &str, trigger: Trigger) -> String {
        let reading = match text {
            text if self.debouncer.is_in_force(text.as_bytes()) => Reading::InForce,
            "deleted" => {
                let source = std::io::ErrorKind::NotFound.into();
                Reading::Unusable(ListError::Unreadable { path: "list".into(), source })
            }
            text => Reading::List { bytes: text.into(), list: list::parse(text.as_bytes()) },
        };
        match self.debouncer.observe(reading, self.now, trigger) {
            Decision::Keep => "keep".to_owned(),
            Decision::ReadAgain(wait) => format!("again in {} ms", wait.as_millis()),
            Decision::Accept(list) => format!("accept {}", list.backends.len()),
            Decision::Refuse(_) => "refuse".to_owned(),
            Decision::Restored => "restored".to_owned(),
        }
    }
}

#[test]
fn a_complete_list_becomes_active_after_a_short_time() {
    let mut scenario = Scenario::new("a:1\n");
    assert_eq!(scenario.read("a:1\n"), "keep");
    assert_eq!(scenario.read("a:1\nb:1\n"), "again in 200 ms");
    assert_eq!(scenario.later(150).read("a:1\nb:1\n"), "again in 50 ms");
    assert_eq!(scenario.later(50).read("a:1\nb:1\n"), "accept 2");
    assert_eq!(scenario.later(50).read("a:1\nb:1\n"), "keep");
}

#[test]
fn an_incomplete_list_of_a_rewrite_in_place_never_becomes_active() {
    let mut scenario = Scenario::new("a:1\nb:1\nc:1\n");
    assert_eq!(scenario.read(""), "again in 1000 ms");
    assert_eq!(scenario.later(300).read("a:1\nb:"), "again in 1000 ms");
    assert_eq!(scenario.later(300).read("a:1\nb:1\n"), "again in 700 ms");
    assert_eq!(scenario.later(300).read("a:1\nb:1\nd:1\n"), "again in 200 ms");
    assert_eq!(scenario.later(200).read("a:1\nb:1\nd:1\n"), "accept 3");
}

#[test]
fn an_empty_list_becomes_active_after_the_longer_time() {
    let mut scenario = Scenario::new("a:1\n");
    assert_eq!(scenario.read(""), "again in 1000 ms");
    assert_eq!(scenario.later(1000).read(""), "accept 0");
}

#[test]
fn a_list_without_its_last_newline_becomes_active_after_the_longer_time() {
    let mut scenario = Scenario::new("a:1\n");
    assert_eq!(scenario.read("b:1"), "again in 1000 ms");
    assert_eq!(scenario.later(1000).read("b:1"), "accept 1");
}

#[test]
fn a_file_that_keeps_changing_becomes_active_after_the_longest_wait() {
    let mut scenario = Scenario::new("a:1\n");
    for number in 0..13 {
        assert!(scenario.read(&format!("a:1\nb:{}\n", number + 1)).starts_with("again"), "{number}");
        scenario.later(100);
    }
    assert_eq!(scenario.read("a:1\nb:99\nc:1\n"), "accept 3");
}

#[test]
fn an_unusable_file_and_its_return_are_reported_once() {
    let mut scenario = Scenario::new("a:1\n");
    assert_eq!(scenario.read("deleted"), "again in 1000 ms");
    assert_eq!(scenario.later(1000).read("deleted"), "refuse");
    assert_eq!(scenario.later(1000).read("deleted"), "keep");
    assert_eq!(scenario.later(1000).read("a:1\n"), "restored");
    assert_eq!(scenario.later(1000).read("a:1\n"), "keep");
}

#[test]
fn a_file_that_is_missing_for_a_moment_is_not_reported() {
    let mut scenario = Scenario::new("a:1\n");
    assert_eq!(scenario.read("deleted"), "again in 1000 ms");
    assert_eq!(scenario.later(100).read("a:1\n"), "keep");
}

#[test]
fn a_requested_reading_takes_effect_at_once() {
    let mut scenario = Scenario::new("a:1\n");
    assert_eq!(scenario.read_on("", Trigger::Requested), "accept 0");
    assert_eq!(scenario.read_on("deleted", Trigger::Requested), "refuse");
    assert_eq!(scenario.read_on("", Trigger::Requested), "restored");
}
