//! Names of what keys and cells say in numbers.

use portguard_common::reason::Direction;
use portguard_common::tables::Key;
use portguard_policy::catalog::Transport;

/// Which way.
pub(super) fn direction(egress: bool) -> Direction {
    if egress {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// The transport that has a space of keys.
pub(super) fn transport_of(space: u8) -> Option<Transport> {
    let all = [Transport::Tcp, Transport::Udp, Transport::Sctp];
    all.into_iter().find(|one| one.space() == u32::from(space))
}

/// The space of keys of what [`transport`] named.
pub(super) fn space_named(name: &str) -> u8 {
    match name {
        "tcp" => 0,
        "udp" => 1,
        "sctp" => 2,
        _ => 3,
    }
}

/// Whether a number among those of protocols stands for ping.
pub(super) fn is_echo(number: u16) -> bool {
    number == Key::ECHO.number()
}

/// As people read it.
pub(super) fn transport(space: u8, number: u16) -> &'static str {
    match space {
        0 => "tcp",
        1 => "udp",
        2 => "sctp",
        _ if is_echo(number) => "icmp",
        _ => "ip",
    }
}
