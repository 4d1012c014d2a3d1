use proptest::prelude::*;

use super::*;
use crate::balancer::backends::list;

const HOLD: Duration = Duration::from_mins(1);

fn backends(lines: &[&str]) -> Vec<Backend> {
    list::parse(lines.join("\n").as_bytes()).backends
}

fn answer(lines: &[&str]) -> SourceAnswer {
    SourceAnswer { backends: backends(lines), ..SourceAnswer::default() }
}

fn text(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(ToString::to_string).collect()
}

#[test]
fn a_failure_and_a_confirmation_keep_the_last_good_answer() {
    let (now, mut source) = (Instant::now(), SourceState::new("s", AnswerKind::Complete));
    assert!(source.answered(Some(answer(&["a:1", "b:1"])), now));
    assert!(source.failed("refused".to_owned()) && !source.failed("refused".to_owned()));
    assert_eq!((source.failures, source.error.as_deref()), (2, Some("refused")));
    assert!(!source.answered(None, now));
    assert_eq!((text(source.backends()), source.error), (vec!["a:1".to_owned(), "b:1".to_owned()], None));
}

#[test]
fn a_complete_list_removes_absent_backends_at_once() {
    let (now, mut source) = (Instant::now(), SourceState::new("s", AnswerKind::Complete));
    source.answered(Some(answer(&["b:1", "a:1"])), now);
    assert!(source.answered(Some(answer(&["b:1"])), now));
    assert_eq!(text(source.backends()), ["b:1"]);
}

#[test]
fn a_backend_is_held_until_all_answers_of_the_hold_time_lack_it() {
    let (start, mut source) = (Instant::now(), SourceState::new("s", AnswerKind::Partial(HOLD)));
    let at = |seconds| start + Duration::from_secs(seconds);
    source.answered(Some(answer(&["a:1", "b:1"])), at(0));
    assert!(!source.answered(Some(answer(&["b:1"])), at(10)));
    // It returns, so its time starts again.
    assert!(!source.answered(Some(answer(&["a:1", "b:1"])), at(60)));
    assert!(!source.answered(Some(answer(&[])), at(65)));
    assert!(!source.answered(Some(answer(&["b:1"])), at(124)));
    assert_eq!(text(source.backends()), ["a:1", "b:1"]);
    assert!(source.answered(Some(answer(&["b:1"])), at(125)));
    assert_eq!(text(source.backends()), ["b:1"]);
}

#[test]
fn a_backend_that_left_is_removed_at_once_and_may_return() {
    let (now, mut source) = (Instant::now(), SourceState::new("s", AnswerKind::Partial(HOLD)));
    source.answered(Some(answer(&["a:1", "b:1"])), now);
    let left = backends(&["a:1"]).iter().map(|backend| backend.id().clone()).collect();
    assert!(source.answered(Some(SourceAnswer { backends: backends(&["b:1"]), left, skipped: 0 }), now));
    assert_eq!(text(source.backends()), ["b:1"]);
    assert!(source.answered(Some(answer(&["a:1", "b:1"])), now));
}

#[test]
fn the_first_source_sets_the_attributes_and_every_source_is_named() {
    let now = Instant::now();
    let mut sources =
        [SourceState::new("one", AnswerKind::Complete), SourceState::new("two", AnswerKind::Complete)];
    sources[0].answered(Some(answer(&["b:1 weight=2", "c:1"])), now);
    sources[1].answered(Some(answer(&["a:1", "b:1 weight=9 zone=eu"])), now);
    let merged = merge(&sources);
    assert_eq!(text(&merged.backends), ["b:1 weight=2", "c:1", "a:1"]);
    let origins: Vec<u16> = merged.backends.iter().map(|backend| merged.origins[backend.id()]).collect();
    assert_eq!(origins, [0b11, 0b01, 0b10]);
    assert_eq!(merged.ignored, 0);
}

#[test]
fn backends_beyond_the_largest_number_are_ignored_and_counted() {
    let now = Instant::now();
    let mut sources =
        [SourceState::new("one", AnswerKind::Complete), SourceState::new("two", AnswerKind::Complete)];
    let many: Vec<_> = (0..MAX_BACKENDS).map(|number| format!("a{number}:1")).collect();
    let mut many = backends(&many.iter().map(String::as_str).collect::<Vec<_>>());
    many.extend(backends(&["beyond:1"]));
    sources[0].answered(Some(SourceAnswer { backends: many, ..SourceAnswer::default() }), now);
    sources[1].answered(Some(answer(&["a1:1", "other:1"])), now);
    assert_eq!((sources[0].skipped, sources[0].backends().len()), (1, MAX_BACKENDS));
    let merged = merge(&sources);
    assert_eq!((merged.backends.len(), merged.ignored), (MAX_BACKENDS, 1));
}

proptest! {
    /// Each event is a failure, a confirmation or an answer with some of eight backends, `seconds` after the last one.
    #[test]
    fn only_a_hold_time_of_answers_without_a_backend_removes_it(
        events in prop::collection::vec((0_u16..280, 0_u64..40), 1..60),
    ) {
        let (mut now, mut source) = (Instant::now(), SourceState::new("s", AnswerKind::Partial(HOLD)));
        let all = backends(&["a:1", "b:1", "c:1", "d:1", "e:1", "f:1", "g:1", "h:1"]);
        let mut seen = HashMap::new();
        for (event, seconds) in events {
            now += Duration::from_secs(seconds);
            match event {
                256.. if event % 2 == 0 => drop(source.failed("refused".to_owned())),
                256.. => drop(source.answered(None, now)),
                set => {
                    let named = |index: &usize| set >> index & 1 == 1;
                    let answered: Vec<Backend> = (0..8).filter(named).map(|index| all[index].clone()).collect();
                    seen.extend(answered.iter().map(|backend| (backend.id().clone(), now)));
                    source.answered(Some(SourceAnswer { backends: answered, ..SourceAnswer::default() }), now);
                }
            }
            for backend in &all {
                let is_listed = source.backends().contains(backend);
                let last_seen = seen.get(backend.id());
                prop_assert!(!is_listed || last_seen.is_some());
                if last_seen.is_some_and(|at| now - *at < HOLD) {
                    prop_assert!(is_listed, "{} was removed too early", backend);
                }
            }
        }
    }
}
