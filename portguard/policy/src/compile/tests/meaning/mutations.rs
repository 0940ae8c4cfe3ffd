//! Every field of a row that has a meaning, changed in every way that a slip of the hand might.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use super::with_rows;
use super::world::key;
use crate::catalog::{
    Condition, Direction, Inert, Peer, PeerClass, PortSpec, Role, Row, System, Transport, ends,
};

/// A row as it should not be.
pub(super) struct Mutation {
    pub(super) what: String,
    pub(super) row: Row,
}

impl Mutation {
    /// The system with the changed row, and of its rows those of that id only. The other end of a flow follows, as it does
    /// in the file.
    pub(super) fn applied(&self, system: &System, wanted: &str) -> System {
        let printed = system.rows.iter().filter(|row| !row.implied);
        let is_other_end = |row: &&Row| row.id != self.row.id && key(system, &row.id) == wanted;
        let mut rows: Vec<Row> = printed
            .filter(|row| !is_other_end(row))
            .map(|row| {
                if row.id == self.row.id {
                    &self.row
                } else {
                    row
                }
            })
            .cloned()
            .collect();
        rows.extend(ends::implied(system, &rows));
        rows.retain(|row| key(system, &row.id) == wanted);
        with_rows(system, rows)
    }
}

/// All changes of all printed rows.
pub(super) fn of(system: &System) -> Vec<Mutation> {
    let rows = system.rows.iter().filter(|row| !row.implied);
    rows.flat_map(|row| {
        let mut changes = Vec::new();
        if row.inert.is_some() {
            // Whatever else it says, it opens nothing.
            push(row, &mut changes, "inert", |row| row.inert = None);
            return changes;
        }
        transport(row, &mut changes);
        direction(row, &mut changes);
        peers(system, row, &mut changes);
        ports(system, row, &mut changes);
        condition(system, row, &mut changes);
        others(system, row, &mut changes);
        changes
    })
    .collect()
}

fn push(
    row: &Row,
    changes: &mut Vec<Mutation>,
    what: impl Into<String>,
    change: impl Fn(&mut Row),
) {
    let mut row = row.clone();
    change(&mut row);
    changes.push(Mutation {
        what: what.into(),
        row,
    });
}

fn transport(row: &Row, changes: &mut Vec<Mutation>) {
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        if row.transports != [transport] {
            push(row, changes, format!("transport {transport}"), |row| {
                row.transports = vec![transport];
            });
        }
        if !row.transports.contains(&transport) {
            push(row, changes, format!("also {transport}"), |row| {
                row.transports.push(transport);
            });
        }
    }
}

fn direction(row: &Row, changes: &mut Vec<Mutation>) {
    // Between equals each end is the other's, whichever is printed.
    let is_between_equals = row.peers == [Peer::SameRole];
    for direction in [Direction::In, Direction::Out, Direction::Both] {
        if row.direction != direction && !is_between_equals {
            push(row, changes, format!("direction {direction}"), |row| {
                row.direction = direction;
            });
        }
    }
}

fn peers(system: &System, row: &Row, changes: &mut Vec<Mutation>) {
    // One whose hosts are not among the peers already.
    let is_new = |id: &str| {
        let closure = system.closure(id);
        let known = |peer: &Peer| match peer {
            Peer::Role(role) => closure.contains(role.as_str()),
            Peer::SameRole => closure.contains(row.role.as_str()),
            _ => false,
        };
        !row.peers.iter().any(known) && id != row.role
    };
    let mut roles = system.host_roles().map(|role| role.id.clone());
    let other_role = roles.find(|id| is_new(id));
    let mut others = vec![
        Peer::Prefix("203.0.113.0/24".parse().unwrap()),
        Peer::SameRole,
        Peer::Itself,
        Peer::Unprinted,
    ];
    others.extend(other_role.map(Peer::Role));
    others.extend(system.groups.keys().cloned().map(Peer::Group));
    others.retain(|peer| !row.peers.contains(peer));
    for index in 0..row.peers.len() {
        if row.peers.len() > 1 {
            push(
                row,
                changes,
                format!("without peer {}", row.peers[index]),
                |row| drop(row.peers.remove(index)),
            );
        }
        for other in &others {
            let what = format!("peer {other} in place of {}", row.peers[index]);
            push(row, changes, what, |row| row.peers[index] = other.clone());
        }
    }
    for other in others.iter().filter(|peer| **peer != Peer::Itself) {
        push(row, changes, format!("also peer {other}"), |row| {
            row.peers.push(other.clone());
        });
    }
    for &class in PeerClass::ALL {
        if row.class.is_some() && row.class != Some(class) {
            push(row, changes, format!("class {}", class.as_str()), |row| {
                row.class = Some(class);
            });
        }
    }
    // It has a meaning only where a host can be at either end.
    let has = |host: &Role, role: &str| system.closure(&host.id).contains(role);
    let is_at_both = |host: &Role| {
        let far = row.peers.iter().any(|peer| match peer {
            Peer::Role(role) => has(host, role),
            Peer::SameRole => true,
            _ => false,
        });
        far && has(host, &row.role)
    };
    if system.host_roles().any(is_at_both) {
        push(row, changes, "other_roles_only", |row| {
            row.other_roles_only = !row.other_roles_only;
        });
    }
}

