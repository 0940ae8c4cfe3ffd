//! The few route-netlink requests that making a link takes, in the namespace of the thread that opened the socket.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::traffic::wait_readable;

/// Group mask of link events.
pub(super) const LINK_EVENTS: u32 = 1;
/// Group mask of IPv6 address events.
pub(super) const ADDRESS6_EVENTS: u32 = 0x100;

/// How long the kernel may take for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A route-netlink socket.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    /// An event went by while a request was answered.
    event: bool,
}

impl Netlink {
    /// Opens a socket that also receives the events of `groups`.
    pub(super) fn open(groups: u32) -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
        socket
            .bind(&SocketAddr::new(0, groups))
            .context("binding a netlink socket")?;
        Ok(Self {
            socket,
            sequence: 0,
            event: false,
        })
    }

    /// Creates a link.
    pub(super) fn create(&mut self, link: LinkMessage) -> Result<()> {
        self.request(
            RouteNetlinkMessage::NewLink(link),
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        )
        .map(drop)
    }

    /// Deletes a link.
    pub(super) fn delete(&mut self, index: u32) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(link), NLM_F_ACK)
            .map(drop)
    }

    /// Brings a link up or down.
    pub(super) fn set_up(&mut self, index: u32, up: bool) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.change_mask = LinkFlags::Up;
        link.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
            .map(drop)
    }

    /// Makes a link, which must be down, a part of another: of a bond, of a bridge.
    pub(super) fn join(&mut self, index: u32, of: u32) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Controller(of));
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
            .map(drop)
    }

    /// Gives a link an address that is usable at once.
    pub(super) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.header.family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        self.request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        )
        .with_context(|| format!("adding address {address}/{prefix}"))
        .map(drop)
    }

    /// Adds a route through a link, by a gateway or straight.
    pub(super) fn add_route(&mut self, index: u32, to: IpNet, via: Option<IpAddr>) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.addr());
        message.header.destination_prefix_length = to.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if via.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        message
            .attributes
            .push(RouteAttribute::Destination(to.network().into()));
        message.attributes.push(RouteAttribute::Oif(index));
        if let Some(via) = via {
            message.attributes.push(RouteAttribute::Gateway(via.into()));
        }
        self.request(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        )
        .with_context(|| format!("adding a route to {to}"))
        .map(drop)
    }

    /// Fixes the link address of a neighbour.
    pub(super) fn add_neighbour(
        &mut self,
        index: u32,
        address: IpAddr,
        mac: [u8; 6],
    ) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        let destination = match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        message
            .attributes
            .push(NeighbourAttribute::Destination(destination));
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewNeighbour(message), flags)
            .with_context(|| format!("adding neighbour {address}"))
            .map(drop)
    }

    /// The index of a link.
    pub(super) fn index(&mut self, name: &str) -> Result<u32> {
        Ok(self
            .link(name)?
            .with_context(|| format!("no interface `{name}`"))?
            .header
            .index)
    }

    /// Waits until the link carries packets.
    pub(super) fn wait_up(&mut self, name: &str, timeout: Duration) -> Result<()> {
        self.wait(
            timeout,
            &format!("interface `{name}` did not come up"),
            |netlink| {
                let link = netlink
                    .link(name)?
                    .with_context(|| format!("no interface `{name}`"))?;
                Ok(link
                    .attributes
                    .contains(&LinkAttribute::OperState(State::Up)))
            },
        )
    }

    /// Waits until no IPv6 address of the link is tentative.
    pub(super) fn wait_addresses(&mut self, index: u32, timeout: Duration) -> Result<()> {
        self.wait(timeout, "an address stayed tentative", |netlink| {
            let mut query = AddressMessage::default();
            query.header.family = AddressFamily::Inet6;
            let answers = netlink.request(RouteNetlinkMessage::GetAddress(query), NLM_F_DUMP)?;
            Ok(!answers.iter().any(|answer| {
                matches!(answer, RouteNetlinkMessage::NewAddress(address)
                    if address.header.index == index && is_tentative(address))
            }))
        })
    }

    /// Waits until there is no link of that name.
    pub(super) fn wait_gone(&mut self, name: &str, timeout: Duration) -> Result<()> {
        self.wait(
            timeout,
            &format!("interface `{name}` is still there"),
            |netlink| Ok(netlink.link(name)?.is_none()),
        )
    }

    fn link(&mut self, name: &str) -> Result<Option<LinkMessage>> {
        let mut query = LinkMessage::default();
        query
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(query), NLM_F_ACK) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| {
                if let RouteNetlinkMessage::NewLink(link) = answer {
                    Some(link)
                } else {
                    None
                }
            })),
            Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks, then checks again after each event, also after one that went by during the check: none is lost.
    fn wait(
        &mut self,
        timeout: Duration,
        complaint: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            self.event = false;
            if done(&mut *self)? {
                return Ok(());
            }
            if self.event {
                continue;
            }
            if !wait_readable(&self.socket, deadline)? {
                bail!("{complaint} within {timeout:?}");
            }
            self.socket
                .recv_from_full()
                .context("reading a netlink event")?;
        }
    }

    /// Sends one request; the answers up to its acknowledgement or the end of the dump.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut buffer = vec![0; request.buffer_len()];
        request.serialize(&mut buffer);
        self.socket
            .send(&buffer, 0)
            .context("sending a netlink request")?;

        let deadline = Instant::now() + ANSWER;
        let mut answers = Vec::new();
        loop {
            if !wait_readable(&self.socket, deadline)? {
                bail!("no answer to a netlink request within {ANSWER:?}");
            }
            let (datagram, _) = self
                .socket
                .recv_from_full()
                .context("reading from netlink")?;
            let mut rest = datagram.as_slice();
            while rest.len() >= 16 {
                let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| anyhow!("netlink answer not understood: {error}"))?;
                let length = (parsed.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
                if parsed.header.sequence_number != self.sequence {
                    self.event = true;
                    continue;
                }
                if let NetlinkPayload::Error(error) = &parsed.payload
                    && let Some(code) = error.code
                {
                    return Err(Errno::from_raw(-code.get()).into());
                }
                if matches!(
                    parsed.payload,
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_)
                ) {
                    return Ok(answers);
                }
                if let NetlinkPayload::InnerMessage(inner) = parsed.payload {
                    answers.push(inner);
                }
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn is_tentative(address: &AddressMessage) -> bool {
    address.header.flags.contains(AddressHeaderFlags::Tentative)
        || address.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Tentative))
        })
}
