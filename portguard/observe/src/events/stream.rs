//! The kernel's ring buffer of events: who reads it, and how long the data plane fills it.

use std::fs::File;
use std::time::{SystemTime, UNIX_EPOCH};

use aya::maps::{Array, Map, MapData, RingBuf};
use portguard_common::abi::{Event, control};
use portguard_kernel::error::{Context as _, Error, Kind};
use tokio::io::unix::AsyncFd;

use super::decode;
use portguard_kernel::generation::confirm::CONTROL;
use portguard_kernel::generation::deadline;
use portguard_kernel::pins::bpffs::Layout;

/// How long an announcement holds, in nanoseconds: a listener that died is forgotten after so long.
const LEASE: u64 = 3_000_000_000;

/// The events of one interface. One reader at a time: the ring has one reading position.
pub struct Stream {
    ring: AsyncFd<RingBuf<MapData>>,
    layout: Layout,
    _lock: File,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// Opens the events of an interface, from within a tokio runtime.
    ///
    /// # Errors
    /// If another process reads them already, and what the system refuses.
    pub fn open(layout: &Layout) -> portguard_kernel::Result<Self> {
        let shared = layout.shared();
        let lock =
            File::open(&shared).with_context(|| format!("cannot open `{}`", shared.display()))?;
        if lock.try_lock().is_err() {
            return Err(
                Error::new(Kind::Busy, "another process reads these events").hint(
                    "one at a time can: `portguard agent`, `portguard events` or `portguard top`",
                ),
            );
        }
        let path = shared.join("EVENTS");
        let map = MapData::from_pin(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let ring = RingBuf::try_from(Map::RingBuf(map))?;
        #[expect(
            deprecated,
            reason = "its replacement is an unsafe function; this ring keeps its descriptor open while it is registered"
        )]
        let ring = AsyncFd::new(ring).context("cannot wait for events")?;
        Ok(Self {
            ring,
            layout: layout.clone(),
            _lock: lock,
        })
    }

    /// Says that somebody listens, for some seconds from now; to be repeated every second. Every generation is told, so
    /// that a swap between two announcements loses nothing.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn announce(&self) -> portguard_kernel::Result<()> {
        self.set_listeners(boot_time().saturating_add(LEASE))
    }

    /// Says that nobody listens any more: what is in the ring now is all there is.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn hush(&self) -> portguard_kernel::Result<()> {
        self.set_listeners(0)
    }

    fn set_listeners(&self, until: u64) -> portguard_kernel::Result<()> {
        for number in self.layout.generations() {
            let path = self.layout.generation(number).join(CONTROL);
            // One that is being made or removed has no pin, and needs to know nothing.
            let Ok(map) = MapData::from_pin(&path) else {
                continue;
            };
            let mut words: Array<MapData, u64> = Map::Array(map).try_into()?;
            words
                .set(control::LISTENERS, until, 0)
                .context("cannot announce that somebody listens")?;
        }
        Ok(())
    }

    /// Waits for events, and hands over all that are there.
    ///
    /// # Errors
    /// If waiting fails.
    pub async fn wait(&mut self) -> portguard_kernel::Result<Vec<Event>> {
        loop {
            let events = self.ready();
            if !events.is_empty() {
                return Ok(events);
            }
            self.ring.readable_mut().await?.clear_ready();
            // What came between the look and the wait has made the descriptor readable.
        }
    }

    /// Hands over what is there.
    pub fn ready(&mut self) -> Vec<Event> {
        let ring = self.ring.get_mut();
        let mut events = Vec::new();
        while let Some(record) = ring.next() {
            events.extend(decode(&record));
        }
        events
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Best effort: the lease ends by itself.
        let _ = self.hush();
    }
}

/// Nanoseconds since boot, suspension included: the clock of the events.
pub fn boot_time() -> u64 {
    deadline::now().map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0))
}

/// The wall clock at boot, in nanoseconds since the Unix epoch, by the clocks of now.
pub fn booted() -> u64 {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0));
    wall.saturating_sub(boot_time())
}
