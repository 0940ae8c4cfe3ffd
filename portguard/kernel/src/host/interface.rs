//! Network interfaces of this process's network namespace.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Prop};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::{if_nameindex, if_nametoindex};

use super::netlink::request;
use crate::error::{Error, Kind};
use portguard_policy::human::plain;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

impl Interface {
    /// Finds an interface by its name, or by an alternative name.
    ///
    /// # Errors
    /// [`Error`] with the names that there are.
    pub fn find(name: &str) -> Result<Self, Error> {
        // The kernel takes what is behind a colon for the label of an address, and looks for the rest.
        let by_name = || if_nametoindex(name).ok().filter(|_| !name.contains(':'));
        let index = by_name().or_else(|| by_alternative(name));
        let found = index.and_then(|index| {
            let name = Self::name_of(index)?;
            Some(Self { name, index })
        });
        if let Some(found) = found {
            Ok(found)
        } else {
            let there = names();
            let hint = match &there[..] {
                [] => "there is no network interface here".to_owned(),
                [only] => format!("there is only {only}"),
                there => format!("there are {}", there.join(", ")),
            };
            Err(Error::new(
                Kind::NotThere,
                format!("there is no network interface `{}`", plain(name)),
            )
            .hint(hint))
        }
    }
}

impl Interface {
    /// The name of the interface with this index.
    pub fn name_of(index: u32) -> Option<String> {
        let all = if_nameindex().ok()?;
        let found = all.iter().find(|interface| interface.index() == index)?;
        Some(found.name().to_str().ok()?.to_owned())
    }
}

/// Names of all interfaces but loopback.
pub fn all() -> Vec<String> {
    let Ok(all) = if_nameindex() else {
        return Vec::new();
    };
    all.iter()
        .filter_map(|interface| interface.name().to_str().ok())
        .filter(|name| *name != "lo")
        .map(str::to_owned)
        .collect()
}

/// As [`all`], for messages.
pub fn names() -> Vec<String> {
    let all = all().into_iter();
    all.map(|name| format!("`{}`", plain(&name))).collect()
}

/// The name of the interface that has this one, be it an alternative name; the name itself if there is none.
pub fn canonical(name: &str) -> String {
    Interface::find(name).map_or_else(|_| name.to_owned(), |interface| interface.name)
}

/// All names of the interface that has this one: its own first, then alternative ones. Nothing if there is none.
pub fn all_names(name: &str) -> Vec<String> {
    let Ok(found) = Interface::find(name) else {
        return Vec::new();
    };
    let others = alternatives()
        .into_iter()
        .filter(|(index, _)| *index == found.index);
    std::iter::once(found.name)
        .chain(others.map(|(_, name)| name))
        .collect()
}

/// The index of the interface that has an alternative name: these may be longer than others.
fn by_alternative(name: &str) -> Option<u32> {
    let mut all = alternatives().into_iter();
    all.find_map(|(index, other)| (other == name).then_some(index))
}

/// Alternative names, each with the index of its interface.
fn alternatives() -> Vec<(u32, String)> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = request(NETLINK_ROUTE, question, NLM_F_DUMP).unwrap_or_default();
    let mut found = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            continue;
        };
        let lists = link.attributes.into_iter().filter_map(|attribute| {
            if let LinkAttribute::PropList(properties) = attribute {
                Some(properties)
            } else {
                None
            }
        });
        for property in lists.flatten() {
            if let Prop::AltIfName(name) = property {
                found.push((link.header.index, name));
            }
        }
    }
    found
}
