//! Frames in and out of one interface, past the IP stack.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

use super::{wait_readable, wait_ready};

/// `PACKET_OUTGOING`: the kernel shows such sockets also what the host itself sends.
const OUTGOING: u8 = 4;
/// Larger than any frame that a veth carries.
const MAX_FRAME: usize = 70_000;
/// What a burst of small frames needs until the reader comes by.
const BUFFER: usize = 32 << 20;

/// How long to try to send a frame.
const PATIENCE: Duration = Duration::from_secs(10);

/// A packet socket bound to one interface of the calling thread's network.
///
/// It receives whatever the driver or the XDP program lets through, its own host's outgoing frames excepted. The kernel
/// takes the outermost VLAN tag off before such sockets see a frame.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Opens it; frames that arrive from now on are kept until they are read (about 50,000 small ones).
    pub fn open(interface: &str) -> Result<Self> {
        let address = getifaddrs()?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .with_context(|| format!("no link address of interface `{interface}`"))?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )
        .context("opening a packet socket")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::SndBuf, &BUFFER)?;
        bind(socket.as_raw_fd(), &address)
            .with_context(|| format!("binding a packet socket to `{interface}`"))?;
        let mut socket = Self {
            socket,
            buffer: vec![0; MAX_FRAME],
        };
        // Between opening and binding it heard every interface.
        while socket.take()?.is_some() {}
        Ok(socket)
    }

    /// Sends one frame as it is; from 14 bytes to what the MTU allows. While there is no room it tries again, for ten
    /// seconds: a program that drops what is sent looks the same.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(error @ (Errno::EAGAIN | Errno::ENOBUFS)) => {
                    if Instant::now() >= deadline {
                        return Err(error).with_context(|| {
                            format!("sending {} bytes, for {PATIENCE:?}", frame.len())
                        });
                    }
                    wait_ready(&self.socket, nix::poll::PollFlags::POLLOUT, deadline)?;
                    // A queue that has no room for it is ready all the same.
                    std::thread::yield_now();
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("sending {} bytes", frame.len()));
                }
            }
        }
    }

    /// Sends one frame, and says whether it went out: what a program drops on its way is `false`, and is not sent again.
    pub fn offer(&self, frame: &[u8]) -> Result<bool> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::ENOBUFS) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("offering {} bytes", frame.len())),
        }
    }

    /// The next frame that arrived, `None` at the deadline.
    pub fn receive(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        self.find(deadline, |_| true)
    }

    /// The next frame that the condition holds for; others are thrown away. `None` at the deadline.
    pub fn find(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        loop {
            while let Some(length) = self.take()? {
                let frame = self.buffer.get(..length).unwrap_or_default();
                if wanted(frame) {
                    return Ok(Some(frame.to_vec()));
                }
            }
            if !wait_readable(&self.socket, deadline)? {
                return Ok(None);
            }
        }
    }

    /// Counts frames that the condition holds for, until there are `enough` or the deadline passes.
    pub fn count(
        &mut self,
        deadline: Instant,
        enough: usize,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<usize> {
        let mut count = 0;
        while count < enough && self.find(deadline, &mut wanted)?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Hands over every frame that has arrived, without waiting.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> Result<()> {
        while let Some(length) = self.take()? {
            each(self.buffer.get(..length).unwrap_or_default());
        }
        Ok(())
    }

    /// Length of the next frame of others, now in the buffer.
    fn take(&mut self) -> Result<Option<usize>> {
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
                Ok((_, Some(from))) if from.pkttype() == OUTGOING => {}
                Ok((length, _)) => return Ok(Some(length)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("reading a packet socket"),
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a frame carries these bytes: tests mark payloads to tell their frames from the stack's own.
pub fn contains(frame: &[u8], marker: &[u8]) -> bool {
    !marker.is_empty() && frame.windows(marker.len()).any(|window| window == marker)
}
