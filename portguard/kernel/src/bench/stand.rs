//! Where ingress programs hang while they are measured: on the loopback interface of a network namespace of its own, which
//! is down and gone with the process.
//!
//! The kernel has a list of the XDP programs that hang anywhere, in code that calls them directly (Linux 5.5). A test run
//! of a program that is not on it puts it there and takes it off again, and waits for all CPUs each time: 30 ms for a
//! timing of 30 µs.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::thread;

use aya::programs::Xdp;
use aya::programs::xdp::{XdpLink, XdpMode};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::Context as _;

/// A place for one program at a time.
#[derive(Debug)]
pub struct Stand {
    namespace: File,
}

/// While this lives, the program hangs there.
#[derive(Debug)]
pub struct Attached {
    // Dropped before the namespace, which would take the interface with it.
    _link: XdpLink,
    _namespace: File,
}

/// Interface index of loopback, the first that a namespace gets.
const LOOPBACK: u32 = 1;

impl Stand {
    /// Makes one.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open() -> crate::Result<Self> {
        let namespace = aside(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            let path = "/proc/thread-self/ns/net";
            File::open(path).with_context(|| format!("cannot open `{path}`"))
        })?;
        Ok(Self { namespace })
    }

    /// Hangs a program there.
    ///
    /// # Errors
    /// What the kernel refused, which it does if another one hangs there.
    pub fn attach(&self, program: &mut Xdp) -> crate::Result<Attached> {
        let attached = aside(|| {
            setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            let link = program.attach_to_if_index(LOOPBACK, XdpMode::Skb)?;
            Ok(Attached {
                _link: program.take_link(link)?,
                _namespace: self.namespace.try_clone()?,
            })
        });
        attached.context("cannot attach the program to be measured to a loopback interface")
    }
}

/// Does something in a thread, whose network namespace is its own.
fn aside<T: Send>(work: impl FnOnce() -> crate::Result<T> + Send) -> crate::Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_panic| crate::Error::system("a thread failed"))?
}
