//! Expressions of nftables: which packets they choose. Ports and transports are evaluated exactly, for each of the 65,536;
//! interfaces and destination addresses are held against the host; all else is not known, and said to be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::text;
use super::values::{Operator, addresses, bare, is_named, port, protocol, transport};
use crate::host::nat::ports::{Family, Others, Ports};
use crate::host::nat::rules::{Truth, When};
use crate::host::nat::world::World;
use portguard_policy::catalog::Transport;

/// What is known where an expression stands.
pub(super) struct Terms<'t> {
    pub(super) world: &'t World,
    /// Elements of the table's sets and maps.
    pub(super) sets: &'t BTreeMap<&'t str, &'t [Value]>,
    /// Those that rules add to: what stands in them now says nothing of the next packet.
    pub(super) filled: &'t BTreeSet<&'t str>,
}

/// What an expression is about.
enum Key {
    /// The destination port, and what is done to it before it is compared.
    Port(Option<Transport>, Vec<(Operator, u64)>),
    /// The transport by its name or number, as the header of one family has it or either.
    Protocol(Option<Family>),
    /// The name of the interface that it came by.
    Interface,
    /// The destination address of a family.
    Address(Family),
    /// Whether the destination is this host.
    Kind,
    /// IPv4 or IPv6.
    Family,
    /// The state of the connection.
    State,
    /// A number that spreads packets.
    Spread,
    /// Several at once.
    All(Vec<Key>),
    /// Something else, of packets of this transport.
    Other(Option<Transport>),
    /// Something else, of packets of this family.
    OtherOf(Family),
    /// Something of a protocol that has no ports.
    Absent,
}

impl Key {
    fn is_of_ports(&self) -> bool {
        if let Self::All(keys) = self {
            return keys.iter().any(Self::is_of_ports);
        }
        matches!(self, Self::Port(..))
    }
}

