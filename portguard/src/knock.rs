//! Who is knocking: the heaviest sources of violations, in memory that no flood makes grow.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, 2005): a source's count is never below its true weight, and above it by no
//! more than its error, which is at most the total weight divided by the number of places. Whoever has more than that
//! share of all violations is in the list.

use std::collections::BTreeMap;

/// The heaviest keys of a stream.
#[derive(Debug, Clone)]
pub struct Heaviest<K> {
    places: usize,
    counts: BTreeMap<K, Weight>,
    total: u64,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// At least the true weight.
    pub count: u64,
    /// By how much it may be too high.
    pub error: u64,
}

impl<K: Ord + Clone> Heaviest<K> {
    /// With room for so many keys.
    pub fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            counts: BTreeMap::new(),
            total: 0,
        }
    }

    /// Adds weight to a key.
    pub fn add(&mut self, key: K, weight: u64) {
        self.total += weight;
        if let Some(known) = self.counts.get_mut(&key) {
            known.count += weight;
            return;
        }
        let mut error = 0;
        if self.counts.len() >= self.places {
            let lightest = self
                .counts
                .iter()
                .min_by_key(|(_, weight)| weight.count)
                .map(|(key, weight)| (key.clone(), weight.count));
            if let Some((key, count)) = lightest {
                self.counts.remove(&key);
                error = count;
            }
        }
        let count = error + weight;
        self.counts.insert(key, Weight { count, error });
    }

    /// The heaviest, heaviest first.
    pub fn top(&self, count: usize) -> Vec<(&K, Weight)> {
        let mut all: Vec<_> = self
            .counts
            .iter()
            .map(|(key, weight)| (key, *weight))
            .collect();
        all.sort_by_key(|(_, weight)| std::cmp::Reverse(weight.count));
        all.truncate(count);
        all
    }

    /// All weight that was added.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_sources_neither_grows_it_nor_hides_the_heavy() {
        const PLACES: usize = 64;
        let mut heaviest = Heaviest::new(PLACES);
        let mut truth: BTreeMap<u64, u64> = BTreeMap::new();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for step in 0..200_000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // One in eight of one source, one in sixteen of another, the rest spoofed at random.
            let key = match step % 16 {
                0 | 8 => 1,
                4 => 2,
                _ => random | 1 << 63,
            };
            heaviest.add(key, 1);
            *truth.entry(key).or_default() += 1;
        }
        assert_eq!(heaviest.counts.len(), PLACES);
        let bound = heaviest.total() / PLACES as u64;
        let top = heaviest.top(PLACES);
        assert_eq!((top[0].0, top[1].0), (&1, &2));
        for (key, weight) in top {
            let true_weight = truth[key];
            assert!(weight.count >= true_weight);
            assert!(weight.count - weight.error <= true_weight);
            assert!(weight.error <= bound, "{} > {bound}", weight.error);
        }
    }
}
