//! The interfaces above one, as the kernel has them at this moment: VLANs, bridges, bonds, macvlans, VRFs. It keeps them in a
//! list at each interface, which is walked once a jiffy at most.
#![expect(
    unsafe_code,
    reason = "memory of this CPU, and of the kernel by a helper that refuses what is none"
)]

use core::ffi::c_void;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_probe_read_kernel};
use aya_ebpf::macros::btf_map;
use portguard_common::abi::above::{ASKED, IS_VRF, WORDS, word};

use crate::direct::Direct;
use crate::frozen::{self, Frozen};
use crate::hook::{Hook, Received, Sent};
use portguard_common::frame::{Frame as _, Window as _};

/// The loader fills it.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.places")]
static PLACES: Frozen<[u32; WORDS]> = Frozen::new([0; WORDS]);

/// Interfaces that are walked at most, those of other network namespaces among them.
const STEPS: usize = 256;

/// Which link addresses an interface takes frames for, as the word beside its number.
mod takes {
    /// Its own.
    pub(super) const OWN: u64 = 0;
    /// Its own, and whichever the one below it takes: what that took stays so.
    pub(super) const BELOW: u64 = 1;
    /// Any.
    pub(super) const ANY: u64 = 2;
    /// None: what it gets is wrapped in something else.
    pub(super) const NONE: u64 = 3;
    /// Where it stands in the word, and behind it which of the list the one below is.
    pub(super) const SHIFT: u32 = 32;
    pub(super) const PARENT: u32 = 40;
}

/// Where a macvlan keeps what it stands on, and which frames it takes: its driver's own structure, which is as old as it.
mod macvlan {
    pub(super) const LOWER: u64 = 48;
    pub(super) const MODE: u64 = 112;
    /// Modes in which it takes frames for its own address only: private, vepa, bridge; and those from some senders, whoever they
    /// are for.
    pub(super) const OWN: [u32; 3] = [1, 2, 4];
    pub(super) const SOURCE: u32 = 16;
}

/// The octets of a link address, as the first word at its place.
pub(crate) const LINK_ADDRESS: u64 = 0xffff_ffff_ffff;

/// Words of [`ABOVE`].
mod at {
    use super::ASKED;

    /// The interface that the list begins with, as the kernel's address.
    pub(super) const DEVICE: usize = 0;
    /// When the list was made, and with which interface.
    pub(super) const MADE: usize = 1;
    pub(super) const MADE_OF: usize = 2;
    /// How many the list has; 0: more than are asked for.
    pub(super) const COUNT: usize = 3;
    /// Of which one the list is walked, where that begins, and where the walk is.
    pub(super) const TURN: usize = 4;
    pub(super) const HEAD: usize = 5;
    pub(super) const ENTRY: usize = 6;
    /// The link address that is asked for, and a bit for each that takes it.
    pub(super) const ASKED_FOR: usize = 7;
    pub(super) const TAKERS: usize = 8;
    /// The kernel's addresses of them.
    pub(super) const DEVICES: usize = 9;
    /// Their numbers, and [`super::takes`].
    pub(super) const INDICES: usize = DEVICES + ASKED;
    /// Their link addresses.
    pub(super) const ADDRESSES: usize = INDICES + ASKED;
    pub(super) const WORDS: usize = ADDRESSES + ASKED;
}

#[btf_map]
static ABOVE: PerCpuArray<[u64; at::WORDS], 1> = PerCpuArray::new();

/// The list of this CPU.
#[derive(Clone, Copy)]
struct List(*mut u64);

impl List {
    #[inline(always)]
    fn at_hand() -> Option<Self> {
        Some(Self(ABOVE.get_ptr_mut(0)?.cast()))
    }

    #[inline(always)]
    fn get(self, index: usize) -> u64 {
        // SAFETY: below `at::WORDS`, as all that is asked for; a live per-CPU element that no other program of this CPU runs
        // beside.
        unsafe { self.0.add(index).read_volatile() }
    }

