//! A node of a Kubernetes cluster with an overlay: the guard on the underlay judges the tunnel by its outer header, and one on the
//! tunnel's interface what is inside.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab, unique_name};
use portguard_harness::traffic::{TcpEcho, connect};

use crate::guard::{Guarded, LONG, SHORT, SOON};

/// A port that no row opens.
const INNER: u16 = 59_998;

fn ip(host: &Host, arguments: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    host.output(&mut command, LONG)?.success().map(drop)
}

/// A VXLAN interface over `device`, to the other end of the link.
fn overlay(host: &Host, name: &str, device: &str, remote: &str, address: &str) -> Result<()> {
    ip(
        host,
        &format!("link add {name} type vxlan id 42 dstport 8472 dev {device} remote {remote}"),
    )?;
    ip(host, &format!("addr add {address}/24 dev {name}"))?;
    ip(host, &format!("link set {name} up"))
}

#[test]
fn a_node_lets_the_overlay_of_its_cluster_in_and_nobody_elses() -> Result<()> {
    let lab = Lab::new()?;
    let [node, peer, stranger] = ["node", "peer", "stranger"].map(|name| lab.host(name));
    let (node, peer, stranger) = (node?, peer?, stranger?);
    let join = |net: u8, right: &Host| {
        let end =
            |last: u8| End::new(&unique_name("ov")).address(&format!("10.77.{net}.{last}/24"));
        lab.connect(&node, &end(1), right, &end(2))
    };
    let (inside, outside) = (join(1, &peer)?, join(2, &stranger)?);
    let (vx_in, vx_out) = (unique_name("vi"), unique_name("vo"));
    overlay(&node, &vx_in, &inside.left.name, "10.77.1.2", "10.88.1.1")?;
    overlay(&peer, "vx0", &inside.right.name, "10.77.1.1", "10.88.1.2")?;
    // Another network's tunnel that ends on the same node, by the same port.
    ip(
        &node,
        &format!(
            "link add {vx_out} type vxlan id 43 dstport 8472 dev {} remote 10.77.2.2",
            outside.left.name
        ),
    )?;
    ip(&node, &format!("addr add 10.88.2.1/24 dev {vx_out}"))?;
    ip(&node, &format!("link set {vx_out} up"))?;
    ip(
        &stranger,
        &format!(
            "link add vx0 type vxlan id 43 dstport 8472 dev {} remote 10.77.2.1",
            outside.right.name
        ),
    )?;
    ip(&stranger, "addr add 10.88.2.2/24 dev vx0")?;
    ip(&stranger, "link set vx0 up")?;
    let site = std::env::temp_dir().join(format!("{}.toml", unique_name("rs")));
    std::fs::write(
        &site,
        "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\nunresolved_peers = \"none\"\n[management]\nnone = true\n\
         [baseline]\nprofiles = [\"kubernetes-node/worker\"]\n[systems.kubernetes-node]\nchoices = { cni = \"flannel\" }\n\
         [[host]]\nname = \"node\"\naddresses = [\"10.77.1.1\", \"10.77.2.1\"]\n[[host]]\nname = \"peer\"\naddresses = [\"10.77.1.2\"]\n",
    )?;
    let path = site.display().to_string();
    let load = |interface: &str, mode: &str| -> Result<()> {
        let verb = [
            "load",
            "-c",
            &path,
            "--host",
            "node",
            "--confirm-within",
            "0",
            "--xdp-mode",
            mode,
            "--interface",
            interface,
        ];
        node.output(&mut Guarded::command(&verb), LONG)?
            .success()
            .map(drop)
    };
    let inner = SocketAddr::new("10.88.1.1".parse()?, INNER);
    let foreign = SocketAddr::new("10.88.2.1".parse()?, INNER);
    let _echoes = [
        TcpEcho::start(&node, inner)?,
        TcpEcho::start(&node, foreign)?,
    ];
    let reaches =
        |from: &Host, to: SocketAddr, wait| from.run(|| Ok(connect(to, wait).is_connected()));
    let tried = (|| {
        ensure!(
            reaches(&peer, inner, SOON)? && reaches(&stranger, foreign, SOON)?,
            "the overlays work without a guard"
        );
        load(&inside.left.name, "native")?;
        load(&outside.left.name, "native")?;
        ensure!(
            reaches(&peer, inner, SOON)?,
            "what the cluster's tunnel carries is not looked at"
        );
        ensure!(
            !reaches(&stranger, foreign, SHORT)?,
            "a tunnel from elsewhere ends at the guard"
        );
        let bare = SocketAddr::new("10.77.1.1".parse()?, INNER);
        let _echo = TcpEcho::start(&node, bare)?;
        ensure!(
            !reaches(&peer, bare, SHORT)?,
            "outside the tunnel the node is closed to its peers"
        );
        // On the tunnel's own interface the packets inside are judged; its driver has no native XDP.
        load(&vx_in, "generic")?;
        ensure!(
            !reaches(&peer, inner, SHORT)?,
            "the node is closed to the overlay, too"
        );
        Ok(())
    })();
    for interface in [&inside.left.name, &outside.left.name, &vx_in] {
        node.output(
            &mut Guarded::command(&["unload", "--interface", interface]),
            LONG,
        )?;
    }
    std::fs::remove_file(&site)?;
    tried.context("on a node with an overlay")
}
