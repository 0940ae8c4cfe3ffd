//! The host's own TCP where its own packet filter gives it other ends: it is known for as long as its socket is open, too.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::connect_from;

use super::{OPEN, flows, hears};
use crate::guard::{Guarded, SOON, eventually};
use crate::topology::{ip, nft};

/// Seconds after which packets alone tell no more.
pub(super) const IDLE: u64 = 1;
/// Ports of servers: one to which the host has another port, one to which it has its own.
const SERVERS: [u16; 2] = [8001, 8002];
/// Addresses of a service that is elsewhere, as cluster addresses are.
const ELSEWHERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

const RULES: &str = "\
table inet own {
  chain out {
    type nat hook output priority -100;
    ip daddr 192.0.2.1 dnat ip to 10.77.0.2
    ip6 daddr 2001:db8::1 dnat ip6 to fd77::2
  }
  chain after {
    type nat hook postrouting priority srcnat;
    tcp dport 8001 masquerade to :30000-30999
  }
}
";

/// What the packet filter makes of a connection.
pub(super) struct Open {
    pub(super) what: String,
    pub(super) opener: TcpStream,
    pub(super) accepter: TcpStream,
}

pub(super) struct Scene {
    pub(super) guarded: Guarded,
    site: std::path::PathBuf,
}

impl Scene {
    pub(super) fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let left = &guarded.link.left;
        ip(
            &left.host,
            "",
            "route add 192.0.2.1 via 10.77.0.2\n-6 route add 2001:db8::1 via fd77::2",
        )?;
        nft(&left.host, RULES)?;
        let site = std::env::temp_dir().join(format!("{}-own.toml", guarded.interface()));
        std::fs::write(
            &site,
            format!(
                "schema = 1\nunprinted_peers = \"none\"\nunresolved_peers = \"none\"\n\
                 [timeouts]\ntcp_idle = \"{IDLE}s\"\n[management]\nallow = [\"udp/{OPEN}\"]\n\
                 [systems.thoughtspot]\nversion = \"10\"\n\
                 choices = {{ directory-port = \"636\", mail-port = \"587\" }}\n\
                 [[host]]\nname = \"here\"\naddresses = [\"10.77.0.1\", \"fd77::1\"]\nroles = [\"thoughtspot/node\"]\n"
            ),
        )?;
        Ok(Self { guarded, site })
    }

    pub(super) fn load(&self, more: &[&str]) -> Result<()> {
        let site = self.site.display().to_string();
        let args = ["load", "-c", &site, "--interface", self.guarded.interface()];
        let args: Vec<String> = args
            .iter()
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect();
        self.guarded.run(&args, None)?.success()?;
        Ok(())
    }

    /// One of each kind, in both families.
    pub(super) fn open(&self, when: &str) -> Result<Vec<Open>> {
        let (left, right) = (&self.guarded.link.left, &self.guarded.link.right);
        let mut all = Vec::new();
        for (family, elsewhere) in ELSEWHERE.iter().enumerate() {
            let (ours, theirs) = (left.both()[family], right.both()[family]);
            for port in SERVERS {
                let listener = right
                    .host
                    .run(|| Ok(TcpListener::bind(SocketAddr::new(theirs, port))?))?;
                for to in [theirs, elsewhere.parse::<IpAddr>()?] {
                    let to = SocketAddr::new(to, port);
                    let opener = left.host.run(|| connect_from(ours, to, SOON).stream())?;
                    let (accepter, from) = listener.accept()?;
                    let own = opener.local_addr()?.port();
                    ensure!((from.port() == own) == (port == SERVERS[1]), "{from}");
                    let what = format!("{when}: to {to}, from {own} as {}", from.port());
                    all.push(Open {
                        what,
                        opener,
                        accepter,
                    });
                }
            }
        }
        Ok(all)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.site);
    }
}

/// The far end speaks first, after longer than packets are remembered for.
fn all_hear(open: &mut [Open], when: &str) -> Result<()> {
    std::thread::sleep(Duration::from_secs(IDLE + 2));
    for Open {
        what,
        opener,
        accepter,
    } in open
    {
        let heard = hears(opener, accepter).with_context(|| format!("{what}, {when}"))?;
        ensure!(heard, "{what}, {when}: cut");
    }
    Ok(())
}

#[test]
fn own_connections_with_other_ends_are_known_until_their_sockets_close() -> Result<()> {
    let scene = Scene::new()?;
    let mut open = scene.open("before")?;
    scene.load(&["--enforce", "--confirm-within", "0"])?;
    open.extend(scene.open("after")?);
    all_hear(&mut open, "quiet")?;
    scene.load(&["--enforce", "--confirm-within", "0"])?;
    all_hear(&mut open, "over a swap")?;
    scene.load(&["--enforce", "--confirm-within", "1ns"])?;
    open.extend(scene.open("lapsed")?);
    all_hear(&mut open, "over a lapse")?;
    let known = || -> Result<u64> {
        let sockets = flows(&scene.guarded)?["occupancy"]["sockets"].as_u64();
        sockets.context("a number")
    };
    // Three of four have two pairs of ends.
    let (known_now, wanted) = (known()?, open.len() as u64 * 7 / 4);
    ensure!(known_now == wanted, "{known_now} of {wanted}");
    // They end with their sockets, whichever end closes first.
    for (index, one) in open.into_iter().enumerate() {
        let (first, second) = if index % 2 == 0 {
            (one.accepter, one.opener)
        } else {
            (one.opener, one.accepter)
        };
        drop(first);
        drop(second);
    }
    eventually("they are over", || Ok(known()? == 0))
}