impl Terms<'_> {
    /// Which packets `left op right` holds for.
    pub(super) fn test(&self, left: &Value, op: &str, right: &Value) -> Result<When, String> {
        let key = self.key(left);
        self.settled(&key, right)?;
        let elements = self.elements(right)?;
        Ok(self.as_settled(right, self.compare(&key, op, &elements)?))
    }

    /// The cases of a map: which packets each is for, and what it gives.
    pub(super) fn lookup(&self, map: &Value) -> Result<Vec<(When, Value)>, String> {
        let [key, data] =
            [map.get("key"), map.get("data")].map(|part| part.unwrap_or(&Value::Null));
        let key = self.key(key);
        self.settled(&key, data)?;
        let mut cases = Vec::new();
        let mut rest = None;
        for case in self.elements(data)? {
            let Some([element, value]) = case.as_array().map(Vec::as_slice) else {
                return Err("a map that is not one".to_owned());
            };
            let element = bare(element);
            if element == "*" {
                rest = Some(value.clone());
                continue;
            }
            let when = self.compare(&key, "==", &[element])?;
            cases.push((self.as_settled(data, when), value.clone()));
        }
        if let Some(value) = rest {
            let mut others = Ports::none();
            for (when, _) in &cases {
                others.add(&when.cut(&Ports::all()));
            }
            let is_exact = matches!(key, Key::Port(..))
                && cases.iter().all(|(when, _)| when.truth == Truth::Always);
            let when = if is_exact {
                let Key::Port(transport, _) = key else {
                    return Ok(cases);
                };
                let all = transport.map_or_else(Ports::all, Ports::of);
                When::to(all.without(&others))
            } else {
                When::only(Truth::Unknown)
            };
            cases.push((when, value));
        }
        Ok(cases)
    }

    /// Whether something is written to that says where packets go.
    pub(super) fn is_destination(&self, key: &Value) -> bool {
        let is_raw = key.pointer("/payload/base").is_some();
        is_raw || matches!(self.key(key), Key::Port(..) | Key::Address(_))
    }

    fn key(&self, left: &Value) -> Key {
        let Some((kind, body)) = left.as_object().and_then(|parts| parts.iter().next()) else {
            return Key::Other(None);
        };
        match kind.as_str() {
            "payload" => payload(body),
            "meta" => match text(body, "key") {
                "l4proto" => Key::Protocol(None),
                "iifname" | "iif" => Key::Interface,
                "nfproto" | "protocol" => Key::Family,
                _ => Key::Other(None),
            },
            "ct" if text(body, "key") == "state" => Key::State,
            "fib" if text(body, "result") == "type" => {
                let flags = body.get("flags").and_then(Value::as_array);
                let flags: Vec<&str> = flags
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                if flags.contains(&"daddr") {
                    Key::Kind
                } else {
                    Key::Other(None)
                }
            }
            "numgen" | "jhash" | "symhash" => Key::Spread,
            "concat" => {
                let parts = body.as_array().into_iter().flatten();
                Key::All(parts.map(|part| self.key(part)).collect())
            }
            operator => self.masked(operator, body),
        }
    }

    /// `{"&": [LEFT, NUMBER]}`.
    fn masked(&self, operator: &str, body: &Value) -> Key {
        let operator = match operator {
            "&" => Operator::And,
            "|" => Operator::Or,
            "^" => Operator::Xor,
            "<<" => Operator::Left,
            ">>" => Operator::Right,
            _ => return Key::Other(None),
        };
        let Some([left, right]) = body.as_array().map(Vec::as_slice) else {
            return Key::Other(None);
        };
        match (self.key(left), right.as_u64()) {
            (Key::Port(transport, mut done), Some(number)) => {
                done.push((operator, number));
                Key::Port(transport, done)
            }
            (Key::Absent, _) => Key::Absent,
            (Key::OtherOf(family) | Key::Address(family), _) => Key::OtherOf(family),
            (Key::Other(transport) | Key::Port(transport, _), _) => Key::Other(transport),
            _ => Key::Other(None),
        }
    }

    /// The name of a set that rules add to.
    fn filled<'v>(&self, value: &'v Value) -> Option<&'v str> {
        let name = value.as_str().and_then(|word| word.strip_prefix('@'));
        name.filter(|name| self.filled.contains(name))
    }

    /// What holds by a value: by a set that rules add to, nobody knows.
    fn as_settled(&self, value: &Value, when: When) -> When {
        if self.filled(value).is_none() {
            return when;
        }
        When {
            truth: Truth::Unknown,
            ..when
        }
    }

    /// Refuses ports by a set that rules add to.
    fn settled(&self, key: &Key, value: &Value) -> Result<(), String> {
        match self.filled(value) {
            Some(name) if key.is_of_ports() => Err(format!(
                "ports by the set `{name}`, which is filled as packets come"
            )),
            _ => Ok(()),
        }
    }

    /// The elements of a set by itself or by name, or the one value.
    fn elements<'v>(&'v self, value: &'v Value) -> Result<Vec<&'v Value>, String> {
        let list = match (value.get("set"), value.as_str()) {
            (Some(set), _) => match set.as_array() {
                Some(list) => list.as_slice(),
                None => std::slice::from_ref(set),
            },
            (None, Some(word)) if word.starts_with('@') => {
                let name = word.trim_start_matches('@');
                let set = self.sets.get(name);
                set.ok_or_else(|| format!("the set `{name}` is not there"))?
            }
            (None, _) => match value.as_array() {
                Some(list) => list.as_slice(),
                None => std::slice::from_ref(value),
            },
        };
        Ok(list.iter().map(bare).collect())
    }

    fn compare(&self, key: &Key, op: &str, elements: &[&Value]) -> Result<When, String> {
        let is_not = op == "!=";
        let is_equal = matches!(op, "==" | "in" | "!=");
        Ok(match key {
            Key::Port(transport, done) => port(*transport, done, op, elements)?,
            Key::Protocol(family) if is_equal => {
                let own = family.map_or_else(When::always, |one| When::of(one, Truth::Always));
                own.and(&protocol(is_not, elements)?)
            }
            Key::Protocol(_) => return Err(format!("a comparison of transports (`{op}`)")),
            Key::Interface if is_equal => When::only(self.world.comes_by(|name| {
                elements
                    .iter()
                    .any(|element| is_named(element.as_str().unwrap_or_default(), name))
                    != is_not
            })),
            Key::Address(family) if is_equal => {
                When::of(*family, self.address(*family, is_not, elements))
            }
            Key::Kind if is_equal => {
                let kinds = elements.iter().map(|one| one.as_str().unwrap_or_default());
                When::only(self.world.is_kind(kinds.map(str::to_owned), is_not))
            }
            Key::Family if is_equal => family(is_not, elements),
            // What is translated is the first of its connection.
            Key::State if !is_not && elements.iter().any(|one| *one == "new") => When::always(),
            Key::Spread => When::only(Truth::Some),
            Key::All(keys) if matches!(op, "==" | "in") => When::any(
                elements
                    .iter()
                    .map(|element| self.together(keys, element))
                    .collect::<Result<_, _>>()?,
            ),
            Key::All(keys) if keys.iter().any(|key| matches!(key, Key::Port(..))) => {
                return Err("a comparison of ports with others at once".to_owned());
            }
            Key::Absent => When {
                ports: Some(Ports::none().with(Others::Some)),
                truth: Truth::Unknown,
            },
            Key::Other(Some(transport)) => When {
                ports: Some(Ports::of(*transport)),
                truth: Truth::Unknown,
            },
            Key::Address(family) | Key::OtherOf(family) => When::of(*family, Truth::Unknown),
            Key::Interface
            | Key::Kind
            | Key::Family
            | Key::State
            | Key::All(_)
            | Key::Other(None) => When::only(Truth::Unknown),
        })
    }

    /// One element of a set of several keys at once.
    fn together(&self, keys: &[Key], element: &Value) -> Result<When, String> {
        let parts = element.get("concat").and_then(Value::as_array);
        let parts = parts.filter(|parts| parts.len() == keys.len());
        let parts = parts.ok_or("an element of a set that is not understood")?;
        let mut all = When::always();
        for (key, part) in keys.iter().zip(parts) {
            all = all.and(&self.compare(key, "==", &[bare(part)])?);
        }
        Ok(all)
    }

    fn address(&self, family: Family, is_not: bool, elements: &[&Value]) -> Truth {
        let spans = elements.iter().map(|element| addresses(element));
        let Some(spans) = spans.collect::<Option<Vec<_>>>() else {
            return Truth::Unknown;
        };
        self.world.is_for(family == Family::V6, &spans, is_not)
    }
}

