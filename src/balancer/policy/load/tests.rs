use std::collections::HashSet;
use std::thread;

use super::*;
use crate::balancer::policy::load_cell::{ByteCost, MAX_BACKLOG};
use crate::balancer::policy::load_slab::CHUNK_LEN;

fn cells(loads: &[Arc<BackendLoad>]) -> HashSet<*const LoadCell> {
    loads.iter().map(|load| std::ptr::from_ref(load.cell())).collect()
}

fn allocate(slab: &mut LoadSlab, count: usize) -> Vec<Arc<BackendLoad>> {
    (0..count as u32).map(|identity| slab.allocate(identity)).collect()
}

#[test]
fn each_backend_has_its_own_cell() {
    let loads = allocate(&mut LoadSlab::default(), 3 * CHUNK_LEN);
    assert_eq!(cells(&loads).len(), loads.len());
    assert!((0..).zip(&loads).all(|(identity, load)| load.identity() == identity));
}

#[test]
fn the_slab_reuses_and_resets_cells_of_dropped_backends_only() {
    let mut slab = LoadSlab::default();
    let mut loads = allocate(&mut slab, CHUNK_LEN);
    let kept = Arc::clone(&loads[7]);
    for load in &loads {
        load.cell().count_redirect();
    }
    let before = cells(&loads);
    loads.clear();
    loads.extend(allocate(&mut slab, CHUNK_LEN - 1));
    assert!(loads.iter().all(|load| load.redirects() == 0));
    assert_eq!(kept.redirects(), 1);
    loads.push(kept);
    assert_eq!(cells(&loads), before);
}

#[test]
fn a_restart_keeps_the_booked_work_and_drains_it_by_the_time_that_has_passed() {
    let mut slab = LoadSlab::default();
    let (before, after) = (slab.allocate(0), slab.allocate(0));
    let at = |seconds: u64| Timestamp(seconds * 1_000_000_000);
    // 10 MB/s.
    let cost = ByteCost { idle: 100.0, weighted: 100.0, by_size: true };
    before.cell().set_cost(cost, at(100));
    for size in [1e6, 1e6, 50e6] {
        before.record_redirect(size, at(100));
    }
    let remembered = before.remember(at(101));
    let text = serde_json::to_string(&remembered).unwrap();
    after.restore(&serde_json::from_str(&text).unwrap(), Duration::from_secs(2), at(3));
    after.cell().set_cost(cost, at(3));
    assert_eq!(after.redirects(), 3);
    // A new download of 1 MB waits only for the large one, of which 22 MB are left.
    let BookedWork { bytes, expected } = after.booked_work(1e6, at(3)).unwrap();
    assert!((21_900_000..22_100_000).contains(&bytes), "{bytes}");
    assert!((0.15..0.3).contains(&expected.as_secs_f64()), "{expected:?}");
    // Work that ended in the meantime is not restored.
    after.restore(&remembered, Duration::from_hours(1), at(3));
    assert_eq!(after.booked_work(1e6, at(3)).unwrap().bytes, 0);
}

#[test]
fn a_state_without_booked_work_is_restored() {
    let load = LoadSlab::default().allocate(0);
    load.restore(&serde_json::from_str("{\"redirects\":7}").unwrap(), Duration::ZERO, Timestamp(1));
    assert_eq!((load.redirects(), load.cell().finish_time()), (7, Timestamp(0)));
}

#[test]
fn one_download_adds_at_most_an_hour() {
    let load = LoadSlab::default().allocate(0);
    load.cell().set_cost(ByteCost { idle: 100.0, weighted: 100.0, by_size: false }, Timestamp(0));
    load.record_redirect(1e12, Timestamp(1));
    assert!(load.cell().finish_time() <= Timestamp(1 + MAX_BACKLOG));
}

#[test]
fn concurrent_workers_lose_no_redirect_and_no_work() {
    let load = LoadSlab::default().allocate(0);
    load.cell().book(10.0, Timestamp(1_000));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    load.cell().book(10.0, Timestamp(1_000));
                }
            });
        }
    });
    assert_eq!(load.redirects(), 200_001);
    assert_eq!(load.cell().finish_time(), Timestamp(1_000 + 200_001 * 10));
}
