//! Every map and global, and the policy that they hold.
//!
//! A generation's own: `CONFIG`, `IN`, `OUT`, `RULES` (frozen globals), `ROOT4`, `ROOT6` (globals), `BLOCKS`, `STEPS`, `FILTER`,
//! `NETS`, `HOSTS`, `ADMIT`, `ENDINGS`, `CONTROL`, `PREVIOUS_IN`, `PREVIOUS_OUT`, `SAMPLERS`, `QUOTAS`.
//! Shared across generations by their pins: `CELLS`, `VIOLATIONS`, `CARRY`, `SLOTS`, `TALKERS`, `EVENTS`; across the guards
//! of a network namespace: those of [`crate::conversations`]. Scratch memory is with those who use it.
#![expect(
    unsafe_code,
    reason = "map values are reached by pointer; each access stands behind its bound"
)]

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::btf_map;
use portguard_common::abi::{
    Block, CELLS_A_CHUNK, CHUNKS, Cells, Counter, MAX_CELLS, SLOTS as SLOT_COUNT, Sampler,
    TalkerSet, Violations, control, slot,
};
use portguard_common::addr::Addr;
use portguard_common::config::Config;
use portguard_common::conntrack::{PAGE_PORTS, SERVED_WORDS, Set};
use portguard_common::reason::Direction;
use portguard_common::tables::{Ending, Entry, Host6, Key, Leaf, Net6, Rule, Step, Tables};
use portguard_common::talkers::SETS;

use crate::barrier::barrier_var;
use crate::conversations;
use crate::endings;
use crate::frozen::{self, Frozen};
use crate::hook;
use crate::other;
use crate::route;

/// Packets and bytes of a frame.
pub(crate) type Amount = (u64, u64);

/// Entries by key, ingress.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.in")]
static IN: Frozen<[u16; Key::COUNT as usize]> = Frozen::new([0; Key::COUNT as usize]);

/// Entries by key, egress.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.out")]
static OUT: Frozen<[u16; Key::COUNT as usize]> = Frozen::new([0; Key::COUNT as usize]);

/// Rules by index.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.rules")]
static RULES: Frozen<[u32; MAX_CELLS as usize]> = Frozen::new([0; MAX_CELLS as usize]);

/// IPv4 by the first 16 bits. Not frozen, nor is that of IPv6: the verifier would prune nothing by it, since no address is a
/// constant, and so a program that is attached nowhere can be given other addresses.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.root4")]
static ROOT4: Frozen<[u32; 65_536]> = Frozen::new([0; 65_536]);

/// IPv6 by the first 16 bits.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.root6")]
static ROOT6: Frozen<[u32; 65_536]> = Frozen::new([0; 65_536]);

/// Blocks of both families; the loader sets how many.
#[btf_map]
static BLOCKS: Array<Block, 1> = Array::new();

/// Steps of both families; the loader sets how many.
#[btf_map]
static STEPS: Array<Step, 1> = Array::new();

/// The filter in front of the table of networks; the loader sets how many words.
#[btf_map]
static FILTER: Array<u64, 1> = Array::new();

/// The table of networks; the loader sets how many cells.
#[btf_map]
static NETS: Array<Net6, 1> = Array::new();

/// The host table; the loader sets how many cells.
#[btf_map]
static HOSTS: Array<Host6, 1> = Array::new();

/// The admission matrix; the loader sets how many words.
#[btf_map]
static ADMIT: Array<u32, 1> = Array::new();

/// Granted packets by cell.
#[btf_map]
static CELLS: PerCpuArray<Cells, { (MAX_CELLS / CELLS_A_CHUNK) as usize }> = PerCpuArray::new();

/// Violations by key: ingress chunks, then egress chunks.
#[btf_map]
static VIOLATIONS: PerCpuArray<Violations, { 2 * CHUNKS as usize }> = PerCpuArray::new();

/// How often a count of `VIOLATIONS` has wrapped, by direction and key.
#[btf_map]
static CARRY: PerCpuHashMap<u32, u64, 1024> = PerCpuHashMap::new();

/// Counters by slot.
#[btf_map]
static SLOTS: PerCpuArray<Counter, { SLOT_COUNT as usize }> = PerCpuArray::new();

/// Top talkers.
#[btf_map]
static TALKERS: PerCpuArray<TalkerSet, { SETS as usize }> = PerCpuArray::new();

