//! Ports that the host hands on to somebody else, mostly containers: destination NAT, as far as the packet filter's own
//! tools tell. XDP judges before NAT, so that these ports are open or closed by the number outside.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::Value;

use crate::catalog::Transport;

/// One port that is handed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Published {
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// The port outside.
    pub port: u16,
    /// Where it goes, as the rule says.
    pub to: String,
}

impl Published {
    /// The port inside: that of `to`, or the same.
    pub fn inner_port(&self) -> u16 {
        self.to
            .parse::<SocketAddr>()
            .map_or(self.port, |address| address.port())
    }
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
            found.extend(text.lines().filter_map(iptables));
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

/// Rules that match one destination port and translate the destination.
fn nftables(ruleset: &Value) -> Vec<Published> {
    let rules = ruleset
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    rules
        .filter_map(|object| {
            let steps = object.pointer("/rule/expr")?.as_array()?;
            let to = steps.iter().find_map(|step| {
                let target = step.get("dnat").or_else(|| step.get("redirect"))?;
                let port = target.get("port").and_then(Value::as_u64);
                Some(match (target.get("addr").and_then(Value::as_str), port) {
                    (Some(address), Some(port)) if address.contains(':') => {
                        format!("[{address}]:{port}")
                    }
                    (Some(address), Some(port)) => format!("{address}:{port}"),
                    (Some(address), None) => address.to_owned(),
                    (None, Some(port)) => format!("port {port}"),
                    (None, None) => "elsewhere".to_owned(),
                })
            })?;
            let (transport, port) = steps.iter().find_map(|step| {
                let left = step.pointer("/match/left/payload")?;
                if left.get("field")?.as_str()? != "dport" {
                    return None;
                }
                let port = u16::try_from(step.pointer("/match/right")?.as_u64()?).ok()?;
                Some((transport(left.get("protocol")?.as_str()?)?, port))
            })?;
            Some(Published {
                transport,
                port,
                to,
            })
        })
        .collect()
}

/// `-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80`.
fn iptables(line: &str) -> Option<Published> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).copied()
    };
    if words.first() != Some(&"-A") || after("-j") != Some("DNAT") {
        return None;
    }
    Some(Published {
        transport: transport(after("-p")?)?,
        port: after("--dport")?.parse().ok()?,
        to: after("--to-destination")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tools_are_understood() {
        let line = "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80";
        let web = iptables(line).unwrap();
        assert_eq!(
            (web.transport, web.port, web.inner_port()),
            (Transport::Tcp, 8080, 80)
        );
        assert!(iptables("-A DOCKER -i docker0 -j RETURN").is_none());
        assert!(iptables(":PREROUTING ACCEPT [0:0]").is_none());

        let ruleset = serde_json::json!({"nftables": [{"metainfo": {}}, {"rule": {"expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 8080}},
            {"counter": {}},
            {"dnat": {"addr": "172.17.0.2", "port": 80, "family": "ip"}}]}},
            {"rule": {"expr": [{"accept": null}]}}]});
        assert_eq!(nftables(&ruleset), [web]);
    }
}
