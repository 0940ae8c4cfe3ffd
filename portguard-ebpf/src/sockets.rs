//! The programs that know from the sockets of a network namespace which conversations the host began, and when they end;
//! and what puts those into the tables that were open before.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "linker attributes, contexts that the kernel gives to programs, and a packet's memory"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "BPF is a 64-bit machine; bounds are written as the verifier is to see them"
)]

mod arrival;
mod barrier;
mod conversations;
mod held;
mod owner;

use core::ptr;

use aya_ebpf::bindings::{BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG};
use aya_ebpf::bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock_ops};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_jiffies64};
use aya_ebpf::macros::{btf_map, classifier, sock_ops};
use aya_ebpf::programs::{SockOpsContext, TcContext};
use portguard_common::abi::namespace::{COUNTERS, WORDS, counter, word};
use portguard_common::addr::Addr;
use portguard_common::conntrack::{self as flow, Class, Hashed, Lifetimes, Record, Tuple, record};

use crate::conversations::{Began, ENDS_WITH, Moment, SPILLED, exchange, six};

/// What holds for the network namespace.
#[btf_map]
static NAMESPACE: Array<u64, { WORDS as usize }> = Array::new();

/// What became of conversations.
#[btf_map]
static COUNTS: PerCpuArray<u64, { COUNTERS as usize }> = PerCpuArray::new();

/// `AF_INET6`.
const INET6: u32 = 10;

#[inline(always)]
fn namespace(word: u32) -> u64 {
    NAMESPACE.get(word).copied().unwrap_or(0)
}

#[inline(always)]
fn key() -> [u64; 2] {
    [namespace(word::KEY), namespace(word::KEY + 1)]
}

#[inline(always)]
fn moment() -> Moment {
    // SAFETY: takes nothing, gives a number.
    let jiffies = unsafe { bpf_jiffies64() };
    Moment {
        mask: namespace(word::MASK) as u32,
        lifetimes: Lifetimes {
            tcp_idle: namespace(word::TCP_IDLE) as u32,
            udp_idle: namespace(word::UDP_IDLE) as u32,
        },
        now: flow::now(jiffies, namespace(word::TICK_SHIFT) as u32),
    }
}

#[inline(always)]
fn count(what: u32) {
    if let Some(count) = COUNTS.get_ptr_mut(what) {
        // SAFETY: a live per-CPU element.
        unsafe { *count += 1 };
    }
}

/// Follows TCP: what a socket of this namespace opens is a conversation of the host until that socket closes.
#[sock_ops]
pub(crate) fn portguard_sockets(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        opens(&ctx);
    } else if op == BPF_SOCK_OPS_STATE_CB && ctx.arg(1) == BPF_TCP_CLOSE {
        closes(&ctx);
    }
    1
}

#[inline(always)]
fn is_here(ctx: &SockOpsContext) -> bool {
    // SAFETY: the context is the one that the kernel gave to this program.
    unsafe { bpf_get_netns_cookie(ctx.ops.cast()) == namespace(word::COOKIE) }
}

#[inline(always)]
fn opens(ctx: &SockOpsContext) {
    if !is_here(ctx) {
        return;
    }
    let Some(hashed) = hashed(ctx) else { return };
    // Others may have asked for calls of theirs.
    let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    know(hashed, Class::Socket);
}

#[inline(always)]
fn closes(ctx: &SockOpsContext) {
    if is_here(ctx)
        && let Some(hashed) = hashed(ctx)
    {
        count(counter::ENDED);
        end(hashed, moment());
        // SAFETY: the context is the one that the kernel gave to this program.
        end_with(unsafe { bpf_get_socket_cookie(ctx.ops.cast()) });
    }
}

