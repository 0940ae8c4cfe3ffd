//! Ports that the host hands on to somebody else, mostly containers: destination NAT, as far as the packet filter's own
//! tools tell. XDP judges before NAT, so that these ports are open or closed by the number outside.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::Value;

use crate::catalog::Transport;

/// One port, or range of ports, that is handed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Published {
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// The port outside, or the first of a range.
    pub port: u16,
    /// The last of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_last: Option<u16>,
    /// Where it goes, as the rule says.
    pub to: String,
}

impl Published {
    fn new(transport: Transport, (first, last): (u16, u16), to: &str) -> Self {
        Self {
            transport,
            port: first,
            port_last: (first != last).then_some(last),
            to: to.to_owned(),
        }
    }

    /// The ports outside.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.port..=self.port_last.unwrap_or(self.port)
    }

    /// The ports inside: those of `to`, or the same.
    pub fn inner_ports(&self) -> RangeInclusive<u16> {
        if self.to.parse::<IpAddr>().is_ok() {
            return self.ports();
        }
        let to = self
            .to
            .strip_prefix("port ")
            .or_else(|| self.to.rsplit_once(':').map(|(_, ports)| ports));
        // Of `8000-8010/8000` the last is where it begins to count.
        let ports = to.and_then(|to| range(to.split('/').next().unwrap_or_default(), '-'));
        ports.map_or_else(|| self.ports(), |(first, last)| first..=last)
    }
}

