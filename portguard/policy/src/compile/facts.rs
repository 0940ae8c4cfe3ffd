//! Whether a row's condition holds at this site.

use std::cmp::Ordering;

use crate::catalog::{Condition, Row, System, VersionBound};
use crate::site::SystemSite;

use super::some_of;

/// A fact that a condition asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    Deployment,
    Version,
    Choice(String),
}

/// What is known of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Truth {
    Holds,
    /// In words.
    Fails(String),
    /// It depends on what the site does not say: taken as open, with a warning.
    Unsaid(Vec<Fact>),
}

/// Judges a row's condition.
pub(super) fn judge_row(row: &Row, system: &System, site: &SystemSite) -> Truth {
    judge(row.condition.as_ref(), system, site)
}

/// Judges a condition.
pub(super) fn judge(condition: Option<&Condition>, system: &System, site: &SystemSite) -> Truth {
    let Some(condition) = condition else {
        return Truth::Holds;
    };
    let Condition {
        deployments,
        version,
        options,
        without,
        choices,
    } = condition;
    let mut unsaid = Vec::new();
    if !deployments.is_empty() {
        match &site.deployment {
            None => unsaid.push(Fact::Deployment),
            Some((chosen, _)) if !deployments.contains(chosen) => {
                let wanted = deployments.join(" or ");
                return Truth::Fails(format!(
                    "needs deployment {wanted}, but the site has {chosen}"
                ));
            }
            Some(_) => {}
        }
    }
    match (&site.version, version.as_slice()) {
        (_, []) => {}
        (None, _) => unsaid.push(Fact::Version),
        (Some((ours, _)), bounds) => {
            if let Some(bound) = bounds.iter().find(|bound| !holds(bound, ours)) {
                return Truth::Fails(format!(
                    "needs version {}{}, but the site has {}",
                    bound.operator,
                    dotted(&bound.version),
                    dotted(ours)
                ));
            }
        }
    }
    for (option, wanted) in (options.iter().map(|option| (option, true)))
        .chain(without.iter().map(|option| (option, false)))
    {
        match is_on(option, system, site) {
            None => unsaid.push(Fact::Version),
            Some(false) if wanted => {
                return Truth::Fails(format!("needs option {option}, which is off"));
            }
            Some(true) if !wanted => {
                return Truth::Fails(format!("excludes option {option}, which is on"));
            }
            Some(_) => {}
        }
    }
    for (choice, value) in choices {
        match site.choices.get(choice) {
            None => unsaid.push(Fact::Choice(choice.clone())),
            Some(chosen) if !chosen.values.contains(value) => {
                let chosen = chosen.values.join(" and ");
                return Truth::Fails(format!("needs {choice} {value}, but the site has {chosen}"));
            }
            Some(_) => {}
        }
    }
    if unsaid.is_empty() {
        Truth::Holds
    } else {
        Truth::Unsaid(unsaid)
    }
}

/// When a condition that holds ends: with the change-over of which it wants what is left behind.
pub(super) fn until(condition: Option<&Condition>, site: &SystemSite) -> Option<u64> {
    let wanted = condition.into_iter().flat_map(|own| &own.choices);
    wanted
        .filter_map(|(choice, value)| site.choices.get(choice)?.end_of(value))
        .min()
}

/// Whether an option is on at this site; `None`: that depends on the version, which is not said.
fn is_on(option: &str, system: &System, site: &SystemSite) -> Option<bool> {
    if site.options.contains_key(option) {
        return Some(true);
    }
    let known = system.options.get(option);
    let is_default = known.is_some_and(|option| option.default);
    let is_said = is_default && !site.without.contains_key(option);
    Some(required(option, system, site)? || is_said)
}

/// Whether an option is on whatever the site says; `None`: the version decides, and is not said.
pub(super) fn required(option: &str, system: &System, site: &SystemSite) -> Option<bool> {
    let bounds = system
        .options
        .get(option)
        .map(|option| option.required.as_slice());
    let bounds = bounds.unwrap_or_default();
    if bounds.is_empty() {
        return Some(false);
    }
    is_within(bounds, site)
}

/// Whether the site's version meets all bounds; `None`: it is not said.
pub(super) fn is_within(bounds: &[VersionBound], site: &SystemSite) -> Option<bool> {
    let (ours, _) = site.version.as_ref().filter(|_| !bounds.is_empty())?;
    Some(bounds.iter().all(|bound| holds(bound, ours)))
}

