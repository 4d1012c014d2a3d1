use proptest::prelude::*;

use super::*;

/// All paths that a download to `name` writes to.
fn all(name: &str) -> HashSet<PathBuf> {
    let name = Path::new(name);
    BESIDE.iter().map(|suffix| beside(name, suffix)).chain([name.to_owned()]).collect()
}

proptest! {
    #[test]
    fn no_two_reservations_share_a_path(
        names in prop::collection::vec("f{1,2}(\\.part|\\.journal|\\.new){0,3}", 1..6),
    ) {
        let reserved_paths = ReservedPaths::default();
        let mut written = HashSet::new();
        for name in &names {
            let wanted = all(name);
            let is_free = written.is_disjoint(&wanted);
            prop_assert_eq!(reserved_paths.reserve(Path::new(name)).is_ok(), is_free, "{} of {:?}", name, names);
            if is_free {
                written.extend(wanted);
            }
        }
    }
}

#[test]
fn a_released_path_can_be_reserved() {
    let reserved_paths = ReservedPaths::default();
    reserved_paths.reserve(Path::new("f")).unwrap();
    reserved_paths.release(Path::new("f"));
    reserved_paths.reserve(Path::new("f.part")).unwrap();
}