/// Ends what else ends with a socket. A function of its own, which the verifier sees once.
#[inline(never)]
fn end_with(cookie: u64) -> u32 {
    // SAFETY: two words, of which each is whole.
    let Some([first, second]) = unsafe { ENDS_WITH.get(cookie) }.copied() else {
        return 0;
    };
    // Of two that do so, one removes the entry.
    if ENDS_WITH.remove(cookie).is_ok() {
        end_key(first);
        end_key(second);
    }
    0
}

/// Lets the conversation with this key end; 0 = none. A function of its own, which the verifier sees once.
#[inline(never)]
fn end_key(key: u64) -> u32 {
    if key != 0 {
        end(Hashed::of_key(key), moment());
    }
    0
}

/// Lets a conversation end; it is known for a little longer, where it has a cell of its set.
#[inline(always)]
fn end(hashed: Hashed, at: Moment) {
    let index = hashed.set & at.mask;
    let Some(own) = conversations::set(index).map(|set| set.find(hashed.tag)) else {
        return;
    };
    let Some(own) = own else {
        let _ = SPILLED.remove(hashed.key());
        return;
    };
    let new = flow::cell(hashed.tag, Class::Closing, at.now);
    if let Some(set) = conversations::set_mut(index) {
        exchange(set, flow::home(hashed.tag), own, new);
    }
}

/// Empties a cell that still is what it was.
#[inline(always)]
fn clear(index: u32, cell: u64) -> bool {
    conversations::set_mut(index).is_some_and(|set| exchange(set, flow::home(cell), cell, 0))
}

/// The tuple of a socket; `None` if it talks to this very host.
#[inline(always)]
fn hashed(ctx: &SockOpsContext) -> Option<Hashed> {
    let (local, remote) = if ctx.family() == INET6 {
        (six(local6(ctx.ops)), six(remote6(ctx.ops)))
    } else {
        (
            Addr::v4(u32::from_be(ctx.local_ip4())),
            Addr::v4(u32::from_be(ctx.remote_ip4())),
        )
    };
    if local == remote || !remote.v6 && remote.low >> 24 == 127 {
        return None;
    }
    let tuple = Tuple {
        space: 0,
        local,
        remote,
        local_port: ctx.local_port() as u16,
        remote_port: u32::from_be(ctx.remote_port()) as u16,
    };
    Some(tuple.hash(key()))
}

macro_rules! words {
    ($name:ident, $field:ident) => {
        /// Four words of a context, each read for itself: the kernel rewrites reads of four bytes only.
        #[inline(always)]
        fn $name(ops: *mut bpf_sock_ops) -> [u32; 4] {
            let at = |index: usize| {
                // SAFETY: the context is the one that the kernel gave to this program.
                unsafe { ptr::read_volatile((&raw const (*ops).$field).cast::<u32>().add(index)) }
            };
            [at(0), at(1), at(2), at(3)]
        }
    };
}
words!(local6, local_ip6);
words!(remote6, remote_ip6);

/// Makes a conversation of the host's known; says what [`record`] calls it.
#[inline(always)]
fn know(hashed: Hashed, class: Class) -> u32 {
    let at = moment();
    let own = match conversations::set(hashed.set & at.mask) {
        Some(set) => set
            .find(hashed.tag)
            .or_else(|| conversations::spilled(hashed.key())),
        None => return record::LOST,
    };
    if let Some(own) = own {
        conversations::renew(hashed, own, class, at);
        return record::KNOWN;
    }
    count(counter::CREATED);
    let began = match conversations::begin(hashed, class, at) {
        Began::Lost if class.stays() => conversations::spill(hashed, class, at),
        began => began,
    };
    match began {
        Began::Placed => record::DONE,
        Began::Evicted => {
            count(counter::EVICTED);
            record::DONE
        }
        Began::Spilled => {
            count(counter::SPILLED);
            record::SPILLED
        }
        Began::Lost => {
            count(counter::LOST);
            record::LOST
        }
    }
}