fn ports(system: &System, row: &Row, changes: &mut Vec<Mutation>) {
    for index in 0..row.ports.len() {
        let shifted = match &row.ports[index] {
            PortSpec::Range(first, last) => PortSpec::Range(first + 1, last.saturating_add(1)),
            PortSpec::Offset { base, role } => PortSpec::Offset {
                base: base + 1,
                role: role.clone(),
            },
            PortSpec::Dynamic | PortSpec::Random | PortSpec::Unprinted => PortSpec::Range(7, 7),
        };
        push(row, changes, format!("port {shifted}"), |row| {
            row.ports[index] = shifted.clone();
        });
        push(
            row,
            changes,
            format!("without port {}", row.ports[index]),
            |row| drop(row.ports.remove(index)),
        );
    }
    push(row, changes, "also port 7", |row| {
        row.ports.push(PortSpec::Range(7, 7));
    });
    let is_numbered = row.ports.iter().any(|port| port.range().is_some());
    if is_numbered && system.roles.values().any(|role| role.has_offset) {
        push(row, changes, "offset", |row| row.offset = !row.offset);
    }
    if row.pick.is_some() {
        push(row, changes, "no pick", |row| row.pick = None);
    }
}

fn condition(system: &System, row: &Row, changes: &mut Vec<Mutation>) {
    let with = |change: &dyn Fn(&mut Condition)| {
        let mut condition = row.condition.clone().unwrap_or_default();
        change(&mut condition);
        (condition != Condition::default()).then_some(condition)
    };
    let mut add = |what: String, condition: Option<Condition>| {
        if condition != row.condition {
            push(row, changes, what, |row| {
                row.condition.clone_from(&condition);
            });
        }
    };
    add("always".to_owned(), None);
    let now = row.condition.clone().unwrap_or_default();
    for deployment in system.deployments.keys() {
        let what = format!("deployment {deployment}");
        add(what, with(&|c| c.deployments = vec![deployment.clone()]));
    }
    add(
        "any deployment".to_owned(),
        with(&|c| c.deployments.clear()),
    );
    for index in 0..now.version.len() {
        add(
            "without a version bound".to_owned(),
            with(&|c| drop(c.version.remove(index))),
        );
        add(
            "the other side of a version bound".to_owned(),
            with(&|c| {
                let bound = &mut c.version[index];
                bound.operator = if bound.operator == "<" { ">=" } else { "<" }.to_owned();
            }),
        );
        add(
            "the bound itself".to_owned(),
            with(&|c| {
                let bound = &mut c.version[index];
                bound.operator = if bound.operator == "<" { "<=" } else { ">" }.to_owned();
            }),
        );
        add(
            "the next version".to_owned(),
            with(&|c| {
                if let Some(last) = c.version[index].version.last_mut() {
                    *last += 1;
                }
            }),
        );
    }
    for option in system.options.keys() {
        if now.options.contains(option) {
            add(
                format!("without {option}"),
                with(&|c| {
                    c.options.retain(|o| o != option);
                    c.without.push(option.clone());
                }),
            );
            add(
                format!("whether {option} or not"),
                with(&|c| c.options.retain(|o| o != option)),
            );
        } else if now.without.contains(option) {
            add(
                format!("option {option}"),
                with(&|c| {
                    c.without.retain(|o| o != option);
                    c.options.push(option.clone());
                }),
            );
            add(
                format!("whether {option} or not"),
                with(&|c| c.without.retain(|o| o != option)),
            );
        } else {
            add(
                format!("option {option}"),
                with(&|c| c.options.push(option.clone())),
            );
            add(
                format!("without {option}"),
                with(&|c| c.without.push(option.clone())),
            );
        }
    }
    for (choice, known) in &system.choices {
        for value in known.values.keys() {
            let what = format!("{choice} = {value}");
            add(
                what,
                with(&|c| drop(c.choices.insert(choice.clone(), value.clone()))),
            );
        }
        add(
            format!("any {choice}"),
            with(&|c| drop(c.choices.remove(choice))),
        );
    }
}

fn others(system: &System, row: &Row, changes: &mut Vec<Mutation>) {
    let inert = if row.inert.is_some() {
        None
    } else {
        Some(Inert::Loopback)
    };
    push(row, changes, "inert", |row| row.inert = inert);
    for role in system.roles.keys().filter(|role| **role != row.role) {
        push(row, changes, format!("role {role}"), |row| {
            row.role.clone_from(role);
        });
    }
}
