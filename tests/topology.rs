//! The same checks wherever the host's address is and however its packets come and go.
//!
//! ```text
//! host 10.77.0.1 ══ the topology ══ 10.77.0.2 near 10.77.2.1 ── MTU 1280 ── 10.77.2.2 server
//! ```
//!
//! IPv6 likewise, from `fd77::1` to `fd77:0:0:2::2`. The host's own connections live, in both directions and however quiet,
//! at a load, over a swap and over a lapse; a stranger on ports that no row opens reaches all of them in audit, and is
//! counted, and none in enforce. Each topology is a test in each mode.

mod checks;
mod places;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use checks::{Knocking, Quiet, Reach, audit_counts, lives, reach};
use places::Build;
pub(crate) use places::{container, nft};
pub(crate) use world::ip;
use world::{Policy, QUIET, World};

use crate::guard::SOON;
use crate::living::sessions::{Pair, pair, says};

/// Longer than [`world::IDLE`].
const DEADLINE: &str = "1500ms";
/// With that, nothing has been said for two units of time and more: no table knows what it does not know from a socket.
const BEYOND: Duration = Duration::from_millis(800);

/// What the stranger must reach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strangers {
    Heard,
    Shut,
}

impl World {
    /// What must hold after every change, and after the first and the last all that a host does.
    fn holds(&self, what: &str, strangers: Strangers, quiet: &mut Quiet) -> Result<()> {
        let step = || format!("{what} ({})", self.name);
        let Reach { reached, missed } = reach(self).with_context(step)?;
        match strangers {
            Strangers::Heard => ensure!(missed.is_empty(), "{}: audit drops {missed:?}", step()),
            Strangers::Shut => ensure!(reached.is_empty(), "{}: reached {reached:?}", step()),
        }
        if strangers == Strangers::Heard {
            audit_counts(self).with_context(step)?;
        }
        let mut lived = quiet.speaks();
        if !what.contains("swapped") {
            lived = lived.and_then(|()| lives(self));
        }
        lived.with_context(|| {
            let counted = self.portguard(&["counters", "--violations"]);
            format!("{}: {}", step(), counted.unwrap_or_default())
        })
    }
}

/// Guarded in audit all along, but for an enforce that nobody confirms.
fn audits(build: Build) -> Result<()> {
    let mut world = build()?;
    let mut services = world.services()?;
    let mut quiet = Quiet::open(&world)?;
    world.load(Policy::First, &["--audit"])?;
    world.comes_later(&mut services)?;
    world.holds("audit", Strangers::Heard, &mut quiet)?;
    world.load(Policy::Second, &["--audit"])?;
    world.holds("audit, swapped", Strangers::Heard, &mut quiet)?;
    world.load(
        Policy::Second,
        &["--enforce", "--force", "--confirm-within", DEADLINE],
    )?;
    world.lapses()?;
    std::thread::sleep(BEYOND);
    world.holds("back in audit", Strangers::Heard, &mut quiet)
}

/// From audit to enforce, to another policy, and back from one that nobody confirms; somebody knocks all the while.
fn enforces(build: Build) -> Result<()> {
    let mut world = build()?;
    let mut services = world.services()?;
    let mut quiet = Quiet::open(&world)?;
    let Reach { missed, .. } = reach(&world)?;
    ensure!(
        missed.is_empty(),
        "{}: {missed:?} are not reached without a guard",
        world.name
    );
    world.load(Policy::First, &["--audit"])?;
    world.comes_later(&mut services)?;
    let knocking = Knocking::start(&world)?;
    knocking.is_heard()?;
    world.load(Policy::First, &["--enforce", "--force"])?;
    knocking.is_shut();
    world.holds("enforce", Strangers::Shut, &mut quiet)?;
    world.load(Policy::Second, &["--enforce", "--force"])?;
    world.holds("enforce, swapped", Strangers::Shut, &mut quiet)?;
    world.load(
        Policy::First,
        &["--enforce", "--force", "--confirm-within", DEADLINE],
    )?;
    world.lapses()?;
    std::thread::sleep(BEYOND);
    world.holds("enforce, lapsed", Strangers::Shut, &mut quiet)?;
    let heard = knocking.end()?;
    ensure!(
        heard == 0,
        "{}: who knocked was heard {heard} times",
        world.name
    );
    Ok(())
}

/// A module a topology, a test a mode.
macro_rules! topologies {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn in_audit_counts_strangers_and_cuts_nobody() -> anyhow::Result<()> {
                super::audits(super::places::$name)
            }

            #[test]
            fn in_enforce_shuts_strangers_out_and_cuts_nobody() -> anyhow::Result<()> {
                super::enforces(super::places::$name)
            }
        }
    )+};
}

topologies! {
    card,
    bridge_port,
    bridge,
    macvlan,
    address_on_the_loopback,
    address_that_comes_later,
    two_uplinks,
    one_of_two_uplinks,
    tun,
    vxlan,
    containers,
}

/// What a container had open before the first guard goes on, in audit as in enforce: the kernel's connection tracking knows who
/// began it.
#[test]
fn what_a_container_opened_before_the_guard_goes_on() -> Result<()> {
    for mode in ["--audit", "--enforce"] {
        let world = places::containers()?;
        let _services = world.services()?;
        let (inside, _) = world.behind.clone().context("a container")?;
        let mut open = Vec::new();
        for theirs in world.server.both() {
            let asked = SocketAddr::new(theirs, QUIET);
            open.push((theirs, pair(&inside, &world.server.host, asked)?));
        }
        world.load(Policy::First, &[mode, "--force"])?;
        for (theirs, pair) in &mut open {
            // The site forgets who is silent for a second, and knows again who began.
            let Pair { opener, accepter } = pair;
            ensure!(
                says(opener, accepter, b"more", SOON)?,
                "{mode}: to {theirs}"
            );
            ensure!(
                says(accepter, opener, b"here", SOON)?,
                "{mode}: from {theirs}"
            );
        }
        let counters = world.portguard(&["counters", "--violations"])?;
        ensure!(!counters.contains("undocumented"), "{mode}: {counters}");
    }
    Ok(())
}
