//! Datagrams that all must arrive, and datagrams of which none may, while something is done to the guard.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::receive_datagram;

use crate::guard::{Guarded, listen};

/// Datagrams that are on their way at once: fewer than any queue on the way holds.
const BURST: u64 = 32;
/// Between bursts: others use this machine, too.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a datagram may take on a busy machine.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Traffic that goes on until it is counted.
pub(crate) struct Traffic {
    ended: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<u64>>,
    denied: std::net::UdpSocket,
}

impl Traffic {
    /// From the peer to the host: `allowed` passes whatever happens, `denied` never does.
    pub(crate) fn start(guarded: &Guarded, allowed: u16, denied: u16) -> Result<Self> {
        let (open, closed) = (listen(guarded, allowed)?, listen(guarded, denied)?);
        let address = IpAddr::V4(guarded.link.left.v4());
        let ended = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new((Mutex::new(0_u64), Condvar::new()));
        let receiver = {
            let (ended, arrived) = (ended.clone(), arrived.clone());
            std::thread::spawn(move || -> Result<u64> {
                loop {
                    let last = ended.load(Ordering::Relaxed);
                    let soon = Instant::now() + Duration::from_millis(50);
                    while receive_datagram(&open, soon)?.is_some() {
                        let mut count = arrived.0.lock().unwrap_or_else(PoisonError::into_inner);
                        *count += 1;
                        if *count % BURST == 0 {
                            arrived.1.notify_all();
                        }
                    }
                    if last {
                        return Ok(*arrived.0.lock().unwrap_or_else(PoisonError::into_inner));
                    }
                }
            })
        };
        let sender = {
            let ended = ended.clone();
            guarded.link.right.host.background(move || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
                let mut sent = 0;
                while !ended.load(Ordering::Relaxed) {
                    for _ in 0..BURST {
                        socket.send_to(b"allowed", (address, allowed))?;
                        socket.send_to(b"denied", (address, denied))?;
                    }
                    sent += BURST;
                    let count = arrived.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let (count, _) = arrived
                        .1
                        .wait_timeout_while(count, ARRIVAL, |count| *count < sent)
                        .unwrap_or_else(PoisonError::into_inner);
                    ensure!(
                        *count == sent,
                        "{count} of {sent} allowed datagrams arrived"
                    );
                    drop(count);
                    std::thread::sleep(PAUSE);
                }
                Ok(sent)
            })
        };
        Ok(Self {
            ended,
            sender,
            receiver,
            denied: closed,
        })
    }

    /// Ends it. How many datagrams went each way of which none was lost, and none came through.
    pub(crate) fn finish(self) -> Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        let sent = self.sender.join().ok().context("the sender panicked")??;
        let received = self
            .receiver
            .join()
            .ok()
            .context("the receiver panicked")??;
        ensure!(
            received == sent,
            "{received} of {sent} allowed datagrams arrived"
        );
        let soon = Instant::now() + Duration::from_millis(50);
        ensure!(
            receive_datagram(&self.denied, soon)?.is_none(),
            "a denied datagram came through"
        );
        Ok(sent)
    }
}
