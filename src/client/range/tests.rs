use proptest::prelude::*;

use super::*;

const SIZE: u64 = 64;

#[derive(Debug, Clone)]
enum Operation {
    Insert(u64, u64),
    Remove(u64, u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let bounds = (0..SIZE, 0..SIZE).prop_map(|(one, two)| (one.min(two), one.max(two)));
    prop_oneof![
        bounds.clone().prop_map(|(start, end)| Operation::Insert(start, end)),
        bounds.prop_map(|(start, end)| Operation::Remove(start, end)),
    ]
}

proptest! {
    /// A set behaves like a table with one flag per byte, and its ranges stay disjoint and apart.
    #[test]
    fn a_set_behaves_like_a_table_of_flags(
        operations in prop::collection::vec(operation(), 0..40),
        window in (0..SIZE, 0..SIZE),
    ) {
        let mut set = RangeSet::new();
        let mut table = [false; SIZE as usize];
        for operation in operations {
            let (range, value) = match operation {
                Operation::Insert(start, end) => (ByteRange::new(start, end), true),
                Operation::Remove(start, end) => (ByteRange::new(start, end), false),
            };
            if value { set.insert(range) } else { set.remove(range) }
            table[range.start as usize..range.end as usize].fill(value);
        }
        prop_assert_eq!(set.len(), table.iter().filter(|&&is_in| is_in).count() as u64);
        for range in set.iter() {
            prop_assert!(table[range.start as usize..range.end as usize].iter().all(|&is_in| is_in));
        }
        let ranges: Vec<_> = set.iter().collect();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        let window = ByteRange::new(window.0, window.1);
        let inside: u64 = set.within(window).iter().map(ByteRange::len).sum();
        let expected = table[window.start as usize..window.end as usize].iter().filter(|&&is_in| is_in).count();
        prop_assert_eq!(inside, expected as u64);
    }
}
