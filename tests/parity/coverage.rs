//! Which kinds of frames were tried, so that agreement on few of them is not taken for agreement.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not named has the ordinary answer"
)]

use std::collections::BTreeMap;
use std::fmt;

use portguard_common::abi::slot;
use portguard_common::ethernet::ethertype;
use portguard_common::ethertypes;
use portguard_common::packet::{Malformed, Packet};
use portguard_common::reason::{Direction, Reason};
use portguard_common::verdict::Verdict;
use portguard_harness::frames::{CLASSES, Label, MUTATIONS};
use portguard_policy::image::Image;

use super::pieces::Path;

/// Frames by what was found in them.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    kinds: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    ethertypes: BTreeMap<u32, u64>,
    classes: BTreeMap<&'static str, u64>,
    mutations: BTreeMap<&'static str, u64>,
    paths: BTreeMap<Path, u64>,
    spared: u64,
    tagged: u64,
}

impl Coverage {
    pub(super) fn add(
        &mut self,
        label: Label,
        image: &Image,
        packet: &Packet,
        verdict: &Verdict,
        path: Path,
    ) {
        let name = match verdict.reason {
            Reason::Granted => image
                .directory
                .get(verdict.cell)
                .map_or("no cell", |cell| cell.reason()),
            reason => reason.name(Direction::Ingress),
        };
        let cause = verdict.cause.map_or("", Malformed::name);
        *self.kinds.entry((name, cause, family(packet))).or_default() += 1;
        *self.classes.entry(label.class).or_default() += 1;
        if let Some(mutation) = label.mutation {
            *self.mutations.entry(mutation).or_default() += 1;
        }
        if matches!(verdict.reason, Reason::NonIp | Reason::StrictEthertype) {
            let slot = slot::ethertype(Direction::Ingress, packet.ethertype);
            *self.ethertypes.entry(slot).or_default() += 1;
        }
        *self.paths.entry(path).or_default() += 1;
        self.spared += u64::from(verdict.reason.is_violation() && verdict.audit_only);
        self.tagged += u64::from(packet.vlan != 0);
    }

    pub(super) fn path(&self, path: Path) -> u64 {
        self.paths.get(&path).copied().unwrap_or(0)
    }

    /// How many frames of either family had this reason.
    pub(super) fn of(&self, reason: Reason) -> [u64; 2] {
        let name = reason.name(Direction::Ingress);
        ["v4", "v6"].map(|family| self.kinds.get(&(name, "", family)).copied().unwrap_or(0))
    }

    /// Fails with everything that was never met.
    pub(super) fn expect_complete(&self) {
        let mut missing = Vec::new();
        let mut want = |name, cause, families: &[&'static str]| {
            for family in families {
                if !self.kinds.contains_key(&(name, cause, *family)) {
                    missing.push(format!("{name} {cause} {family}"));
                }
            }
        };
        for name in [
            "documented",
            "management",
            "dhcp",
            "site",
            "protocol",
            "icmp-echo",
        ] {
            want(name, "", &["v4", "v6"]);
        }
        for reason in Reason::ALL {
            let families: &[&str] = match reason {
                // A grant is named after its kind above, replies take flows, malformed has causes below, and frames for other
                // hosts an interface.
                Reason::Granted | Reason::Reply | Reason::Malformed | Reason::OtherHost => &[],
                Reason::Arp | Reason::NonIp | Reason::StrictEthertype => &["other"],
                _ => &["v4", "v6"],
            };
            want(reason.name(Direction::Ingress), "", families);
        }
        for cause in Malformed::ALL {
            let families: &[&str] = match cause {
                Malformed::VlanDepth => &["other"],
                Malformed::HeaderLength | Malformed::Options => &["v4"],
                Malformed::ExtensionHeaders | Malformed::RoutingHeader => &["v6"],
                _ => &["v4", "v6"],
            };
            want("malformed", cause.name(), families);
        }
        let none = |list: &[&'static str], map: &BTreeMap<&'static str, u64>| {
            let absent = list.iter().filter(|name| !map.contains_key(*name));
            absent.map(ToString::to_string).collect::<Vec<_>>()
        };
        missing.extend(none(&CLASSES, &self.classes));
        missing.extend(none(&MUTATIONS, &self.mutations));
        assert!(missing.is_empty(), "never met: {missing:?}");
        assert_eq!(
            self.ethertypes.len(),
            ethertypes::ALL.len() + 1,
            "{:?}",
            self.ethertypes
        );
        assert_eq!(self.paths.len(), 3, "{:?}", self.paths);
        assert!(self.spared > 0 && self.tagged > 0);
    }
}

fn family(packet: &Packet) -> &'static str {
    match packet.ethertype {
        ethertype::IPV4 => "v4",
        ethertype::IPV6 => "v6",
        _ => "other",
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((name, cause, family), count) in &self.kinds {
            writeln!(f, "{count:>8}  {name} {cause} {family}")?;
        }
        for (path, count) in &self.paths {
            writeln!(f, "{count:>8}  read {path:?}")?;
        }
        let (spared, tagged) = (self.spared, self.tagged);
        writeln!(
            f,
            "{spared:>8}  violations that stay in audit\n{tagged:>8}  with a VLAN tag"
        )?;
        writeln!(f, "EtherType slots {:?}", self.ethertypes)?;
        writeln!(f, "classes {:?}", self.classes)?;
        write!(f, "mutations {:?}", self.mutations)
    }
}
