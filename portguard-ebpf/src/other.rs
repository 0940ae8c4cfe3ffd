//! Whether a frame is for another host of the link: a switch floods such frames where it has not learnt an address, and a card
//! that hears all hands them over. The kernel's own stack drops them, unless something stands in front of it.
#![expect(unsafe_code, reason = "called by name")]

use aya_ebpf::bindings::xdp_md;
use portguard_common::abi::above::word;

use crate::above::{self, LINK_ADDRESS, place, read};
use crate::frozen;
use crate::hook::{Hook as _, Received};

/// Octets of one end of a list, behind which the other stands: interfaces above, then those below.
const LIST_HEAD: u64 = 16;

/// Whether the frame at hand may be one, which costs next to nothing to ask.
#[inline(always)]
pub(crate) fn may_be(ctx: *mut xdp_md) -> bool {
    let to = above::address(Received(ctx));
    to.is_some_and(|to| to != frozen::config().card_address)
}

/// Whether nothing here takes the frame at hand, since by its link address it is for another host. So it is where a driver
/// tells the kernel whose it is (`eth_type_trans`), after this program, by the address of an interface that has nothing above
/// and nothing below it, no handler (bridge, bond, macvlan ...), no programs and no rules of the packet filter that see a frame
/// before the stack does. A global function, which the verifier walks through once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn is_for_other_host(ctx: *mut xdp_md) -> u32 {
    let hook = Received(ctx);
    let card = frozen::config().card;
    if card == 0 || u64::from(hook.ifindex()) != card || !are_known() {
        return 0;
    }
    let Some(to) = above::address(hook).filter(|to| !above::is_group(*to)) else {
        return 0;
    };
    above::device(hook)
        .is_some_and(|device| is_other(device, to) && is_alone(device))
        .into()
}

/// Whether the loader knows where the kernel keeps what stands in front of its stack.
#[inline(always)]
fn are_known() -> bool {
    above::are_known()
        && place(word::HANDLER) != 0
        && place(word::PROGRAMS) != 0
        && place(word::FILTER) != 0
}

/// Whether a link address is another than that of the interface.
#[inline(always)]
fn is_other(device: u64, to: u64) -> bool {
    let own = read(read(device + place(word::ADDRESS))) & LINK_ADDRESS;
    own != 0 && own != to
}

/// Whether nothing stands between the interface and the kernel's own stack.
#[inline(always)]
fn is_alone(device: u64) -> bool {
    let is_empty = |head: u64| read(head) == head;
    let has_none = |what: usize| read(device + place(what)) == 0;
    let above = device + place(word::UPPER);
    is_empty(above)
        && is_empty(above + LIST_HEAD)
        && has_none(word::HANDLER)
        && has_none(word::PROGRAMS)
        && has_none(word::FILTER)
}
