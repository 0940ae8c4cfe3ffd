//! What connection tracking has of a packet that leaves. The kernel keeps it with the packet, in a field of its own.
#![expect(
    unsafe_code,
    reason = "a global that the loader fills, and the name of a function"
)]

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::__sk_buff;
use portguard_common::addr::Addr;
use portguard_common::conntrack::Tuple;
use portguard_common::track::tracked;

use crate::owner;

/// Where the kernel's `struct sk_buff` has it, in octets; 0 = not known.
#[repr(transparent)]
struct Place(UnsafeCell<u32>);

// SAFETY: nobody writes while programs run: the loader fills it before.
unsafe impl Sync for Place {}

#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.tracked")]
static TRACKED: Place = Place(UnsafeCell::new(0));

/// Where the kernel's `struct nf_conn` has the end that spoke first: its address, and behind that its port; 0 = not known.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.first")]
static FIRST: Place = Place(UnsafeCell::new(0));

/// How far behind its address its port stands.
const PORT: u32 = 16;

/// The bits of that field that say of which end a packet is; the rest is the address of the connection.
const INFO: u64 = 7;
/// From here on it is of the end that answers.
const ANSWERS: u64 = 3;
/// From here on the connection is none.
const NONE: u64 = 5;

/// What it has: see [`tracked`]. A global function, which the verifier sees once.
#[unsafe(export_name = "tracked")]
#[inline(never)]
pub(crate) extern "C" fn of(ctx: *mut __sk_buff) -> u32 {
    let field = field(ctx);
    match field & INFO {
        info if field & !INFO == 0 || info >= NONE => tracked::NO,
        info if info >= ANSWERS => tracked::ANSWERS,
        _ => tracked::ASKS | sender_port(field) << tracked::PORT,
    }
}

/// The port of the end that spoke first, before the packet filter gave it another; 0 = the kernel does not let it be read.
#[inline(always)]
fn sender_port(field: u64) -> u32 {
    let at = read(&FIRST);
    let mut port = [0; 2];
    if at == 0
        || !owner::read(
            (field & !INFO) as usize as *mut c_void,
            at + PORT,
            &mut port,
        )
    {
        return 0;
    }
    u16::from_be_bytes(port).into()
}

/// The first packet of a connection as it came in, from this host's view, where `leaves` is it as it leaves; `None` where the
/// kernel does not let it be read.
#[inline(always)]
pub(crate) fn first(ctx: *mut __sk_buff, leaves: &Tuple) -> Option<Tuple> {
    let at = read(&FIRST);
    let connection = field(ctx) & !INFO;
    // Address and port of who sends it, and of whom it is for; between them a number of the protocol.
    let mut ends = [0; 38];
    if at == 0 || !owner::read(connection as usize as *mut c_void, at, &mut ends) {
        return None;
    }
    let word = |from: usize| {
        let octets = ends.get(from..).and_then(<[u8]>::first_chunk);
        u64::from_be_bytes(*octets.unwrap_or(&[0; 8]))
    };
    let address = |from: usize| {
        if leaves.local.v6 {
            Addr::v6(word(from), word(from + 8))
        } else {
            Addr::v4((word(from) >> 32) as u32)
        }
    };
    Some(Tuple {
        space: leaves.space,
        local: address(20),
        remote: address(0),
        local_port: u16::from_be_bytes([ends[36], ends[37]]),
        remote_port: u16::from_be_bytes([ends[16], ends[17]]),
    })
}

/// The field; 0 = it is empty, or not known where it is.
#[inline(always)]
fn field(ctx: *mut __sk_buff) -> u64 {
    let at = read(&TRACKED);
    // What a program is called with is the packet itself.
    let mut field = [0; 8];
    if at == 0 || !owner::read(ctx.cast(), at, &mut field) {
        return 0;
    }
    u64::from_le_bytes(field)
}

#[inline(always)]
fn read(place: &Place) -> u32 {
    // SAFETY: an aligned, initialised word. Volatile, since the loader writes it.
    unsafe { ptr::read_volatile(place.0.get()) }
}
