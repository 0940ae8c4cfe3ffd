//! The small languages of a site: peers (`admins`, `10.0.0.0/24`, `role:wso2/api-manager`), ports, access, durations.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Access, Place};
use crate::catalog::Transport;
use crate::human::range;

/// One way to name peers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// `10.0.0.0/24`, `fd00::1`.
    Prefix(IpNet),
    /// `admins`: a group of the site.
    Group(String),
    /// `role:SYSTEM/ROLE`: hosts of the inventory that have it.
    Role(String),
    /// `host:NAME`: a host of the inventory.
    Host(String),
    /// `domain:NAME`: resolved when the policy is compiled.
    Domain(String),
    /// `file:PATH`: a file of prefixes, one a line.
    File(String),
}

/// Several terms, each with its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms(pub Vec<(Term, Place)>);

/// Who: `"any"`, `"none"`, or a list of terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody.
    Any,
    /// Nobody, and the site said so.
    None,
    /// These; never empty.
    These(Terms),
}

/// First and last port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// First.
    pub first: u16,
    /// Last, inclusive.
    pub last: u16,
}

/// What is wrong, and what to do.
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: String,
}

impl Fault {
    pub(super) fn new(
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// As the views name them: a group, host or domain by its name, a role as the documents' peers are.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{}", net.addr())
            }
            Self::Prefix(net) => write!(f, "{net}"),
            Self::Role(role) => write!(f, "role {role}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Host(name) | Self::Domain(name) | Self::File(name) => f.write_str(name),
        }
    }
}

/// `any`, `none`, or terms joined by commas.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::None => f.write_str("none"),
            Self::These(terms) => {
                let mut separator = "";
                for (term, _) in &terms.0 {
                    write!(f, "{separator}{term}")?;
                    separator = ", ";
                }
                Ok(())
            }
        }
    }
}

impl Who {
    /// The terms, if it is a list.
    pub fn terms(&self) -> &[(Term, Place)] {
        match self {
            Self::These(terms) => &terms.0,
            Self::Any | Self::None => &[],
        }
    }

    /// `any`, `none`, or terms joined by commas: the form of the command line.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "any" => Ok(Self::Any),
            "none" => Ok(Self::None),
            _ => {
                let terms = text.split(',').map(|word| Term::parse(word.trim()));
                let terms = terms.map(|term| term.map(|term| (term, Place::default())));
                Ok(Self::These(Terms(terms.collect::<Result<_, _>>()?)))
            }
        }
    }
}

impl Term {
    /// One term.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let shown = text.escape_debug();
        if text == "any" || text == "none" {
            let hint = format!("write \"{text}\" alone, in place of the list");
            return Err(Fault::new(
                "bad-peer",
                format!("`{text}` cannot be combined with others"),
                hint,
            ));
        }
        if let Some((kind, name)) = text
            .split_once(':')
            .filter(|(kind, _)| KINDS.contains(kind))
        {
            return match kind {
                _ if name.is_empty() => Err(Fault::new(
                    "bad-peer",
                    format!("`{shown}` names nothing"),
                    "",
                )),
                "group" => Err(Fault::new(
                    "bad-peer",
                    format!("write a group without `{kind}:`"),
                    format!("write `{}`", name.escape_debug()),
                )),
                "role" if !name.contains('/') => Err(Fault::new(
                    "bad-peer",
                    format!("`{shown}` does not name its system"),
                    "write `role:SYSTEM/ROLE`",
                )),
                "role" => Ok(Self::Role(name.to_owned())),
                "host" => Ok(Self::Host(name.to_owned())),
                "domain" => Ok(Self::Domain(name.to_ascii_lowercase())),
                _ => Ok(Self::File(name.to_owned())),
            };
        }
        let looks_like_address =
            text.contains([':', '/']) || text.starts_with(|c: char| c.is_ascii_digit());
        if looks_like_address {
            return prefix(text).map(Self::Prefix);
        }
        if is_name(text) {
            return Ok(Self::Group(text.to_owned()));
        }
        Err(Fault::new(
            "bad-peer",
            format!("`{shown}` is not a peer"),
            "a peer is an address, a prefix, a group, `role:SYSTEM/ROLE`, `host:NAME`, `domain:NAME` or `file:PATH`",
        ))
    }
}

