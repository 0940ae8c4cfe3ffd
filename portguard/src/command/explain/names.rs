//! Names that stand for an address or a port: hosts of the site, and services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portguard_policy::error::Fault;
use portguard_policy::human::plain;
use portguard_policy::site::{Site, nearest};

/// Where services are listed. A host that has no such file still knows [`SERVICES`].
const LIST: &str = "/etc/services";

/// What every reader of a port matrix calls by name.
pub(crate) const SERVICES: [(&str, u16); 20] = [
    ("ssh", 22),
    ("smtp", 25),
    ("domain", 53),
    ("dns", 53),
    ("tftp", 69),
    ("http", 80),
    ("kerberos", 88),
    ("ntp", 123),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("ldap", 389),
    ("https", 443),
    ("syslog", 514),
    ("submission", 587),
    ("ldaps", 636),
    ("mysql", 3306),
    ("rdp", 3389),
    ("postgresql", 5432),
    ("amqp", 5672),
    ("redis", 6379),
];

/// Addresses of the site's hosts by name.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<String, Vec<IpAddr>>);

impl Hosts {
    pub(super) fn of(site: &Site) -> Self {
        let hosts = site.hosts.iter().map(|host| {
            let addresses = host.addresses.iter().map(|(address, _)| *address);
            (host.name.clone(), addresses.collect())
        });
        Self(hosts.collect())
    }

    /// An address as it is written, or the first one of a host.
    pub(super) fn address(&self, text: &str) -> Result<IpAddr, Fault> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        if let Some(address) = self.0.get(text).and_then(|all| all.first()) {
            return Ok(*address);
        }
        let fault = Fault::usage(format!(
            "`{}` is neither an address nor a host of the site",
            plain(text)
        ));
        let names = self.0.keys().map(String::as_str);
        Err(match nearest(text, names.clone()) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None if self.0.is_empty() => fault
                .hint("write an address; names are those of the hosts in a site file (`--config`)"),
            None => fault.hint(format!(
                "write an address, or one of {}",
                names.collect::<Vec<_>>().join(", ")
            )),
        })
    }
}

/// The number of a port, or of a service of this protocol.
pub(super) fn port(text: &str, protocol: &str) -> Result<u16, Fault> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err(Fault::usage(format!("{text} is not a port")).hint("ports go from 0 to 65535"));
    }
    let list = std::fs::read_to_string(LIST).unwrap_or_default();
    if let Some(number) = listed(&list, text, protocol) {
        return Ok(number);
    }
    let known = SERVICES.iter().find(|(name, _)| *name == text);
    if let Some((_, number)) = known {
        return Ok(*number);
    }
    let fault = Fault::usage(format!("`{}` is neither a port nor a service", plain(text)));
    let listed = list
        .lines()
        .filter_map(|line| line.split('#').next()?.split_whitespace().next());
    let names = listed.chain(SERVICES.iter().map(|(name, _)| *name));
    Err(match nearest(text, names) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None => fault.hint(format!(
            "write a number from 0 to 65535, or a service of {LIST}"
        )),
    })
}

/// A line is `NAME PORT/PROTOCOL ALIAS...`, and a comment from `#` on. A service is the same port by every protocol, mostly: the
/// one that is asked for goes first.
fn listed(list: &str, wanted: &str, protocol: &str) -> Option<u16> {
    let mut other = None;
    for line in list.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (Some(name), Some(port)) = (words.next(), words.next()) else {
            continue;
        };
        if name != wanted && !words.any(|alias| alias == wanted) {
            continue;
        }
        let Some((number, of)) = port.split_once('/') else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        if of.eq_ignore_ascii_case(protocol) {
            return Some(number);
        }
        other = other.or(Some(number));
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_their_port_by_protocol() {
        let list = "# a comment\nhttps 443/tcp # secure\nhttp 80/tcp www\nodd 7/udp\nodd 9/tcp\n";
        for (name, protocol, wanted) in [
            ("https", "tcp", Some(443)),
            ("www", "tcp", Some(80)),
            ("https", "udp", Some(443)),
            ("odd", "tcp", Some(9)),
            ("odd", "udp", Some(7)),
            ("secure", "tcp", None),
        ] {
            assert_eq!(listed(list, name, protocol), wanted, "{name}/{protocol}");
        }
        assert_eq!(port("8443", "tcp").unwrap(), 8443);
        assert_eq!(port("https", "tcp").unwrap(), 443);
        for (wrong, hint) in [
            ("70000", "0 to 65535"),
            ("htttps", "https"),
            ("", "a number"),
        ] {
            let fault = port(wrong, "tcp").unwrap_err();
            assert!(
                fault.hint.as_deref().unwrap_or_default().contains(hint),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn hosts_are_known_by_name() {
        let site = Site::parse(
            "site.toml",
            b"schema = 1\n[[host]]\nname = \"db1\"\naddresses = [\"10.0.0.1\", \"fd00::1\"]\nroles = [\"a/b\"]\n",
        );
        let hosts = Hosts::of(&site.unwrap());
        assert_eq!(hosts.address("db1").unwrap(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(
            hosts.address("::1").unwrap(),
            "::1".parse::<IpAddr>().unwrap()
        );
        let fault = hosts.address("db2").unwrap_err();
        assert!(fault.hint.unwrap().contains("db1"));
    }
}
