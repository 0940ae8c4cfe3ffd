//! Which interfaces of this network namespace have a guard, and which other namespaces have one.

use std::collections::BTreeSet;

use portguard_common::reason::Direction;

use super::bpffs::{Layout, layouts, layouts_here};
use super::identity::Namespace;
use crate::hook::attach::{self, Attached};
use crate::host::holder;

/// Their indices.
pub fn guarded() -> BTreeSet<u32> {
    let links: Vec<Attached> = layouts_here().iter().filter_map(attached).collect();
    if links.is_empty() {
        return BTreeSet::new();
    }
    // An interface that is in another network namespace now has an index of that one.
    let hooks = holder::all_xdp().unwrap_or_default();
    let runs = |link: &Attached| hooks.iter().any(|(_, holder)| holder.id == link.program);
    let here = links.into_iter().filter(runs);
    here.map(|link| link.ifindex).collect()
}

/// Network namespaces in which an interface is guarded, but for the machine's first.
pub(crate) fn namespaces() -> BTreeSet<Namespace> {
    let attached = layouts()
        .into_iter()
        .filter(|layout| attached(layout).is_some());
    attached.filter_map(|layout| layout.namespace()).collect()
}

/// What a guard is attached by, if its interface is not gone.
fn attached(layout: &Layout) -> Option<Attached> {
    let link = attach::inspect(&layout.link(Direction::Ingress)).ok()??;
    (link.ifindex != 0).then_some(link)
}
