//! Veth pairs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_route::link::{
    BondMode, InfoBond, InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkInfo,
    LinkMessage, VlanProtocol,
};

use super::netlink::{ADDRESS6_EVENTS, LINK_EVENTS, Netlink};
use super::{Host, SETTLE};
use crate::frames::number;

/// How often, in milliseconds, a bond looks whether its members carry packets.
const BOND_WATCH: u32 = 20;

/// One end of a link to be.
#[derive(Debug, Clone)]
pub struct End {
    name: String,
    mac: Option<[u8; 6]>,
    mtu: u32,
    queues: u32,
    index: Option<u32>,
    addresses: Vec<String>,
}

impl End {
    /// An end with this interface name (at most 15 bytes), an own MAC, MTU 1500, one queue each way, no address.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            queues: 1,
            index: None,
            addresses: Vec::new(),
        }
    }

    /// Sets the MAC.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Sets the MTU.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Sets the number of receive queues and of transmit queues.
    #[must_use]
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// Asks for an interface index (they are numbered by namespace, so that two hosts usually have equal ones).
    #[must_use]
    pub fn index(mut self, index: u32) -> Self {
        self.index = Some(index);
        self
    }

    /// Adds an address with its prefix length, `10.0.0.1/24` or `fd00::1/64`; checked by [`super::Lab::connect`].
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    fn nets(&self) -> Result<Vec<IpNet>> {
        self.addresses
            .iter()
            .map(|text| {
                text.parse()
                    .with_context(|| format!("not an address with prefix: `{text}`"))
            })
            .collect()
    }

    fn message(&self, mac: [u8; 6]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.index.unwrap_or(0);
        message.attributes = vec![
            LinkAttribute::IfName(self.name.clone()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::NumTxQueues(self.queues),
            LinkAttribute::NumRxQueues(self.queues),
        ];
        message
    }
}

/// An interface of a host.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Whose it is.
    pub host: Host,
    /// Its name.
    pub name: String,
    /// Its index in the host's namespace.
    pub index: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its addresses with their prefix lengths, as given.
    pub addresses: Vec<IpNet>,
}

impl Interface {
    /// The first IPv4 address given; unspecified if there was none.
    pub fn v4(&self) -> Ipv4Addr {
        let first = self.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        });
        first.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The first IPv6 address given; unspecified if there was none.
    pub fn v6(&self) -> Ipv6Addr {
        let first = self.addresses.iter().find_map(|net| match net {
            IpNet::V6(net) => Some(net.addr()),
            IpNet::V4(_) => None,
        });
        first.unwrap_or(Ipv6Addr::UNSPECIFIED)
    }

    /// Both first addresses, for tests that hold for either family.
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    /// Brings the interface up or down.
    pub fn set_up(&self, up: bool) -> Result<()> {
        self.host.run(|| Netlink::open(0)?.set_up(self.index, up))
    }

    /// Waits until the interface carries packets.
    pub fn wait_up(&self) -> Result<()> {
        self.host
            .run(|| Netlink::open(LINK_EVENTS)?.wait_up(&self.name, SETTLE))
    }

    /// Adds an address, usable at once.
    pub fn add_address(&self, address: IpNet) -> Result<()> {
        self.host
            .run(|| Netlink::open(0)?.add_address(self.index, address.addr(), address.prefix_len()))
    }

    /// Makes an interface of this one for frames with a VLAN tag of this id and protocol (0x8100 or 0x88a8), up, with an
    /// address that is usable at once.
    pub fn add_vlan(&self, name: &str, protocol: u16, id: u16, address: &[IpNet]) -> Result<Self> {
        let mut message = LinkMessage::default();
        let protocol = if protocol == number::QINQ {
            VlanProtocol::Ieee8021Ad
        } else {
            VlanProtocol::Ieee8021Q
        };
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(self.index),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![
                    InfoVlan::Id(id),
                    InfoVlan::Protocol(protocol),
                ])),
            ]),
        ];
        let index = self.host.run(|| {
            let mut netlink = Netlink::open(0)?;
            netlink
                .create(message)
                .with_context(|| format!("making VLAN {id} of `{}`", self.name))?;
            let index = netlink.index(name)?;
            netlink.set_up(index, true)?;
            for net in address {
                netlink.add_address(index, net.addr(), net.prefix_len())?;
            }
            Ok(index)
        })?;
        Ok(Self {
            host: self.host.clone(),
            name: name.to_owned(),
            index,
            mac: self.mac,
            addresses: address.to_vec(),
        })
    }

    /// Makes a bond of interfaces of one host, of which one carries everything until it fails; up, with addresses that are
    /// usable at once. The members lose their own addresses.
    pub fn bond(name: &str, members: &[&Self], addresses: &[IpNet]) -> Result<Self> {
        let first = members.first().context("a bond of no interface")?;
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(first.mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bond),
                LinkInfo::Data(InfoData::Bond(vec![
                    InfoBond::Mode(BondMode::ActiveBackup),
                    InfoBond::MiiMon(BOND_WATCH),
                ])),
            ]),
        ];
        let index = first.host.run(|| {
            let mut netlink = Netlink::open(LINK_EVENTS)?;
            netlink
                .create(message)
                .with_context(|| format!("making bond `{name}`"))?;
            let index = netlink.index(name)?;
            for member in members {
                netlink.set_up(member.index, false)?;
                netlink.join(member.index, index)?;
                netlink.set_up(member.index, true)?;
            }
            netlink.set_up(index, true)?;
            for net in addresses {
                netlink.add_address(index, net.addr(), net.prefix_len())?;
            }
            Ok(index)
        })?;
        Ok(Self {
            host: first.host.clone(),
            name: name.to_owned(),
            index,
            mac: first.mac,
            addresses: addresses.to_vec(),
        })
    }

    /// Adds a route through this interface: by a gateway, or straight to whoever answers neighbour discovery.
    pub fn add_route(&self, to: IpNet, via: Option<IpAddr>) -> Result<()> {
        self.host
            .run(|| Netlink::open(0)?.add_route(self.index, to, via))
    }

    /// Fixes the link address of a neighbour, so that no discovery takes place; replaces what was known.
    pub fn add_neighbour(&self, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        self.host
            .run(|| Netlink::open(0)?.add_neighbour(self.index, address, mac))
    }
}