    #[inline(always)]
    fn set(self, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.add(index).write_volatile(value) }
    }

    /// Adds an interface; whether there was room.
    #[inline(always)]
    fn push(self, device: u64, takes: u64) -> bool {
        let count = self.get(at::COUNT) as usize;
        if count >= ASKED {
            return false;
        }
        self.set(at::DEVICES + (count & (ASKED - 1)), device);
        let index = u64::from(read(device + place(word::INDEX)) as u32);
        self.set(at::INDICES + (count & (ASKED - 1)), index | takes);
        let address = read(read(device + place(word::ADDRESS))) & LINK_ADDRESS;
        self.set(at::ADDRESSES + (count & (ASKED - 1)), address);
        self.set(at::COUNT, count as u64 + 1);
        true
    }

    /// Begins with the list of the interface whose turn it is.
    #[inline(always)]
    fn turn(self, turn: usize) {
        let device = self.get(at::DEVICES + (turn & (ASKED - 1)));
        let head = device + place(word::UPPER);
        self.set(at::TURN, turn as u64);
        self.set(at::HEAD, head);
        self.set(at::ENTRY, read(head));
    }

    /// Does a step of the walk; whether there is more to do.
    #[inline(always)]
    fn step(self) -> bool {
        let entry = self.get(at::ENTRY);
        if entry == self.get(at::HEAD) {
            let turn = self.get(at::TURN) as usize + 1;
            if turn >= self.get(at::COUNT) as usize {
                return false;
            }
            self.turn(turn);
            return true;
        }
        let adjacent = entry - place(word::LIST);
        let device = read(adjacent);
        let namespace = |device| read(device + place(word::NAMESPACE));
        // What another network namespace has of it goes there.
        if namespace(device) == namespace(self.get(at::DEVICE)) {
            let turn = self.get(at::TURN) & (ASKED - 1) as u64;
            let is_part = read(adjacent + place(word::MASTER)) & 1 != 0;
            let takes = if is_part {
                takes::BELOW
            } else {
                taken(device, self.get(at::DEVICES + turn as usize)).into()
            };
            // Who is in a VRF is answered by its routes already, or never.
            let is_listed = if is_vrf(device) {
                place(word::HIDES_VRFS) == 0
            } else {
                self.push(device, takes << takes::SHIFT | turn << takes::PARENT)
            };
            if !is_listed {
                self.set(at::COUNT, 0);
                return false;
            }
        }
        self.set(at::ENTRY, read(entry));
        true
    }
}

#[inline(always)]
pub(crate) fn place(word: usize) -> u64 {
    PLACES.at(word).into()
}

#[inline(always)]
fn is_vrf(device: u64) -> bool {
    let flags = place(word::FLAGS);
    flags != 0 && read(device + flags) & IS_VRF != 0
}

/// A word of the kernel's memory; 0 if there is none.
#[inline(never)]
pub(crate) fn read(at: u64) -> u64 {
    let mut word = 0_u64;
    // SAFETY: the helper reads whatever address it is given, or refuses, and then it writes zeros.
    unsafe { bpf_probe_read_kernel((&raw mut word).cast(), 8, at as *const c_void) };
    word
}

/// The first octets of a text, and as many of a word.
const fn text(text: [u8; 8], length: u32) -> (u64, u64) {
    (u64::from_le_bytes(text), u64::MAX >> (64 - 8 * length))
}

/// Which link addresses an interface takes frames for that stands on another, and is none that the other is part of: see
/// [`takes`]. A global function, which the verifier walks through once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn taken(device: u64, below: u64) -> u32 {
    let kind = read(read(
        read(device + place(word::OPERATIONS)) + place(word::KIND),
    ));
    let is = |(text, mask): (u64, u64)| kind & mask == text;
    // It takes what is for addresses that are its own, by IP: those are the host's, unless it is in a VRF.
    let is_ipvlan = is(text(*b"ipvlan\0\0", 7)) || is(text(*b"ipvtap\0\0", 7));
    let head = device + place(word::UPPER);
    let is_in_vrf = read(head) != head;
    let takes = if is(text(*b"macvlan\0", 8)) || is(text(*b"macvtap\0", 8)) {
        let own = device + place(word::PRIVATE);
        let mode = read(own + macvlan::MODE) as u32;
        if read(own + macvlan::LOWER) != below {
            takes::ANY
        } else if macvlan::OWN.contains(&mode) {
            takes::OWN
        } else if mode == macvlan::SOURCE {
            takes::BELOW
        } else {
            takes::ANY
        }
    } else if is(text(*b"vxlan\0\0\0", 6)) || is_ipvlan && !is_in_vrf {
        takes::NONE
    } else {
        takes::BELOW
    };
    takes as u32
}

/// Lists the interface at [`at::DEVICE`] and those above it. A global function, which the verifier walks through once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn list_above() -> u32 {
    if frozen::config().scoped == 0 || !are_known() {
        return 0;
    }
    let Some(list) = List::at_hand() else {
        return 0;
    };
    list.set(at::COUNT, 0);
    list.push(list.get(at::DEVICE), 0);
    list.turn(0);
    for _ in 0..STEPS {
        if !list.step() {
            return 0;
        }
    }
    list.set(at::COUNT, 0);
    0
}

