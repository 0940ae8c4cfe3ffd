//! From a frame to what becomes of it: the plain path inlined, all that is rare in a function of its own.

use aya_ebpf::EbpfContext;
use portguard_common::abi::slot;
use portguard_common::packet::{Malformed, Packet, Shape, Subject};
use portguard_common::parse::{Nonlinear, parse_ip, parse_plain, parse_tagged};
use portguard_common::reason::Direction;
use portguard_common::tables::Tables;
use portguard_common::talkers::TalkerKey;
use portguard_common::verdict::{self, Verdict};

use crate::copied::Copied;
use crate::count;
use crate::direct::Direct;
use crate::event;
use crate::hook::Hook;
use crate::maps::{self, Maps};
use crate::sample::Sample;
use crate::talkers;

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    /// It goes on.
    Pass = 0,
    /// It is gone.
    Drop = 1,
}

/// What [`slow_path`] is called with, rather than the number of an [`Action`]: nothing was decided yet.
const UNDECIDED: u32 = 2;
/// Where [`slow_path`] gets [`Applied::weight`], above the number of the action.
const WEIGHT: u32 = 8;

impl Action {
    #[inline(always)]
    const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Pass,
            _ => Self::Drop,
        }
    }
}

/// Hands the frame to the generation before this one if nobody confirmed this one in time: what that one passes is passed, and
/// what it drops is dropped. Comes back if this one is in force, or if there is none before it.
#[inline(always)]
pub(crate) fn give_way<H: Hook>(hook: H, ctx: &impl EbpfContext) {
    let maps = &Maps::alone();
    if is_overdue(maps) {
        let (start, end) = hook.bounds();
        maps.add_slot(slot::OVERDUE, hook.amount(hook.length(end - start)));
        hook.gives_way();
        maps::previous(ctx, H::DIRECTION);
    }
}

/// The fast path: the number of an [`Action`] with [`Applied::weight`] above it, or [`UNDECIDED`].
#[inline(always)]
pub(crate) fn fast_path<H: Hook>(hook: H, hears: impl Hears) -> u32 {
    match plain(hook, &Maps::new(hook.ctx()), hears) {
        Some(Applied { action, weight }) => action as u32 | weight << WEIGHT,
        None => UNDECIDED,
    }
}

/// What becomes of a frame that the fast path `decided` about, or left to the `slow` one.
///
/// There is one call of that, and the verifier does not know what it is called with: it looks at it once.
#[inline(always)]
pub(crate) fn decide(decided: u32, slow: impl FnOnce(u32) -> u32) -> Action {
    if decided < UNDECIDED {
        return Action::from_number(decided);
    }
    Action::from_number(slow(maps::barrier_var(decided.into()) as u32))
}

/// Who wants to know of frames that go on.
pub(crate) trait Hears: Copy {
    /// A frame goes on.
    fn hear<S: Subject>(self, packet: &S, verdict: &Verdict);
}

/// What the mode made of a verdict.
struct Applied {
    action: Action,
    /// The weight of a violation that is sampled, else 0.
    weight: u32,
}

/// Judges a plain frame; `None` if it is not plain.
#[inline(always)]
fn plain<H: Hook>(hook: H, maps: &Maps, hears: impl Hears) -> Option<Applied> {
    if maps.config().no_fast_path != 0 {
        return None;
    }
    let packet = parse_plain(&Direct::new(hook), hook.tag())?;
    let verdict = verdict::judge(maps, &packet, H::DIRECTION);
    Some(apply(hook, maps, &packet, &verdict, hears))
}

/// Applies the mode to a verdict: masks it, counts it, and tells `hears` of what goes on.
#[inline(always)]
fn apply<H: Hook, S: Subject>(
    hook: H,
    maps: &Maps,
    packet: &S,
    verdict: &Verdict,
    hears: impl Hears,
) -> Applied {
    // Overdue and yet here: there is no generation before this one, which drops nothing any more.
    let is_drop = is_drop::<H>(maps, verdict) && !is_overdue(maps);
    // Before the frame is counted: what counting says would be one more thing for verifiers to tell states apart by.
    if !is_drop {
        hears.hear(packet, verdict);
    }
    let amount = hook.amount(packet.length());
    let weight = count::count(maps, packet, verdict, H::DIRECTION, amount);
    Applied {
        action: if is_drop { Action::Drop } else { Action::Pass },
        weight,
    }
}

#[inline(always)]
fn is_drop<H: Hook>(maps: &Maps, verdict: &Verdict) -> bool {
    let config = maps.config();
    verdict.is_drop(match H::DIRECTION {
        Direction::Ingress => config.enforce != 0,
        Direction::Egress => config.enforce_out != 0,
    })
}

/// Whether this generation should have been confirmed by now and was not.
#[inline(always)]
fn is_overdue(maps: &Maps) -> bool {
    maps.may_give_way() && maps::boot_time() > maps.config().deadline
}

/// The slow path: judges a frame unless that was `decided` already, and of a violation that is sampled notes who it
/// was, and tells whoever listens. Takes and gives numbers of [`Action`].
#[inline(always)]
pub(crate) fn slow_path<H: Hook>(hook: H, decided: u32, hears: impl Hears) -> u32 {
    let maps = &Maps::new(hook.ctx());
    let packet = whole_packet(hook, maps);
    let verdict = verdict::judge(maps, &packet, H::DIRECTION);
    let mut action = decided & ((1 << WEIGHT) - 1);
    let mut weight = decided >> WEIGHT;
    if decided == UNDECIDED {
        let applied = apply(hook, maps, &packet, &verdict, hears);
        action = applied.action as u32;
        weight = applied.weight;
        if weight == 0 {
            return action;
        }
    }
    let sample = Sample {
        weight,
        is_drop: action == Action::Drop as u32,
        time: maps::boot_time(),
    };
    // All that is kept of the packet beyond the event, and forgotten: so the verifier walks through the note once, and not
    // once for each kind of packet.
    let key = TalkerKey::of(&packet, &verdict, H::DIRECTION).barrier_var(maps::barrier_var);
    let (packets, _) = hook.amount(packet.length);
    let packets = maps::barrier_var(packets * u64::from(weight));
    event::emit(
        hook,
        maps,
        &packet,
        event::Cause::of(&packet, &verdict),
        sample,
    );
    talkers::note(maps, &key, packets, sample);
    action
}

/// Parses any frame.
#[inline(always)]
fn whole_packet<H: Hook>(hook: H, maps: &Maps) -> Packet {
    let parsed = match (maps.config().raw_ip != 0, hook.is_split(maps.config())) {
        (false, true) => parse_tagged(&mut Copied::new(hook, maps.config()), hook.tag()),
        (false, false) => parse_tagged(&mut Direct::new(hook), hook.tag()),
        (true, true) => parse_ip(&mut Copied::new(hook, maps.config())),
        (true, false) => parse_ip(&mut Direct::new(hook)),
    };
    // What cannot even be copied is malformed: never passed unread.
    parsed.unwrap_or_else(|Nonlinear| {
        let mut packet = Packet::new(0);
        packet.shape = Shape::Malformed(Malformed::Truncated);
        packet
    })
}