/// A veth pair that is up.
#[derive(Debug, Clone)]
pub struct Link {
    /// The end given first.
    pub left: Interface,
    /// The other.
    pub right: Interface,
}

pub(super) fn connect(left: &Host, left_end: &End, right: &Host, right_end: &End) -> Result<Link> {
    let what = format!(
        "link {}/{} - {}/{}",
        left.name(),
        left_end.name,
        right.name(),
        right_end.name
    );
    create(left, left_end, right, right_end).with_context(|| format!("making {what}"))
}

fn create(left: &Host, left_end: &End, right: &Host, right_end: &End) -> Result<Link> {
    let nets = (left_end.nets()?, right_end.nets()?);
    let macs = (mac_of(left_end), mac_of(right_end));
    let mut peer = right_end.message(macs.1);
    peer.attributes
        .push(LinkAttribute::NetNsFd(right.namespace().as_raw_fd()));
    let mut pair = left_end.message(macs.0);
    pair.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    left.run(|| Netlink::open(0)?.create(pair))?;
    let left = settle(left, left_end, macs.0, nets.0)?;
    let right = settle(right, right_end, macs.1, nets.1)?;
    for interface in [&left, &right] {
        interface.host.run(|| {
            let mut netlink = Netlink::open(LINK_EVENTS | ADDRESS6_EVENTS)?;
            netlink.wait_up(&interface.name, SETTLE)?;
            netlink.wait_addresses(interface.index, SETTLE)
        })?;
    }
    Ok(Link { left, right })
}

/// Up and addressed; carrier comes when the other end is up too.
fn settle(host: &Host, end: &End, mac: [u8; 6], addresses: Vec<IpNet>) -> Result<Interface> {
    let index = host.run(|| {
        let mut netlink = Netlink::open(0)?;
        let index = netlink.index(&end.name)?;
        netlink.set_up(index, true)?;
        for net in &addresses {
            netlink.add_address(index, net.addr(), net.prefix_len())?;
        }
        Ok(index)
    })?;
    Ok(Interface {
        host: host.clone(),
        name: end.name.clone(),
        index,
        mac,
        addresses,
    })
}

/// A locally administered address, counted within the process: namespaces keep processes apart.
fn mac_of(end: &End) -> [u8; 6] {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    end.mac.unwrap_or_else(|| {
        let [a, b, c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        [0x02, 0x70, a, b, c, d]
    })
}
