//! Every host is in one wave, in one turn, and no wave is all of one zone.

use std::collections::{BTreeMap, BTreeSet};

use portguard_fleet::release::{Gate, Plan, Wave};
use portguard_fleet::rollout::waves::{Member, assign};
use proptest::prelude::*;

fn plan(wave: Vec<Wave>) -> Plan {
    Plan {
        wave,
        gate: Gate::default(),
    }
}

fn fleet(count: usize, zones: usize) -> Vec<Member> {
    (0..count)
        .map(|number| {
            let role = if number % 2 == 0 {
                "thoughtspot/node"
            } else {
                "wso2/gateway"
            };
            Member::new(
                &format!("host-{number}"),
                &format!("zone-{}", number % zones),
                &[role],
            )
        })
        .collect()
}

#[test]
fn selectors_that_select_nobody_or_leave_somebody_out_are_refused() {
    let hosts = fleet(4, 2);
    let refused = [
        vec![],
        vec![Wave::new("a", "role=thoughtspot/node")],
        vec![Wave::new("a", "*"), Wave::new("b", "*")],
        vec![Wave::new("a", "role=none"), Wave::new("b", "*")],
        vec![Wave::new("a", "tier=gold"), Wave::new("b", "*")],
        vec![Wave::new("a", ""), Wave::new("b", "*")],
        vec![Wave::new("a", "role"), Wave::new("b", "*")],
        vec![
            Wave::new("a", "role=thoughtspot/node").percent(0),
            Wave::new("b", "*"),
        ],
        vec![Wave::new("a", "role=thoughtspot/node"), Wave::new("a", "*")],
    ];
    for waves in refused {
        let names: Vec<String> = waves.iter().map(|wave| wave.hosts.to_string()).collect();
        assert!(assign(&plan(waves), &hosts).is_err(), "{names:?}");
    }
}

#[test]
fn a_selector_wants_all_of_its_terms() {
    let hosts = fleet(8, 2);
    let waves = plan(vec![
        Wave::new("first", "role=thoughtspot/node,zone=zone-0"),
        Wave::new("rest", "*"),
    ]);
    let waves = assign(&waves, &hosts).unwrap();
    let first: BTreeSet<&str> = waves[0].iter().copied().collect();
    assert_eq!(first, ["host-0", "host-2", "host-4", "host-6"].into());
}

proptest! {
    #[test]
    fn everybody_has_one_turn_and_zones_take_turns(count in 2usize..300, zones in 1usize..7, percent in 1u8..=99) {
        let hosts = fleet(count, zones);
        let plan = plan(vec![Wave::new("canary", "*").percent(percent), Wave::new("rest", "*")]);
        let Ok(waves) = assign(&plan, &hosts) else {
            // One percent of two is one, of which nothing is left over only if all were taken.
            prop_assert!(count * usize::from(percent) > (count - 1) * 100);
            return Ok(());
        };
        let all: Vec<&str> = waves.iter().flatten().copied().collect();
        let unique: BTreeSet<&str> = all.iter().copied().collect();
        prop_assert_eq!(all.len(), count);
        prop_assert_eq!(unique.len(), count);
        let zone: BTreeMap<&str, &str> = hosts.iter().map(|host| (host.name.as_str(), host.zone.as_str())).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for host in &waves[0] {
            *counts.entry(zone[host]).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or(0);
        let least = if counts.len() < zones.min(count) { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let smallest = count / zones;
        prop_assert!(most - least <= 1 || least >= smallest, "{counts:?}");
        // The order in which hosts are named has no say.
        let mut reversed = hosts.clone();
        reversed.reverse();
        prop_assert_eq!(assign(&plan, &reversed).unwrap(), waves);
    }
}
