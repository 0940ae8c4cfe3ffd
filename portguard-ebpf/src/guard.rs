//! From a frame to what becomes of it: the plain path inlined, all that is rare in a function of its own.

use aya_ebpf::EbpfContext;
use portguard_common::abi::slot;
use portguard_common::config::Config;
use portguard_common::frame::Frame;
use portguard_common::packet::{Malformed, Packet, Shape, Subject};
use portguard_common::parse::{
    Nonlinear, parse_early, parse_ip_into, parse_plain, parse_tagged_into,
};
use portguard_common::reason::Direction;
use portguard_common::tables::Tables;
use portguard_common::talkers::TalkerKey;
use portguard_common::verdict::{self, Verdict};

use crate::barrier::barrier_var;
use crate::copied::Copied;
use crate::count;
use crate::direct::Direct;
use crate::event;
use crate::hook::Hook;
use crate::maps::{self, Maps};
use crate::sample::Sample;
use crate::talkers;
use crate::whole::Whole;

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    /// It goes on.
    Pass = 0,
    /// It is gone.
    Drop = 1,
}

impl Action {
    #[inline(always)]
    const fn from_number(number: u32) -> Self {
        match number & ACTION {
            0 => Self::Pass,
            _ => Self::Drop,
        }
    }
}

/// What was decided about a frame, as functions hand it on: the number of its [`Action`], or [`UNDECIDED`]; [`HEARD`]; and
/// above [`WEIGHT`] the [`Applied::weight`].
const ACTION: u32 = 3;
/// Nothing was decided yet.
const UNDECIDED: u32 = 2;
/// Whoever wants to know of frames that go on is to hear of this one.
const HEARD: u32 = 4;
/// Where the weight begins.
const WEIGHT: u32 = 8;

/// Hands the frame to the generation before this one if nobody confirmed this one in time: what that one passes is passed, and
/// what it drops is dropped; `note` does what is to be done before. Comes back if this one is in force, or if there is none
/// before it.
#[inline(always)]
pub(crate) fn give_way<H: Hook>(hook: H, ctx: &impl EbpfContext, note: impl FnOnce(H)) {
    let maps = &Maps::alone();
    if is_overdue(maps) {
        let (start, end) = hook.bounds();
        maps.add_slot(slot::OVERDUE, hook.amount(hook.length(end - start)));
        note(hook);
        maps::previous(ctx, H::DIRECTION);
    }
}

/// The fast path: plain frames, and those that their first headers say enough about. Gives what was decided.
#[inline(always)]
pub(crate) fn fast_path<H: Hook>(hook: H, hears: impl Hears) -> u32 {
    let maps = &Maps::new(hook.ctx());
    let config = maps.config();
    if config.no_fast_path != 0 {
        return UNDECIDED;
    }
    if let Some(packet) = parse_plain(&Direct::new(hook), hook.tag()) {
        return decide_by(hook, maps, &packet, hears).number();
    }
    match parse_early(&mut Direct::whole(hook, config), hook.tag()) {
        Some(packet) => decide_by(hook, maps, &packet, Nobody).number(),
        None => UNDECIDED,
    }
}

/// What is done rarely: functions of their own, one after the other, so that each has the stack to itself, and global ones, so
/// that the verifier walks through each once.
pub(crate) trait Slow {
    /// Does what [`judge`] does.
    fn judge(self, decided: u32) -> u32;
    /// Whether a frame that goes on matters to [`Self::hear`].
    fn is_heard(maps: &Maps, packet: &Packet, verdict: &Verdict) -> bool;
    /// Lets whoever wants to know of frames that go on hear of this one.
    fn hear(self);
    /// Does what [`sample`] does.
    fn sample(self, decided: u32);
}

