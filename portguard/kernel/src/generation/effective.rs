//! What really happens to packets on a guarded interface now. Every view of a running guard asks this, and nothing else:
//! what the policy says holds only while its programs run on the interface and its deadline has not passed.

use std::fmt;

use portguard_common::reason::Direction;
use serde::{Serialize, Serializer};

use super::deadline;
use super::endings::RowEnding;
use crate::hook::attach::{self, Attached};
use crate::hook::egress::EgressHook;
use crate::host::holder::{self, Holder};
use crate::host::interface::Interface;
use crate::pins::bpffs::Layout;
use crate::pins::meta::Meta;
use crate::pins::programs::{number_of, program_of};
use portguard_policy::human::rfc3339;
use portguard_policy::policy::{Outbound, Settings};

/// What becomes of violations of one direction. Ordered: what is smaller is weaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strictness {
    /// Nothing is judged.
    #[default]
    Off,
    /// Counted, and passed.
    Audit,
    /// Dropped.
    Enforce,
}

impl Strictness {
    /// `off`, `audit` or `enforce`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

impl fmt::Display for Strictness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What holds now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Effective {
    /// For what arrives.
    pub inbound: Strictness,
    /// For what is sent.
    pub outbound: Strictness,
    /// Why this is not what the policy says, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Seconds since the Unix epoch at which the generation gives way unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_time")]
    pub until: Option<u64>,
    /// Rows that end by themselves, by time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endings: Vec<RowEnding>,
    /// Its interface is in another network namespace now, where it goes on.
    #[serde(skip)]
    pub is_elsewhere: bool,
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn as_time<S: Serializer>(until: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match until {
        Some(seconds) => serializer.serialize_str(&rfc3339(seconds.saturating_mul(1_000_000_000))),
        None => serializer.serialize_none(),
    }
}

/// Whether a program of the generation runs where it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attachment {
    /// On the interface.
    Runs,
    /// Nowhere: it was taken off the interface.
    Detached,
    /// Nowhere: the interface is gone.
    Gone,
    /// On an interface that is not in this network namespace any more, and no other has its name here.
    Away,
    /// On such an interface, and another one has its name here.
    Moved,
    /// Another generation's program runs.
    Other,
}

/// A generation whose deadline has passed: the one before it judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lapsed {
    /// Its number.
    pub(super) number: u64,
    /// The one before it, if there is one.
    pub(super) previous: Option<(u64, Strictness, Strictness)>,
}

impl Effective {
    /// What the policy says, for the two directions.
    pub fn of(settings: &Settings) -> Self {
        Self {
            inbound: if settings.enforce {
                Strictness::Enforce
            } else {
                Strictness::Audit
            },
            outbound: match settings.outbound {
                Outbound::Off => Strictness::Off,
                Outbound::Audit => Strictness::Audit,
                Outbound::Enforce => Strictness::Enforce,
            },
            because: None,
            until: None,
            endings: Vec::new(),
            is_elsewhere: false,
        }
    }

    /// Weakens what the policy says by what is not as it should be. Pure.
    fn weakened(
        settings: &Settings,
        ingress: Attachment,
        egress: Attachment,
        lapsed: Option<Lapsed>,
    ) -> Self {
        let mut now = Self::of(settings);
        let mut because = Vec::new();
        if let Some(Lapsed { number, previous }) = lapsed {
            because.push(if let Some((before, inbound, outbound)) = previous {
                now.inbound = inbound;
                // Where that one judged nothing that is sent, this one does, and drops nothing.
                now.outbound = outbound.max(Strictness::Audit);
                format!(
                    "not confirmed in time: generation {number} has given way to generation {before}; \
                     `portguard rollback` makes that final"
                )
            } else {
                now.inbound = Strictness::Audit;
                now.outbound = now.outbound.min(Strictness::Audit);
                format!(
                    "not confirmed in time: generation {number} no longer drops anything; load it again and confirm it, \
                     or unload it (`portguard unload --interface`)"
                )
            });
        }
        match ingress {
            Attachment::Runs => {}
            Attachment::Detached => because.push(
                "the guard was detached from the interface by something else: load again".to_owned(),
            ),
            Attachment::Gone => because.push(
                "the interface that this guard was attached to is gone: load again once it is back".to_owned(),
            ),
            Attachment::Away => because.push(
                "the interface is in another network namespace now, where this guard goes on: only `portguard unload` here \
                 ends it"
                    .to_owned(),
            ),
            Attachment::Moved => because.push(
                "the interface that this guard was attached to is in another network namespace now, where the guard goes on: \
                 `portguard load` guards the one that has its name here, beside it; `portguard unload` ends it there"
                    .to_owned(),
            ),
            Attachment::Other => because.push("another generation's program runs: load again".to_owned()),
        }
        let is_there = matches!(ingress, Attachment::Runs | Attachment::Away);
        if !is_there {
            now.inbound = Strictness::Off;
        }
        // Where only the one attachment was taken away, the other goes on.
        if !is_there && (ingress, egress) != (Attachment::Detached, Attachment::Runs) {
            now.outbound = Strictness::Off;
        } else if settings.outbound != Outbound::Off && egress != Attachment::Runs {
            // Another generation's egress program still judges; what it does is not known from here.
            now.outbound = Strictness::Off;
            let words = if egress == Attachment::Other {
                "ingress and egress run different generations: load again"
            } else {
                "outbound packets are not judged, and replies to them are not recognised: the egress program is not attached; load again"
            };
            because.push(words.to_owned());
        }
        now.is_elsewhere = matches!(ingress, Attachment::Away | Attachment::Moved);
        now.because = (!because.is_empty()).then(|| because.join("; "));
        now
    }

