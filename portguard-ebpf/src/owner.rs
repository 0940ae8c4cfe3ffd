//! Whose port a datagram leaves from: whether its program asked for that port, or the kernel picked it.
#![expect(
    unsafe_code,
    reason = "helpers, and a field of the kernel's own structure"
)]

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::{mem, ptr};

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::btf_map;
use portguard_common::conntrack::Tuple;
use portguard_common::track::owner;

/// Where the kernel's `struct sock` says that a program asked for the port: the number of the bit, 0 = not known.
#[repr(transparent)]
struct Bit(UnsafeCell<u32>);

// SAFETY: nobody writes while programs run: the loader fills it before.
unsafe impl Sync for Bit {}

#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.asked")]
static ASKED: Bit = Bit(UnsafeCell::new(0));

/// The kernel's `struct bpf_sock_tuple`, both addresses and both ports in network order, and after that an address.
#[btf_map]
static TUPLE: PerCpuArray<[u64; 8], 1> = PerCpuArray::new();

/// Words of [`TUPLE`] that the kernel is not shown.
const ADDRESS: usize = 6;

/// What is known of a socket's port: see [`owner`]. A function of its own, which is there once.
#[inline(never)]
pub(crate) fn of(socket: *mut bpf_sock) -> u32 {
    // SAFETY: an aligned, initialised word. Volatile, since the loader writes it.
    let bit = unsafe { ptr::read_volatile(ASKED.0.get()) };
    let mut byte = [0];
    if bit == 0 || !read(socket.cast(), bit / 8, &mut byte) {
        return owner::FOUND;
    }
    let [byte] = byte;
    if byte >> (bit % 8) & 1 != 0 {
        owner::FOUND | owner::ASKED
    } else {
        owner::FOUND | owner::PICKED
    }
}

/// Reads from a structure of the kernel's, so many octets behind its start; whether it could.
#[inline(always)]
pub(crate) fn read<const N: usize>(structure: *mut c_void, at: u32, to: &mut [u8; N]) -> bool {
    let Some(scratch) = TUPLE.get_ptr_mut(0) else {
        return false;
    };
    // Verifiers do not add to such a pointer; a number that was read from a map is none.
    // SAFETY: a word of a live per-CPU element that no other program of this CPU runs beside; the helper reads whatever
    // address it is given, or refuses.
    unsafe {
        let word = scratch.cast::<u64>().add(ADDRESS);
        word.cast::<*mut c_void>().write_volatile(structure);
        let from = word.read_volatile() + u64::from(at);
        bpf_probe_read_kernel(to.as_mut_ptr().cast(), N as u32, from as *const c_void) == 0
    }
}

/// What is known of the socket that would hear the answer to a datagram from here; 0 = there is none.
#[inline(always)]
pub(crate) fn find(ctx: *mut c_void, tuple: &Tuple) -> u32 {
    asked(tuple, || look_up(ctx, u32::from(tuple.local.v6)))
}

/// Looks up what [`asked`] wrote down. A function of its own, which the verifier sees once.
#[inline(never)]
fn look_up(ctx: *mut c_void, is_six: u32) -> u32 {
    with_socket::<LOOKUP_UDP>(ctx, is_six, of)
}

/// Number of the helper `bpf_sk_lookup_udp`.
const LOOKUP_UDP: usize = 85;

/// Writes down the ends of a conversation as helpers that look up its socket read them, and has `then` ask; 0 = it could not.
#[inline(always)]
pub(crate) fn asked(tuple: &Tuple, then: impl FnOnce() -> u32) -> u32 {
    let Tuple {
        local,
        remote,
        local_port,
        remote_port,
        ..
    } = *tuple;
    let Some(scratch) = TUPLE.get_ptr_mut(0) else {
        return 0;
    };
    let write = |index: usize, word: u32| {
        // SAFETY: nine words of a live per-CPU element of sixteen, that no other program of this CPU runs beside.
        unsafe { scratch.cast::<u32>().add(index).write_volatile(word) };
    };
    let ports = u32::from(remote_port.to_be()) | u32::from(local_port.to_be()) << 16;
    if local.v6 {
        for (first, address) in [(0, remote), (4, local)] {
            let (high, low) = (address.high.to_be(), address.low.to_be());
            write(first, high as u32);
            write(first + 1, (high >> 32) as u32);
            write(first + 2, low as u32);
            write(first + 3, (low >> 32) as u32);
        }
        write(8, ports);
    } else {
        write(0, remote.as_v4().to_be());
        write(1, local.as_v4().to_be());
        write(2, ports);
    }
    then()
}

/// Asks the socket of what [`asked`] wrote down; 0 = there is none.
#[inline(always)]
pub(crate) fn with_socket<const LOOKUP: usize>(
    ctx: *mut c_void,
    is_six: u32,
    ask: impl FnOnce(*mut bpf_sock) -> u32,
) -> u32 {
    let Some(scratch) = TUPLE.get_ptr_mut(0) else {
        return 0;
    };
    let length = if is_six != 0 { 36 } else { 12 };
    // By number: the kernel takes no description of the types that the bindings have for these.
    // SAFETY: a lookup, which is given the length, and `bpf_sk_release`, which takes what that gives.
    let (lookup, release) = unsafe {
        (
            mem::transmute::<
                usize,
                unsafe extern "C" fn(*mut c_void, *mut c_void, u32, u64, u64) -> *mut bpf_sock,
            >(LOOKUP),
            mem::transmute::<usize, unsafe extern "C" fn(*mut bpf_sock) -> u64>(86),
        )
    };
    // SAFETY: as above; this network namespace, no flags.
    let socket = unsafe { lookup(ctx, scratch.cast(), length, u64::MAX, 0) };
    if socket.is_null() {
        return 0;
    }
    let found = ask(socket);
    // SAFETY: it was looked up above, and is given back once.
    unsafe { release(socket) };
    found
}