/// Samples the violations that have no key, by slot of their reason.
#[btf_map]
static SAMPLERS: PerCpuArray<Sampler, { 2 * slot::DIRECTION as usize }> = PerCpuArray::new();

/// Sampled violations. Declared without a value type: with one, libbpf refuses the object.
#[btf_map]
pub(crate) static EVENTS: RingBuf<(), { 512 * 1024 }> = RingBuf::new();

/// Interfaces of this network namespace whose frames come from outside, the guarded ones and those above them; and which of
/// them are one side: those that have the same number.
#[btf_map]
static OUTSIDE: HashMap<u32, u32, 4096, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The side of this host that an interface is on; 0 = inside.
#[inline(always)]
pub(crate) fn side(index: u32) -> u32 {
    // SAFETY: four bytes, read at once.
    unsafe { OUTSIDE.get(index) }.copied().unwrap_or(0)
}

/// UDP ports of services: see [`Tables::is_served`].
#[btf_map]
static SERVED: Array<u64, SERVED_WORDS> = Array::new();

/// UDP sockets of this network namespace that serve, by their cookies: see [`portguard_common::track::owner`].
#[btf_map]
static SERVICES: HashMap<u64, u32, 4096, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// What is known of a socket as a service.
#[inline(always)]
pub(crate) fn service(cookie: u64) -> u32 {
    // SAFETY: four bytes, read at once.
    unsafe { SERVICES.get(cookie) }.copied().unwrap_or(0)
}

/// Notes that a socket serves, and why.
#[inline(always)]
pub(crate) fn note_service(cookie: u64, what: u32) {
    let known = service(cookie);
    if known & what == 0 {
        // One for which there is no room counts as one that answers as long as the other end goes on.
        let _ = SERVICES.insert(cookie, known | what, 0);
    }
}

/// Whether a UDP socket of this network namespace has a port.
#[inline(always)]
pub(crate) fn is_held(port: u16) -> bool {
    let port = usize::from(port);
    let Some(page) = conversations::HELD.get_ptr((port / PAGE_PORTS) as u32) else {
        return false;
    };
    // SAFETY: an aligned word of a live array element, below as many as it has.
    let count = unsafe {
        (&raw const (*page).counts)
            .cast::<u32>()
            .add(port % PAGE_PORTS)
            .read_volatile()
    };
    count != 0
}

/// What user space says to a generation while it runs: see [`portguard_common::abi::control`].
#[btf_map]
static CONTROL: Array<u64, { control::WORDS as usize }> = Array::new();

/// A word of it.
#[inline(always)]
pub(crate) fn control(word: u32) -> u64 {
    CONTROL.get(word).copied().unwrap_or(0)
}

/// The ingress program of the generation before this one. Empty if there was none.
#[btf_map]
static PREVIOUS_IN: ProgramArray<1> = ProgramArray::new();

/// The egress program of it: a map of its own, since the kernel ties such a map to one kind of program.
#[btf_map]
static PREVIOUS_OUT: ProgramArray<1> = ProgramArray::new();

/// Calls the generation before this one; comes back if there is none.
#[inline(always)]
pub(crate) fn previous<C: EbpfContext>(ctx: &C, direction: Direction) {
    // SAFETY: nothing in this program waits to be dropped.
    unsafe {
        match direction {
            Direction::Ingress => PREVIOUS_IN.tail_call(ctx, 0),
            Direction::Egress => PREVIOUS_OUT.tail_call(ctx, 0),
        }
    }
}

/// How many events a reason has had in a tick, on this CPU.
#[btf_map]
static QUOTAS: PerCpuArray<Quota, { 2 * slot::DIRECTION as usize }> = PerCpuArray::new();

/// One reason's share of events.
#[repr(C)]
pub(crate) struct Quota {
    /// The tick that `used` is of.
    pub(crate) tick: u64,
    /// Events in it.
    pub(crate) used: u64,
}

/// The share of a reason, by its slot.
#[inline(always)]
pub(crate) fn quota(slot: u32) -> Option<*mut Quota> {
    QUOTAS.get_ptr_mut(slot)
}

