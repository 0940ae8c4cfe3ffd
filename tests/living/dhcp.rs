//! An address by DHCP and its renewal with Debian's small client and server, and by `DHCPv6`.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portguard_harness::net::{End, Interface, Lab, unique_name};
use portguard_harness::traffic::{receive_datagram, udp_socket};

use super::OUTBOUND;
use super::town::Site;
use crate::guard::{Guarded, LONG, SOON};

/// What the client calls when something happens: it sets the address, and says what happened.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in
bound|renew) ip address replace "$ip/24" dev "$interface" ;;
esac
echo "$1 $ip"
"#;

/// A link whose left end, to be guarded, has no address of its own.
fn link() -> Result<Guarded> {
    let lab = Lab::new()?;
    let (client, server) = (lab.host("client")?, lab.host("server")?);
    let link = lab.connect(
        &client,
        &End::new(&unique_name("dhc")),
        &server,
        &End::new(&unique_name("dhs")).address("10.77.9.1/24"),
    )?;
    Ok(Guarded { link })
}

#[test]
fn leases_are_taken_and_renewed() -> Result<()> {
    for outbound in OUTBOUND {
        let guarded = link()?;
        let folder = std::env::temp_dir().join(unique_name("dhf"));
        fs::create_dir_all(&folder)?;
        let lease = || -> Result<()> {
            let script = folder.join("script");
            fs::write(&script, SCRIPT)?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
            let leases = folder.join("leases");
            fs::write(&leases, "")?;
            let settings = folder.join("settings");
            fs::write(
                &settings,
                format!(
                    "start 10.77.9.50\nend 10.77.9.50\ninterface {}\nmax_leases 1\n\
                     lease_file {}\npidfile {}\noption subnet 255.255.255.0\noption lease 60\n",
                    guarded.link.right.name,
                    leases.display(),
                    folder.join("pid").display()
                ),
            )?;
            Site::new(outbound)?.load(&guarded, &[])?;
            let mut server = Command::new("busybox");
            server.args(["udhcpd", "-f", "-a", "100"]).arg(&settings);
            let server = guarded.link.right.host.start(&mut server)?;
            let mut client = Command::new("busybox");
            client
                .args(["udhcpc", "-f", "-t", "10", "-T", "1", "-i"])
                .args([guarded.interface(), "-s"])
                .arg(&script);
            let client = guarded.link.left.host.start(&mut client)?;
            client
                .wait_for("bound 10.77.9.50", LONG)
                .with_context(|| format!("no lease: {}{}", client.stderr(), server.stderr()))?;
            // Its half time is over: it asks its server alone, from its address.
            kill(Pid::from_raw(i32::try_from(client.id())?), Signal::SIGUSR1)?;
            client
                .wait_for("renew 10.77.9.50", LONG)
                .with_context(|| format!("no renewal: {}{}", client.stderr(), server.stderr()))?;
            Ok(())
        };
        let done = lease();
        fs::remove_dir_all(&folder)?;
        done.with_context(|| format!("outbound {outbound}"))?;
    }
    Ok(())
}

/// All `DHCPv6` servers and relays of a link (RFC 8415 section 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

#[test]
fn solicitations_are_answered() -> Result<()> {
    for outbound in OUTBOUND {
        let guarded = link()?;
        let (client, server) = (&guarded.link.left, &guarded.link.right);
        Site::new(outbound)?.load(&guarded, &[])?;
        let at = |port, interface: &Interface, address| -> SocketAddr {
            SocketAddrV6::new(address, port, 0, interface.index).into()
        };
        let serving = server
            .host
            .run(|| udp_socket(at(547, server, Ipv6Addr::UNSPECIFIED)))?;
        serving.join_multicast_v6(&SERVERS, server.index)?;
        let asking = client
            .host
            .run(|| udp_socket(at(546, client, Ipv6Addr::UNSPECIFIED)))?;
        asking.send_to(b"\x01abc", at(547, client, SERVERS))?;
        let (_, from) = receive_datagram(&serving, Instant::now() + SOON)?
            .with_context(|| format!("outbound {outbound}: nobody was asked"))?;
        serving.send_to(b"\x02abc", from)?;
        let (answer, _) = receive_datagram(&asking, Instant::now() + SOON)?
            .with_context(|| format!("outbound {outbound}: no answer"))?;
        ensure!(answer == b"\x02abc");
    }
    Ok(())
}
