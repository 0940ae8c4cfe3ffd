//! Many hosts: one signed site, carried by a store, rolled out in waves that evidence opens.
//!
//! Each part is usable without the others: [`release`] (what is signed, and when a host believes it), [`store`] (a
//! directory, etcd, or a web server), [`rollout`] (who may enforce when: pure), [`status`] (what a host says of itself),
//! [`evidence`] (what it saw) and [`agent`] (what a host does). Nothing here compiles a policy or touches the kernel: [`agent::Guard`] is where the
//! host's own guard is plugged in.
//!
//! ```
//! use portguard_fleet::release::{Plan, Gate, Wave};
//! use portguard_fleet::rollout::waves::{assign, Member};
//!
//! let plan = Plan {
//!     wave: vec![Wave::new("canary", "role=thoughtspot/node").percent(50), Wave::new("rest", "*")],
//!     gate: Gate::default(),
//! };
//! let member = |name: &str, zone: &str| Member::new(name, zone, &["thoughtspot/node"]);
//! let hosts = [member("a", "north"), member("b", "south")];
//! let waves = assign(&plan, &hosts)?;
//! assert_eq!((waves[0].len(), waves[1].len()), (1, 1));
//! # Ok::<(), portguard_fleet::release::PlanError>(())
//! ```

pub mod agent;
pub mod evidence;
pub mod follow;
pub mod layout;
pub mod publish;
pub mod release;
pub mod rollout;
pub mod status;
pub mod store;
mod text;

pub use text::{Hash, now};
