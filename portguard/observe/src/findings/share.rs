//! One exact number divided by weights, with nothing lost and nothing added.

/// Parts of `total` in proportion to `weights`, which add up to it. Without any weight the first takes all.
pub(super) fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().copied().map(u128::from).sum();
    if sum == 0 {
        let mut parts = vec![0; weights.len()];
        if let Some(first) = parts.first_mut() {
            *first = total;
        }
        return parts;
    }
    // What is rounded off goes to the largest remainders.
    let exact = |weight: u64| u128::from(total) * u128::from(weight);
    let mut parts: Vec<u64> = weights
        .iter()
        .map(|weight| u64::try_from(exact(*weight) / sum).unwrap_or(u64::MAX))
        .collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|index| {
        let weight = weights.get(*index).copied().unwrap_or(0);
        std::cmp::Reverse(exact(weight) % sum)
    });
    let mut left = total.saturating_sub(parts.iter().sum());
    for index in order {
        if left == 0 {
            break;
        }
        if let Some(part) = parts.get_mut(index) {
            *part += 1;
            left -= 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::apportion;

    #[test]
    fn parts_add_up() {
        for (total, weights) in [
            (10, vec![1, 1, 1]),
            (7, vec![0, 0]),
            (0, vec![5, 3]),
            (u64::MAX, vec![u64::MAX, 1, u64::MAX]),
        ] {
            let parts = apportion(total, &weights);
            assert_eq!(parts.iter().sum::<u64>(), total, "{weights:?}");
        }
        assert_eq!(apportion(10, &[3, 1]), [8, 2]);
        assert_eq!(apportion(3, &[]), Vec::<u64>::new());
    }
}
