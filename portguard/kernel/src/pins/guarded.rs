//! Which interfaces of this network namespace have a guard.

use std::collections::BTreeSet;

use portguard_common::reason::Direction;

use super::bpffs::layouts;
use crate::hook::attach;

/// Their indices.
pub fn guarded() -> BTreeSet<u32> {
    layouts()
        .into_iter()
        .filter(|layout| layout.interface().1)
        .filter_map(|layout| attach::inspect(&layout.link(Direction::Ingress)).ok()?)
        .map(|link| link.ifindex)
        .filter(|index| *index != 0)
        .collect()
}
