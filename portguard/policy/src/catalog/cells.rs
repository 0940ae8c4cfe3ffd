//! The small languages of a row's cells: `7711+offset(analytics)`, `role:gateway`, `>=4.5.1, <5`.
//!
//! Each function turns one cell into its type or says what is wrong with it; names are checked against the file elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;

use super::report::{quoted, suggestion};
use super::{Inert, Peer, PeerClass, PortSpec, Transport, VersionBound};
use crate::diagnostic::Diagnostic;

type Parsed<T> = Result<T, Diagnostic>;

const PEER_HINT: &str = "a peer is `role:ID`, `same-role`, `group:ID`, `prefix:CIDR`, `asn:NUMBER`, \
                         `domain:NAME`, `self`, `multicast` or `unprinted`";

/// `dynamic`, `random`, `7711+offset(analytics)`, `443` or `49152-65535`.
pub(super) fn port(cell: &str) -> Parsed<PortSpec> {
    match cell.trim() {
        "dynamic" => return Ok(PortSpec::Dynamic),
        "random" => return Ok(PortSpec::Random),
        "unprinted" => return Ok(PortSpec::Unprinted),
        _ => {}
    }
    if let Some((base, term)) = cell.split_once('+') {
        let role = term
            .trim()
            .strip_prefix("offset(")
            .and_then(|rest| rest.strip_suffix(')'));
        let role = role.ok_or_else(|| bad_port(cell))?;
        return Ok(PortSpec::Offset {
            base: number(cell, base)?,
            role: role.trim().to_owned(),
        });
    }
    let Some((first, last)) = cell.split_once('-') else {
        let port = number(cell, cell)?;
        return Ok(PortSpec::Range(port, port));
    };
    let (first, last) = (number(cell, first)?, number(cell, last)?);
    if first > last {
        let message = format!("the range {} is reversed", quoted(cell));
        return Err(
            Diagnostic::error("reversed-range", message).hint(format!("write `{last}-{first}`"))
        );
    }
    Ok(PortSpec::Range(first, last))
}

fn number(cell: &str, part: &str) -> Parsed<u16> {
    let part = part.trim();
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad_port(cell));
    }
    match part.parse() {
        Ok(0) | Err(_) => {
            let message = format!("port {} is not between 1 and 65535", quoted(part));
            Err(Diagnostic::error("port-out-of-range", message))
        }
        Ok(port) => Ok(port),
    }
}

fn bad_port(cell: &str) -> Diagnostic {
    Diagnostic::error("bad-port", format!("{} is not a port", quoted(cell))).hint(
        "a port is `443`, `49152-65535`, `7711+offset(ROLE)`, `dynamic`, `random` or `unprinted`",
    )
}

/// `role:R`, `same-role`, `group:G`, `prefix:CIDR`, `asn:N`, `domain:NAME`, `self` or `unprinted`.
pub(super) fn peer(cell: &str) -> Parsed<Peer> {
    match cell {
        "same-role" => return Ok(Peer::SameRole),
        "self" => return Ok(Peer::Itself),
        "unprinted" => return Ok(Peer::Unprinted),
        "multicast" => return Ok(Peer::Multicast),
        _ => {}
    }
    let Some((kind, name)) = cell.split_once(':') else {
        return Err(
            Diagnostic::error("bad-peer", format!("{} is not a peer", quoted(cell)))
                .hint(PEER_HINT),
        );
    };
    match kind {
        "role" => Ok(Peer::Role(name.to_owned())),
        "group" => Ok(Peer::Group(name.to_owned())),
        "prefix" => prefix(name).map(Peer::Prefix),
        "asn" => name.parse().map(Peer::Asn).map_err(|error| {
            let message = format!(
                "{} is not an autonomous system number: {error}",
                quoted(name)
            );
            Diagnostic::error("bad-asn", message).hint("write the number alone: `asn:64496`")
        }),
        "domain" => domain(name),
        _ => Err(Diagnostic::error(
            "bad-peer",
            format!("{} is not a kind of peer", quoted(kind)),
        )
        .hint(PEER_HINT)),
    }
}

