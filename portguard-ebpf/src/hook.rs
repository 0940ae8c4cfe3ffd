//! Where a program hangs: what the ingress and the egress hook have in common.
#![expect(
    unsafe_code,
    reason = "reads the contexts that the kernel gives to programs"
)]

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{__sk_buff, bpf_sock, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_load_bytes, bpf_xdp_get_buff_len,
    bpf_xdp_load_bytes,
};
use portguard_common::addr::Addr;
use portguard_common::config::Config;
use portguard_common::conntrack::Tuple;
use portguard_common::packet::protocol;
use portguard_common::reason::Direction;

use crate::conversations::six;

/// `AF_INET6`.
const INET6: u32 = 10;

/// Reads a field of a context. Volatile, since for the compiler a field would not change, and for the verifier a pointer
/// read anew is one that nothing is known of yet.
macro_rules! field {
    ($ctx:expr, $field:ident) => {
        // SAFETY: the context is the one that the kernel gave to this program.
        unsafe { ptr::read_volatile(&raw const (*$ctx).$field) }
    };
}

/// The frame at hand, as its hook presents it.
pub(crate) trait Hook: Copy {
    /// Which way frames go here.
    const DIRECTION: Direction;

    /// What the program was called with.
    fn ctx(self) -> *mut c_void;
    /// Start and end of what can be read in place.
    fn bounds(self) -> (usize, usize);
    /// Length of the frame as far as it can be known without a call; `linear` bytes can be read in place.
    fn length(self, linear: usize) -> usize;
    /// Length of all of the frame.
    fn whole(self, config: &Config) -> usize;
    /// Whether the frame may have parts that cannot be read in place.
    fn is_split(self, config: &Config) -> bool;
    /// Copies bytes of the frame; whether it could.
    fn copy(self, offset: u32, to: *mut c_void, length: u32) -> bool;
    /// A VLAN tag beside the frame, as in [`portguard_common::packet::Packet::vlan`].
    fn tag(self) -> u32;
    /// See [`portguard_common::frame::Frame::is_segmented`].
    fn is_segmented(self) -> bool;
    /// Packets and bytes on the wire, for a frame whose own length is `length`.
    fn amount(self, length: usize) -> (u64, u64);
    /// Index of the interface.
    fn ifindex(self) -> u32;
}

/// Whether a socket is a program's for TCP: the one that the kernel's own stack answers by is a raw one.
#[inline(always)]
pub(crate) fn is_stream(socket: *mut bpf_sock) -> bool {
    const SOCK_STREAM: u32 = 1;
    field!(socket, type_) == SOCK_STREAM
}

/// Whether the program of a TCP socket has closed it, or its half of it.
#[inline(always)]
pub(crate) fn is_finishing(socket: *mut bpf_sock) -> bool {
    const FIN_WAIT1: u32 = 4;
    const FIN_WAIT2: u32 = 5;
    const LAST_ACK: u32 = 9;
    const CLOSING: u32 = 11;
    matches!(
        field!(socket, state),
        FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING
    )
}

/// Reads four words in a row of a socket, each for itself: the kernel rewrites reads of four bytes only.
macro_rules! words {
    ($socket:expr, $field:ident) => {{
        let at = |index: usize| {
            // SAFETY: the kernel gave the socket.
            unsafe { ptr::read_volatile((&raw const (*$socket).$field).cast::<u32>().add(index)) }
        };
        [at(0), at(1), at(2), at(3)]
    }};
}

/// The ends of a TCP socket as it has them itself.
#[inline(always)]
pub(crate) fn ends(socket: *mut bpf_sock) -> Tuple {
    let (local, remote) = if field!(socket, family) == INET6 {
        (six(words!(socket, src_ip6)), six(words!(socket, dst_ip6)))
    } else {
        (
            Addr::v4(u32::from_be(field!(socket, src_ip4))),
            Addr::v4(u32::from_be(field!(socket, dst_ip4))),
        )
    };
    // Kernels before 5.17 have it as four bytes, and those after let it be read as such.
    // SAFETY: as above.
    let remote_port = unsafe { ptr::read_volatile((&raw const (*socket).dst_port).cast::<u32>()) };
    Tuple {
        space: 0,
        local,
        remote,
        local_port: port(socket),
        remote_port: u16::from_be(remote_port as u16),
    }
}

/// The port of a socket.
#[inline(always)]
pub(crate) fn port(socket: *mut bpf_sock) -> u16 {
    field!(socket, src_port) as u16
}

/// What a network interface receives, before the kernel has anything to do with it.
#[derive(Clone, Copy)]
pub(crate) struct Received(pub(crate) *mut xdp_md);

impl Hook for Received {
    const DIRECTION: Direction = Direction::Ingress;

