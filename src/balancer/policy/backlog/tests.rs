use proptest::prelude::*;

use super::*;

/// The function at any size, piece by piece.
fn work(backlog: &Backlog, size: f64) -> f64 {
    let [first, second, third, fourth, fifth, sixth, seventh, _] = backlog.0;
    let last = seventh + (seventh - sixth) * RATIO;
    let ends = [first, second, third, fourth, fifth, sixth, seventh, last];
    let (mut start, mut sum) = (0.0, 0.0);
    for (piece, end) in ends.into_iter().enumerate() {
        let (from, to) = (f64::from(STARTS[piece]), f64::from(ENDS[piece]));
        sum += (f64::from(end) - start) * ((size - from) / (to - from)).clamp(0.0, 1.0);
        start = f64::from(end);
    }
    sum
}

/// The size that each download has received once `sent` bytes are sent.
fn level(backlog: &Backlog, sent: f64) -> f64 {
    let (mut low, mut high) = (0.0, f64::from(ENDS[KNOTS - 1]));
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if work(backlog, middle) < sent { low = middle } else { high = middle }
    }
    low
}

proptest! {
    #[test]
    fn ageing_agrees_with_the_function(
        sizes in prop::collection::vec(1.0f32..3e9, 1..20),
        sent in 0.0f32..1.0,
    ) {
        let backlog = sizes.iter().fold(Backlog::default(), |backlog, size| backlog.with(*size));
        let total = f64::from(backlog.total());
        let left = backlog.total() * (1.0 - sent);
        let aged = backlog.after(left);
        let sent = total - f64::from(left);
        let level = level(&backlog, sent);
        for (size, aged) in SIZES.into_iter().zip(aged.0).take(KNOTS - 1) {
            let expected = (work(&backlog, f64::from(size) + level) - sent).clamp(0.0, f64::from(left));
            prop_assert!((f64::from(aged) - expected).abs() <= total * 1e-5, "{size}: {aged}, {expected}");
        }
        prop_assert_eq!(aged.total().to_bits(), left.to_bits());
    }

    #[test]
    fn a_new_download_reads_the_function_at_its_size(
        sizes in prop::collection::vec(1.0f32..3e9, 1..20),
        size in 1.0f32..1e10,
    ) {
        let backlog = sizes.iter().fold(Backlog::default(), |backlog, size| backlog.with(*size));
        let new = NewDownload::new(size);
        let [low, high] = new.knots.map(|knot| f32x8::splat(backlog.0[knot]));
        let total = f32x8::splat(backlog.total());
        let [found, ..] = new.work_before([low, high, total], total).to_array();
        let expected = work(&backlog, f64::from(size)).min(f64::from(backlog.total()));
        prop_assert!((f64::from(found) - expected).abs() <= expected * 1e-4, "{found}, {expected}");
    }
}
