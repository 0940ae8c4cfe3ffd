//! What the kernel's routes make of a packet.
#![expect(
    unsafe_code,
    reason = "fills the question in place, calls a helper, and is called by name"
)]

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::btf_map;
use portguard_common::abi::above::ASKED;
use portguard_common::addr::Addr;

use crate::above::{self, Device};
use crate::frozen;
use crate::hook::{Received, Sent};
use crate::local;

/// What a look at the kernel's routes is asked and answered with: too large for the stack.
#[btf_map]
static ROUTE: PerCpuArray<Route, 1> = PerCpuArray::new();

/// The kernel's `struct bpf_fib_lookup`, and behind it the addresses once more: an answer may be written over them.
#[repr(C)]
struct Route {
    family: u8,
    protocol: u8,
    ports: [u16; 2],
    /// 0: the size is not checked.
    length: u16,
    ifindex: u32,
    /// Traffic class, and what the answer needs room for.
    class: u32,
    source: [u32; 4],
    destination: [u32; 4],
    rest: [u32; 4],
    is_six: u64,
    from: [u64; 2],
    to: [u64; 2],
}

/// The length of what the helper knows.
const ROUTE_LENGTH: i32 = 64;

const _: () = assert!(
    core::mem::offset_of!(Route, is_six) == 64 && core::mem::offset_of!(Route, source) == 16
);

/// Answers of the lookup that mean that a packet goes on to somebody else: to a neighbour, into a tunnel by a route that encloses
/// it, to a neighbour that is not known yet, or that it is too long for the way.
const FORWARDED: [u64; 4] = [0, 6, 7, 8];
/// The answer for an interface by which nothing is forwarded, whoever it is for.
const FORWARDS_NOTHING: u64 = 5;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Writes the fields of the question, word by word: as a whole it would be made on the stack.
macro_rules! write {
    ($route:ident, $($field:ident$([$index:literal])?: $value:expr),* $(,)?) => {
        // SAFETY: fields of a live per-CPU element that no other program of this CPU runs beside.
        unsafe { $((&raw mut (*$route).$field$([$index])?).write_volatile($value);)* }
    };
}

/// Whether the kernel would route a packet from one address on to another if it came in by the interface of a hook.
#[inline(always)]
pub(crate) fn is_routed(from: Addr, to: Addr, ask: impl FnOnce() -> u32) -> bool {
    let Some(route) = ROUTE.get_ptr_mut(0) else {
        return false;
    };
    write! {
        route,
        is_six: to.v6.into(),
        from[0]: from.high,
        from[1]: from.low,
        to[0]: to.high,
        to[1]: to.low,
    }
    ask() != 0
}

/// Asks the kernel's routes about a packet as one that came in by this interface. A function of its own, which is there once.
#[inline(never)]
fn ask(ctx: *mut c_void, ifindex: u32) -> u64 {
    let Some(route) = ROUTE.get_ptr_mut(0) else {
        return FORWARDS_NOTHING;
    };
    macro_rules! word {
        ($field:ident$([$index:literal])?) => {
            // SAFETY: as in `write`.
            unsafe { (&raw const (*route).$field$([$index])?).read_volatile() }
        };
    }
    write! {
        route,
        protocol: 0,
        ports: [0; 2],
        length: 0,
        ifindex: ifindex,
        class: 0,
        rest[0]: 0,
        rest[1]: 0,
        rest[2]: 0,
        rest[3]: 0,
    }
    if word!(is_six) != 0 {
        let [from_high, from_low] = [word!(from[0]).to_be(), word!(from[1]).to_be()];
        let [to_high, to_low] = [word!(to[0]).to_be(), word!(to[1]).to_be()];
        write! {
            route,
            family: AF_INET6,
            source[0]: from_high as u32,
            source[1]: (from_high >> 32) as u32,
            source[2]: from_low as u32,
            source[3]: (from_low >> 32) as u32,
            destination[0]: to_high as u32,
            destination[1]: (to_high >> 32) as u32,
            destination[2]: to_low as u32,
            destination[3]: (to_low >> 32) as u32,
        }
    } else {
        let (from, to) = (word!(from[1]) as u32, word!(to[1]) as u32);
        write! {
            route,
            family: AF_INET,
            source[0]: from.to_be(),
            destination[0]: to.to_be(),
        }
    }
    // SAFETY: the helper is given the size of what is its own.
    let answer = unsafe { bpf_fib_lookup(ctx, route.cast(), ROUTE_LENGTH, 0) };
    answer.cast_unsigned()
}

/// Whether the packet of which the addresses are in [`ROUTE`] is for an address that some route keeps for this host.
#[inline(always)]
fn is_kept() -> bool {
    let Some(route) = ROUTE.get_ptr_mut(0) else {
        return true;
    };
    // SAFETY: as in `write`.
    let to = unsafe { (&raw const (*route).to).read_volatile() };
    let [high, low] = to;
    local::has(high, low)
}

/// Whether the packet of which the addresses are in [`ROUTE`] is forwarded, whichever of the interfaces that it may be routed as
/// come by: that of the hook, and all above it, since there may be other routes for those.
#[inline(always)]
fn is_forwarded<H: Device>(hook: H) -> bool {
    if frozen::config().scoped == 0 {
        return false;
    }
    let address = above::address(hook);
    // Whoever takes it takes it as sent to many, and that the kernel forwards to nobody.
    if address.is_some_and(above::is_group) {
        return false;
    }
    if is_kept() || !FORWARDED.contains(&ask(hook.ctx(), hook.ifindex())) {
        return false;
    }
    if !above::are_known() {
        return true;
    }
    let Some(count) = above::list(hook) else {
        return false;
    };
    if let Some(address) = address {
        above::ask_for(address);
    }
    for nth in 1..ASKED {
        if nth >= count {
            return true;
        }
        let answer = ask(hook.ctx(), above::index(nth));
        // Whoever forwards nothing is not asked for what it keeps: that is all that it takes.
        let is_taken = address.is_none() || above::takes_it(nth as u64) != 0;
        if !FORWARDED.contains(&answer) && (answer != FORWARDS_NOTHING || is_taken) {
            return false;
        }
    }
    true
}

/// [`is_forwarded`] for what comes in. A global function, which the verifier walks through once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn is_received_forwarded(ctx: *mut xdp_md) -> u32 {
    is_forwarded(Received(ctx)).into()
}

/// The same for what goes out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn is_sent_forwarded(ctx: *mut __sk_buff) -> u32 {
    is_forwarded(Sent(ctx)).into()
}