fn prefix(cell: &str) -> Parsed<IpNet> {
    let net = match (cell.parse::<IpAddr>(), cell.parse::<IpNet>()) {
        (Ok(address), _) => IpNet::from(address),
        (_, Ok(net)) => net,
        (Err(_), Err(_)) => {
            let message = format!("{} is neither an address nor a prefix", quoted(cell));
            return Err(Diagnostic::error("bad-prefix", message)
                .hint("write an address, or a prefix such as `192.0.2.0/24`"));
        }
    };
    if net.trunc() != net {
        let message = format!("{} has host bits set", quoted(cell));
        return Err(Diagnostic::error("bad-prefix", message).hint(format!(
            "write `{}`, or `{}` for that address alone",
            net.trunc(),
            net.addr()
        )));
    }
    Ok(net)
}

fn domain(name: &str) -> Parsed<Peer> {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    if host.len() <= 253 && host.contains('.') && host.split('.').all(is_label) {
        return Ok(Peer::Domain(name.to_owned()));
    }
    Err(Diagnostic::error(
        "bad-domain",
        format!("{} is not a domain name", quoted(name)),
    )
    .hint("write the host name alone, in lower case, without scheme, port or path"))
}

/// `tcp`, `udp` or `sctp`.
pub(super) fn transport(cell: &str) -> Parsed<Transport> {
    let known = ["tcp", "udp", "sctp"].into_iter();
    cell.parse()
        .map_err(|_error| unknown("transport", cell, known))
}

/// `out-of-band`, `loopback`, `other-device` or `no-number`.
pub(super) fn inert(cell: &str) -> Parsed<Inert> {
    let all = [
        Inert::OutOfBand,
        Inert::Loopback,
        Inert::OtherDevice,
        Inert::NoNumber,
    ];
    let found = all.into_iter().find(|inert| inert.as_str() == cell);
    found.ok_or_else(|| unknown("`inert`", cell, all.iter().map(|inert| inert.as_str())))
}

/// `public-service`, `administration`, `cluster-members`, `infrastructure` or `monitoring`.
pub(super) fn class(cell: &str) -> Parsed<PeerClass> {
    cell.parse().map_err(|_error| {
        let known = PeerClass::ALL.iter().map(|class| class.as_str());
        unknown("class of peers", cell, known)
    })
}

/// Comparisons that must all hold: `>=4.5.1, <5`.
pub(super) fn version(cell: &str) -> Parsed<Vec<VersionBound>> {
    cell.split(',')
        .map(|bound| version_bound(bound.trim()))
        .collect()
}

fn version_bound(bound: &str) -> Parsed<VersionBound> {
    let operator = [">=", "<=", ">", "<", "="]
        .into_iter()
        .find(|o| bound.starts_with(o));
    let numbers = operator.and_then(|operator| bound.strip_prefix(operator));
    let version = numbers.and_then(|numbers| {
        numbers
            .trim()
            .split('.')
            .map(|part| part.parse().ok())
            .collect::<Option<Vec<u32>>>()
    });
    match (operator, version) {
        (Some(operator), Some(version)) => Ok(VersionBound {
            operator: operator.to_owned(),
            version,
        }),
        _ => Err(Diagnostic::error(
            "bad-version",
            format!("{} is not a version comparison", quoted(bound)),
        )
        .hint("write `>=4.5.1`, `<5`, or several with commas between")),
    }
}

/// Checks that an id is kebab-case: it becomes part of names that scripts rely on.
pub(super) fn id(cell: &str) -> Parsed<()> {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if cell.len() <= 100 && cell.split('-').all(is_word) {
        return Ok(());
    }
    Err(
        Diagnostic::error("bad-id", format!("{} is not a kebab-case id", quoted(cell)))
            .hint("write lower case letters and digits, in words joined by single hyphens"),
    )
}

