//! Conversations for others that connection tracking hands on to this host's own sockets: it goes on with them when the rule
//! that began it is gone, as long as somebody sends.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::interface::Interface;
use super::local::kept;
use super::nat::{World, above};
use super::paths::route;
use super::tracked::{Tracked, tracked};

/// Those that come by an interface, as what a person wants to read. It takes a look at all that the kernel tracks.
pub fn translated(interface: &str) -> Option<String> {
    let world = World::here(&[interface.to_owned()]).for_others(kept());
    let above = above(&[interface.to_owned()]);
    let mut comes_by: BTreeMap<IpAddr, bool> = BTreeMap::new();
    let all = tracked().unwrap_or_default();
    let mut found: Vec<&Tracked> = all.iter().filter(|one| is_diverted(one, &world)).collect();
    found.retain(|one| {
        let peer = one.first.0.ip();
        // Where the kernel does not say by which interface it is answered, it may have come by this one.
        *comes_by.entry(peer).or_insert_with(|| {
            let name = route(peer).and_then(Interface::name_of);
            name.is_none_or(|name| above.contains(&name))
        })
    });
    let one = found.first()?;
    let more = match found.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!(
        "connection tracking hands {} from {} for {} on to {}{more}, by rules that may be gone: `conntrack -D -d {}` ends it",
        one.transport,
        one.first.0,
        one.first.1,
        one.answer.0,
        one.first.1.ip()
    ))
}

/// Whether it came from elsewhere for somebody else, and this host answers.
fn is_diverted(one: &Tracked, world: &World) -> bool {
    let is_own = |address: IpAddr| world.keeps(address, address);
    let (from, to) = one.first;
    !is_own(from.ip()) && !is_own(to.ip()) && is_own(one.answer.0.ip())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use portguard_policy::catalog::Transport;

    use super::*;

    #[test]
    fn what_came_for_others_and_is_answered_here_is_diverted() {
        let own = ["192.0.2.1".parse().expect("an address")];
        let world = World::new(["eth0".to_owned()], own).for_others(Vec::new());
        let end = |text: &str| -> SocketAddr { text.parse().expect("an end") };
        for (first, answer, wanted) in [
            // Redirected; to this host; masqueraded for a container; published from one; this host to itself by a service's address.
            (["198.51.100.9:4", "203.0.113.1:5"], "192.0.2.1:9", true),
            (["198.51.100.9:4", "192.0.2.1:5"], "192.0.2.1:9", false),
            (["10.9.0.2:4", "203.0.113.1:5"], "203.0.113.1:5", false),
            (["198.51.100.9:4", "192.0.2.1:5"], "10.9.0.2:9", false),
            (["192.0.2.1:4", "203.0.113.1:5"], "192.0.2.1:9", false),
        ] {
            let tracked = Tracked {
                transport: Transport::Udp,
                first: (end(first[0]), end(first[1])),
                answer: (end(answer), end(first[0])),
                is_begun: true,
                is_answered: false,
                is_open: false,
            };
            assert_eq!(is_diverted(&tracked, &world), wanted, "{tracked:?}");
        }
    }
}
