//! The other ends of rows. A row that prints a role at its far end opens a port there, too, whether or not that role's own
//! table repeats it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use super::{Condition, Direction, Peer, Row, System};

/// What the far ends of `rows` have to open and no row of theirs opens already.
pub(crate) fn implied(system: &System, rows: &[Row]) -> Vec<Row> {
    let mut found: Vec<Row> = Vec::new();
    for row in rows.iter().filter(|row| row.inert.is_none()) {
        let far: Vec<&str> = row
            .peers
            .iter()
            .filter_map(|peer| match peer {
                Peer::Role(role) => Some(role.as_str()),
                // Each of them is at either end of a row of both directions.
                Peer::SameRole if row.direction != Direction::Both => Some(row.role.as_str()),
                _ => None,
            })
            .collect();
        for role in &far {
            let other = other_end(row, role, far.len() > 1);
            let covered = rows
                .iter()
                .chain(&found)
                .any(|known| covers(system, known, &other));
            if !covered {
                found.push(other);
            }
        }
    }
    found
}

/// The row as the far end sees it.
fn other_end(row: &Row, role: &str, is_one_of_several: bool) -> Row {
    let direction = match row.direction {
        Direction::In => Direction::Out,
        Direction::Out => Direction::In,
        Direction::Both => Direction::Both,
    };
    let peer = if role == row.role {
        Peer::SameRole
    } else {
        Peer::Role(row.role.clone())
    };
    let id = if is_one_of_several {
        format!("{}/{direction}-{role}", row.id)
    } else {
        format!("{}/{direction}", row.id)
    };
    let mut notes = row.notes.clone();
    notes.push(format!(
        "The document prints this connection for the role `{}` only; this is its other end.",
        row.role
    ));
    Row {
        id,
        role: role.to_owned(),
        direction,
        peers: vec![peer],
        class: None,
        notes,
        implied: true,
        ..row.clone()
    }
}

/// Whether every host that `wanted` is for has `row`, and `row` opens all that `wanted` opens.
fn covers(system: &System, row: &Row, wanted: &Row) -> bool {
    let opens = row.inert.is_none()
        && (row.direction == wanted.direction || row.direction == Direction::Both)
        && wanted.transports.iter().all(|t| row.transports.contains(t))
        && wanted.ports.iter().all(|port| row.ports.contains(port))
        && (row.offset, &row.pick) == (wanted.offset, &wanted.pick)
        && is_weaker(row.condition.as_ref(), wanted.condition.as_ref());
    opens
        && with(system, &wanted.role).into_iter().all(|host| {
            system.closure(host).contains(row.role.as_str())
                && far_hosts(system, wanted, host)
                    .iter()
                    .all(|far| far_hosts(system, row, host).contains(far))
        })
}

/// Roles of hosts at the far end, for a host of role `own`.
fn far_hosts<'s>(system: &'s System, row: &Row, own: &str) -> Vec<&'s str> {
    let roles = row.peers.iter().filter_map(|peer| match peer {
        Peer::Role(role) => Some(role.as_str()),
        Peer::SameRole => Some(row.role.as_str()),
        _ => None,
    });
    roles
        .flat_map(|role| with(system, role))
        .filter(|host| !(row.other_roles_only && *host == own))
        .collect()
}

/// Roles that a host can be given and that have `role`'s rows.
fn with<'s>(system: &'s System, role: &str) -> Vec<&'s str> {
    system
        .host_roles()
        .filter(|host| system.closure(&host.id).contains(role))
        .map(|host| host.id.as_str())
        .collect()
}

/// Whether `one` holds wherever `other` does, as far as their words say.
fn is_weaker(one: Option<&Condition>, other: Option<&Condition>) -> bool {
    let always = Condition::default();
    let (one, other) = (one.unwrap_or(&always), other.unwrap_or(&always));
    let deployments = one.deployments.is_empty()
        || (!other.deployments.is_empty()
            && other
                .deployments
                .iter()
                .all(|d| one.deployments.contains(d)));
    deployments
        && one
            .version
            .iter()
            .all(|bound| other.version.contains(bound))
        && one
            .options
            .iter()
            .all(|option| other.options.contains(option))
        && one
            .without
            .iter()
            .all(|option| other.without.contains(option))
        && one
            .choices
            .iter()
            .all(|(choice, value)| other.choices.get(choice) == Some(value))
}