    /// Whether violations of a direction are dropped.
    pub fn drops(&self, direction: Direction) -> bool {
        let strictness = match direction {
            Direction::Ingress => self.inbound,
            Direction::Egress => self.outbound,
        };
        strictness == Strictness::Enforce
    }

    /// Whether anything is dropped, whichever way it goes.
    pub fn drops_any(&self) -> bool {
        self.drops(Direction::Ingress) || self.drops(Direction::Egress)
    }

    /// What the settings of the policy that judges amount to now.
    pub fn apply(&self, settings: &mut Settings) {
        settings.enforce = self.inbound == Strictness::Enforce;
        settings.outbound = match self.outbound {
            Strictness::Off => Outbound::Off,
            Strictness::Audit => Outbound::Audit,
            Strictness::Enforce => Outbound::Enforce,
        };
    }

    /// Weakens it by programs that run before the guard's on egress: what one of them lets out at once, the guard never sees, and
    /// nobody can tell whether it does.
    fn bypass(&mut self, before: &[Holder]) {
        if before.is_empty() || self.outbound == Strictness::Off {
            return;
        }
        self.outbound = Strictness::Off;
        let named: Vec<String> = before.iter().map(ToString::to_string).collect();
        let why = format!(
            "before the guard's egress program runs {}: what that lets out is not judged, and replies to it are not recognised; \
             load again, which puts the guard's in front",
            named.join(", ")
        );
        let because = self.because.take().into_iter().chain([why]);
        self.because = Some(because.collect::<Vec<_>>().join("; "));
    }

    /// Whether it is what the policy says.
    pub fn is_as_meant(&self) -> bool {
        self.because.is_none()
    }
}

/// What holds now on the interface of a layout. `meant`: the generation's own egress program, `egress`: the attached one.
///
/// # Errors
/// If the machine has no clock.
pub(super) fn now(
    layout: &Layout,
    attached: Attached,
    meta: &Meta,
    (meant, egress): (Option<u32>, Option<u32>),
    is_confirmed: bool,
) -> crate::Result<Effective> {
    let settings = &meta.policy.settings;
    let left = if is_confirmed {
        None
    } else {
        Some(deadline::left(meta.deadline)?)
    };
    let lapsed = if left == Some(None) {
        // Whatever cannot be read is not relied upon.
        let before =
            judging(layout, meta)?.map_or((Strictness::Audit, Strictness::Audit), |meta| {
                let before = Effective::of(&meta.policy.settings);
                (before.inbound, before.outbound)
            });
        Some(Lapsed {
            number: meta.number,
            previous: meta.previous.map(|number| (number, before.0, before.1)),
        })
    } else {
        None
    };
    let ingress = ingress(layout, attached);
    let mut now = Effective::weakened(
        settings,
        ingress,
        match (meant, egress) {
            (Some(meant), Some(egress)) if meant == egress => Attachment::Runs,
            (Some(_), Some(_)) => Attachment::Other,
            (None, None) => Attachment::Runs,
            _ => Attachment::Detached,
        },
        lapsed,
    );
    if let (Attachment::Runs, Some(egress)) = (ingress, egress)
        && let Some(name) = Interface::name_of(attached.ifindex)
    {
        now.bypass(&holder::before(&name, egress));
    }
    if left.flatten().is_some() {
        now.until = deadline::wall(meta.deadline).ok();
    }
    Ok(now)
}

/// The generation that judges in place of an unconfirmed one, if that has given way to it.
///
/// # Errors
/// If the machine has no clock.
pub(super) fn judging(layout: &Layout, meta: &Meta) -> crate::Result<Option<Meta>> {
    if deadline::left(meta.deadline)?.is_some() {
        return Ok(None);
    }
    let read = |number| Meta::read(&layout.generation(number).join("meta")).ok();
    Ok(meta.previous.and_then(read))
}