const KINDS: [&str; 5] = ["group", "role", "host", "domain", "file"];

/// An address or a prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, Fault> {
    let shown = text.escape_debug();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(plain(address)));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(Fault::new(
            "bad-prefix",
            format!("`{shown}` is neither an address nor a prefix"),
            "write e.g. `10.0.0.0/24` or `2001:db8::/32`",
        ));
    };
    if net != net.trunc() {
        let hint = format!(
            "write `{}`, or `{}` for the single address",
            net.trunc(),
            net.addr()
        );
        return Err(Fault::new(
            "bad-prefix",
            format!("`{shown}` has host bits set"),
            hint,
        ));
    }
    if let IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
        && v6.prefix_len() >= 96
    {
        return Err(Fault::new(
            "bad-prefix",
            format!("`{shown}` is an IPv4-mapped IPv6 prefix"),
            "write it as IPv4: no frame on a wire carries the mapped form",
        ));
    }
    Ok(net)
}

/// An IPv4 address in its IPv6 form is the IPv4 address.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Names of groups, rows and hosts: letters, digits, `-`, `_`, `.`.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&range(self.first, self.last))
    }
}

impl Ports {
    /// `443` or `8000-8010`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first.trim())?, port(last.trim())?);
        if first > last {
            let message = format!("the range {first}-{last} is reversed");
            return Err(Fault::new(
                "reversed-range",
                message,
                format!("write `{last}-{first}`"),
            ));
        }
        Ok(Self { first, last })
    }
}

fn port(text: &str) -> Result<u16, Fault> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(Fault::new(
            "bad-port",
            format!("`{}` is not a port", text.escape_debug()),
            "ports are 1-65535, ranges `8000-8010`",
        )),
    }
}

/// A transport's name.
pub(super) fn transport(text: &str) -> Result<Transport, Fault> {
    text.parse().map_err(|_error| {
        Fault::new(
            "bad-transport",
            format!("`{}` is not a transport with ports", text.escape_debug()),
            "write `tcp`, `udp` or `sctp`",
        )
    })
}

/// `tcp/8000-9000`.
pub(super) fn transport_ports(text: &str) -> Result<(Transport, Ports), Fault> {
    let Some((name, ports)) = text.split_once('/') else {
        let message = format!("`{}` is not in the form PROTO/PORT", text.escape_debug());
        return Err(Fault::new("bad-access", message, "write e.g. `tcp/22`"));
    };
    Ok((transport(name)?, Ports::parse(ports)?))
}

/// `tcp/22` (from anybody) or `tcp/22=admins,10.1.0.0/16`.
pub(super) fn access(text: &str, place: Place) -> Result<Access, Fault> {
    let (port, peers) = text
        .split_once('=')
        .map_or((text, None), |(port, peers)| (port, Some(peers)));
    let (transport, ports) = transport_ports(port)?;
    let mut peers = peers.map_or(Ok(Who::Any), Who::parse)?;
    if let Who::These(terms) = &mut peers {
        terms.0.iter_mut().for_each(|(_, at)| *at = place);
    }
    Ok(Access {
        transport,
        ports: (ports.first, ports.last),
        peers,
        place,
    })
}

/// The longest time that conversations may idle: the clock of their table begins anew after 24 days.
const MOST_IDLE: u32 = 10 * 86_400;

/// `90s`, `3m`, `4h`, `1d`, in seconds.
pub(super) fn duration(text: &str) -> Result<u32, Fault> {
    let fault = || {
        let message = format!("`{}` is not a duration", text.escape_debug());
        Fault::new(
            "bad-duration",
            message,
            "write e.g. `90s`, `3m`, `4h` or `1d`",
        )
    };
    let unit = text.chars().last().ok_or_else(fault)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(fault()),
    };
    let digits = text.strip_suffix(unit).unwrap_or_default();
    let number = digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    let seconds = number
        .filter(|seconds| *seconds > 0 && digits.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(fault)?;
    if seconds > MOST_IDLE {
        let message = format!("`{}` is too long", text.escape_debug());
        return Err(Fault::new("bad-duration", message, "write `10d` or less"));
    }
    Ok(seconds)
}

