use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const LIMIT: Duration = Duration::from_secs(8);

#[test]
fn a_deadline_passes_after_its_limit_and_at_most_a_quarter_later() {
    let count = Arc::new(Count::default());
    let mut deadlines = Deadlines::new(LIMIT);
    assert_eq!(deadlines.period(), Duration::from_secs(2));
    let slot = deadlines.enter(Arc::clone(&count).into());
    deadlines.set(slot, LIMIT);
    for _ in 0..4 {
        deadlines.sweep();
        assert!(!deadlines.is_over(slot));
    }
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    deadlines.sweep();
    assert!(deadlines.is_over(slot));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_connection_that_left_is_not_woken_and_its_slot_is_used_again() {
    let count = Arc::new(Count::default());
    let mut deadlines = Deadlines::new(LIMIT);
    let first = deadlines.enter(Arc::clone(&count).into());
    deadlines.set(first, Duration::ZERO);
    deadlines.leave(first);
    deadlines.sweep();
    deadlines.sweep();
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    let second = deadlines.enter(Arc::clone(&count).into());
    assert_eq!((first, deadlines.is_over(second)), (second, false));
    deadlines.wake_all();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_cleared_deadline_never_passes() {
    let mut deadlines = Deadlines::new(Duration::ZERO);
    let slot = deadlines.enter(Arc::new(Count::default()).into());
    deadlines.set(slot, LIMIT);
    deadlines.clear(slot);
    (0..10_000).for_each(|_| deadlines.sweep());
    assert!(!deadlines.is_over(slot));
}
