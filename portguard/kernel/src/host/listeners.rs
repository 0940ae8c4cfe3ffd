//! What listens on this host, and whose it is: the kernel's socket tables joined with the files of processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

use nix::fcntl::readlinkat;

use procfs::net::{TcpNetEntries, TcpState, UdpNetEntries, UdpState};
use procfs::process::{Process as Proc, all_processes};
use procfs::{FromBufReadSI as _, current_system_info};
use serde::Serialize;

use crate::host::sockets::bound;

use portguard_policy::catalog::Transport;

/// A process, as far as this one may look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Short name.
    pub name: String,
    /// systemd unit or container scope, from the control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// A port that somebody listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Listener {
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// Port.
    pub port: u16,
    /// Local address; unspecified = all.
    pub address: IpAddr,
    /// Whose it is; empty if this process may not see that.
    pub processes: Vec<Process>,
}

impl Listener {
    /// Whether only this host itself reaches it.
    pub fn is_loopback(&self) -> bool {
        match self.address {
            IpAddr::V4(v4) => v4.is_loopback(),
            IpAddr::V6(v6) => {
                v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
            }
        }
    }
}

/// A socket that accepts, before anybody asked whose it is.
struct Socket {
    transport: Transport,
    local: SocketAddr,
    inode: u64,
}

/// What listens in the network namespace of the calling thread.
///
/// # Errors
/// If the kernel's tables cannot be read. Processes of others are left out without privileges, not an error.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let owners = owners(None);
    let mut found: BTreeMap<(Transport, u16, IpAddr), BTreeSet<Process>> = BTreeMap::new();
    for socket in own()? {
        let place = (socket.transport, socket.local.port(), socket.local.ip());
        let processes = found.entry(place).or_default();
        processes.extend(owners.get(&socket.inode).into_iter().flatten().cloned());
    }
    Ok(found
        .into_iter()
        .map(|((transport, port, address), processes)| Listener {
            transport,
            port,
            address,
            processes: processes.into_iter().collect(),
        })
        .collect())
}

/// Ports of this network namespace that others than this host can reach somebody on; whose they are is not asked, which takes
/// a look at every process.
///
/// # Errors
/// If the kernel's tables cannot be read.
pub fn listening() -> io::Result<BTreeSet<(Transport, u16)>> {
    let all = own()?.into_iter();
    Ok(all
        .map(|socket| Listener {
            transport: socket.transport,
            port: socket.local.port(),
            address: socket.local.ip(),
            processes: Vec::new(),
        })
        .filter(|listener| !listener.is_loopback())
        .map(|listener| (listener.transport, listener.port))
        .collect())
}

/// Another network namespace: a container's, mostly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its addresses, loopback among them.
    pub addresses: Vec<IpAddr>,
    /// What listens there.
    pub listeners: Vec<Listener>,
}

/// The other network namespaces that have processes.
pub fn elsewhere() -> Vec<Namespace> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = |path: &str| std::fs::metadata(path).ok().map(|meta| meta.ino());
    let own = inode("/proc/thread-self/ns/net");
    let mut first: BTreeMap<u64, i32> = BTreeMap::new();
    let mut members: BTreeMap<u64, BTreeSet<i32>> = BTreeMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        if let Some(namespace) = inode(&format!("/proc/{}/ns/net", process.pid))
            && Some(namespace) != own
        {
            first.entry(namespace).or_insert(process.pid);
            members.entry(namespace).or_default().insert(process.pid);
        }
    }
    let mut found = Vec::new();
    for (namespace, pid) in first {
        let owners = owners(members.get(&namespace));
        let sockets = sockets(&format!("/proc/{pid}/net")).unwrap_or_default();
        let listeners = sockets.into_iter().map(|socket| Listener {
            transport: socket.transport,
            port: socket.local.port(),
            address: socket.local.ip(),
            processes: owners.get(&socket.inode).cloned().unwrap_or_default(),
        });
        let read = |name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}"));
        let routes = read("fib_trie").unwrap_or_default();
        let six = read("if_inet6").unwrap_or_default();
        found.push(Namespace {
            addresses: own_v4(&routes).chain(own_v6(&six)).collect(),
            listeners: listeners.collect(),
        });
    }
    found
}

/// The own addresses in a routing trie: a line `|-- 172.17.0.2`, and below it `/32 host LOCAL`.
fn own_v4(trie: &str) -> impl Iterator<Item = IpAddr> {
    let mut leaf: Option<IpAddr> = None;
    let own = trie.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        }
        leaf.filter(|_| line == "/32 host LOCAL")
    });
    own.collect::<BTreeSet<_>>().into_iter()
}

/// The addresses of a table whose lines begin with 32 hexadecimal digits.
fn own_v6(table: &str) -> impl Iterator<Item = IpAddr> {
    table.lines().filter_map(|line| {
        let digits = line.split_whitespace().next()?;
        let bits = u128::from_str_radix(digits, 16).ok()?;
        Some(IpAddr::V6(bits.into()))
    })
}

/// Those of the network namespace of the calling thread. As text, all that there are would be written and read, those of
/// connections too.
fn own() -> io::Result<Vec<Socket>> {
    const HERE: &str = "/proc/thread-self/net";
    let Ok(bound) = bound() else {
        return sockets(HERE);
    };
    let mut found: Vec<Socket> = bound
        .into_iter()
        .map(|(transport, local, inode)| Socket {
            transport,
            local,
            inode,
        })
        .collect();
    sctp_of(HERE, &mut found)?;
    Ok(found)
}

