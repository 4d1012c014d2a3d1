use super::*;

/// The exact probability of each index.
fn probabilities(table: &AliasTable) -> Vec<f64> {
    let mut shares = vec![0.0; table.columns.len()];
    for (index, column) in table.columns.iter().enumerate() {
        let own = f64::from(column.threshold) / 2f64.powi(32);
        shares[index] += own / table.columns.len() as f64;
        shares[column.alias as usize] += (1.0 - own) / table.columns.len() as f64;
    }
    shares
}

fn check(weights: &[f64]) {
    let sum: f64 = weights.iter().sum();
    for (share, weight) in probabilities(&AliasTable::new(weights)).iter().zip(weights) {
        assert!((share - weight / sum).abs() < 1e-6, "{weights:?}: {share} for {weight}");
    }
}

#[test]
fn the_probability_of_an_index_is_proportional_to_its_weight() {
    check(&[1.0]);
    check(&[1.0, 1.0, 1.0]);
    check(&[3.0, 2.0, 1.0]);
    check(&[1e-9, 1.0, 1e9]);
    check(&[0.0, 5.0, 0.0, 5.0]);
}

#[test]
fn an_index_of_weight_zero_is_never_drawn() {
    for count in 1..200_u32 {
        let weights: Vec<f64> = (0..count)
            .map(|index| if index % 3 == count % 3 { 1.0 / f64::from(1 + index % 7) } else { 0.0 })
            .collect();
        let sum: f64 = weights.iter().sum();
        for (share, weight) in probabilities(&AliasTable::new(&weights)).iter().zip(&weights) {
            assert!(sum == 0.0 || *weight > 0.0 || *share == 0.0, "{weights:?}");
        }
    }
}

#[test]
fn extreme_numbers_map_to_indices_within_the_table() {
    let table = AliasTable::new(&[1.0, 2.0, 3.0]);
    for uniform in [0, u64::MAX, u64::MAX << 32, u64::from(u32::MAX)] {
        assert!(table.index(uniform) < 3);
    }
}
