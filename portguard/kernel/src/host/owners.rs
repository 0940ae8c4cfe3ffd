//! Whether a program asked for the port of its UDP socket, or the kernel picked it. The kernel knows, and its list of sockets
//! does not say: a program looks at the socket itself. Where it finds that is here, and where it finds what connection tracking
//! has of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portguard_common::conntrack::Tuple;
use portguard_common::packet::{protocol, space};
use portguard_common::track::owner;

use super::btf;
use crate::record::Asked;

/// `SOCK_BINDPORT_LOCK`, the bit of `sk_userlocks` that says that a program asked for the port: its number.
const BINDPORT: u32 = 3;
/// Name of the program that looks at a socket.
const PROGRAM: &str = "portguard_owner";
/// The global that it, and the guard, find the bit by.
pub(crate) const GLOBAL: &str = "ASKED";
/// The global that the guard finds by what connection tracking has of a packet.
pub(crate) const TRACKING: &str = "TRACKED";
/// The global that it finds the end by that spoke first.
pub(crate) const FIRST: &str = "FIRST";

/// The number of the bit in the kernel's `struct sock`; 0 where it is not known, or may not be read.
pub(crate) fn bit() -> u32 {
    btf::member("sock", "sk_userlocks").map_or(0, |at| at + BINDPORT)
}

/// Where the kernel's `struct sk_buff` says what connection tracking has of a packet, in octets; 0 likewise.
pub(crate) fn tracking() -> u32 {
    btf::member("sk_buff", "_nfct").map_or(0, |at| at / 8)
}

/// Where the kernel's `struct nf_conn` has the end that spoke first, in octets; 0 likewise. Its address stands first of all in
/// what there is of each direction.
pub(crate) fn first() -> u32 {
    let at = |structure, name| btf::member(structure, name);
    match (
        at("nf_conn", "tuplehash"),
        at("nf_conntrack_tuple_hash", "tuple"),
    ) {
        (Some(both), Some(tuple)) => (both + tuple) / 8,
        _ => 0,
    }
}

/// What looks at sockets.
pub(crate) struct Owners(Asked);

/// What is known of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Its program asked for it.
    Asked,
    /// The kernel picked it.
    Picked,
    /// The kernel does not say.
    Unknown,
    /// The socket is not found: it is gone, or bound to an interface.
    Hidden,
}

impl Owners {
    /// Has the kernel take the program.
    ///
    /// # Errors
    /// If it refuses.
    pub(crate) fn new() -> crate::Result<Self> {
        Asked::load(PROGRAM, (GLOBAL, bit())).map(Self)
    }

    /// What is known of the local port of a UDP socket that is connected.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub(crate) fn of(&mut self, local: SocketAddr, remote: SocketAddr) -> crate::Result<Owner> {
        self.ask(local, remote, 0)
    }

    /// What is known of the port of a UDP socket that is not connected.
    pub(crate) fn of_bound(
        &mut self,
        address: IpAddr,
        port: u16,
        interface: u32,
    ) -> crate::Result<Owner> {
        let local = match address {
            IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V4(_) | IpAddr::V6(_) => address,
        };
        // Whoever speaks is heard.
        self.ask(
            SocketAddr::new(local, port),
            SocketAddr::new(local, 0),
            interface,
        )
    }

    fn ask(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
    ) -> crate::Result<Owner> {
        let tuple = Tuple {
            space: space(protocol::UDP),
            local: local.ip().into(),
            remote: remote.ip().into(),
            local_port: local.port(),
            remote_port: remote.port(),
        };
        let found = self.0.of(&tuple, interface)?;
        Ok(
            match found & (owner::FOUND | owner::ASKED | owner::PICKED) {
                0 => Owner::Hidden,
                owner::FOUND => Owner::Unknown,
                found if found & owner::PICKED != 0 => Owner::Picked,
                _ => Owner::Asked,
            },
        )
    }
}

/// Ports that the kernel picks for sockets that did not ask for one.
pub fn ephemeral() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    text.ok()
        .and_then(|text| {
            let mut words = text.split_whitespace().map(str::parse);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        })
        .unwrap_or((32_768, 60_999))
}