fn sockets(directory: &str) -> io::Result<Vec<Socket>> {
    let open = |name: &str| File::open(format!("{directory}/{name}")).map(BufReader::new);
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        // IPv6 may be switched off.
        let Some(file) = or_none(open(name))? else {
            continue;
        };
        let table = TcpNetEntries::from_buf_read(file, current_system_info());
        let table = table.map_err(io::Error::other)?;
        found.extend(
            table
                .0
                .into_iter()
                .filter(|entry| entry.state == TcpState::Listen)
                .map(|entry| Socket {
                    transport: Transport::Tcp,
                    local: entry.local_address,
                    inode: entry.inode,
                }),
        );
    }
    for name in ["udp", "udp6"] {
        let Some(file) = or_none(open(name))? else {
            continue;
        };
        let table = UdpNetEntries::from_buf_read(file, current_system_info());
        let table = table.map_err(io::Error::other)?;
        found.extend(
            table
                .0
                .into_iter()
                // Connected ones hear one peer only.
                .filter(|entry| entry.state != UdpState::Established)
                .map(|entry| Socket {
                    transport: Transport::Udp,
                    local: entry.local_address,
                    inode: entry.inode,
                }),
        );
    }
    sctp_of(directory, &mut found)?;
    Ok(found)
}

fn sctp_of(directory: &str, found: &mut Vec<Socket>) -> io::Result<()> {
    let file = or_none(File::open(format!("{directory}/sctp/eps")))?;
    for line in file
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines)
        .skip(1)
    {
        found.extend(sctp(&line?));
    }
    Ok(())
}

/// A line of the endpoint table: `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS...`, where state 10 listens.
fn sctp(line: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, "10", _, port, _, inode, address, ..] = words.as_slice() else {
        return None;
    };
    Some(Socket {
        transport: Transport::Sctp,
        local: SocketAddr::new(address.parse().ok()?, port.parse().ok()?),
        inode: inode.parse().ok()?,
    })
}

fn or_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Processes by the inodes of the sockets that they hold.
fn owners(only: Option<&BTreeSet<i32>>) -> HashMap<u64, Vec<Process>> {
    let mut owners: HashMap<u64, Vec<Process>> = HashMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        if only.is_some_and(|only| !only.contains(&process.pid)) {
            continue;
        }
        let Ok(inodes) = inodes(process.pid) else {
            continue;
        };
        let mut told: Option<Process> = None;
        for inode in inodes {
            let told = told.get_or_insert_with(|| tell(&process));
            let of_socket = owners.entry(inode).or_default();
            if of_socket.last() != Some(told) {
                of_socket.push(told.clone());
            }
        }
    }
    owners
}

/// The inodes of the sockets that a process has open: of each file one question, since there may be as many as ports.
fn inodes(pid: i32) -> io::Result<Vec<u64>> {
    let path = format!("/proc/{pid}/fd");
    let directory = File::open(&path)?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&path)?.flatten() {
        // A file may have been closed since.
        let Ok(target) = readlinkat(&directory, entry.file_name().as_os_str()) else {
            continue;
        };
        let inode = target.to_str().and_then(|target| {
            let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        });
        found.extend::<Option<u64>>(inode);
    }
    Ok(found)
}

fn tell(process: &Proc) -> Process {
    // A process may call itself anything.
    let name = std::fs::read(format!("/proc/{}/comm", process.pid));
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid));
    Process {
        pid: process.pid,
        name: name.map_or_else(
            |_gone| "?".to_owned(),
            |name| String::from_utf8_lossy(&name).trim().to_owned(),
        ),
        unit: groups.ok().and_then(|groups| unit(&groups)),
    }
}

/// The innermost unit of a control group path.
fn unit(groups: &str) -> Option<String> {
    let path = groups.lines().find_map(|line| {
        line.strip_prefix("0::")
            .or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))
    })?;
    path.rsplit('/')
        .find(|part| {
            [".service", ".scope", ".socket"]
                .iter()
                .any(|kind| part.ends_with(kind))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_the_innermost_ones() {
        for (groups, wanted) in [
            ("0::/system.slice/ssh.service\n", Some("ssh.service")),
            (
                "0::/user.slice/user-0.slice/session-1.scope\n",
                Some("session-1.scope"),
            ),
            (
                "1:name=systemd:/system.slice/docker-12ab.scope\n",
                Some("docker-12ab.scope"),
            ),
            ("0::/system.slice/a.service/worker\n", Some("a.service")),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit(groups).as_deref(), wanted, "{groups}");
        }
    }

    #[test]
    fn own_addresses_of_a_namespace() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 172.17.0.0\n        \
                    /16 link UNICAST\n     |-- 172.17.0.2\n        /32 host LOCAL\n     |-- 172.17.255.255\n        \
                    /32 link BROADCAST\n";
        let all: Vec<IpAddr> = own_v4(trie).collect();
        assert_eq!(all, ["172.17.0.2".parse::<IpAddr>().unwrap()]);
        let table = "fd000000000000000000000000000002 02 40 00 80 eth0\n";
        let all: Vec<IpAddr> = own_v6(table).collect();
        assert_eq!(all, ["fd00::2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn sctp_endpoints_that_listen() {
        let line = " ffff8 ffff9 2   10  31   2905      0   17001 10.0.0.1 10.0.0.2";
        let socket = sctp(line).unwrap();
        assert_eq!(socket.local, "10.0.0.1:2905".parse().unwrap());
        assert_eq!(socket.inode, 17_001);
        assert!(sctp(" ffff8 ffff9 2   1  31   2905      0   17001 10.0.0.1").is_none());
        assert!(sctp("").is_none());
    }

    #[test]
    fn a_listener_is_found_with_its_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let all = listeners().unwrap();
        let mine = all
            .iter()
            .find(|one| one.port == port && one.transport == Transport::Tcp)
            .unwrap();
        assert!(mine.is_loopback());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(mine.processes.iter().any(|process| process.pid == own));
    }
}
