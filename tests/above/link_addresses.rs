//! Who takes a frame goes by its link address, too: what an interface above takes and forwards to nobody is for this host.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Ipv6, Udp};
use portguard_harness::traffic::{PacketSocket, receive_datagram, udp_socket};

use super::{ABOVE, CLOSED, PATIENCE, TAKEN, World};
use crate::guard::SOON;
use crate::topology::ip;

/// The guarded card.
const CARD: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
/// What stands on it, where it can have one of its own.
const UPPER: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];

/// Link addresses that frames are sent to.
const TO: [(&str, [u8; 6]); 6] = [
    ("the card's", CARD),
    ("the upper's", UPPER),
    ("nobody's", [2, 0, 0, 0, 0, 0xdd]),
    ("all of the link", [0xff; 6]),
    ("a group of IPv4", [1, 0, 0x5e, 0, 0, 1]),
    ("a group of IPv6", [0x33, 0x33, 0, 0, 0, 1]),
];

/// Interfaces above that forward nothing, and to how many of these addresses they take packets.
const KINDS: [(&str, &str, usize); 6] = [
    (
        "a bridge",
        "link add up0 type bridge
         link set IF master up0
         link set up0 address 02:00:00:00:00:bb",
        5,
    ),
    (
        "a bridge with the address of its port",
        "link add up0 type bridge
         link set IF master up0",
        4,
    ),
    (
        "a macvlan",
        "link add up0 link IF address 02:00:00:00:00:bb type macvlan mode bridge",
        4,
    ),
    (
        "a macvlan that takes all",
        "link add up0 link IF type macvlan mode passthru",
        6,
    ),
    (
        "a macvlan that goes by senders",
        "link add up0 link IF address 02:00:00:00:00:bb type macvlan mode source
         link set up0 type macvlan macaddr add 02:00:00:00:00:cc",
        2,
    ),
    (
        "a bridge of a macvlan that takes all",
        "link add mv0 link IF type macvlan mode passthru
         link set mv0 up
         link add up0 type bridge
         link set mv0 master up0
         link set up0 address 02:00:00:00:00:bb",
        2,
    ),
];

impl World {
    /// To which link addresses a frame must go that reaches the host as one of [`TAKEN`].
    fn taken(&self, patience: std::time::Duration) -> Result<Vec<(&'static str, &'static str)>> {
        let socket = self
            .stranger()
            .run(|| PacketSocket::open(&self.guarded.link.right.name))?;
        let mut taken = Vec::new();
        for (whose, to) in TO {
            let udp = || Udp::new(4_000, CLOSED);
            let frame = || Frame::new(to, STRANGER);
            let four = Ipv4::new("10.77.0.2".parse()?, TAKEN[0].parse()?);
            let six = Ipv6::new("fd77::2".parse()?, TAKEN[1].parse()?);
            for (address, any, frame) in [
                (TAKEN[0], "0.0.0.0", frame().ipv4(four)),
                (TAKEN[1], "::", frame().ipv6(six)),
            ] {
                let heard = self
                    .host()
                    .run(|| udp_socket(SocketAddr::new(any.parse()?, CLOSED)))?;
                socket.send(&frame.udp(udp()).payload(*b"let me in").build())?;
                if receive_datagram(&heard, Instant::now() + patience)?.is_some() {
                    taken.push((whose, address));
                }
            }
        }
        Ok(taken)
    }

    /// The card forwards, and what stands on it does not.
    fn only_the_card_forwards(&self, upper: &str) -> Result<()> {
        for family in ["ipv4", "ipv6"] {
            let key = |name: &str| format!("net/{family}/conf/{name}/forwarding");
            self.host().sysctl(&key(self.guarded.interface()), "1")?;
            self.host().sysctl(&key(upper), "0")?;
        }
        Ok(())
    }
}

#[test]
fn what_an_interface_takes_by_any_link_address_and_forwards_to_nobody_is_judged() -> Result<()> {
    for (what, above, least) in KINDS {
        let world = World::new(above)?;
        let set = "link set IF address";
        ip(
            world.host(),
            world.guarded.interface(),
            &format!("{set} 02:00:00:00:00:aa"),
        )?;
        ip(
            world.stranger(),
            &world.guarded.link.right.name,
            &format!("{set} 02:00:00:00:00:cc"),
        )?;
        world.load()?;
        world.comes()?;
        world.only_the_card_forwards("up0")?;
        world.rules()?;
        let taken = world.taken(PATIENCE)?;
        ensure!(taken.is_empty(), "{what}: {taken:?}");
        world.load()?;
        let taken = world.taken(PATIENCE)?;
        ensure!(taken.is_empty(), "{what}, loaded again: {taken:?}");
        // Without a guard they are taken: else nothing would be shown.
        world.guarded.unload()?.success()?;
        let taken = world.taken(SOON / 5)?;
        ensure!(taken.len() >= least, "{what}: only {taken:?}");
    }
    Ok(())
}

/// On a bridge that forwards, and has the address of its port.
#[test]
fn what_stands_on_a_bridge_and_takes_its_own_only_cuts_nobody() -> Result<()> {
    let world = World::new(ABOVE[0].1)?;
    world.comes()?;
    world.load()?;
    world.is_held().context("nothing above")?;
    for kind in [
        "link up0 type macvlan mode bridge",
        "link up0 type macvtap mode private",
        "type vxlan id 7 dstport 4789 dev up0",
        "link up0 type ipvlan mode l2",
    ] {
        // Not in every kernel.
        if ip(world.host(), "", &format!("link add new0 {kind}")).is_err() {
            continue;
        }
        ip(world.host(), "", "link set new0 up")?;
        world.only_the_card_forwards("new0")?;
        world.is_held().with_context(|| kind.to_owned())?;
        ip(world.host(), "", "link del new0")?;
    }
    Ok(())
}