/// A name that is not among those known.
pub(super) fn unknown<'n>(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) -> Diagnostic {
    let mut finding = Diagnostic::error("unknown-name", format!("unknown {kind} {}", quoted(name)));
    finding.hint = suggestion(name, known);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(parsed: Parsed<T>) -> String {
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn ports_are_read_as_printed() {
        for cell in [
            "443",
            "49152-65535",
            "7711+offset(analytics)",
            "dynamic",
            "random",
            "1",
        ] {
            assert_eq!(port(cell).unwrap().to_string(), cell);
        }
        assert_eq!(
            port(" 7711 + offset( analytics ) ").unwrap().to_string(),
            "7711+offset(analytics)"
        );
        for cell in [
            "", "-", "-5", "5-", "x", "1+2", "1+offset", "443/tcp", "٤٤٣", "+1", "1e3",
        ] {
            assert_eq!(port(cell).unwrap_err().code, "bad-port", "{cell}");
        }
        for cell in [
            "0",
            "70000",
            "1-65536",
            "99999999999999999999",
            "0+offset(a)",
        ] {
            assert_eq!(port(cell).unwrap_err().code, "port-out-of-range", "{cell}");
        }
        assert_eq!(
            said(port("90-80")),
            "error[reversed-range]: the range `90-80` is reversed\n  hint: write `80-90`"
        );
    }

    #[test]
    fn peers_are_read_as_printed() {
        assert_eq!(
            peer("prefix:208.83.110.20").unwrap(),
            Peer::Prefix("208.83.110.20/32".parse().unwrap())
        );
        assert_eq!(
            peer("prefix:2001:db8::/32").unwrap(),
            Peer::Prefix("2001:db8::/32".parse().unwrap())
        );
        assert_eq!(peer("asn:15169").unwrap(), Peer::Asn(15169));
        assert_eq!(
            peer("domain:*.example.com").unwrap(),
            Peer::Domain("*.example.com".into())
        );
        for cell in [
            "domain:api.mix  panel.com",
            "domain:https://a.b",
            "domain:a",
            "domain:A.b",
            "domain:",
        ] {
            assert_eq!(peer(cell).unwrap_err().code, "bad-domain", "{cell}");
        }
        for cell in [
            "prefix:10.0.0.0/33",
            "prefix:10.0.0",
            "prefix:",
            "prefix:17.0.0.1/8",
        ] {
            assert_eq!(peer(cell).unwrap_err().code, "bad-prefix", "{cell}");
        }
        for cell in ["any", "", "roles:x"] {
            assert_eq!(peer(cell).unwrap_err().code, "bad-peer", "{cell}");
        }
        assert_eq!(peer("asn:-1").unwrap_err().code, "bad-asn");
        assert!(
            said(peer("prefix:17.0.0.1/8"))
                .ends_with("write `17.0.0.0/8`, or `17.0.0.1` for that address alone")
        );
    }

    #[test]
    fn versions_are_lists_of_comparisons() {
        let bounds = version(">=4.5.1, <5").unwrap();
        assert_eq!(bounds.len(), 2);
        assert_eq!(
            (bounds[0].operator.as_str(), &bounds[0].version[..]),
            (">=", &[4, 5, 1][..])
        );
        assert_eq!(
            (bounds[1].operator.as_str(), &bounds[1].version[..]),
            ("<", &[5][..])
        );
        for cell in [
            "",
            "4.5",
            ">=",
            ">=4.",
            ">=4.x",
            "~4",
            ">=1,,<2",
            "=-1",
            ">=4294967296",
        ] {
            assert_eq!(version(cell).unwrap_err().code, "bad-version", "{cell}");
        }
    }

    #[test]
    fn ids_are_kebab_case() {
        assert!(
            ["a", "wso2", "tcp-22", "2100"]
                .into_iter()
                .all(|cell| id(cell).is_ok())
        );
        for cell in [
            "",
            "A",
            "a_b",
            "a--b",
            "-a",
            "a-",
            "a/b",
            "é",
            &"a".repeat(101),
        ] {
            assert_eq!(id(cell).unwrap_err().code, "bad-id", "{cell}");
        }
    }
}
