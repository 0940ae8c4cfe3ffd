//! Where `dnat`, `redirect` and `tproxy` send packets to: an address, a port, or a map of them.

use std::net::IpAddr;

use serde_json::Value;

use super::terms::Terms;
use super::text;
use super::values::{addresses, span};
use crate::host::nat::ports::Family;
use crate::host::nat::rules::{Target, Truth, When};

/// Where a statement sends packets, and which of them.
pub(super) fn targets(
    terms: &Terms<'_>,
    kind: &str,
    body: &Value,
) -> Result<Vec<(When, Target)>, String> {
    let mut found = Vec::new();
    // In a table of both families it is for one, where it says so.
    let own = match text(body, "family") {
        "ip" => When::of(Family::V4, Truth::Always),
        "ip6" => When::of(Family::V6, Truth::Always),
        _ => When::always(),
    };
    let addresses = cases(terms, body.get("addr"))?;
    let ports = cases(terms, body.get("port"))?;
    for (when, address) in &addresses {
        for (and, port) in &ports {
            let mut target = Target::default();
            // What is given to a socket of this host stays here, whatever the address says.
            if let Some(address) = address.as_ref().filter(|_| kind != "tproxy") {
                place(&mut target, address);
            }
            if let Some(port) = port {
                target.ports = ports_of(port).or(target.ports);
            }
            found.push((own.and(when).and(and), target));
        }
    }
    Ok(found)
}

/// A value by itself, or the values of a map.
fn cases(terms: &Terms<'_>, value: Option<&Value>) -> Result<Vec<(When, Option<Value>)>, String> {
    let Some(value) = value else {
        return Ok(vec![(When::always(), None)]);
    };
    let Some(map) = value.get("map") else {
        return Ok(vec![(When::always(), Some(value.clone()))]);
    };
    let cases = terms.lookup(map)?.into_iter();
    Ok(cases.map(|(when, value)| (when, Some(value))).collect())
}

/// An address, or an address and a port.
fn place(target: &mut Target, value: &Value) {
    match value
        .get("concat")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        Some([address, port]) => {
            target.addresses = addresses(address);
            target.ports = ports_of(port);
        }
        _ => target.addresses = addresses(value),
    }
    if target.addresses.is_none() {
        target.addresses = Some((IpAddr::from([0; 4]), IpAddr::from([0; 4])));
        target.words = Some("elsewhere".to_owned());
    }
}

fn ports_of(value: &Value) -> Option<(u16, u16)> {
    let (first, last) = span(value)?;
    Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?))
}
