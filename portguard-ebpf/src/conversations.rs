//! The tables of conversations, which all guards of a network namespace and its socket programs share.
//!
//! Whole cells are written, under the lock of their set: two CPUs that choose the same cell do not lose each other's
//! conversation. Readers need none.
#![expect(unsafe_code, reason = "cells are written while others read them")]

use core::ptr;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::generated::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use portguard_common::addr::Addr;
use portguard_common::conntrack::{
    self as flow, Class, Hashed, Lifetimes, PAGE_PORTS, Page, Place, Set,
};

use crate::barrier::barrier_var;

/// What the host began; the loader sets how many sets. Mapped memory starts at a page, so that a set is one cache line:
/// values of other arrays do not.
#[btf_map]
static FLOWS: Array<Set, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What other ends began without a handshake; the loader sets how many sets.
#[btf_map]
static THEIRS: Array<Set, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// TCP that its set of `FLOWS` had no room for; the loader sets how many.
#[btf_map]
pub(crate) static SPILLED: HashMap<u64, u64, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// What ends when a TCP socket closes, by its cookie: what the packet filter makes of its conversation, and what was open before
/// sockets were followed. Keys as [`Hashed::key`] has them, 0 = none.
#[btf_map]
pub(crate) static ENDS_WITH: HashMap<u64, [u64; 2], 16_384, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// How many UDP sockets of this network namespace have a port, whatever they are bound to.
#[btf_map]
pub(crate) static HELD: Array<Page, { 65_536 / PAGE_PORTS }> = Array::new();

/// A set of the host's conversations.
#[inline(always)]
pub(crate) fn set(index: u32) -> Option<&'static Set> {
    FLOWS.get(index)
}

/// The same, to be written.
#[inline(always)]
pub(crate) fn set_mut(index: u32) -> Option<*mut Set> {
    FLOWS.get_ptr_mut(index)
}

/// A cell of the overflow table.
#[inline(always)]
pub(crate) fn spilled(key: u64) -> Option<u64> {
    // SAFETY: eight bytes, read at once.
    unsafe { SPILLED.get(key) }.copied()
}

/// Notes that a conversation ends with a socket; whether there was room for that.
#[inline(always)]
pub(crate) fn ends_with(cookie: u64, hashed: Hashed) -> bool {
    let key = hashed.key();
    // SAFETY: two words, of which each is whole.
    let [first, second] = unsafe { ENDS_WITH.get(cookie) }
        .copied()
        .unwrap_or_default();
    let other = if first == key { second } else { first };
    ENDS_WITH.insert(cookie, [key, other], 0).is_ok()
}

/// An address of IPv6 as sockets have it; IPv4 as such, also where such a socket carries it.
#[inline(always)]
pub(crate) fn six(words: [u32; 4]) -> Addr {
    let half = |first: u32, second: u32| {
        u64::from(u32::from_be(first)) << 32 | u64::from(u32::from_be(second))
    };
    let [a, b, c, d] = words;
    let (high, low) = (half(a, b), half(c, d));
    if high == 0 && low >> 32 == 0xffff {
        Addr::v4(low as u32)
    } else {
        Addr::v6(high, low)
    }
}

/// A set of what other ends began.
#[inline(always)]
pub(crate) fn theirs(index: u32) -> Option<&'static Set> {
    THEIRS.get(index)
}

/// Where and when something is written.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// Number of sets of either table less one.
    pub(crate) mask: u32,
    /// What is over, and may give way.
    pub(crate) lifetimes: Lifetimes,
    /// See [`flow::now`].
    pub(crate) now: u64,
}

/// What became of a conversation that began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Began {
    /// It has a cell that nobody needs.
    Placed,
    /// It has a cell of one that may still have lived.
    Evicted,
    /// It is in the overflow table.
    Spilled,
    /// There is no room for it.
    Lost,
}

/// Writes a conversation of the host's in place of the cell that it has.
#[inline(always)]
pub(crate) fn renew(hashed: Hashed, own: u64, class: Class, at: Moment) {
    let Some(set) = set_mut(hashed.set & at.mask) else {
        return;
    };
    let new = flow::cell(hashed.tag, class, at.now);
    if !exchange(set, flow::home(hashed.tag), own, new)
        && let Some(cell) = SPILLED.get_ptr_mut(hashed.key())
    {
        // SAFETY: an aligned word of a live element.
        unsafe { ptr::write_volatile(cell, new) };
    }
}