/// Boot-time clock, nanoseconds.
#[inline(always)]
pub(crate) fn boot_time() -> u64 {
    // SAFETY: takes nothing, gives a number.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Bounds of the tables, as numbers that the compiler does not know and every verifier does: it reads them from a frozen
/// map. A mask that the compiler knows to be without effect it removes, and verifiers before 6.13 then lose the bound.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.bounds")]
static BOUNDS: Frozen<[usize; 3]> =
    Frozen::new([Key::COUNT as usize - 1, MAX_CELLS as usize - 1, 0xffff]);

/// A number that is below 2^18, the keys, for the verifier to see.
#[inline(always)]
fn key_index(number: u32) -> usize {
    number as usize & BOUNDS.at(0)
}

/// A number that is below 2^14, the rules.
#[inline(always)]
fn rule_index(number: u16) -> usize {
    number as usize & BOUNDS.at(1)
}

/// A number that is below 2^16, the roots of the address tables.
#[inline(always)]
fn root_index(number: u16) -> usize {
    number as usize & BOUNDS.at(2)
}

/// The policy of this generation.
pub(crate) struct Maps {
    config: &'static Config,
    /// What the program at hand was called with.
    ctx: *mut c_void,
}

impl Maps {
    /// Borrows the globals.
    #[inline(always)]
    pub(crate) fn new(ctx: *mut c_void) -> Self {
        Self {
            config: frozen::config(),
            ctx,
        }
    }

    /// For functions that ask the kernel nothing about the packet at hand.
    #[inline(always)]
    pub(crate) fn alone() -> Self {
        Self::new(ptr::null_mut())
    }

    /// Adds to a counter cell.
    #[inline(always)]
    pub(crate) fn add_cell(&self, cell: u16, (packets, bytes): Amount) {
        let cell = u32::from(cell);
        let Some(chunk) = CELLS.get_ptr_mut(cell / CELLS_A_CHUNK) else {
            return;
        };
        // SAFETY: a live per-CPU element that no other program of this CPU runs beside; the index is masked.
        let counter = unsafe {
            &mut *(&raw mut (*chunk).cells)
                .cast::<Counter>()
                .add((cell % CELLS_A_CHUNK) as usize)
        };
        counter.packets += packets;
        counter.bytes += bytes;
    }

    /// Adds a violation under a key. Returns its weight if it is sampled, else 0.
    #[inline(always)]
    pub(crate) fn add_violation(
        &self,
        direction: Direction,
        key: Key,
        open: bool,
        (packets, bytes): Amount,
    ) -> u32 {
        let chunk = direction as u32 * CHUNKS + key.0 / portguard_common::abi::CHUNK_KEYS;
        let Some(chunk) = VIOLATIONS.get_ptr_mut(chunk) else {
            return 0;
        };
        let index = (key.0 % portguard_common::abi::CHUNK_KEYS) as usize;
        // SAFETY: a live per-CPU element that no other program of this CPU runs beside; the index is masked.
        let (total, count, sampler) = unsafe {
            let total = if open {
                &raw mut (*chunk).peer
            } else {
                &raw mut (*chunk).closed
            };
            (
                &mut *total,
                &mut *(&raw mut (*chunk).counts).cast::<u32>().add(index),
                &mut (*chunk).sampler,
            )
        };
        total.packets += packets;
        total.bytes += bytes;
        *count = count.wrapping_add(packets as u32);
        if u64::from(*count) < packets {
            carry(direction, key);
        }
        self.sample(sampler)
    }

    /// Adds to a slot.
    #[inline(always)]
    pub(crate) fn add_slot(&self, slot: u32, (packets, bytes): Amount) {
        let Some(counter) = SLOTS.get_ptr_mut(slot) else {
            return;
        };
        // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
        let counter = unsafe { &mut *counter };
        counter.packets += packets;
        counter.bytes += bytes;
    }

    /// As [`Self::add_violation`] says, for a violation that has a slot and no key.
    #[inline(always)]
    pub(crate) fn sample_slot(&self, slot: u32) -> u32 {
        let Some(sampler) = SAMPLERS.get_ptr_mut(slot) else {
            return 0;
        };
        // SAFETY: a live per-CPU element that no other program of this CPU runs beside.
        self.sample(unsafe { &mut *sampler })
    }

    #[inline(always)]
    fn sample(&self, sampler: &mut Sampler) -> u32 {
        sampler.next(
            self.jiffies(),
            || 1 << self.config.tick_shift,
            // SAFETY: takes nothing, gives a number.
            || unsafe { bpf_get_prandom_u32() },
        )
    }

    /// A set of this CPU's talkers.
    #[inline(always)]
    pub(crate) fn talkers(set: u32) -> Option<*mut TalkerSet> {
        TALKERS.get_ptr_mut(set)
    }
}

/// Once every 2^32 violations of a key on a CPU.
#[inline(never)]
fn carry(direction: Direction, key: Key) {
    let key = direction as u32 * Key::COUNT + key.0;
    if let Some(count) = CARRY.get_ptr_mut(&key) {
        // SAFETY: a live element of this CPU, and nothing ever removes it.
        unsafe { *count += 1 };
    } else {
        let _ = CARRY.insert(&key, &1, 0);
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> &Config {
        self.config
    }

    #[inline(always)]
    fn entry(&self, direction: Direction, key: Key) -> Entry {
        let index = key_index(key.0);
        Entry(match direction {
            Direction::Ingress => IN.at(index),
            Direction::Egress => OUT.at(index),
        })
    }

    #[inline(always)]
    fn rule(&self, index: u16) -> Rule {
        Rule(RULES.at(rule_index(index)))
    }

    #[inline(always)]
    fn admit(&self, index: u32) -> u32 {
        ADMIT.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn ending(&self, index: u32) -> Ending {
        endings::ending(index)
    }

    #[inline(always)]
    fn left(&self, index: u32) -> u32 {
        endings::left(index, control(control::WALL))
    }

    #[inline(always)]
    fn wall_time(&self) -> u64 {
        boot_time().wrapping_add(control(control::WALL))
    }

    #[inline(always)]
    fn root4(&self, index: u16) -> Leaf {
        Leaf(ROOT4.at(root_index(index)))
    }

    #[inline(always)]
    fn root6(&self, index: u16) -> Leaf {
        Leaf(ROOT6.at(root_index(index)))
    }

    #[inline(always)]
    fn filter6(&self, word: u32) -> u64 {
        FILTER.get(word).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn net6(&self, cell: u32) -> Net6 {
        NETS.get(cell).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn step(&self, index: u32) -> Option<&Step> {
        STEPS.get(index)
    }

    #[inline(always)]
    fn block(&self, block: u32, index: u8) -> Leaf {
        let Some(block) = BLOCKS.get_ptr(block) else {
            return Leaf(0);
        };
        // SAFETY: a live array element of 256 words, and an octet indexes it.
        Leaf(unsafe {
            *(&raw const (*block).leaves)
                .cast::<u32>()
                .add(index as usize)
        })
    }

    #[inline(always)]
    fn host6(&self, cell: u32) -> Host6 {
        HOSTS.get(cell).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn is_forwarded(&self, direction: Direction, source: Addr, destination: Addr) -> bool {
        match direction {
            Direction::Ingress => route::is_routed(source, destination, || {
                route::is_received_forwarded(self.ctx.cast())
            }),
            Direction::Egress => {
                hook::Sent(self.ctx.cast()).is_from_elsewhere()
                    && route::is_routed(destination, source, || {
                        route::is_sent_forwarded(self.ctx.cast())
                    })
            }
        }
    }

    #[inline(always)]
    fn is_for_other_host(&self) -> bool {
        other::may_be(self.ctx.cast()) && other::is_for_other_host(self.ctx.cast()) != 0
    }

    #[inline(always)]
    fn may_give_way(&self) -> bool {
        self.config.deadline != 0 && control(control::CONFIRMED) == 0
    }

    #[inline(always)]
    fn is_held(&self, port: u16) -> bool {
        is_held(port)
    }

    #[inline(always)]
    fn is_served(&self, port: u16) -> bool {
        let word = SERVED.get(u32::from(port) / u64::BITS);
        word.is_some_and(|word| word >> (u32::from(port) % u64::BITS) & 1 != 0)
    }

    #[inline(always)]
    fn flow_set(&self, index: u32) -> Option<&Set> {
        conversations::set(index)
    }

    #[inline(always)]
    fn spilled(&self, key: u64) -> Option<u64> {
        conversations::spilled(key)
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: takes nothing, gives a number.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn barrier_var(&self, number: u64) -> u64 {
        barrier_var(number)
    }
}