/// Why a condition can hold at no site, if so.
pub(super) fn never(condition: &Condition, system: &System) -> Option<String> {
    if let Some(option) = condition
        .options
        .iter()
        .find(|option| condition.without.contains(option))
    {
        return Some(format!("it needs option {option} both on and off"));
    }
    let unknown = condition
        .deployments
        .iter()
        .all(|id| !system.deployments.contains_key(id));
    if unknown && !condition.deployments.is_empty() {
        return Some(format!(
            "there is no deployment {}",
            condition.deployments.join(" or ")
        ));
    }
    // Some bound's version, or its next neighbours, satisfies all bounds if anything does.
    let candidates = condition.version.iter().flat_map(|bound| {
        let mut above = bound.version.clone();
        above.push(1);
        let mut below = bound.version.clone();
        while below.last() == Some(&0) {
            below.pop();
        }
        if let Some(last) = below.last_mut() {
            *last -= 1;
            below.push(u32::MAX);
        }
        [bound.version.clone(), above, below]
    });
    let mut candidates = candidates.peekable();
    if candidates.peek().is_some()
        && !candidates.any(|version| condition.version.iter().all(|bound| holds(bound, &version)))
    {
        return Some("its version bounds exclude each other".to_owned());
    }
    None
}

fn holds(bound: &VersionBound, ours: &[u32]) -> bool {
    let length = ours.len().max(bound.version.len());
    let part = |version: &[u32], at: usize| version.get(at).copied().unwrap_or(0);
    let ordering = (0..length)
        .map(|at| part(ours, at).cmp(&part(&bound.version, at)))
        .find(|ordering| *ordering != Ordering::Equal)
        .unwrap_or(Ordering::Equal);
    match bound.operator.as_str() {
        ">=" => ordering != Ordering::Less,
        "<=" => ordering != Ordering::Greater,
        ">" => ordering == Ordering::Greater,
        "<" => ordering == Ordering::Less,
        _ => ordering == Ordering::Equal,
    }
}

fn dotted(version: &[u32]) -> String {
    version
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(".")
}

/// The first of several values, to be pasted, and the others in brackets.
fn offered<'v>(mut values: impl Iterator<Item = &'v String>) -> (&'v str, String) {
    let first = values.next().map_or("", String::as_str);
    let others: Vec<String> = values.map(|value| format!("\"{value}\"")).collect();
    let others = if others.is_empty() {
        String::new()
    } else {
        format!(" (or {})", others.join(", "))
    };
    (first, others)
}

impl Fact {
    /// Code, message and hint for a fact that the site does not say.
    pub(super) fn words(&self, system: &System, rows: &[String]) -> (&'static str, String, String) {
        let id = &system.id;
        let rows = format!("rows that depend on it are open: {}", some_of(rows));
        match self {
            Self::Deployment => {
                let (first, others) = offered(system.deployments.keys());
                (
                    "deployment-not-said",
                    format!("no deployment of {id} is given; {rows}"),
                    format!(
                        "write `deployment = \"{first}\"`{others} under [systems.{id}], or `--deployment {first}`"
                    ),
                )
            }
            Self::Version => (
                "version-not-said",
                format!("no version of {id} is given; {rows}"),
                format!(
                    "write `version = \"...\"` under [systems.{id}], or `--system-version ...`"
                ),
            ),
            Self::Choice(choice) => {
                let values = system.choices.get(choice).map(|choice| &choice.values);
                let (first, others) = offered(values.into_iter().flat_map(|values| values.keys()));
                (
                    "choice-not-said",
                    format!("{id} offers {choice}, and the site chooses none; {rows}"),
                    format!(
                        "write `choices.{choice} = \"{first}\"`{others} under [systems.{id}], or `--choose {choice}={first}`"
                    ),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(operator: &str, version: &[u32]) -> VersionBound {
        VersionBound {
            operator: operator.to_owned(),
            version: version.to_vec(),
        }
    }

    #[test]
    fn versions_compare_part_by_part() {
        assert!(holds(&bound(">=", &[4, 5, 1]), &[4, 5, 1]));
        assert!(holds(&bound(">=", &[4, 5]), &[4, 10]));
        assert!(!holds(&bound("<", &[6, 24]), &[6, 24, 0]));
        assert!(holds(&bound("=", &[6]), &[6, 0, 0]));
        assert!(holds(&bound("<=", &[6, 0]), &[6]));
    }

    #[test]
    fn contradictory_bounds_are_found_and_others_not() {
        let never_holds = |bounds: &[VersionBound]| {
            let condition = Condition {
                version: bounds.to_vec(),
                ..Condition::default()
            };
            let system = super::super::tests::fixture::empty_system("x");
            never(&condition, &system).is_some()
        };
        assert!(never_holds(&[bound("<", &[4]), bound(">=", &[4])]));
        assert!(never_holds(&[bound("=", &[4]), bound("=", &[5])]));
        assert!(!never_holds(&[bound("<", &[5]), bound(">=", &[4])]));
        assert!(!never_holds(&[bound(">", &[4]), bound("<", &[4, 1])]));
        assert!(!never_holds(&[bound("<", &[4])]));
        assert!(never_holds(&[bound("<", &[0])]));
    }
}
