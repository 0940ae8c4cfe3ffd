//! Which violations are sampled: all of a few, a random few of many.

/// A violation is sampled if it is one of the first [`SAMPLED_ALL`] of a unit of time, and with a probability of one in
/// [`RATE`] beyond. A sample has a weight: how many violations it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Sampler {
    /// Jiffies when this unit of time is over.
    pub until: u64,
    /// Violations up to and with the next sample.
    pub left: u64,
    /// The weight of that sample: what `left` was when it was set.
    pub weight: u64,
    /// Samples of this unit.
    pub samples: u64,
}

/// The first violations of a unit of time are all sampled.
pub const SAMPLED_ALL: u64 = 64;
/// Of those beyond, one in so many, at random: a power of two.
pub const RATE: u32 = 256;

impl Sampler {
    /// Counts a violation at a time in jiffies: its weight if it is a sample, else 0.
    ///
    /// Written for the many that are none: a load, a store and two comparisons. Random distances keep a sender whose packets
    /// come at equal ones from being missed, or from being taken for all of them.
    #[inline(always)]
    pub fn next(
        &mut self,
        jiffies: u64,
        unit: impl FnOnce() -> u64,
        random: impl FnOnce() -> u32,
    ) -> u32 {
        let left = self.left.wrapping_sub(1);
        self.left = left;
        if left != 0 && jiffies < self.until {
            return 0;
        }
        if jiffies >= self.until {
            *self = Self {
                until: jiffies + unit(),
                left: 1,
                weight: 1,
                samples: 1,
            };
            return 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 2 x RATE")]
        let weight = self.weight as u32;
        self.samples += 1;
        self.weight = if self.samples < SAMPLED_ALL {
            1
        } else {
            // 1 to 2 x RATE - 1: RATE in the mean.
            u64::from(random() & (2 * RATE - 1)).max(1)
        };
        self.left = self.weight;
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::{RATE, Sampler};

    #[test]
    fn the_first_of_a_unit_are_sampled_and_of_the_others_one_in_so_many() {
        let mut sampler = Sampler::default();
        let mut sampled = |violations: u32, at: u64| -> (u32, u32) {
            let mut samples = 0;
            let mut sum = 0;
            for _ in 0..violations {
                let weight = sampler.next(at, || 256, || RATE);
                samples += u32::from(weight > 0);
                sum += weight;
            }
            (samples, sum)
        };
        assert_eq!(sampled(64, 1), (64, 64));
        assert_eq!(sampled(RATE - 1, 256), (0, 0));
        assert_eq!(sampled(1, 256), (1, RATE), "it stands for those before it");
        assert_eq!(sampled(10 * RATE + 5, 256), (10, 10 * RATE));
        // The next unit starts afresh at its first violation, and as long after it as a unit is.
        assert_eq!(sampled(3, 257), (3, 3));
        assert_eq!(sampled(64, 512), (61, 61));
        assert_eq!(sampled(2, 513), (2, 2));
    }

    #[test]
    fn packets_at_equal_distances_get_their_share() {
        let mut sampler = Sampler::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut shares = [0_u32; 4];
        for step in 0..400_000 {
            let weight = sampler.next(1, || 256, || random.u32(..));
            shares[step % 4] += weight;
        }
        for share in shares {
            assert!((85_000..115_000).contains(&share), "{shares:?}");
        }
    }
}