    #[inline(always)]
    fn ctx(self) -> *mut c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        (
            field!(self.0, data) as usize,
            field!(self.0, data_end) as usize,
        )
    }

    #[inline(always)]
    fn length(self, linear: usize) -> usize {
        linear
    }

    #[inline(always)]
    fn whole(self, config: &Config) -> usize {
        if self.is_split(config) {
            // SAFETY: the context is the one that the kernel gave to this program.
            unsafe { bpf_xdp_get_buff_len(self.0) as usize }
        } else {
            let (start, end) = self.bounds();
            end - start
        }
    }

    #[inline(always)]
    fn is_split(self, config: &Config) -> bool {
        config.multi_buffer != 0
    }

    #[inline(always)]
    fn copy(self, offset: u32, to: *mut c_void, length: u32) -> bool {
        // SAFETY: callers give memory of this length.
        unsafe { bpf_xdp_load_bytes(self.0, offset, to, length) == 0 }
    }

    #[inline(always)]
    fn tag(self) -> u32 {
        0
    }

    #[inline(always)]
    fn is_segmented(self) -> bool {
        false
    }

    #[inline(always)]
    fn amount(self, length: usize) -> (u64, u64) {
        (1, length as u64)
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        field!(self.0, ingress_ifindex)
    }
}

/// What the host is about to send.
#[derive(Clone, Copy)]
pub(crate) struct Sent(pub(crate) *mut __sk_buff);

impl Sent {
    /// Whether it came in by an interface, rather than from a socket of this host.
    #[inline(always)]
    pub(crate) fn is_from_elsewhere(self) -> bool {
        field!(self.0, ingress_ifindex) != 0
    }

    /// The cookie of the socket that sends it; 0 = none.
    #[inline(always)]
    pub(crate) fn socket(self) -> u64 {
        // SAFETY: the context is the one that the kernel gave to this program.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// The UDP socket that sends it, if it has this port.
    #[inline(always)]
    pub(crate) fn udp_socket(self, port: u32) -> Option<*mut bpf_sock> {
        let socket = self.own_udp_socket()?;
        (field!(socket, src_port) == port).then_some(socket)
    }

    /// The UDP socket that sends it, whatever it makes of it.
    #[inline(always)]
    pub(crate) fn own_udp_socket(self) -> Option<*mut bpf_sock> {
        let socket = self.own_socket()?;
        (field!(socket, protocol) == u32::from(protocol::UDP)).then_some(socket)
    }

    /// The socket that sends it.
    #[inline(always)]
    pub(crate) fn own_socket(self) -> Option<*mut bpf_sock> {
        // SAFETY: the context is the one that the kernel gave to this program.
        let socket = unsafe { ptr::read_volatile(&raw const (*self.0).__bindgen_anon_2.sk) };
        if socket.is_null() {
            return None;
        }
        // SAFETY: the kernel gave it.
        let socket = unsafe { bpf_sk_fullsock(socket) };
        (!socket.is_null()).then_some(socket)
    }

    /// From where it came. `side`: see [`crate::maps::side`].
    #[inline(always)]
    pub(crate) fn origin(self, side: impl Fn(u32) -> u32) -> Origin {
        let (came, leaves) = (field!(self.0, ingress_ifindex), field!(self.0, ifindex));
        if came == leaves {
            return Origin::SameSide;
        }
        match (side(came), side(leaves)) {
            (0, _) => Origin::Inside,
            (_, 0) => Origin::SameSide,
            (first, second) if first == second => Origin::SameSide,
            _ => Origin::OtherSide,
        }
    }
}

/// From where a packet came that leaves by a guarded interface.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From a socket of this host, or by an interface without a guard.
    Inside,
    /// From whom it goes to: it is no word of this host's.
    SameSide,
    /// By another guarded interface.
    OtherSide,
}

impl Hook for Sent {
    const DIRECTION: Direction = Direction::Egress;

    #[inline(always)]
    fn ctx(self) -> *mut c_void {
        self.0.cast()
    }

    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        (
            field!(self.0, data) as usize,
            field!(self.0, data_end) as usize,
        )
    }

    #[inline(always)]
    fn length(self, _linear: usize) -> usize {
        field!(self.0, len) as usize
    }

    #[inline(always)]
    fn whole(self, _config: &Config) -> usize {
        field!(self.0, len) as usize
    }

    #[inline(always)]
    fn is_split(self, _config: &Config) -> bool {
        true
    }

    #[inline(always)]
    fn copy(self, offset: u32, to: *mut c_void, length: u32) -> bool {
        // SAFETY: callers give memory of this length.
        unsafe { bpf_skb_load_bytes(self.0.cast_const().cast(), offset, to, length) == 0 }
    }

    #[inline(always)]
    fn tag(self) -> u32 {
        if field!(self.0, vlan_present) == 0 {
            0
        } else {
            field!(self.0, vlan_tci) & 0xffff | 1 << 16
        }
    }

    #[inline(always)]
    fn is_segmented(self) -> bool {
        field!(self.0, gso_size) != 0
    }

    #[inline(always)]
    fn amount(self, length: usize) -> (u64, u64) {
        let segments = field!(self.0, gso_segs);
        if segments > 1 {
            // The headers of every segment are in there too.
            (u64::from(segments), u64::from(field!(self.0, wire_len)))
        } else {
            (1, length as u64)
        }
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        field!(self.0, ifindex)
    }
}