/// Words of a patch behind a version; what they count comes after the release.
const PATCH: [&str; 7] = ["p", "patch", "sp", "hf", "fp", "cu", "u"];

/// `4.5.1`, `V6.24` or `4.5.1.p2` as parts.
pub(super) fn version(text: &str) -> Result<Vec<u32>, Fault> {
    let numbers = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let part = |part: &str| {
        let digits = part.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let word = part.strip_suffix(digits)?.to_ascii_lowercase();
        let known = word.is_empty() || PATCH.contains(&word.as_str());
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        (known && plain).then(|| digits.parse().ok())?
    };
    let is_release = numbers.starts_with(|c: char| c.is_ascii_digit());
    let parts = numbers.split(['.', '-', ' ']).map(part);
    let parts: Option<Vec<u32>> = parts.collect();
    parts.filter(|_| is_release).ok_or_else(|| {
        let message = format!("`{}` is not a version", text.escape_debug());
        let hint = "write it as the vendor does, in numbers: `4.5.1`, `V6.24`, `4.5.1.p2`";
        Fault::new("bad-version", message, hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T, Fault>) -> String {
        match result {
            Ok(_) => "fine".to_owned(),
            Err(fault) => format!("{}: {} ({})", fault.code, fault.message, fault.hint),
        }
    }

    #[test]
    fn terms() {
        assert!(matches!(Term::parse("10.0.0.0/24"), Ok(Term::Prefix(_))));
        assert!(matches!(
            Term::parse("::ffff:10.0.0.1"),
            Ok(Term::Prefix(IpNet::V4(_)))
        ));
        assert!(matches!(Term::parse("admins"), Ok(Term::Group(_))));
        assert!(matches!(Term::parse("role:a/b"), Ok(Term::Role(_))));
        assert_eq!(
            message(Term::parse("10.0.0.1/24")),
            "bad-prefix: `10.0.0.1/24` has host bits set (write `10.0.0.0/24`, or `10.0.0.1` for the single address)"
        );
        assert_eq!(
            message(Term::parse("10.0.0.0/33")),
            "bad-prefix: `10.0.0.0/33` is neither an address nor a prefix (write e.g. `10.0.0.0/24` or `2001:db8::/32`)"
        );
        assert_eq!(
            message(Term::parse("group:ops")),
            "bad-peer: write a group without `group:` (write `ops`)"
        );
        assert_eq!(
            message(Term::parse("any")),
            "bad-peer: `any` cannot be combined with others (write \"any\" alone, in place of the list)"
        );
    }

    #[test]
    fn ports() {
        assert!(matches!(
            Ports::parse("8000-8010"),
            Ok(Ports {
                first: 8000,
                last: 8010
            })
        ));
        for bad in ["0", "70000", "-1", "", "+5", "80-", "a"] {
            assert!(
                message(Ports::parse(bad)).starts_with("bad-port: "),
                "{bad}"
            );
        }
        assert_eq!(
            message(Ports::parse("20-10")),
            "reversed-range: the range 20-10 is reversed (write `10-20`)"
        );
    }

    #[test]
    fn versions_are_read_as_documents_print_them() {
        for (text, parts) in [
            ("4.5.1", &[4, 5, 1][..]),
            ("V6.24", &[6, 24]),
            ("v6", &[6]),
            ("4.5.1.p2", &[4, 5, 1, 2]),
            ("4.5.1-SP2", &[4, 5, 1, 2]),
            ("10.0.0 patch 3", &[10, 0, 0]),
        ] {
            let parsed = version(text).unwrap_or_default();
            if text.contains("patch") {
                assert!(
                    parsed.is_empty(),
                    "{text}: a word without a number beside it"
                );
            } else {
                assert_eq!(parsed, parts, "{text}");
            }
        }
        for bad in [
            "",
            "V",
            "6.X",
            "4..1",
            "4.5-rc1",
            "p2",
            "4.5.1.",
            "-1",
            "4294967296",
        ] {
            assert!(message(version(bad)).starts_with("bad-version: "), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert!(matches!(duration("4h"), Ok(14_400)));
        for bad in ["", "4", "h", "0s", "+4h", "99999999d", "11d", "4ж"] {
            assert!(
                message(duration(bad)).starts_with("bad-duration: "),
                "{bad}"
            );
        }
    }
}
