//! Drift on a host of its own: what listens there, and what knocked.

mod filter;
mod real;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portguard_harness::net::{Host, Lab, Link};
use portguard_harness::traffic::{TcpEcho, connect, udp_socket, udp_socket_on};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const ROLE: [&str; 4] = [
    "--role=wso2/identity-server",
    "--unprinted-peers=any",
    "--unresolved-peers=any",
    "--unresolved-ports=none",
];

/// Runs portguard; the exit code and the JSON.
fn portguard(host: &Host, arguments: &[&str]) -> Result<(i32, Value)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
    command.args(arguments);
    let output = host.output(&mut command, SOON)?;
    let code = output.code();
    let json = serde_json::from_str(&output.stdout).unwrap_or(Value::Null);
    anyhow::ensure!(code <= 1, "{output}");
    Ok((code, json))
}

fn state(answer: &Value, port: u16) -> Option<&Value> {
    answer["items"].as_array()?.iter().find(|item| {
        item["direction"] == "in" && item["transport"] == "tcp" && item["port_first"] == port
    })
}

#[test]
fn listeners_documents_and_traffic_are_compared() -> Result<()> {
    let link: Link = Lab::new()?.pair()?;
    let host = &link.right.host;
    let all = "0.0.0.0".parse::<IpAddr>()?;
    let _documented = TcpEcho::start(host, (all, 9443).into())?;
    let _undocumented = TcpEcho::start(host, (all, 5555).into())?;
    let loopback = "127.0.0.1".parse::<IpAddr>()?;
    let _local = TcpEcho::start(host, (loopback, 5556).into())?;

    // Without a guard: what listens is known, what was seen is not.
    let mut arguments = vec!["drift", "--json"];
    arguments.extend(ROLE);
    let (code, before) = portguard(host, &arguments)?;
    assert_eq!((code, &before["schema"]), (1, &1.into()));
    assert_eq!(
        state(&before, 9443).context("9443")?["state"],
        "documented-listening"
    );
    assert!(
        state(&before, 9443)
            .context("9443")?
            .get("passed")
            .is_none()
    );

    let mut arguments = vec!["load", "--audit", "--interface", &link.right.name];
    arguments.extend(ROLE);
    portguard(host, &arguments)?;
    link.left.host.run(|| {
        for port in [9443, 5555, 5557] {
            connect((link.right.v4(), port).into(), SOON);
        }
        Ok(())
    })?;
    let (code, after) = portguard(host, &["drift", "--json"])?;
    assert_eq!(code, 1);
    let web = state(&after, 9443).context("9443")?;
    assert_eq!(web["state"], "documented-used");
    assert!(web["passed"].as_u64() > Some(0), "{web}");
    assert!(web["rows"].as_array().is_some_and(|rows| !rows.is_empty()));
    let open = state(&after, 5555).context("5555")?;
    assert_eq!(open["state"], "listening-undocumented");
    assert!(open["violations"].as_u64() > Some(0), "{open}");
    let pid = &open["listeners"][0]["processes"][0]["pid"];
    assert_eq!(pid, &Value::from(std::process::id()));
    assert_eq!(
        state(&after, 5556).context("5556")?["state"],
        "loopback-only"
    );
    assert_eq!(
        state(&after, 5557).context("5557")?["state"],
        "undocumented-traffic-seen"
    );
    let findings = after["items"].as_array().context("items")?;
    let findings = findings.iter().filter(|item| item["finding"] == true);
    assert_eq!(after["findings"], findings.count());
    portguard(host, &["unload"])?;
    Ok(())
}

/// Ports that a program asked for are a service's, wherever the kernel picks those of clients.
#[test]
fn who_chose_the_port_of_a_udp_socket_is_not_told_by_its_number() -> Result<()> {
    let link: Link = Lab::new()?.pair()?;
    let (host, device) = (&link.right.host, &link.right.name);
    host.sysctl("net/ipv4/ip_local_reserved_ports", "41000-41009")?;
    let places = |port: u16| -> Result<Vec<UdpSocket>> {
        let mut sockets = Vec::new();
        let own: [IpAddr; 4] = [
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::UNSPECIFIED.into(),
            link.right.v4().into(),
            link.right.v6().into(),
        ];
        for (more, address) in (0..).zip(own) {
            let numbered =
                |by: u16| SocketAddr::new(address, if port == 0 { 0 } else { port + by });
            sockets.push(host.run(|| udp_socket(numbered(2 * more)))?);
            sockets.push(host.run(|| udp_socket_on(device, numbered(2 * more + 1)))?);
        }
        Ok(sockets)
    };
    let (services, reserved, clients) = (places(50_001)?, places(41_001)?, places(0)?);
    let mut arguments = vec!["drift", "--json"];
    arguments.extend(ROLE);
    let (_, answer) = portguard(host, &arguments)?;
    let items = answer["items"].as_array().context("items")?;
    for (sockets, wanted) in [
        (services, "listening-undocumented"),
        (reserved, "listening-undocumented"),
        (clients, "ephemeral-socket"),
    ] {
        for socket in sockets {
            let address = socket.local_addr()?;
            let item = items
                .iter()
                .find(|item| item["transport"] == "udp" && item["port_first"] == address.port());
            let state = &item.with_context(|| format!("no {address} in {answer:#}"))?["state"];
            anyhow::ensure!(state == wanted, "{address}: {state}");
        }
    }
    Ok(())
}

#[test]
fn a_role_that_nobody_knows_is_refused() -> Result<()> {
    let host = Lab::new()?.host("unknown")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
    command.args(["drift", "--role=nope/x", "--management=none"]);
    let output = host.output(&mut command, SOON)?;
    assert_eq!(output.code(), 2, "{output}");
    assert!(output.stderr.contains("nope"), "{output}");
    Ok(())
}
