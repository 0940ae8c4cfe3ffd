//! Who sends a packet that may begin a conversation: what is asked of few packets, in a function that all of them share.
#![expect(
    unsafe_code,
    reason = "hands what is known of the packet to a function by memory of this CPU"
)]

use aya_ebpf::bindings::{__sk_buff, bpf_hdr_start_off};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes_relative;
use aya_ebpf::macros::btf_map;
use portguard_common::addr::Addr;
use portguard_common::conntrack::{Class, Hashed, Tuple};
use portguard_common::question;
use portguard_common::tables::Tables as _;
use portguard_common::track::{self, Opening, Sender};
use portguard_common::verdict;

use crate::conversations;
use crate::direct::Direct;
use crate::hook::{self, Hook as _, Origin, Sent};
use crate::maps::{self, Maps};
use crate::owner;
use crate::remember::class;
use crate::tracked;

/// What [`opens`] is given: more than a function has arguments for; and after that a word of the packet.
#[btf_map]
static OPENING: PerCpuArray<[u64; WORDS + 1], 1> = PerCpuArray::new();

const WORDS: usize = 8;

/// A packet that leaves.
pub(crate) struct Sending(pub(crate) Sent);

impl Sender for Sending {
    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        self.0.is_from_elsewhere()
    }

    #[inline(always)]
    fn may_end(&self, is_reset: bool) -> bool {
        may_end((self.0).0, u32::from(is_reset)) != 0
    }

    #[inline(always)]
    fn goes_on(&self, Hashed { set, tag }: Hashed, own: u64) {
        goes_on((self.0).0, set, tag, own);
    }

    #[inline(always)]
    fn is_finishing(&self) -> bool {
        !self.0.is_from_elsewhere()
            && self
                .0
                .own_socket()
                .is_some_and(|socket| hook::is_stream(socket) && hook::is_finishing(socket))
    }

    #[inline(always)]
    fn is_followed(&self) -> bool {
        follow((self.0).0) != 0
    }

    #[inline(always)]
    fn opens(&self, opening: &Opening) {
        let Some(words) = OPENING.get_ptr_mut(0) else {
            return;
        };
        let Tuple {
            space,
            local,
            remote,
            local_port,
            remote_port,
        } = opening.tuple;
        let ends = u64::from(local_port) | u64::from(remote_port) << 16;
        let kind = u64::from(space)
            | u64::from(local.v6) << 2
            | u64::from(opening.is_datagram) << 3
            | u64::from(opening.is_documented) << 4
            | (opening.class as u64) << 5;
        let values = [
            opening.hashed.tag,
            u64::from(opening.hashed.set) | kind << 32,
            opening.known,
            ends,
            local.high,
            local.low,
            remote.high,
            remote.low,
        ];
        for (index, word) in values.into_iter().enumerate() {
            // SAFETY: as many words as a live per-CPU element has that no other program of this CPU runs beside. Word by word:
            // as a whole it would be made on the stack.
            unsafe { words.cast::<u64>().add(index).write_volatile(word) };
        }
        let class = opens((self.0).0);
        if class != NOTHING {
            begins(class);
        }
    }

    #[inline(always)]
    fn is_foreign(&self, tuple: &Tuple) -> bool {
        let hook = self.0;
        // Links without a header have no addresses for many.
        let is_for_many = || Maps::alone().config().raw_ip == 0 && Direct::new(hook).is_for_many();
        // Sockets that are bound to a device are found by their port: the kernel would look for them with that at hand.
        let is_foreign = match hook.origin(maps::side) {
            Origin::Inside => false,
            Origin::SameSide => true,
            Origin::OtherSide => passes(hook.0) == 0,
        };
        is_foreign
            || is_for_many()
            || hook.is_from_elsewhere()
                && tuple.space == 1
                && (maps::is_held(tuple.local_port) || owner::find(hook.ctx(), tuple) != 0)
    }

    #[inline(always)]
    fn owner(&self, tuple: &Tuple) -> u32 {
        // What a tunnel sends has the socket of what is in there, or none.
        if let Some(socket) = self.0.udp_socket(tuple.local_port.into()) {
            return owner::of(socket) | maps::service(self.0.socket());
        }
        match owner::find(self.0.ctx(), tuple) {
            0 => translated((self.0).0),
            found => found,
        }
    }

    #[inline(always)]
    fn tracked(&self) -> u32 {
        tracked::of((self.0).0)
    }

    #[inline(always)]
    fn note_service(&self, tuple: &Tuple) {
        if self.0.udp_socket(tuple.local_port.into()).is_some() {
            maps::note_service(self.0.socket(), track::owner::WAS_THERE);
        }
    }

    #[inline(always)]
    fn is_question(&self, tuple: &Tuple) -> bool {
        let six = u32::from(tuple.local.v6);
        let what = u32::from(tuple.remote_port) | tuple.space << 16 | six << 24;
        is_question((self.0).0, what) != 0
    }
}

