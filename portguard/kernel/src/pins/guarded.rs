//! Which interfaces of this network namespace have a guard, and which other namespaces have one.

use std::collections::BTreeSet;

use portguard_common::reason::Direction;

use super::bpffs::{Layout, layouts, layouts_here};
use super::identity::Namespace;
use crate::hook::attach;

/// Their indices.
pub fn guarded() -> BTreeSet<u32> {
    layouts_here().iter().filter_map(attached).collect()
}

/// Network namespaces in which an interface is guarded, but for the machine's first.
pub(crate) fn namespaces() -> BTreeSet<Namespace> {
    let attached = layouts()
        .into_iter()
        .filter(|layout| attached(layout).is_some());
    attached.filter_map(|layout| layout.namespace()).collect()
}

/// The interface that a guard is attached to.
fn attached(layout: &Layout) -> Option<u32> {
    let link = attach::inspect(&layout.link(Direction::Ingress)).ok()??;
    (link.ifindex != 0).then_some(link.ifindex)
}
