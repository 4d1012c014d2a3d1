use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Mirrors per path, as the index must know them.
type Model = BTreeMap<u64, (u8, Vec<bool>)>;

fn check(index: &PresenceIndex, model: &Model) {
    assert_eq!(index.paths(), model.len());
    for (rank, (key, (age, mirrors))) in (0..).zip(model) {
        let found = index.find(*key).unwrap();
        assert_eq!((found.rank, found.age), (rank, *age), "{key}");
        for (mirror, lacking) in (0..).zip(mirrors) {
            assert_eq!(found.lacking.contains(mirror), *lacking, "{key} {mirror}");
        }
    }
}

fn keys() -> impl Strategy<Value = u64> {
    // Clusters, so that buckets overflow.
    prop_oneof![any::<u64>(), 1..50_u64, (u64::MAX - 50)..=u64::MAX, (1_u64 << 63)..(1 << 63) + 50]
}

proptest! {
    #[test]
    fn an_index_answers_like_a_map(
        paths in proptest::collection::btree_map(keys().prop_map(|key| key.max(1)), 0..AGES as u8, 0..300),
        mirrors in 1..130_u32,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>(), any::<bool>()), 0..300),
        forgotten: u32,
        strange in proptest::collection::vec(keys(), 0..100),
    ) {
        let keys: Vec<u64> = paths.keys().copied().collect();
        let ages: Vec<u8> = paths.values().copied().collect();
        let index = PresenceIndex::build(&keys, MirrorSets::new(mirrors as usize), |rank| PathState { set: 0, age: ages[rank] }).unwrap();
        let mut interner = SetInterner::new(index.sets());
        let mut model: Model = paths.into_iter().map(|(key, age)| (key, (age, vec![false; mirrors as usize]))).collect();
        check(&index, &model);
        for (at, mirror, lacking) in changes {
            if keys.is_empty() { break; }
            let (key, mirror) = (keys[at.index(keys.len())], mirror % mirrors);
            prop_assert!(interner.set(&index, key, mirror, lacking).unwrap());
            model.get_mut(&key).unwrap().1[mirror as usize] = lacking;
        }
        check(&index, &model);
        for key in strange {
            prop_assert_eq!(index.find(key).is_some(), model.contains_key(&key.max(1)));
        }
        interner.forget(&index, forgotten % mirrors);
        for (_, mirrors) in model.values_mut() {
            let place = forgotten as usize % mirrors.len();
            mirrors[place] = false;
        }
        check(&index, &model);
    }
}

#[test]
fn equal_sets_are_stored_once() {
    let keys: Vec<u64> = (1..10_000).map(|number| number << 50).collect();
    let index =
        PresenceIndex::build(&keys, MirrorSets::new(500), |_| PathState { set: 0, age: OLD }).unwrap();
    let mut interner = SetInterner::new(index.sets());
    for key in &keys {
        for mirror in [3, 70, 499] {
            assert!(interner.set(&index, *key, mirror, true).unwrap());
        }
    }
    assert_eq!(index.sets().count(), 4);
    assert!(!interner.set(&index, 7, 3, true).unwrap());
    assert!(!interner.set(&index, keys[0], 512, true).unwrap());
    assert_eq!(size_of::<PathBucket>(), 64);
}

#[test]
fn too_many_sets_are_an_error_and_change_nothing() {
    let index = PresenceIndex::build(&[7], MirrorSets::new(64), |_| PathState { set: 0, age: OLD }).unwrap();
    let mut interner = SetInterner::new(index.sets());
    index.sets().count.store(MOST_SETS as u32 - 1, Relaxed);
    interner.intern(index.sets(), &[1]).unwrap();
    assert_eq!(interner.intern(index.sets(), &[u64::MAX]), Err(IndexFull::Sets));
    assert!(interner.set(&index, 7, 0, true).unwrap());
    assert_eq!(interner.set(&index, 7, 63, true), Err(IndexFull::Sets));
    assert!(index.find(7).unwrap().lacking.contains(0));
}

#[test]
fn readers_see_whole_sets_while_a_writer_changes_them() {
    let keys: Vec<u64> = (1..1000_u64).map(|number| number << 54).collect();
    let index =
        PresenceIndex::build(&keys, MirrorSets::new(256), |_| PathState { set: 0, age: OLD }).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut interner = SetInterner::new(index.sets());
            for round in 0..200_u64 {
                // All four words of a set are equal.
                let set = interner.intern(index.sets(), &[round; 4]).unwrap();
                for key in &keys {
                    assert!(index.store(*key, set));
                }
            }
        });
        while !writer.is_finished() {
            for key in &keys {
                let found = index.find(*key).unwrap();
                let words: Vec<u64> = found.lacking.words().take(4).collect();
                assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
            }
        }
    });
}
