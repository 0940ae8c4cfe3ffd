//! What the kernel itself says of its packet filter: where no tool tells the rules, whether there are any.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of what the kernel tells, which grows, a few are read"
)]

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::Place;
use crate::error::errno;
use crate::host::netlink::request;

/// The chains of `nf_tables` at which packets from outside begin and that have rules; none where the kernel has no `nf_tables`.
///
/// # Errors
/// If the kernel does not list them.
pub(super) fn chains() -> crate::Result<Vec<Place>> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let all = ChainMessage {
        attributes: Vec::new(),
    };
    let question = NetfilterMessage::new(header, NfTablesMessage::GetChain(all));
    match request(NETLINK_NETFILTER, question, NLM_F_DUMP) {
        Ok(answers) => Ok(answers.iter().filter_map(begins).collect()),
        // Netfilter, or this part of it, is not there.
        Err(error)
            if matches!(
                errno(&error),
                Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Where a chain stands, if packets begin at it and something happens to them there.
fn begins(message: &NetfilterMessage) -> Option<Place> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = &message.inner else {
        return None;
    };
    let family = match message.header.family {
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::NetDev => "netdev",
        NetfilterProtoFamily::Bridge => "bridge",
        // ARP, and what is not known here, hands no IP packet on.
        _ => return None,
    };
    let mut place = Place {
        tool: "nft",
        family: family.to_owned(),
        ..Place::default()
    };
    let (mut is_begin, mut has_rules) = (false, true);
    for attribute in &chain.attributes {
        match attribute {
            ChainAttribute::Table(name) => place.table.clone_from(name),
            ChainAttribute::Name(name) => place.chain.clone_from(name),
            ChainAttribute::Use(count) => has_rules = *count > 0,
            ChainAttribute::Hook(hook) => is_begin = hook.iter().any(|one| is_first(family, one)),
            _ => {}
        }
    }
    (is_begin && has_rules).then_some(place)
}

/// Whether packets come to a hook before it is decided whom they are for.
fn is_first(family: &str, hook: &Hook) -> bool {
    let Hook::Number(number) = hook else {
        return false;
    };
    // A netdev chain's number is told before its device, so that it is read as another family's: ingress is 0, as prerouting.
    let number = match number {
        HookNumber::Inet(number) => *number,
        other => InetHookNumber::from(u32::from(*other)),
    };
    match number {
        InetHookNumber::PreRouting | InetHookNumber::Ingress => true,
        // What a bridge takes itself is routed thereafter.
        InetHookNumber::LocalIn => family == "bridge",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_with_rules_at_which_packets_begin() {
        use InetHookNumber::{Forward, Ingress, LocalIn, LocalOut, PreRouting};
        use NetfilterProtoFamily::{ARP, Bridge, IPv4, IPv6, Inet, NetDev};
        let chain = |family, hook: Option<InetHookNumber>, rules| {
            let mut attributes = vec![
                ChainAttribute::Table("t".to_owned()),
                ChainAttribute::Name("c".to_owned()),
                ChainAttribute::Use(rules),
            ];
            let number = hook.map(|hook| Hook::Number(HookNumber::Inet(hook)));
            attributes.extend(number.map(|number| ChainAttribute::Hook(vec![number])));
            let header = NetfilterHeader::new(family, 0, 0);
            let message = NfTablesMessage::NewChain(ChainMessage { attributes });
            begins(&NetfilterMessage::new(header, message)).map(|place| place.to_string())
        };
        for (family, hook, rules, wanted) in [
            (IPv4, Some(PreRouting), 1, Some("nft ip t c")),
            (IPv6, Some(PreRouting), 2, Some("nft ip6 t c")),
            (Inet, Some(Ingress), 1, Some("nft inet t c")),
            (NetDev, Some(PreRouting), 1, Some("nft netdev t c")),
            (Bridge, Some(LocalIn), 1, Some("nft bridge t c")),
            (Inet, Some(LocalIn), 1, None),
            (Inet, Some(Forward), 1, None),
            (NetDev, Some(LocalIn), 1, None),
            (ARP, Some(PreRouting), 1, None),
            (Bridge, Some(LocalOut), 1, None),
            (IPv4, Some(PreRouting), 0, None),
            (IPv4, None, 1, None),
        ] {
            let found = chain(family, hook, rules);
            assert_eq!(found.as_deref(), wanted, "{family:?} {hook:?} {rules}");
        }
    }
}