/// `443`, or both ends of a range.
fn range(text: &str, between: char) -> Option<(u16, u16)> {
    let (first, last) = text.split_once(between).unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Asks `nft` and `iptables-save`, where they are installed; either not being there is no error.
pub fn published() -> Vec<Published> {
    let mut found = Vec::new();
    if let Some(text) = output("nft", &["-j", "list", "ruleset"])
        && let Ok(ruleset) = serde_json::from_str::<Value>(&text)
    {
        found.extend(nftables(&ruleset));
    }
    for tool in ["iptables-save", "ip6tables-save"] {
        if let Some(text) = output(tool, &["-t", "nat"]) {
            found.extend(text.lines().flat_map(iptables));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn output(tool: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    (output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn transport(word: &str) -> Option<Transport> {
    match word {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        "sctp" => Some(Transport::Sctp),
        _ => None,
    }
}

/// Rules of `nft -j list ruleset` that hand on.
fn nftables(ruleset: &Value) -> Vec<Published> {
    let rules = ruleset
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    rules
        .filter_map(|object| rule(object.pointer("/rule/expr")?.as_array()?))
        .flatten()
        .collect()
}

/// What one rule hands on.
fn rule(steps: &[Value]) -> Option<Vec<Published>> {
    let to = steps.iter().find_map(destination)?;
    let (protocol, right) = steps
        .iter()
        .find_map(|step| matched(step, "payload", "dport"))?;
    let transports: Vec<Transport> = if protocol == "th" {
        // Both at once: which ones is said apart.
        let (_, kinds) = steps
            .iter()
            .find_map(|step| matched(step, "meta", "l4proto"))?;
        let words = elements(kinds).filter_map(Value::as_str);
        words.filter_map(transport).collect()
    } else {
        transport(protocol).into_iter().collect()
    };
    let ports: Vec<(u16, u16)> = elements(right).filter_map(ends).collect();
    let each = transports.iter().flat_map(|transport| {
        let to = &to;
        ports
            .iter()
            .map(move |ends| Published::new(*transport, *ends, to))
    });
    Some(each.collect())
}

/// Where a step of a rule sends what it is for.
fn destination(step: &Value) -> Option<String> {
    let target = step.get("dnat").or_else(|| step.get("redirect"))?;
    let port = target.get("port").and_then(ends).map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    Some(match (target.get("addr").and_then(Value::as_str), port) {
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        (Some(address), None) => address.to_owned(),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "elsewhere".to_owned(),
    })
}

/// What a step wants of a field: the protocol that the field is of, and the value.
fn matched<'v>(step: &'v Value, what: &str, field: &str) -> Option<(&'v str, &'v Value)> {
    let test = step.get("match")?;
    let left = test.get("left")?.get(what)?;
    let name = left.get("field").or_else(|| left.get("key"))?;
    let is_wanted = name == field && test.get("op").is_none_or(|op| op == "==" || op == "in");
    let protocol = left.get("protocol").and_then(Value::as_str);
    is_wanted.then(|| Some((protocol.unwrap_or_default(), test.get("right")?)))?
}

/// The elements of a set, or the one value.
fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    match value.get("set").and_then(Value::as_array) {
        Some(set) => set.iter(),
        None => std::slice::from_ref(value).iter(),
    }
}

/// A port, or both ends of a range of ports.
fn ends(value: &Value) -> Option<(u16, u16)> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value.get("range").and_then(Value::as_array) {
        Some(range) => match range.as_slice() {
            [first, last] => Some((port(first)?, port(last)?)),
            _ => None,
        },
        None => port(value).map(|port| (port, port)),
    }
}

/// `-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80`.
fn iptables(line: &str) -> Vec<Published> {
    parts(line).unwrap_or_default()
}

fn parts(line: &str) -> Option<Vec<Published>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        // What a rule is not for says nothing of what it is for.
        let is_negated = at > 0 && words.get(at - 1) == Some(&"!");
        words.get(at + 1).copied().filter(|_| !is_negated)
    };
    if words.first() != Some(&"-A") {
        return None;
    }
    let to = match after("-j")? {
        "DNAT" => after("--to-destination")?.to_owned(),
        "REDIRECT" => match after("--to-ports") {
            Some(ports) => format!("port {ports}"),
            None => "this host".to_owned(),
        },
        _ => return None,
    };
    let transport = transport(after("-p")?)?;
    let ports = after("--dport").or_else(|| after("--dports"))?;
    let each = ports.split(',').filter_map(|part| range(part, ':'));
    let published = each.map(|ends| Published::new(transport, ends, &to));
    Some(published.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(transport: Transport, port: u16, port_last: Option<u16>, to: &str) -> Published {
        Published {
            transport,
            port,
            port_last,
            to: to.to_owned(),
        }
    }

    #[test]
    fn rules_of_iptables() {
        use Transport::{Tcp, Udp};
        for (line, wanted) in [
            (
                "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
                vec![one(Tcp, 8080, None, "172.17.0.2:80")],
            ),
            (
                "-A N -p udp -m udp --dport 8000:8010 -j DNAT --to-destination 10.88.0.2:8000-8010/8000",
                vec![one(Udp, 8000, Some(8010), "10.88.0.2:8000-8010/8000")],
            ),
            (
                "-A N -p tcp -m multiport --dports 80,90:91 -j REDIRECT --to-ports 8080",
                vec![
                    one(Tcp, 80, None, "port 8080"),
                    one(Tcp, 90, Some(91), "port 8080"),
                ],
            ),
            (
                "-A N -p tcp -m tcp ! --dport 80 -j DNAT --to-destination 10.0.0.1:1",
                vec![],
            ),
            ("-A DOCKER -i docker0 -j RETURN", vec![]),
            (":PREROUTING ACCEPT [0:0]", vec![]),
        ] {
            assert_eq!(iptables(line), wanted, "{line}");
        }
    }

    #[test]
    fn rules_of_nftables() {
        use Transport::{Tcp, Udp};
        let dport = |protocol: &str, right: Value| {
            serde_json::json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}},
                "right": right}})
        };
        let ruleset = |steps: Vec<Value>| serde_json::json!({"nftables": [{"metainfo": {}}, {"rule": {"expr": steps}}]});
        let dnat =
            || serde_json::json!({"dnat": {"addr": "172.17.0.2", "port": 80, "family": "ip"}});
        let kinds = serde_json::json!({"match": {"op": "==", "left": {"meta": {"key": "l4proto"}},
            "right": {"set": ["tcp", "udp"]}}});
        for (steps, wanted) in [
            (
                vec![
                    dport("tcp", 8080.into()),
                    serde_json::json!({"counter": {}}),
                    dnat(),
                ],
                vec![one(Tcp, 8080, None, "172.17.0.2:80")],
            ),
            (
                vec![
                    dport(
                        "udp",
                        serde_json::json!({"set": [53, {"range": [8000, 8010]}]}),
                    ),
                    serde_json::json!({"dnat": {"addr": "fd00::2"}}),
                ],
                vec![
                    one(Udp, 53, None, "fd00::2"),
                    one(Udp, 8000, Some(8010), "fd00::2"),
                ],
            ),
            (
                vec![
                    kinds,
                    dport("th", 53.into()),
                    serde_json::json!({"redirect": {"port": 5353}}),
                ],
                vec![
                    one(Tcp, 53, None, "port 5353"),
                    one(Udp, 53, None, "port 5353"),
                ],
            ),
            (vec![serde_json::json!({"accept": null})], vec![]),
        ] {
            assert_eq!(nftables(&ruleset(steps)), wanted);
        }
    }

    #[test]
    fn the_ports_inside() {
        for (to, wanted) in [
            ("172.17.0.2:80", 80..=80),
            ("[fd00::2]:80", 80..=80),
            ("10.88.0.2:9000-9010/9000", 9000..=9010),
            ("port 5353", 5353..=5353),
            ("172.17.0.2", 8000..=8010),
            ("fd00::2", 8000..=8010),
            ("elsewhere", 8000..=8010),
        ] {
            let published = one(Transport::Tcp, 8000, Some(8010), to);
            assert_eq!(published.inner_ports(), wanted, "{to}");
        }
    }
}
