//! Values that expressions of nftables are compared with: numbers, names, addresses, and ranges of them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::host::nat::ports::{Others, Ports};
use crate::host::nat::rules::When;
use portguard_policy::catalog::Transport;

/// What is done to a number.
#[derive(Clone, Copy)]
pub(super) enum Operator {
    And,
    Or,
    Xor,
    Left,
    Right,
}

/// A number or both ends of a range.
type Span = (u64, u64);

/// An element without what is noted beside it: time-outs, counters.
pub(super) fn bare(element: &Value) -> &Value {
    element.pointer("/elem/val").unwrap_or(element)
}

pub(super) fn transport(word: &Value) -> Option<Transport> {
    match (word.as_str(), word.as_u64()) {
        (Some("tcp"), _) | (_, Some(6)) => Some(Transport::Tcp),
        (Some("udp"), _) | (_, Some(17)) => Some(Transport::Udp),
        (Some("sctp"), _) | (_, Some(132)) => Some(Transport::Sctp),
        _ => None,
    }
}

pub(super) fn span(value: &Value) -> Option<Span> {
    match value
        .get("range")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        Some([first, last]) => Some((first.as_u64()?, last.as_u64()?)),
        Some(_) => None,
        None => value.as_u64().map(|number| (number, number)),
    }
}

pub(super) fn port(
    transport: Option<Transport>,
    done: &[(Operator, u64)],
    op: &str,
    elements: &[&Value],
) -> Result<When, String> {
    let spans = elements
        .iter()
        .map(|element| span(element).ok_or_else(|| format!("ports as `{element}`")))
        .collect::<Result<Vec<Span>, _>>()?;
    let value = |port: u16| {
        done.iter()
            .fold(u64::from(port), |value, (operator, number)| {
                // A shift by more than a number has leaves nothing of it.
                let by = u32::try_from(*number).unwrap_or(u32::MAX);
                match operator {
                    Operator::And => value & number,
                    Operator::Or => value | number,
                    Operator::Xor => value ^ number,
                    Operator::Left => value.checked_shl(by).unwrap_or(0) & 0xffff,
                    Operator::Right => value.checked_shr(by).unwrap_or(0),
                }
            })
    };
    let is_within = |value| {
        spans
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&value))
    };
    let one = spans.first().copied().filter(|_| spans.len() == 1);
    let test: Box<dyn Fn(u64) -> bool> = match (op, one) {
        ("==" | "in", _) => Box::new(is_within),
        ("!=", _) => Box::new(move |value| !is_within(value)),
        ("<", Some((first, _))) => Box::new(move |value| value < first),
        ("<=", Some((_, last))) => Box::new(move |value| value <= last),
        (">", Some((_, last))) => Box::new(move |value| value > last),
        (">=", Some((first, _))) => Box::new(move |value| value >= first),
        _ => return Err(format!("a comparison of ports (`{op}`)")),
    };
    Ok(When::to(Ports::such(|which, port| {
        transport.is_none_or(|wanted| which == wanted) && test(value(port))
    })))
}

pub(super) fn protocol(is_not: bool, elements: &[&Value]) -> Result<When, String> {
    if let Some(strange) = elements
        .iter()
        .find(|one| !one.is_string() && !one.is_u64())
    {
        return Err(format!("transports as `{strange}`"));
    }
    let ports =
        Ports::such(|which, _| elements.iter().any(|one| transport(one) == Some(which)) != is_not);
    let names_others = elements.iter().any(|one| transport(one).is_none());
    let others = match (is_not, names_others) {
        (false, false) => Others::None,
        (true, false) => Others::All,
        (_, true) => Others::Some,
    };
    Ok(When::to(ports.with(others)))
}

/// Whether an interface has a name, or begins as it says: `eth*`.
pub(super) fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// Both ends of what an element of addresses is.
pub(super) fn addresses(element: &Value) -> Option<(IpAddr, IpAddr)> {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some(prefix) = element.get("prefix") {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let net = IpNet::new(address(prefix.get("addr")?)?, length).ok()?;
        return Some((net.network(), net.broadcast()));
    }
    if let Some([first, last]) = element
        .get("range")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        return Some((address(first)?, address(last)?));
    }
    address(element).map(|one| (one, one))
}