fn family(is_not: bool, elements: &[&Value]) -> When {
    let is_named = |names: [&str; 2]| {
        let mut all = elements.iter();
        all.any(|one| names.iter().any(|name| one == name)) != is_not
    };
    match (is_named(["ipv4", "ip"]), is_named(["ipv6", "ip6"])) {
        (true, true) => When::always(),
        (true, false) => When::of(Family::V4, Truth::Always),
        (false, true) => When::of(Family::V6, Truth::Always),
        (false, false) => When::only(Truth::Never),
    }
}

fn payload(body: &Value) -> Key {
    let (name, field) = (text(body, "protocol"), text(body, "field"));
    if text(body, "base") == "th" {
        // Bits of the port by their place: it is the second word of 16 of each transport.
        let number = |key| body.get(key).and_then(Value::as_u64);
        return match (number("offset"), number("len")) {
            (Some(offset @ 16..32), Some(length @ 1..=16)) if offset + length <= 32 => Key::Port(
                None,
                vec![
                    (Operator::Right, 32 - offset - length),
                    (Operator::And, (1 << length) - 1),
                ],
            ),
            _ => Key::Other(None),
        };
    }
    let named = Value::from(name);
    match (name, field) {
        ("tcp" | "udp" | "sctp", "dport") => Key::Port(transport(&named), Vec::new()),
        ("th", "dport") => Key::Port(None, Vec::new()),
        ("tcp" | "udp" | "sctp", _) => Key::Other(transport(&named)),
        ("ip", "protocol") => Key::Protocol(Some(Family::V4)),
        ("ip6", "nexthdr") => Key::Protocol(Some(Family::V6)),
        ("ip", "daddr") => Key::Address(Family::V4),
        ("ip6", "daddr") => Key::Address(Family::V6),
        ("ip", _) => Key::OtherOf(Family::V4),
        ("ip6", _) => Key::OtherOf(Family::V6),
        ("icmp" | "icmpv6" | "igmp" | "arp" | "esp" | "ah" | "comp" | "gre", _) => Key::Absent,
        _ => Key::Other(None),
    }
}
