//! What the kernel's routes make of a packet.
#![expect(unsafe_code, reason = "fills the question in place and calls a helper")]

use core::ffi::c_void;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::btf_map;
use portguard_common::addr::Addr;

/// What a look at the kernel's routes is asked and answered with: too large for the stack.
#[btf_map]
static ROUTE: PerCpuArray<Route, 1> = PerCpuArray::new();

/// The kernel's `struct bpf_fib_lookup`.
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
}

/// Its length, as the helper takes it.
const ROUTE_LENGTH: i32 = 64;

const _: () = assert!(size_of::<Route>() == 64 && core::mem::offset_of!(Route, source) == 16);

/// Answers of the lookup that mean that a packet goes on to somebody else: to a neighbour, to one that is not known yet, or
/// that it is too long for the way.
const FORWARDED: [u64; 3] = [0, 7, 8];
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Whether the kernel would route a packet from one address on to another if it came in by an interface.
#[inline(always)]
pub(crate) fn is_routed(ctx: *mut c_void, ifindex: u32, source: Addr, destination: Addr) -> bool {
    let Some(route) = ROUTE.get_ptr_mut(0) else {
        return false;
    };
    // Word by word: as a whole it would be made on the stack.
    macro_rules! write {
        ($($field:ident$([$index:literal])?: $value:expr),* $(,)?) => {
            // SAFETY: fields of a live per-CPU element that no other program of this CPU runs beside.
            unsafe { $((&raw mut (*route).$field$([$index])?).write_volatile($value);)* }
        };
    }
    write! {
        protocol: 0,
        ports: [0; 2],
        length: 0,
        ifindex: ifindex,
        class: 0,
        rest: [0; 4],
    }
    if destination.v6 {
        let (from, to) = (source, destination);
        write! {
            family: AF_INET6,
            source[0]: from.high.to_be() as u32,
            source[1]: (from.high.to_be() >> 32) as u32,
            source[2]: from.low.to_be() as u32,
            source[3]: (from.low.to_be() >> 32) as u32,
            destination[0]: to.high.to_be() as u32,
            destination[1]: (to.high.to_be() >> 32) as u32,
            destination[2]: to.low.to_be() as u32,
            destination[3]: (to.low.to_be() >> 32) as u32,
        }
    } else {
        write! {
            family: AF_INET,
            source[0]: source.as_v4().to_be(),
            destination[0]: destination.as_v4().to_be(),
        }
    }
    // SAFETY: the helper is given the size.
    let answer = unsafe { bpf_fib_lookup(ctx, route.cast(), ROUTE_LENGTH, 0) };
    FORWARDED.contains(&answer.cast_unsigned())
}
