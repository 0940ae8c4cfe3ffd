//! Frames for the self-test: the least that makes the guard judge a port and a peer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portguard_common::config::dhcp;
use portguard_policy::catalog::Transport;
use portguard_policy::policy::{Peers, Policy};

/// What a frame asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Transport.
    pub(crate) transport: Transport,
    /// Source address.
    pub(crate) peer: IpAddr,
    /// Destination port.
    pub(crate) port: u16,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} port {} from {}",
            self.transport, self.port, self.peer
        )
    }
}

/// A source port that no catalog documents.
const SOURCE_PORT: u16 = 61_001;

/// The port that the probe comes from: a client's ports of DHCP may be open to servers only.
fn source_port(probe: &Probe) -> u16 {
    let client = |(_, client, _): &&(u32, u16, u16)| *client == probe.port;
    match dhcp::PORTS.iter().find(client) {
        Some((_, _, server)) if probe.transport == Transport::Udp => *server,
        _ => SOURCE_PORT,
    }
}

/// Where frames go: link-local addresses, which are the host's own whatever the policy says of its scope.
const HERE: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(169, 254, 7, 1),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
);

/// The frame: Ethernet, IP, and a transport header with ports. Checksums are zero: the guard leaves them to the stack.
pub(crate) fn frame(probe: &Probe) -> Vec<u8> {
    let (protocol, length) = match probe.transport {
        Transport::Tcp => (6, 20),
        Transport::Udp => (17, 8),
        Transport::Sctp => (132, 12),
    };
    let mut transport = vec![0; usize::from(length)];
    put(&mut transport, 0, &source_port(probe).to_be_bytes());
    put(&mut transport, 2, &probe.port.to_be_bytes());
    match probe.transport {
        // Header of five words, SYN.
        Transport::Tcp => put(&mut transport, 12, &[0x50, 0x02]),
        Transport::Udp => put(&mut transport, 4, &u16::to_be_bytes(length)),
        Transport::Sctp => {}
    }
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    match probe.peer {
        IpAddr::V4(peer) => {
            let [high, low] = (20 + length).to_be_bytes();
            bytes.extend([
                0x08, 0x00, 0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0,
            ]);
            bytes.extend(peer.octets());
            bytes.extend(HERE.0.octets());
        }
        IpAddr::V6(peer) => {
            let [high, low] = length.to_be_bytes();
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, 64]);
            bytes.extend(peer.octets());
            bytes.extend(HERE.1.octets());
        }
    }
    bytes.extend(transport);
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(what) {
        *to = *from;
    }
}

/// Whether a grant of the policy covers the probe, found without any of the tables.
pub(crate) fn is_granted(policy: &Policy, probe: &Probe) -> bool {
    policy.inbound.iter().any(|grant| {
        grant.transport == probe.transport
            && (grant.first..=grant.last).contains(&probe.port)
            && match grant.peers {
                Peers::Any => true,
                Peers::Set(index) => usize::try_from(index)
                    .ok()
                    .and_then(|index| policy.sets.get(index))
                    .is_some_and(|set| set.prefixes.iter().any(|net| net.contains(&probe.peer))),
            }
    })
}
