//! Which ports UDP sockets of this network namespace have, whatever device or address they are bound to: told by those that
//! ask for one, and counted back when they close.
#![expect(
    unsafe_code,
    reason = "contexts that the kernel gives to programs, and counts of several writers"
)]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_sock};
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_spin_lock, bpf_spin_unlock,
};
use aya_ebpf::macros::{btf_map, cgroup_sock};
use aya_ebpf::programs::SockContext;
use portguard_common::abi::namespace::word;
use portguard_common::conntrack::PAGE_PORTS;
use portguard_common::packet::protocol;

use crate::conversations::HELD;
use crate::{end_with, namespace};

/// The port of each socket that is counted, by its cookie.
#[btf_map]
static BOUND: HashMap<u64, u32, 16_384, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// A socket got a port by `bind`.
#[cgroup_sock(post_bind4)]
pub(crate) fn portguard_bind4(ctx: SockContext) -> i32 {
    binds(ctx.sock)
}

/// The same for IPv6, and for both families at once.
#[cgroup_sock(post_bind6)]
pub(crate) fn portguard_bind6(ctx: SockContext) -> i32 {
    binds(ctx.sock)
}

/// A socket closes.
#[cgroup_sock(sock_release)]
pub(crate) fn portguard_close(ctx: SockContext) -> i32 {
    // SAFETY: the context is the one that the kernel gave to this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    if is_udp(ctx.sock) {
        release(cookie);
    } else {
        end_with(cookie);
    }
    1
}

#[inline(always)]
fn is_udp(socket: *mut bpf_sock) -> bool {
    // SAFETY: as above.
    unsafe { (&raw const (*socket).protocol).read_volatile() == u32::from(protocol::UDP) }
}

#[inline(always)]
fn binds(socket: *mut bpf_sock) -> i32 {
    // SAFETY: as above.
    let is_here = || unsafe { bpf_get_netns_cookie(socket.cast()) == namespace(word::COOKIE) };
    if is_udp(socket) && is_here() {
        // SAFETY: as above.
        let (cookie, port) = unsafe {
            (
                bpf_get_socket_cookie(socket.cast()),
                (&raw const (*socket).src_port).read_volatile(),
            )
        };
        hold(cookie, port as u16);
    }
    1
}

/// Counts the port of a socket, unless that was done.
#[inline(always)]
pub(crate) fn hold(cookie: u64, port: u16) {
    // SAFETY: four bytes, read at once.
    let before = unsafe { BOUND.get(cookie) }.copied();
    if before == Some(port.into()) {
        return;
    }
    if before.is_some() {
        release(cookie);
    }
    // Where there is no room for it, it is not counted: nobody would count it back.
    if BOUND
        .insert(cookie, u32::from(port), BPF_NOEXIST.into())
        .is_ok()
    {
        count(port, 1);
    }
}

/// Counts it back. Of two that do so, one removes the entry.
#[inline(always)]
pub(crate) fn release(cookie: u64) {
    // SAFETY: as above.
    let Some(port) = unsafe { BOUND.get(cookie) }.copied() else {
        return;
    };
    if BOUND.remove(cookie).is_ok() {
        count(port as u16, u32::MAX);
    }
}

/// Adds to the count of a port, modulo 2^32, while nobody else does.
#[inline(always)]
fn count(port: u16, more: u32) {
    let port = usize::from(port);
    let Some(page) = HELD.get_ptr_mut((port / PAGE_PORTS) as u32) else {
        return;
    };
    // SAFETY: a live array element with its lock, and one of as many words as it has.
    unsafe {
        let count = (&raw mut (*page).counts)
            .cast::<u32>()
            .add(port % PAGE_PORTS);
        bpf_spin_lock((&raw mut (*page).lock).cast());
        count.write_volatile(count.read_volatile().wrapping_add(more));
        bpf_spin_unlock((&raw mut (*page).lock).cast());
    }
}