/// Whether the loader knows how to find them.
#[inline(always)]
pub(crate) fn are_known() -> bool {
    place(word::UPPER) != 0
}

/// A hook whose context says which interface it is for.
pub(crate) trait Device: Hook {
    /// Where a frame has the link address of who has the IP address that is asked about.
    const ADDRESS: usize;

    /// Where the kernel has the interface, if `context` is where it has the context.
    fn device(context: u64) -> u64;
}

impl Device for Received {
    const ADDRESS: usize = 0;

    #[inline(always)]
    fn device(context: u64) -> u64 {
        let queue = read(context + place(word::QUEUE));
        read(queue + place(word::QUEUE_DEVICE))
    }
}

impl Device for Sent {
    const ADDRESS: usize = 6;

    #[inline(always)]
    fn device(context: u64) -> u64 {
        read(context + place(word::BUFFER_DEVICE))
    }
}

/// The interface of a hook, as the kernel's address; `None` if it is not known.
#[inline(always)]
pub(crate) fn device<H: Device>(hook: H) -> Option<u64> {
    let list = List::at_hand()?;
    // Verifiers do not add to such a pointer; a number that was read from a map is none.
    list.set(at::DEVICE, hook.ctx() as u64);
    let device = H::device(list.get(at::DEVICE));
    (read(device + place(word::INDEX)) as u32 == hook.ifindex()).then_some(device)
}

/// Lists the interface of a hook and those above it, and says how many they are; `None` if they are more than are asked for, or
/// if it is not known.
#[inline(always)]
pub(crate) fn list<H: Device>(hook: H) -> Option<usize> {
    let list = List::at_hand()?;
    let device = device(hook)?;
    list.set(at::DEVICE, device);
    // SAFETY: takes nothing, gives a number.
    let now = unsafe { bpf_jiffies64() };
    if list.get(at::MADE) != now || list.get(at::MADE_OF) != device {
        list_above();
        list.set(at::MADE, now);
        list.set(at::MADE_OF, device);
    }
    let count = list.get(at::COUNT) as usize;
    (count != 0).then_some(count)
}

/// The number of an interface of the list.
#[inline(always)]
pub(crate) fn index(nth: usize) -> u32 {
    List::at_hand().map_or(0, |list| list.get(at::INDICES + (nth & (ASKED - 1))) as u32)
}

/// Begins to ask who takes frames for a link address.
#[inline(always)]
pub(crate) fn ask_for(address: u64) {
    if let Some(list) = List::at_hand() {
        list.set(at::ASKED_FOR, address);
        list.set(at::TAKERS, 0);
        takes_it(0);
    }
}

/// Whether an interface of the list takes frames for the link address that is asked for; those before it must have been asked. A
/// global function, which the verifier walks through once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn takes_it(nth: u64) -> u32 {
    let Some(list) = List::at_hand() else {
        return 1;
    };
    let nth = nth as usize & (ASKED - 1);
    let word = list.get(at::INDICES + nth);
    let how = word >> takes::SHIFT & 3;
    let takers = list.get(at::TAKERS);
    let is_below = takers >> (word >> takes::PARENT & (ASKED - 1) as u64) & 1 != 0;
    let is_own = list.get(at::ADDRESSES + nth) == list.get(at::ASKED_FOR);
    let is_one =
        how == takes::ANY || how != takes::NONE && is_own || how == takes::BELOW && is_below;
    list.set(at::TAKERS, takers | u64::from(is_one) << nth);
    is_one.into()
}

/// Whether a link address is a group's, or all of a link's.
#[inline(always)]
pub(crate) const fn is_group(address: u64) -> bool {
    address & 1 != 0
}

/// The link address of a frame that matters for a hook; `None` where frames have none.
#[inline(always)]
pub(crate) fn address<H: Device>(hook: H) -> Option<u64> {
    if frozen::config().raw_ip != 0 {
        return None;
    }
    let both = Direct::new(hook).window::<12>(0)?;
    let [first, last] = if H::ADDRESS == 0 {
        [both.u32::<0>(), both.u16::<4>().into()]
    } else {
        [both.u32::<6>(), both.u16::<10>().into()]
    };
    Some(u64::from(first.swap_bytes()) | u64::from((last as u16).swap_bytes()) << 32)
}
