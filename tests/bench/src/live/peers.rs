//! Other firewalls with the same policy: TCP ports 22, 80, 443 and 5432 open, all else dropped.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::stage::Stage;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    NftIngress,
    NftInput,
    NftConntrack,
    IptablesIpset,
    XdpFilter,
}

const PORTS: [&str; 4] = ["22", "80", "443", "5432"];

impl Peer {
    pub(super) const ALL: [Self; 5] = [
        Self::NftIngress,
        Self::NftInput,
        Self::NftConntrack,
        Self::IptablesIpset,
        Self::XdpFilter,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NftIngress => "nftables ingress",
            Self::NftInput => "nftables input",
            Self::NftConntrack => "nftables conntrack",
            Self::IptablesIpset => "iptables + ipset",
            Self::XdpFilter => "xdp-filter",
        }
    }

    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::NftIngress | Self::NftInput | Self::NftConntrack => &["nft"],
            Self::IptablesIpset => &["iptables", "ipset"],
            Self::XdpFilter => &["xdp-filter"],
        }
    }

    /// Why it is not measured, if it is not.
    pub(super) fn absent(self) -> Option<String> {
        let missing: Vec<&str> = self
            .programs()
            .iter()
            .copied()
            .filter(|program| !is_there(program))
            .collect();
        (!missing.is_empty()).then(|| format!("`{}` is not installed", missing.join("`, `")))
    }

    /// Puts it in force on the guarded interface.
    pub(super) fn put(self, stage: &Stage) -> Result<()> {
        let name = stage.link.left.name.as_str();
        match self {
            Self::NftIngress => nft(
                stage,
                &format!(
                    "table netdev pg {{ set s {{ type inet_service; elements = {{ {} }} }}
                     chain c {{ type filter hook ingress device \"{name}\" priority 0; policy drop;
                     tcp dport @s accept
                     }}
                     }}
",
                    PORTS.join(", ")
                ),
            ),
            Self::NftInput => nft(stage, &input("")),
            Self::NftConntrack => nft(stage, &input("ct state established,related accept;")),
            Self::IptablesIpset => {
                stage.command(
                    "ipset",
                    &["create", "pg", "bitmap:port", "range", "0-65535"],
                )?;
                for port in PORTS {
                    stage.command("ipset", &["add", "pg", port])?;
                }
                let accept = "-t raw -A PREROUTING -p tcp -m set --match-set pg dst -j ACCEPT";
                for rule in [accept, "-t raw -A PREROUTING -j DROP"] {
                    let words: Vec<&str> = rule.split(' ').collect();
                    stage.command("iptables", &words)?;
                }
                Ok(())
            }
            Self::XdpFilter => {
                stage.command("xdp-filter", &["load", name, "-m", "native", "-p", "deny"])?;
                for port in PORTS {
                    let allow = ["port", port, "-p", "tcp", "-m", "dst"];
                    stage.command("xdp-filter", &allow)?;
                }
                Ok(())
            }
        }
    }

    /// Takes it away again, as far as it is there.
    pub(super) fn clear(self, stage: &Stage) {
        let name = stage.link.left.name.as_str();
        let _ = match self {
            Self::NftIngress | Self::NftInput | Self::NftConntrack => {
                stage.command("nft", &["flush", "ruleset"])
            }
            Self::IptablesIpset => stage
                .command("iptables", &["-t", "raw", "-F"])
                .and_then(|()| stage.command("ipset", &["destroy", "pg"])),
            Self::XdpFilter => stage.command("xdp-filter", &["unload", name]),
        };
    }
}

fn input(state: &str) -> String {
    format!(
        "table inet pg {{ set s {{ type inet_service; elements = {{ {} }} }}
         chain c {{ type filter hook input priority filter; policy drop; {state} tcp dport @s accept
         }}
         }}
",
        PORTS.join(", ")
    )
}

fn nft(stage: &Stage, rules: &str) -> Result<()> {
    stage.link.left.host.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start `nft`")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft: {}", said.trim());
        Ok(())
    })
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}
