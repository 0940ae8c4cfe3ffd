//! Filters of traffic control on ingress: behind XDP and in front of the stack, where they can make a frame for others one for
//! this host.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcAttribute, TcFilterFlowerOption, TcFilterMatchAllOption,
    TcFilterU32Option, TcHandle, TcMessage, TcOption,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use portguard_common::reason::Direction;

use super::links::Link;
use super::netlink::request;
use crate::error::errno;
use crate::host::holder;
use portguard_policy::human::plain;

/// Where filters of `ingress` and `clsact` hang (`TC_H_CLSACT`, `TC_H_MIN_INGRESS` in the kernel's `pkt_sched.h`).
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0xfff2,
};
/// Actions that leave a packet what it is, and where it is, or drop it.
const HARMLESS: [&str; 3] = ["gact", "police", "sample"];

/// What can rewrite packets that come by an interface, or send them on, each as what a person wants to read.
pub(super) fn rewriting(link: &Link) -> Vec<String> {
    let name = plain(&link.name);
    let mut found = Vec::new();
    match filters(link.index) {
        Ok(filters) => found.extend(filters.iter().filter_map(|filter| {
            let (kind, does) = rewrites(filter)?;
            let preference = filter.header.info >> 16;
            Some(format!(
                "the `{kind}` filter of traffic control on ingress of `{name}`, preference {preference}, may hand packets on to \
                 this host: {does}"
            ))
        })),
        // A kernel without traffic control has no filters.
        Err(error) if errno(&error) == Some(libc::EOPNOTSUPP) => {}
        Err(error) => found.push(format!(
            "filters of traffic control on ingress of `{name}` may hand packets on to this host, and cannot be read: {error:#}"
        )),
    }
    let programs = holder::tcx(&link.name, Direction::Ingress).into_iter();
    found.extend(programs.map(|holder| {
        format!("{holder} on `{name}` may hand packets on to this host: a program can rewrite them")
    }));
    found
}

fn filters(index: u32) -> crate::Result<Vec<TcMessage>> {
    let mut question = TcMessage::with_index(i32::try_from(index)?);
    question.header.parent = INGRESS;
    let question = RouteNetlinkMessage::GetTrafficFilter(question);
    let answers = request(NETLINK_ROUTE, question, NLM_F_DUMP)?;
    let filters = answers.into_iter().filter_map(|answer| {
        if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer {
            Some(filter)
        } else {
            None
        }
    });
    Ok(filters.collect())
}

/// The kind of a filter, and by what it may rewrite packets; `None` if it does not.
fn rewrites(filter: &TcMessage) -> Option<(String, String)> {
    let kind = filter.attributes.iter().find_map(|attribute| {
        if let TcAttribute::Kind(kind) = attribute {
            Some(kind.as_str())
        } else {
            None
        }
    });
    let kind = kind.unwrap_or("unknown");
    let of = |does: String| Some((plain(kind), does));
    if kind == "bpf" {
        return of("a program can rewrite them".to_owned());
    }
    let options = filter.attributes.iter().flat_map(|attribute| {
        if let TcAttribute::Options(options) = attribute {
            options.as_slice()
        } else {
            &[]
        }
    });
    let mut unknown = Vec::new();
    for option in options {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what else a filter has tells which packets it takes"
        )]
        let actions: &[TcAction] = match option {
            TcOption::U32(TcFilterU32Option::Action(actions))
            | TcOption::Flower(TcFilterFlowerOption::Actions(actions))
            | TcOption::MatchAll(TcFilterMatchAllOption::Action(actions)) => actions,
            // Of this kind nothing is known here, so neither which of its attributes are actions.
            TcOption::Other(_) => return of("what it does cannot be read here".to_owned()),
            _ => continue,
        };
        let kinds = actions.iter().flat_map(|action| &action.attributes);
        unknown.extend(kinds.filter_map(|attribute| {
            if let TcActionAttribute::Kind(kind) = attribute {
                (!HARMLESS.contains(&kind.as_str())).then(|| format!("`{}`", plain(kind)))
            } else {
                None
            }
        }));
    }
    if unknown.is_empty() {
        return None;
    }
    of(format!("its action is {}", unknown.join(", ")))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::*;

    fn filter(kind: &str, options: Vec<TcOption>) -> TcMessage {
        let mut filter = TcMessage::default();
        filter.attributes = vec![
            TcAttribute::Kind(kind.to_owned()),
            TcAttribute::Options(options),
        ];
        filter
    }

    fn actions(kinds: &[&str]) -> Vec<TcAction> {
        let action = |kind: &&str| {
            let mut action = TcAction::default();
            action.attributes = vec![TcActionAttribute::Kind((*kind).to_owned())];
            action
        };
        kinds.iter().map(action).collect()
    }

    #[test]
    fn only_what_is_known_to_leave_packets_alone_is_left_alone() {
        let of = |kinds: &[&str]| {
            let actions = actions(kinds);
            [
                filter(
                    "u32",
                    vec![TcOption::U32(TcFilterU32Option::Action(actions.clone()))],
                ),
                filter(
                    "flower",
                    vec![TcOption::Flower(TcFilterFlowerOption::Actions(
                        actions.clone(),
                    ))],
                ),
                filter(
                    "matchall",
                    vec![TcOption::MatchAll(TcFilterMatchAllOption::Action(actions))],
                ),
            ]
        };
        for kinds in [&[][..], &["gact"], &["police", "sample", "gact"]] {
            assert!(
                of(kinds).iter().all(|one| rewrites(one).is_none()),
                "{kinds:?}"
            );
        }
        for kind in [
            "pedit",
            "skbedit",
            "skbmod",
            "mirred",
            "nat",
            "ct",
            "vlan",
            "mpls",
            "tunnel_key",
            "bpf",
            "ife",
            "csum",
            "new",
        ] {
            for one in of(&["gact", kind]) {
                let (_, does) = rewrites(&one).unwrap_or_default();
                assert_eq!(does, format!("its action is `{kind}`"));
            }
        }
        assert!(rewrites(&filter("bpf", Vec::new())).is_some());
        // Of kinds that are not known here, what an attribute means is not known either.
        let other = TcOption::Other(DefaultNla::new(3, Vec::new()));
        for kind in ["basic", "flow", "fw", "cgroup", "route", "new"] {
            assert!(
                rewrites(&filter(kind, vec![other.clone()])).is_some(),
                "{kind}"
            );
        }
    }
}
