//! Trials, and what becomes of them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// How much slower than at its fastest the baseline may be in a trial that counts. What makes cores slower makes them
/// slower by more.
const DISTURBED: f64 = 1.1;

/// Trials that have to count; with fewer, all do.
const ENOUGH: usize = 16;

/// Trials that count, with which a case is measured well enough.
const PLENTY: usize = 1_000;

/// One timing of a program between two of the baseline, nanoseconds a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trial {
    /// The baseline right before.
    pub before: f64,
    /// The program.
    pub program: f64,
    /// The baseline right after.
    pub after: f64,
}

/// What a frame costs, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Median of the program alone, the kernel's test loop included.
    pub raw: f64,
    /// Median of the baseline.
    pub bare: f64,
    /// Median of what it takes above the baseline.
    pub net: f64,
    /// Half of the distance between the quartiles of that.
    pub spread: f64,
    /// The share of trials that counted; 0 if too few would have, so that all did.
    pub undisturbed: f64,
}

/// Trials of several cases, made in rounds that are some time apart, since whole seconds can be disturbed.
#[derive(Debug)]
pub struct Campaign {
    /// Of each case.
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    baseline: usize,
    trials: Vec<Trial>,
}

impl Campaign {
    /// Of cases, each with a number for its baseline: where the numbers are the same, the baseline is the same program
    /// with frames of the same kind, as fast in all of these cases when nothing disturbs it.
    pub fn new(baselines: impl IntoIterator<Item = usize>) -> Self {
        let series = baselines.into_iter().map(|baseline| Series {
            baseline,
            trials: Vec::new(),
        });
        Self {
            series: series.collect(),
        }
    }

    /// The cases of which more trials are needed.
    pub fn unsettled(&self) -> Vec<usize> {
        let fastest = self.fastest();
        let settled = |series: &Series| {
            let fastest = series.fastest(&fastest);
            series
                .trials
                .iter()
                .filter(|one| one.counts(fastest))
                .count()
                >= PLENTY
        };
        let numbered = self.series.iter().enumerate();
        numbered
            .filter_map(|(case, series)| (!settled(series)).then_some(case))
            .collect()
    }

    /// Makes trials of a case: a visit at a time, until enough of them were undisturbed.
    ///
    /// # Errors
    /// Those of `time`.
    pub fn visit<E: From<Error>>(
        &mut self,
        case: usize,
        count: u32,
        time: impl FnMut(bool) -> Result<f64, E>,
    ) -> Result<(), E> {
        let series = self.series.get_mut(case);
        let series = series.ok_or_else(|| Error::system("no such case"))?;
        visit(&mut series.trials, count, time)
    }

    /// What each case cost.
    pub fn costs(&self) -> Vec<Cost> {
        let fastest = self.fastest();
        let cost = |series: &Series| Cost::of(&series.trials, series.fastest(&fastest));
        self.series.iter().map(cost).collect()
    }

    /// How fast each baseline is when nothing disturbs it: the hundredth part of its timings that were fastest were no
    /// slower.
    fn fastest(&self) -> BTreeMap<usize, f64> {
        let mut timings: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for series in &self.series {
            let before = series.trials.iter().map(|trial| trial.before);
            timings.entry(series.baseline).or_default().extend(before);
        }
        let fastest = |timings| quantile(&sorted(timings), 1, 100);
        timings
            .into_iter()
            .map(|(baseline, timings)| (baseline, fastest(timings)))
            .collect()
    }
}

impl Series {
    fn fastest(&self, fastest: &BTreeMap<usize, f64>) -> f64 {
        fastest.get(&self.baseline).copied().unwrap_or(f64::NAN)
    }
}

/// Makes trials; `time` times the program, or else the baseline. A timing in front that does not count brings back to the
/// caches what others threw out.
///
/// # Errors
/// Those of `time`.
fn visit<E>(
    trials: &mut Vec<Trial>,
    count: u32,
    mut time: impl FnMut(bool) -> Result<f64, E>,
) -> Result<(), E> {
    time(true)?;
    let mut before = time(false)?;
    for _ in 0..count {
        let program = time(true)?;
        let after = time(false)?;
        trials.push(Trial {
            before,
            program,
            after,
        });
        before = after;
    }
    Ok(())
}

impl Trial {
    fn net(&self) -> f64 {
        self.program - self.bare()
    }

    const fn bare(&self) -> f64 {
        f64::midpoint(self.before, self.after)
    }

    const fn counts(&self, fastest: f64) -> bool {
        self.before.max(self.after) <= fastest * DISTURBED
    }
}

