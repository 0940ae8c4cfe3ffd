//! The same checks wherever the host's address is and however its packets come and go.
//!
//! ```text
//! host 10.77.0.1 ══ the topology ══ 10.77.0.2 near 10.77.2.1 ── MTU 1280 ── 10.77.2.2 server
//! ```
//!
//! IPv6 likewise, from `fd77::1` to `fd77:0:0:2::2`. The host's own connections live, in both directions and however quiet,
//! at a load, over a swap, a lapse and a rollback; a stranger on ports that no row opens reaches all of them in audit, none in
//! enforce, and is counted alike. Each topology takes the same steps, and after each of them the same checks, in each mode.

mod checks;
mod places;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use checks::{Knocking, Quiet, Reach, counted, counts, lives, reach};
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

/// What becomes of strangers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strangers {
    Heard,
    Shut,
}

/// A change, and what it makes of strangers.
struct Step {
    what: &'static str,
    change: fn(&World) -> Result<()>,
    strangers: Strangers,
}

const NO_GUARD: Step = Step {
    what: "no guard",
    change: |_| Ok(()),
    strangers: Strangers::Heard,
};
const AUDIT: Step = Step {
    what: "audit",
    change: |world| world.load(Policy::First, &["--audit"]),
    strangers: Strangers::Heard,
};

/// Audit all along, but for an enforce that nobody confirms.
const AUDITING: [Step; 4] = [
    NO_GUARD,
    AUDIT,
    Step {
        what: "audit, swapped",
        change: |world| world.load(Policy::Second, &["--audit"]),
        strangers: Strangers::Heard,
    },
    Step {
        what: "back in audit",
        change: |world| lapsing(world, Policy::Second),
        strangers: Strangers::Heard,
    },
];

/// From audit to enforce, to another policy, back from one that nobody confirms, and back by hand.
const ENFORCING: [Step; 6] = [
    NO_GUARD,
    AUDIT,
    Step {
        what: "enforce",
        change: |world| world.load(Policy::First, &["--enforce", "--force"]),
        strangers: Strangers::Shut,
    },
    Step {
        what: "enforce, swapped",
        change: |world| world.load(Policy::Second, &["--enforce", "--force"]),
        strangers: Strangers::Shut,
    },
    Step {
        what: "enforce, lapsed",
        change: |world| lapsing(world, Policy::First),
        strangers: Strangers::Shut,
    },
    Step {
        what: "enforce, rolled back",
        change: World::roll_back,
        strangers: Strangers::Shut,
    },
];

/// Enforces until nobody has confirmed, and waits for longer than any conversation is known that is not a socket's.
fn lapsing(world: &World, policy: Policy) -> Result<()> {
    world.load(
        policy,
        &["--enforce", "--force", "--confirm-within", DEADLINE],
    )?;
    world.lapses()?;
    std::thread::sleep(BEYOND);
    Ok(())
}

/// What goes on all the while.
struct Going {
    /// Conversations that were there before the guard, and such as began when it was.
    quiet: Vec<Quiet>,
    knocking: Knocking,
}

type Check = fn(&World, &Step, &mut Going) -> Result<()>;

/// What is checked after every change, whatever the topology and the mode.
const CHECKS: [(&str, Check); 4] = [
    ("strangers on every closed port", |world, step, _| {
        let is_guarded = step.what != NO_GUARD.what;
        let before = is_guarded.then(|| counted(world)).transpose()?;
        let Reach { reached, missed } = reach(world)?;
        match step.strangers {
            Strangers::Heard => ensure!(missed.is_empty(), "dropped: {missed:?}"),
            Strangers::Shut => ensure!(reached.is_empty(), "reached: {reached:?}"),
        }
        before.map_or(Ok(()), |before| counts(world, &before))
    }),
    (
        "who knocks during the change",
        |_, step, going| match step.strangers {
            Strangers::Heard => going.knocking.is_heard(),
            Strangers::Shut => going.knocking.is_not_heard(),
        },
    ),
    ("quiet conversations", |_, _, going| {
        going.quiet.iter_mut().try_for_each(Quiet::speaks)
    }),
    ("what a host does all day", |world, _, _| lives(world)),
];

fn goes_through(build: Build, steps: &[Step]) -> Result<()> {
    let mut world = build()?;
    let mut services = world.services()?;
    let mut going = Going {
        quiet: vec![Quiet::open(&world)?],
        knocking: Knocking::start(&world)?,
    };
    let mut strangers = Strangers::Heard;
    for step in steps {
        let name = format!("{}: {}", world.name, step.what);
        (step.change)(&world).with_context(|| name.clone())?;
        if step.what != NO_GUARD.what {
            world.moves(&mut services)?;
        }
        if step.strangers != strangers {
            going.knocking.was_shut();
            strangers = step.strangers;
        }
        for (check, run) in CHECKS {
            run(&world, step, &mut going).with_context(|| {
                let counted = world.portguard(&["counters", "--violations"]);
                format!("{name}: {check}: {}", counted.unwrap_or_default())
            })?;
        }
        if step.what == AUDIT.what {
            going
                .quiet
                .push(Quiet::open(&world).with_context(|| format!("{name}: in the beginning"))?);
        }
    }
    going.knocking.end()
}

/// A module a topology, a test a mode.
macro_rules! topologies {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn in_audit_counts_strangers_and_cuts_nobody() -> anyhow::Result<()> {
                super::goes_through(super::places::$name, &super::AUDITING)
            }

            #[test]
            fn in_enforce_shuts_strangers_out_and_cuts_nobody() -> anyhow::Result<()> {
                super::goes_through(super::places::$name, &super::ENFORCING)
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
    address_that_moves,
    two_uplinks,
    one_of_two_uplinks,
    tun,
    vxlan,
    containers,
    containers_on_a_bridge,
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