/// See [`Sender::is_question`]: the port, from bit 16 on the space, from bit 24 on whether it is IPv6. A function of its own, so that its
/// stack is no part of what else is asked.
#[inline(never)]
fn is_question(ctx: *mut __sk_buff, what: u32) -> u32 {
    let asks = question::asks(what >> 16 & 0xff, what as u16, what >> 24 != 0, |at| {
        octets(ctx, at)
    });
    asks.into()
}

/// See [`Sender::may_end`]. A function of its own, since few packets end anything.
#[inline(never)]
fn may_end(ctx: *mut __sk_buff, is_reset: u32) -> u32 {
    let hook = Sent(ctx);
    let may_end = if hook.is_from_elsewhere() {
        match hook.origin(maps::side) {
            Origin::Inside => true,
            Origin::SameSide => false,
            // Connection tracking takes no reset for one that fits no window.
            Origin::OtherSide => state(ctx) != track::tracked::NO,
        }
    } else {
        is_reset == 0 || hook.own_socket().is_some_and(hook::is_stream)
    };
    u32::from(may_end)
}

/// Whether the packet that [`OPENING`] tells of, which came in by another guarded interface, asks by right: connection tracking
/// saw it begin there, and it was no violation.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn passes(ctx: *mut __sk_buff) -> u32 {
    let (Some(words), track::tracked::ASKS) = (OPENING.get_ptr(0), state(ctx)) else {
        return 0;
    };
    let leaves = tuple(words);
    let came = tracked::first(ctx, &leaves).unwrap_or(Tuple {
        local: leaves.remote,
        remote: leaves.local,
        local_port: leaves.remote_port,
        remote_port: leaves.local_port,
        ..leaves
    });
    let maps = &Maps::alone();
    let hashed = came.hash(maps.config().flow_key);
    u32::from(!track::is_theirs(maps, hashed, track::JUST_NOW))
}

/// What connection tracking has of a packet, without the port.
#[inline(always)]
fn state(ctx: *mut __sk_buff) -> u32 {
    tracked::of(ctx) & track::tracked::STATE
}

/// What is known of the socket whose question the packet filter gives another port; 0 = there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translated(ctx: *mut __sk_buff) -> u32 {
    let hook = Sent(ctx);
    match hook.own_udp_socket() {
        Some(socket) if state(ctx) == track::tracked::ASKS => {
            owner::of(socket) | maps::service(hook.socket())
        }
        _ => 0,
    }
}

/// See [`track::goes_on`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn goes_on(ctx: *mut __sk_buff, set: u32, tag: u64, own: u64) -> u32 {
    let hashed = Hashed { set, tag };
    track::goes_on(&Maps::alone(), hashed, own, &Sending(Sent(ctx)));
    0
}