/// Does what a record asks for: see [`Record`]. Attached nowhere; user space runs it, so that the tables have one kind of
/// writer.
#[classifier]
pub(crate) fn portguard_adopt(ctx: TcContext) -> i32 {
    let Some(record) = record_of(&ctx) else {
        return record::WRONG as i32;
    };
    match record.what {
        record::HOLD => follow(record.set, record.local_port.into()) as i32,
        record::RELEASE => follow(record.set, NO_PORT) as i32,
        _ => adopt(&record) as i32,
    }
}

/// Says what is known of the UDP socket of a record: see [`portguard_common::track::owner`]. Attached nowhere, either.
#[classifier]
pub(crate) fn portguard_owner(ctx: TcContext) -> i32 {
    match record_of(&ctx) {
        Some(record) => owner::find(ctx.skb.skb.cast(), &tuple(&record)) as i32,
        None => record::WRONG as i32,
    }
}

/// Says by which interface packets of the TCP connection of a record arrive: see [`arrival`]. Attached nowhere, either.
#[classifier]
pub(crate) fn portguard_arrival(ctx: TcContext) -> i32 {
    match record_of(&ctx) {
        Some(record) => arrival::find(ctx.skb.skb.cast(), &tuple(&record)) as i32,
        None => record::WRONG as i32,
    }
}

/// The record that a program is run on.
#[inline(always)]
fn record_of(ctx: &TcContext) -> Option<Record> {
    let (start, end) = (ctx.data(), ctx.data_end());
    let at = start + record::AT;
    if at + size_of::<Record>() > end {
        return None;
    }
    // SAFETY: within the bounds; any bytes are a record.
    Some(unsafe { ptr::read_unaligned(at as *const Record) })
}

#[inline(always)]
fn tuple(record: &Record) -> Tuple {
    let address = |[high, low]: [u64; 2]| Addr {
        v6: record.v6 != 0,
        high,
        low,
    };
    Tuple {
        space: u32::from(record.space),
        local: address(record.local),
        remote: address(record.remote),
        local_port: record.local_port,
        remote_port: record.remote_port,
    }
}

/// For [`follow`]: the socket is closed.
const NO_PORT: u32 = 1 << 16;

/// Follows what is said of the port of a UDP socket. A function of its own, which the verifier sees once.
#[inline(never)]
fn follow(cookie: u64, port: u32) -> u32 {
    if port == NO_PORT {
        held::release(cookie);
    } else {
        held::hold(cookie, port as u16);
    }
    record::DONE
}

#[inline(always)]
fn adopt(record: &Record) -> u32 {
    if record.what == record::REMOVE {
        return if clear(record.set as u32, record.cell) {
            record::DONE
        } else {
            record::KNOWN
        };
    }
    let hashed = tuple(record).hash(key());
    if record.what == record::THEIRS {
        let at = moment();
        // What is known to be the host's is, whoever connection tracking takes for the first.
        let ours = conversations::set(hashed.set & at.mask).and_then(|set| set.find(hashed.tag));
        if ours.is_some_and(|cell| flow::is_live(cell, at.lifetimes, || at.now)) {
            return record::KNOWN;
        }
        let own = conversations::theirs(hashed.set & at.mask).and_then(|set| set.find(hashed.tag));
        let new = flow::cell(hashed.tag, Class::Datagrams, at.now);
        return match conversations::write_theirs(
            hashed,
            own.map(|own| (own, new)),
            Class::Datagrams,
            at,
        ) {
            Began::Lost => record::LOST,
            _ => record::DONE,
        };
    }
    // What its packets alone would tell of is known until its socket closes, where that can be noted.
    let is_noted = record.set != 0 && conversations::ends_with(record.set, hashed);
    let class = match record.class {
        0 => Class::Datagrams,
        3 if !is_noted => Class::Packets,
        6 => Class::Forwarded,
        _ => Class::Socket,
    };
    know(hashed, class)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers of the kernel that GPL-compatible programs may call.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