impl Cost {
    /// From trials, and how fast the baseline is when nothing disturbs it. Not a number without any.
    fn of(trials: &[Trial], fastest: f64) -> Self {
        let all = trials.len();
        let undisturbed = trials.iter().filter(|trial| trial.counts(fastest));
        let mut counted: Vec<&Trial> = undisturbed.collect();
        #[expect(clippy::cast_precision_loss, reason = "numbers of trials")]
        let mut undisturbed = counted.len() as f64 / all.max(1) as f64;
        if counted.len() < ENOUGH {
            counted = trials.iter().collect();
            undisturbed = 0.0;
        }
        let figures =
            |figure: fn(&Trial) -> f64| sorted(counted.iter().map(|trial| figure(trial)).collect());
        let net = figures(Trial::net);
        Self {
            raw: quantile(&figures(|trial| trial.program), 1, 2),
            bare: quantile(&figures(Trial::bare), 1, 2),
            net: quantile(&net, 1, 2),
            spread: (quantile(&net, 3, 4) - quantile(&net, 1, 4)) / 2.0,
            undisturbed,
        }
    }
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

/// A quantile of sorted figures; not a number without any.
pub fn quantile(sorted: &[f64], numerator: usize, denominator: usize) -> f64 {
    let index = sorted.len().saturating_sub(1) * numerator / denominator;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Campaign, Cost, ENOUGH, PLENTY, Trial, quantile, visit};

    fn trial(before: f64, program: f64, after: f64) -> Trial {
        Trial {
            before,
            program,
            after,
        }
    }

    #[test]
    fn what_slows_both_cancels_and_what_slows_one_does_not_count() {
        let mut trials = vec![trial(10.0, 16.0, 10.0); ENOUGH];
        trials.extend(vec![trial(13.0, 29.0, 13.0); 30]);
        trials.extend([trial(10.0, 25.0, 13.0), trial(13.0, 16.0, 10.0)]);
        let cost = Cost::of(&trials, 10.0);
        assert!((cost.net - 6.0).abs() < 1e-9, "{cost:?}");
        assert!((cost.raw - 16.0).abs() < 1e-9);
        assert!((cost.bare - 10.0).abs() < 1e-9);
        assert!((cost.undisturbed - 1.0 / 3.0).abs() < 1e-9);
        assert!(Cost::of(&[], f64::NAN).net.is_nan());
    }

    #[test]
    fn all_count_where_too_few_would() {
        let mut trials = vec![trial(13.0, 29.0, 13.0); 30];
        trials.push(trial(10.0, 16.0, 10.0));
        let cost = Cost::of(&trials, 10.0);
        assert!((cost.net - 16.0).abs() < 1e-9);
        assert!(cost.undisturbed.abs() < 1e-9);
    }

    /// Visits a case as often as makes `PLENTY` trials.
    fn visit_at(campaign: &mut Campaign, case: usize, bare: f64, program: f64) {
        let trials = u32::try_from(PLENTY).unwrap();
        campaign
            .visit(case, trials, |runs| {
                Ok::<_, crate::Error>(if runs { program } else { bare })
            })
            .unwrap();
    }

    #[test]
    fn a_case_is_visited_until_it_was_undisturbed_for_long_enough() {
        // The first two have the baseline in common.
        let mut campaign = Campaign::new([7, 7, 8]);
        assert_eq!(campaign.unsettled(), [0, 1, 2]);
        visit_at(&mut campaign, 0, 13.0, 29.0);
        visit_at(&mut campaign, 2, 30.0, 40.0);
        // As far as is known by now, that was the full speed.
        assert_eq!(campaign.unsettled(), [1]);
        visit_at(&mut campaign, 1, 10.0, 14.0);
        assert_eq!(campaign.unsettled(), [0]);
        visit_at(&mut campaign, 0, 10.0, 16.0);
        assert!(campaign.unsettled().is_empty());
        let net: Vec<f64> = campaign.costs().iter().map(|cost| cost.net).collect();
        assert_eq!(net, [6.0, 4.0, 10.0]);
        assert!((campaign.costs()[0].undisturbed - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_visit_lays_each_timing_between_two() {
        let mut trials = Vec::new();
        let mut clock = 0.0;
        visit(&mut trials, 8, |program| {
            clock += 1.0;
            Ok::<_, crate::Error>(if program { 100.0 + clock } else { clock })
        })
        .unwrap();
        assert_eq!(trials.len(), 8);
        assert_eq!(trials[0], trial(2.0, 103.0, 4.0));
        assert_eq!(trials[1], trial(4.0, 105.0, 6.0));
    }

    #[test]
    fn quantiles_of_what_was_measured() {
        let values = [1.0, 2.0, 3.0, 4.0, 9.0];
        assert!((quantile(&values, 1, 2) - 3.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 1, 4) - 2.0).abs() < f64::EPSILON);
        assert!((quantile(&values, 3, 4) - 4.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 1, 2).is_nan());
    }
}
