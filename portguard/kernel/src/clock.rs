//! The kernel's coarse clock, by which conversations age.

/// How far to shift jiffies right for units of about a second: the coarse clock's resolution is one jiffy.
pub(crate) fn tick_shift() -> u32 {
    let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(4_000_000, |resolution| resolution.tv_nsec());
    let hertz = u32::try_from(1_000_000_000 / tick.max(1)).unwrap_or(250);
    nearest_power(hertz)
}

/// The power of two that is nearest by ratio: at 250 jiffies a second a unit is 1.02 seconds, and not half of one.
const fn nearest_power(hertz: u32) -> u32 {
    (hertz.saturating_mul(3) / 2 + 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::nearest_power;

    #[test]
    fn a_unit_is_about_a_second_whatever_the_kernels_tick() {
        for (hertz, shift) in [
            (100, 7),
            (250, 8),
            (300, 8),
            (1000, 10),
            (1024, 10),
            (1, 1),
            (0, 0),
        ] {
            assert_eq!(nearest_power(hertz), shift, "{hertz}");
        }
        for hertz in 100..=10_000 {
            let unit = f64::from(1_u32 << nearest_power(hertz)) / f64::from(hertz);
            assert!((0.74..=1.52).contains(&unit), "{hertz}: {unit}");
        }
    }
}