/// What becomes of a frame that the fast path `decided` about, or left to the slow one.
///
/// The verifier does not know what the slow path is called with: it looks at it once.
#[inline(always)]
pub(crate) fn decide<H: Slow + Copy>(hook: H, decided: u32) -> Action {
    if decided < UNDECIDED {
        return Action::from_number(decided);
    }
    let decided = hook.judge(barrier_var(decided.into()) as u32);
    if decided & HEARD != 0 {
        hook.hear();
    }
    if decided >> WEIGHT != 0 {
        hook.sample(decided);
    }
    Action::from_number(decided)
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

impl Applied {
    /// As functions hand it on.
    #[inline(always)]
    const fn number(self) -> u32 {
        self.action as u32 | self.weight << WEIGHT
    }
}

/// Judges a frame by what is known of it.
#[inline(always)]
fn decide_by<H: Hook, S: Subject>(hook: H, maps: &Maps, packet: &S, hears: impl Hears) -> Applied {
    let verdict = verdict::judge(maps, packet, H::DIRECTION);
    apply(hook, maps, packet, &verdict, hears)
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
    let amount = hook.amount(packet.length());
    let weight = count::count(maps, packet, verdict, H::DIRECTION, amount);
    if is_drop {
        return Applied {
            action: Action::Drop,
            weight,
        };
    }
    // What counting says would be one more thing for verifiers to tell states apart by.
    let weight = if verdict.reason.is_violation() {
        barrier_var(weight.into()) as u32
    } else {
        0
    };
    hears.hear(packet, verdict);
    Applied {
        action: Action::Pass,
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

/// Parses and judges any frame, and counts it unless it was `decided` about already: then only its reason is asked for, for
/// [`sample`].
#[inline(always)]
pub(crate) fn judge<H: Hook + Slow>(hook: H, decided: u32) -> u32 {
    read(hook);
    // Found anew, so that the compiler knows no more of it than the verifier does.
    let Some(Whole { packet, verdict }) = Whole::at_hand() else {
        return Action::Drop as u32;
    };
    let maps = &Maps::new(hook.ctx());
    *verdict = verdict::judge(maps, packet, H::DIRECTION);
    if decided != UNDECIDED {
        return decided;
    }
    let applied = apply(hook, maps, packet, verdict, Nobody);
    let heard = match applied.action {
        Action::Pass if H::is_heard(maps, packet, verdict) => HEARD,
        _ => 0,
    };
    applied.number() | heard
}

#[inline(always)]
fn read<H: Hook>(hook: H) {
    let Some(Whole { packet, .. }) = Whole::fresh() else {
        return;
    };
    let maps = Maps::new(hook.ctx());
    let config = maps.config();
    // What the host sends and is not plain is rare: too rare to have verifiers walk through the parser twice.
    let in_place = match H::DIRECTION {
        Direction::Ingress => parse(hook, &mut Direct::whole(hook, config), config, packet),
        Direction::Egress => Err(Nonlinear),
    };
    let parsed = match in_place {
        Err(Nonlinear) if hook.is_split(config) => {
            parse(hook, &mut Copied::new(hook, config), config, packet)
        }
        parsed => parsed,
    };
    if let Err(Nonlinear) = parsed {
        // What cannot even be copied is malformed: never passed unread.
        packet.length = 0;
        packet.shape = Shape::Malformed(Malformed::Truncated);
    }
}

#[inline(always)]
fn parse<H: Hook>(
    hook: H,
    frame: &mut impl Frame,
    config: &Config,
    packet: &mut Packet,
) -> Result<(), Nonlinear> {
    if config.raw_ip == 0 {
        parse_tagged_into(frame, hook.tag(), packet)
    } else {
        parse_ip_into(frame, packet)
    }
}

/// Of a violation that is sampled, and that [`judge`] has judged, notes who it was, and tells whoever listens.
#[inline(always)]
pub(crate) fn sample<H: Hook>(hook: H, decided: u32) {
    let Some(Whole { packet, verdict }) = Whole::at_hand() else {
        return;
    };
    let maps = &Maps::new(hook.ctx());
    let sample = Sample {
        weight: decided >> WEIGHT,
        is_drop: decided & ACTION == Action::Drop as u32,
        time: maps::boot_time(),
    };
    // All that is kept of the packet beyond the event, and forgotten: so the verifier walks through the note once, and not
    // once for each kind of packet.
    let key = TalkerKey::of(packet, verdict, H::DIRECTION).barrier_var(barrier_var);
    let (packets, _) = hook.amount(packet.length);
    let packets = barrier_var(packets * u64::from(sample.weight));
    event::emit(
        hook,
        maps,
        packet,
        event::Cause::of(packet, verdict),
        sample,
    );
    talkers::note(maps, &key, packets, sample);
}

/// For frames that nobody wants to know of, or only later.
#[derive(Clone, Copy)]
struct Nobody;

impl Hears for Nobody {
    #[inline(always)]
    fn hear<S: Subject>(self, _packet: &S, _verdict: &Verdict) {}
}
