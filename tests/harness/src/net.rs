//! Private networks: namespaces without a name, joined by veth pairs.
//!
//! A namespace lives as long as its [`Host`], the threads inside it and the processes started in it. Nothing is written
//! to the file system, so nothing is left behind: not by a panic, not by a signal. Only the network is private: `/sys` and
//! bpffs stay those of the machine, so give interfaces that a test pins something for a name from [`unique_name`].

mod link;
mod netlink;
mod process;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

pub use link::{End, Interface, Link};
use netlink::Netlink;
pub use process::{Output, Process};

/// The longest that anything here waits for the kernel to bring a link up.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);

/// Makes hosts. Stateless: it is the proof that the caller may make them.
#[derive(Debug, Clone)]
pub struct Lab(());

impl Lab {
    /// Refuses with a clear message where namespaces cannot be made.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root: run this test as root (`sudo -E cargo test ...`)");
        }
        Ok(Self(()))
    }

    /// A new host: an empty network namespace with loopback up. The name is for messages only.
    pub fn host(&self, name: &str) -> Result<Host> {
        let made = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<File> {
                    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                    // Duplicate address detection would keep addresses unusable for a second; solicitations are noise.
                    for family in ["all", "default"] {
                        write_sysctl(&format!("net/ipv6/conf/{family}/accept_dad"), "0")?;
                        write_sysctl(&format!("net/ipv6/conf/{family}/router_solicitations"), "0")?;
                    }
                    let mut netlink = Netlink::open(0)?;
                    let index = netlink.index("lo")?;
                    netlink.set_up(index, true)?;
                    File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
                })
                .join()
        });
        let namespace = match made {
            Ok(made) => made.with_context(|| format!("making host `{name}`"))?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Host(Arc::new(Namespace {
            name: name.to_owned(),
            namespace,
        })))
    }

    /// Joins two hosts by a veth pair, brings both ends up, gives them their addresses, and returns when both ends carry
    /// packets and no address is tentative.
    pub fn connect(
        &self,
        left: &Host,
        left_end: &End,
        right: &Host,
        right_end: &End,
    ) -> Result<Link> {
        link::connect(left, left_end, right, right_end)
    }

    /// Two hosts on one link, `10.77.0.1/24` and `fd77::1/64` on the left, `.2` and `::2` on the right; both interfaces
    /// have names that no other test of this machine has.
    pub fn pair(&self) -> Result<Link> {
        let left = self.host("left")?;
        let right = self.host("right")?;
        self.connect(
            &left,
            &End::new(&unique_name("pgl"))
                .address("10.77.0.1/24")
                .address("fd77::1/64"),
            &right,
            &End::new(&unique_name("pgr"))
                .address("10.77.0.2/24")
                .address("fd77::2/64"),
        )
    }
}

/// An interface name no other test of this process, nor of another process that runs now, gets. At most 15 bytes for a
/// prefix of up to 3.
pub fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Process ids end at 4 M, 6 hexadecimal digits: 5 digits are left for the serial number.
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:x}n{serial}", std::process::id())
}

/// A network namespace. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Host(Arc<Namespace>);

#[derive(Debug)]
struct Namespace {
    name: String,
    namespace: File,
}

impl Host {
    /// The name given at [`Lab::host`].
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The inode of the namespace: equal to that of `/proc/PID/ns/net` of a process inside.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.0.namespace.metadata()?.ino())
    }

    /// Runs a closure on a thread of its own inside the host, and returns what it returns. A panic goes on in the caller.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let joined = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    job()
                })
                .join()
        });
        match joined {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a closure on a thread inside the host, in the background; the thread keeps the namespace alive.
    pub fn background<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> thread::JoinHandle<Result<T>> {
        let host = self.clone();
        thread::spawn(move || {
            host.enter()?;
            job()
        })
    }

    /// Runs a command inside the host to its end and collects what it wrote; kills it at the timeout, which is an error.
    /// Only the network differs: mounts (`/sys`, bpffs), user and working directory are the caller's.
    pub fn output(&self, command: &mut Command, timeout: Duration) -> Result<Output> {
        self.start(command)?.output(timeout)
    }

    /// Starts a command inside the host; it is killed when the [`Process`] is dropped.
    pub fn start(&self, command: &mut Command) -> Result<Process> {
        // The child inherits the namespaces of the thread that starts it.
        self.run(|| Process::start(command))
    }

    /// Writes a sysctl of the host: `host.sysctl("net/ipv4/icmp_ratemask", "0")`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| write_sysctl(key, value))
    }

    /// The index of an interface.
    pub fn index(&self, interface: &str) -> Result<u32> {
        self.run(|| Netlink::open(0)?.index(interface))
    }

    /// Deletes an interface (and so its peer).
    pub fn delete_interface(&self, interface: &str) -> Result<()> {
        self.run(|| {
            let mut netlink = Netlink::open(0)?;
            let index = netlink.index(interface)?;
            netlink.delete(index)
        })
    }

    /// Waits until an interface is gone; an event, not a poll.
    pub fn wait_gone(&self, interface: &str, timeout: Duration) -> Result<()> {
        self.run(|| Netlink::open(netlink::LINK_EVENTS)?.wait_gone(interface, timeout))
    }

    /// Moves the calling thread into the host, for good. [`Self::run`] is nearly always what is wanted.
    pub fn enter(&self) -> Result<()> {
        setns(self.0.namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering host `{}`", self.name()))
    }

    fn namespace(&self) -> &File {
        &self.0.namespace
    }
}

/// `/proc/sys/net` shows the namespace of the thread that opens it.
fn write_sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    std::fs::write(&path, value).with_context(|| format!("writing `{value}` to `{path}`"))
}