/// Writes one that nobody knew into its set.
#[inline(always)]
pub(crate) fn begin(hashed: Hashed, class: Class, at: Moment) -> Began {
    match set_mut(hashed.set & at.mask) {
        Some(set) => insert(set, hashed, class, at),
        None => Began::Lost,
    }
}

/// Writes one that its set has no room for: in place of one that nobody has answered, else into the overflow table.
#[inline(always)]
pub(crate) fn spill(hashed: Hashed, class: Class, at: Moment) -> Began {
    let Some(set) = set_mut(hashed.set & at.mask) else {
        return Began::Lost;
    };
    if displace(set, hashed, class, at) {
        return Began::Evicted;
    }
    // The mark comes first: who finds it and nothing behind it is too early, and not too late.
    // SAFETY: an aligned word of a live element.
    unsafe { ptr::write_volatile(&raw mut (*set).spilled, 1) };
    let new = flow::cell(hashed.tag, class, at.now);
    match SPILLED.insert(hashed.key(), new, 0) {
        Ok(()) => Began::Spilled,
        Err(_) => Began::Lost,
    }
}

/// Writes a conversation of the other end: in place of the cell that it has, with its content, or as one that begins.
#[inline(always)]
pub(crate) fn write_theirs(
    hashed: Hashed,
    own: Option<(u64, u64)>,
    class: Class,
    at: Moment,
) -> Began {
    let Some(set) = THEIRS.get_ptr_mut(hashed.set & at.mask) else {
        return Began::Lost;
    };
    match own {
        Some((own, new)) => {
            exchange(set, flow::home(hashed.tag), own, new);
            Began::Placed
        }
        None => insert(set, hashed, class, at),
    }
}

/// Finds a place and takes it, while nobody else writes to the set.
#[inline(always)]
fn insert(set: *mut Set, hashed: Hashed, class: Class, at: Moment) -> Began {
    let held = Held::new(set);
    let (old, began) = match held.place(class, at) {
        Place::Free(old) => (old, Began::Placed),
        Place::Taken(old) => (old, Began::Evicted),
        Place::Full => return Began::Lost,
    };
    let new = flow::cell(hashed.tag, class, at.now);
    held.exchange(flow::home(hashed.tag), old, new);
    began
}

/// Takes the cell of one that nobody has answered, if the set has such a one.
#[inline(always)]
fn displace(set: *mut Set, hashed: Hashed, class: Class, at: Moment) -> bool {
    let held = Held::new(set);
    for way in 0..flow::WAYS {
        if flow::gives_way(held.cell(way), class, at.now) {
            // SAFETY: as in `Held::cell`; readers see the one or the other.
            unsafe {
                let cell = held.0.cast::<u64>().add(way);
                ptr::write_volatile(cell, flow::cell(hashed.tag, class, at.now));
            }
            return true;
        }
    }
    false
}

/// Puts `new` where `old` stands, best at `home`; false if it stands nowhere any more.
#[inline(always)]
pub(crate) fn exchange(set: *mut Set, home: usize, old: u64, new: u64) -> bool {
    Held::new(set).exchange(home, old, new)
}

/// A set that nobody else writes to.
struct Held(*mut Set);

impl Held {
    #[inline(always)]
    fn new(set: *mut Set) -> Self {
        // SAFETY: a live array element; the kernel sees to it that the lock is given back.
        unsafe { bpf_spin_lock((&raw mut (*set).lock).cast()) };
        Self(set)
    }

    #[inline(always)]
    fn place(&self, class: Class, at: Moment) -> Place {
        Set::place_among(
            |way| self.cell(way),
            class,
            at.lifetimes,
            at.now,
            barrier_var,
        )
    }

    #[inline(always)]
    fn cell(&self, way: usize) -> u64 {
        // SAFETY: one of the seven cells of a live array element.
        unsafe { ptr::read_volatile(self.0.cast::<u64>().add(way)) }
    }

    #[inline(always)]
    fn exchange(&self, home: usize, old: u64, new: u64) -> bool {
        let cells = self.0.cast::<u64>();
        let exchanged_at = |index: usize| {
            // SAFETY: as above.
            let cell = unsafe { cells.add(index) };
            // SAFETY: as above.
            let is_old = unsafe { ptr::read_volatile(cell) } == old;
            if is_old {
                // SAFETY: as above; readers see the one or the other.
                unsafe { ptr::write_volatile(cell, new) };
            }
            is_old
        };
        if exchanged_at(home) {
            return true;
        }
        for index in 0..flow::WAYS {
            if exchanged_at(index) {
                return true;
            }
        }
        false
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: taken in `new`.
        unsafe { bpf_spin_unlock((&raw mut (*self.0).lock).cast()) };
    }
}
