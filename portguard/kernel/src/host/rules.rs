//! The kernel's routing rules.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::request;

/// All of a family.
pub(super) fn rules(family: AddressFamily) -> Vec<RuleMessage> {
    let mut question = RuleMessage::default();
    question.header.family = family;
    let question = RouteNetlinkMessage::GetRule(question);
    let answers = request(NETLINK_ROUTE, question, NLM_F_DUMP).unwrap_or_default();
    let rules = answers.into_iter().filter_map(|answer| {
        if let RouteNetlinkMessage::NewRule(rule) = answer {
            Some(rule)
        } else {
            None
        }
    });
    rules.collect()
}

/// The table that a rule leads to.
pub(super) fn table(rule: &RuleMessage) -> u32 {
    let named = rule.attributes.iter().find_map(|attribute| {
        if let RuleAttribute::Table(number) = attribute {
            Some(*number)
        } else {
            None
        }
    });
    named.unwrap_or_else(|| rule.header.table.into())
}
