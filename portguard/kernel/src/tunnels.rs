//! Tunnels that end on this host: a guard below judges them by their outer header only.

use std::fs;

use portguard_policy::human::plain;
use portguard_policy::policy::Policy;
use portguard_policy::tunnels::{self, is_device};

use crate::host::holder;
use crate::host::link;
use crate::host::links::{self, Link};
use crate::pins::hidden;

/// Interfaces of tunnels that are up and have no guard of their own.
pub fn unguarded() -> Vec<Link> {
    let links = links::all().unwrap_or_default();
    links
        .into_iter()
        .filter(|link| link.is_up && link.kind.as_deref().is_some_and(is_device))
        .filter(|link| !is_guarded(link.index))
        .collect()
}

/// What to do about one.
pub fn advice(tunnel: &Link) -> String {
    let name = plain(&tunnel.name);
    if link::start(tunnel.index, &tunnel.name).is_ok() {
        format!(
            "guard it by its own name: `portguard load --interface {name} --xdp-mode generic`, with the site or the roles of \
             this host"
        )
    } else {
        format!(
            "`{name}` cannot be guarded (see `portguard doctor --interface {name}`): open the tunnel to its other end only, \
             and filter what is inside by other means"
        )
    }
}

/// What is said of a running policy: which tunnels come in, and that nobody judges what is inside.
pub fn unjudged(policy: &Policy) -> Vec<String> {
    let open = tunnels::open(policy);
    if open.is_empty() {
        return Vec::new();
    }
    let devices = unguarded();
    let mut said = Vec::new();
    for one in open {
        let mut ends = devices.iter().filter(|device| {
            let kind = device.kind.as_deref().unwrap_or_default();
            one.kind.devices.contains(&kind)
        });
        if let Some(device) = ends.next() {
            said.push(format!(
                "{} is open ({}): packets inside are not judged here, nor on `{}`, where the tunnel ends: {}",
                one.carrier,
                one.kind.name,
                plain(&device.name),
                advice(device)
            ));
        } else if one.is_meant && !is_ended(one.kind.devices) {
            said.push(format!(
                "{} is open ({}): packets inside are not judged here; if the tunnel ends on this host, guard its own \
                 interface by name",
                one.carrier, one.kind.name
            ));
        }
    }
    said.extend(labelled(policy));
    said
}

/// That the kernel takes MPLS labels off packets itself: no interface of their own tells of that.
fn labelled(policy: &Policy) -> Option<String> {
    let is_open = |one: &tunnels::Open| one.kind.name == tunnels::LABELS;
    if !tunnels::open(policy).iter().any(is_open) {
        return None;
    }
    let mut links = links::all().unwrap_or_default().into_iter();
    let takes = |link: &Link| {
        let setting = format!("/proc/sys/net/mpls/conf/{}/input", link.name);
        fs::read_to_string(setting).is_ok_and(|text| text.trim() == "1")
    };
    let link = links.find(takes)?;
    let name = plain(&link.name);
    Some(format!(
        "MPLS ends here (`net.mpls.conf.{name}.input` is 1): packets with a label are not judged, by whichever route that label \
         has; set it to 0, or have `strict_ethertypes`"
    ))
}

fn is_guarded(index: u32) -> bool {
    let programs = holder::xdp(index).unwrap_or_default();
    programs.iter().any(hidden::is_ours)
}

/// Whether there is an interface of these kinds: if none is unguarded, all are guarded.
fn is_ended(kinds: &[&str]) -> bool {
    links::all().is_ok_and(|links| {
        let mut links = links.iter().filter(|link| link.is_up);
        links.any(|link| {
            link.kind
                .as_deref()
                .is_some_and(|kind| kinds.contains(&kind))
        })
    })
}