/// Whether the program of an ingress link runs on an interface of this network namespace.
pub(crate) fn runs(layout: &Layout, attached: Attached) -> bool {
    ingress(layout, attached) == Attachment::Runs
}

/// Where the program of an ingress link runs.
pub(super) fn ingress(layout: &Layout, attached: Attached) -> Attachment {
    if attached.ifindex == 0 {
        let (name, _) = layout.interface();
        return match Interface::find(&name) {
            // The link of a deleted interface cannot be told from one that was detached by force; the index can.
            Ok(there) if is_index_of(layout, attached, there.index) => Attachment::Detached,
            _ => Attachment::Gone,
        };
    }
    match holder::xdp_programs(attached.ifindex) {
        Ok(programs) if programs.contains(&attached.program) => Attachment::Runs,
        _ if Interface::find(&layout.interface().0).is_err() => Attachment::Away,
        _ => Attachment::Moved,
    }
}

/// Whether the generation was loaded for the interface with this index.
fn is_index_of(layout: &Layout, attached: Attached, index: u32) -> bool {
    number_of(layout, attached.program, Direction::Ingress)
        .and_then(|number| Meta::read(&layout.generation(number).join("meta")).ok())
        .is_some_and(|meta| meta.ifindex == index)
}

/// The program that egress runs, and the one that the generation has for it.
pub(super) fn egress(layout: &Layout, meta: &Meta) -> crate::Result<(Option<u32>, Option<u32>)> {
    let meant = program_of(layout, meta.number, Direction::Egress);
    let runs = match meta.egress_hook {
        None => None,
        // A filter has no pin to be asked; it is what was put there.
        Some(EgressHook::Clsact) => meant,
        Some(EgressHook::Tcx) => attach::inspect(&layout.link(Direction::Egress))?
            .filter(|link| link.ifindex != 0)
            .map(|link| link.program),
    };
    // Where its pin is gone, what runs there is what was put there.
    Ok((meta.egress_hook.and(meant.or(runs)), runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to be other than the policy says, and what holds then.
    #[test]
    fn nothing_is_said_to_be_stronger_than_it_is() {
        use Attachment::{Away, Detached, Gone, Moved, Other, Runs};
        use Strictness::{Audit, Enforce, Off};
        let settings = Settings {
            enforce: true,
            outbound: Outbound::Enforce,
            ..Settings::default()
        };
        let to = |previous| {
            Some(Lapsed {
                number: 7,
                previous,
            })
        };
        for (ingress, egress, lapsed, inbound, outbound) in [
            (Runs, Runs, None, Enforce, Enforce),
            (Runs, Runs, to(None), Audit, Audit),
            (Runs, Runs, to(Some((6, Audit, Audit))), Audit, Audit),
            (Runs, Runs, to(Some((6, Enforce, Off))), Enforce, Audit),
            (
                Runs,
                Runs,
                to(Some((6, Enforce, Enforce))),
                Enforce,
                Enforce,
            ),
            (Runs, Detached, None, Enforce, Off),
            (Runs, Other, None, Enforce, Off),
            (Detached, Runs, None, Off, Enforce),
            (Detached, Runs, to(None), Off, Audit),
            (Detached, Detached, None, Off, Off),
            (Detached, Other, None, Off, Off),
            (Gone, Runs, None, Off, Off),
            (Gone, Gone, None, Off, Off),
            (Moved, Runs, to(Some((6, Enforce, Enforce))), Off, Off),
            (Away, Runs, None, Enforce, Enforce),
            (Away, Runs, to(None), Audit, Audit),
            (Away, Detached, None, Enforce, Off),
        ] {
            let now = Effective::weakened(&settings, ingress, egress, lapsed);
            let case = format!("{ingress:?} {egress:?} {lapsed:?}: {now:?}");
            assert_eq!((now.inbound, now.outbound), (inbound, outbound), "{case}");
            let is_as_meant = (ingress, egress, lapsed) == (Runs, Runs, None);
            assert_eq!(now.is_as_meant(), is_as_meant, "{case}");
        }
        // A program that runs before it, and one before nothing.
        let holder = Holder {
            hook: "TCX egress",
            id: 7,
            name: String::new(),
        };
        for (before, outbound) in [(vec![holder], Off), (Vec::new(), Enforce)] {
            let mut now = Effective::weakened(&settings, Runs, Runs, None);
            now.bypass(&before);
            assert_eq!((now.inbound, now.outbound), (Enforce, outbound));
            assert_eq!(now.is_as_meant(), before.is_empty());
        }
        let audit = |previous| {
            let now = Effective::weakened(&Settings::default(), Runs, Runs, to(previous));
            (now.inbound, now.outbound)
        };
        assert_eq!(audit(None), (Audit, Audit));
        assert_eq!(audit(Some((6, Enforce, Enforce))), (Enforce, Enforce));
    }
}