/// See [`Sender::is_followed`], for the packet that [`OPENING`] tells of. A socket is followed if what it has the ends of itself
/// is known to be one's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow(ctx: *mut __sk_buff) -> u32 {
    let hook = Sent(ctx);
    let (Some(words), false) = (OPENING.get_ptr(0), hook.is_from_elsewhere()) else {
        return 0;
    };
    let Some(socket) = hook.own_socket().filter(|socket| hook::is_stream(*socket)) else {
        return 0;
    };
    let maps = &Maps::alone();
    let own = hook::ends(socket).hash(maps.config().flow_key);
    let is_known = verdict::conversation(maps, own)
        .is_some_and(|cell| matches!(Class::of(cell), Class::Socket));
    u32::from(is_known && conversations::ends_with(hook.socket(), hashed(words)))
}

/// Notes who serves by this policy, which has lapsed, before the one before it judges what it says.
#[inline(never)]
pub(crate) fn note_served(ctx: *mut __sk_buff) -> u32 {
    let hook = Sent(ctx);
    if let Some(socket) = hook.own_udp_socket()
        && track::served(&Maps::alone(), hook::port(socket), owner::of(socket))
    {
        maps::note_service(hook.socket(), track::owner::WAS_OPEN);
    }
    0
}

/// Eight octets of a packet, from its IP header on; zeroes where there are none. A function of its own, which the verifier sees once.
#[inline(never)]
fn octets(ctx: *mut __sk_buff, at: u32) -> u64 {
    let Some(words) = OPENING.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the last word of a live per-CPU element that no other program of this CPU runs beside.
    let word = unsafe { words.cast::<u64>().add(WORDS) };
    // SAFETY: as above; the context is the one that the kernel gave to this program.
    unsafe {
        let is_there = bpf_skb_load_bytes_relative(
            ctx.cast(),
            at,
            word.cast(),
            8,
            bpf_hdr_start_off::BPF_HDR_START_NET,
        ) == 0;
        if is_there {
            u64::from_be(word.read_volatile())
        } else {
            0
        }
    }
}

/// For [`opens`]: it begins nothing.
const NOTHING: u32 = 255;

/// See [`track::opens_as`]; the class is a number. A global function, which the verifier sees once. What it decides is done by
/// another, since with all that they call they would need more stack than the kernel gives.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn opens(ctx: *mut __sk_buff) -> u32 {
    let Some(words) = OPENING.get_ptr(0) else {
        return NOTHING;
    };
    let word = |index| read(words, index);
    let kind = word(1) >> 32;
    let opening = Opening {
        tuple: tuple(words),
        hashed: hashed(words),
        class: class((kind >> 5) as u32 & 7),
        known: 0,
        is_datagram: kind >> 3 & 1 != 0,
        is_documented: kind >> 4 & 1 != 0,
    };
    let class = track::opens_as(&Maps::alone(), &opening, &Sending(Sent(ctx)));
    class.map_or(NOTHING, |class| class as u32)
}

/// Writes what [`opens`] decided.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begins(number: u32) -> u32 {
    if let Some(words) = OPENING.get_ptr(0) {
        track::begins(&Maps::alone(), hashed(words), read(words, 2), class(number));
    }
    0
}

/// The ends of the packet.
#[inline(always)]
fn tuple(words: *const [u64; WORDS + 1]) -> Tuple {
    let (kind, ends) = (read(words, 1) >> 32, read(words, 3));
    let address = |first: usize| Addr {
        v6: kind >> 2 & 1 != 0,
        high: read(words, first),
        low: read(words, first + 1),
    };
    Tuple {
        space: kind as u32 & 3,
        local: address(4),
        remote: address(6),
        local_port: ends as u16,
        remote_port: (ends >> 16) as u16,
    }
}

/// The conversation of the packet.
#[inline(always)]
fn hashed(words: *const [u64; WORDS + 1]) -> Hashed {
    Hashed {
        set: read(words, 1) as u32,
        tag: read(words, 0),
    }
}

#[inline(always)]
fn read(words: *const [u64; WORDS + 1], index: usize) -> u64 {
    // SAFETY: as in [`Sending::opens`].
    unsafe { words.cast::<u64>().add(index).read_volatile() }
}
