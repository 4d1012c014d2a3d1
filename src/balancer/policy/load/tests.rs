use std::collections::HashSet;
use std::thread;

use super::*;

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
