//! The packets that carry a tunnel which ends on this host: what a guard below sees of the sessions inside.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::link::{
    GreEncapType, InfoAmt, InfoBareUdp, InfoData, InfoGeneve, InfoGre, InfoGre6, InfoIpTunnel,
    InfoVti, InfoVxlan, LinkInfo, TunnelEncapType,
};
use portguard_policy::catalog::Transport;
use portguard_policy::human::plain;
use portguard_policy::policy::Policy;
use portguard_policy::tunnels::{self, Carrier};

/// What carries a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outer {
    /// The interface on which the tunnel ends.
    pub name: String,
    /// How its packets arrive: one of these, where not known which.
    pub carriers: Vec<Carrier>,
    /// From where; `None` = not known.
    pub remote: Option<IpAddr>,
    /// Whether it is answered from any port, not from its own.
    is_one_way: bool,
    /// Whether nothing else carries it.
    is_known: bool,
}

impl Outer {
    /// From what the kernel says of an interface of this kind; `None` = it is no tunnel.
    pub(super) fn of(name: &str, kind: &str, infos: &[LinkInfo]) -> Option<Self> {
        let carriers = tunnels::carriers(kind);
        if !tunnels::is_device(kind) {
            return None;
        }
        let mut outer = Self {
            name: name.to_owned(),
            carriers,
            ..Self::default()
        };
        for info in infos {
            if let LinkInfo::Data(data) = info {
                outer.read(data);
            }
        }
        let is_one = |remote: &IpAddr| !remote.is_unspecified() && !remote.is_multicast();
        outer.remote = outer.remote.filter(is_one);
        Some(outer)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of most kinds nothing is said, and more come with each kernel"
    )]
    fn read(&mut self, data: &InfoData) {
        match data {
            InfoData::Vxlan(all) => all.iter().for_each(|one| match one {
                InfoVxlan::Group(remote) => self.remote = Some((*remote).into()),
                InfoVxlan::Group6(remote) => self.remote = Some((*remote).into()),
                InfoVxlan::Port(port) => self.is_by_udp(*port),
                _ => {}
            }),
            InfoData::Geneve(all) => all.iter().for_each(|one| match one {
                InfoGeneve::Remote(remote) => self.remote = Some((*remote).into()),
                InfoGeneve::Remote6(remote) => self.remote = Some((*remote).into()),
                InfoGeneve::Port(port) => self.is_by_udp(*port),
                _ => {}
            }),
            InfoData::BareUdp(all) => all.iter().for_each(|one| {
                if let InfoBareUdp::Port(port) = one {
                    self.is_by_udp(*port);
                }
            }),
            InfoData::GreTun(all) | InfoData::GreTap(all) | InfoData::ErSpan(all) => {
                self.is_by_protocol();
                for one in all {
                    match one {
                        InfoGre::Remote(remote) => self.remote = Some((*remote).into()),
                        InfoGre::EncapType(GreEncapType::Fou | GreEncapType::Gue) => {
                            self.is_known = false;
                        }
                        _ => {}
                    }
                }
            }
            InfoData::GreTun6(all) | InfoData::GreTap6(all) | InfoData::Ip6ErSpan(all) => {
                self.is_by_protocol();
                for one in all {
                    match one {
                        InfoGre6::Remote(remote) => self.remote = Some((*remote).into()),
                        InfoGre6::EncapType(GreEncapType::Fou | GreEncapType::Gue) => {
                            self.is_known = false;
                        }
                        _ => {}
                    }
                }
            }
            InfoData::IpTunnel(all) => {
                self.is_by_protocol();
                for one in all {
                    match one {
                        InfoIpTunnel::Remote(remote) => self.remote = Some(*remote),
                        InfoIpTunnel::EncapType(TunnelEncapType::Fou | TunnelEncapType::Gue) => {
                            self.is_known = false;
                        }
                        _ => {}
                    }
                }
            }
            InfoData::Vti(all) => all.iter().for_each(|one| {
                if let InfoVti::Remote(remote) = one {
                    self.remote = Some(*remote);
                }
            }),
            InfoData::Amt(all) => all.iter().for_each(|one| {
                if let InfoAmt::RemoteIp(remote) = one {
                    self.remote = Some(*remote);
                }
            }),
            _ => {}
        }
    }

    /// Unless something is put around it.
    fn is_by_protocol(&mut self) {
        self.carriers
            .retain(|one| matches!(one, Carrier::Protocol(_)));
        self.is_known = true;
    }

    fn is_by_udp(&mut self, port: u16) {
        self.carriers = vec![Carrier::Port(Transport::Udp, port)];
        self.is_one_way = true;
        self.is_known = true;
    }

    /// Whether nothing else than its carriers can carry it, so that it is cut where a policy admits none.
    pub(crate) const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether a policy admits it, in each direction that drops.
    pub(crate) fn lives(&self, policy: &Policy) -> bool {
        let mut carriers = self.carriers.iter();
        carriers.any(|carrier| carrier.lives(policy, self.remote, self.is_one_way))
    }
}

impl fmt::Display for Outer {
    /// `the tunnel `vx0` (udp/4789 from 192.0.2.1)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carriers: Vec<String> = self.carriers.iter().map(ToString::to_string).collect();
        let from = match self.remote {
            Some(remote) => format!(" from {remote}"),
            None => String::new(),
        };
        let name = plain(&self.name);
        if carriers.is_empty() {
            return write!(f, "the tunnel `{name}`");
        }
        write!(f, "the tunnel `{name}` ({}{from})", carriers.join(" or "))
    }
}
