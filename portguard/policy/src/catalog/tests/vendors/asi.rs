//! Interlink ASI: every line of the tables, both ends.

use std::collections::BTreeSet;

use super::{opens, peers, row, sections, system};
use crate::catalog::Peer;

#[test]
fn interlink_asi_by_section() {
    let asi = system("interlink-asi");
    assert_eq!(
        sections(&asi),
        [
            ("Standalone > BES (Events) ↔ ASI", 2 * 5),
            ("Standalone > DataHub ↔ ASI", 2 * 3),
            // One printed row: users to the balancer (users are no role), the balancer to ASI.
            ("Clustered > User-Facing Access (via Load Balancer)", 1 + 2),
            ("Clustered > ASI ↔ ASI (Inter-Node Communication)", 2 * 9),
            ("Clustered > BES (Events) ↔ ASI", 2 * 5),
            ("Clustered > DataHub ↔ ASI", 2 * 3),
        ]
    );
    for row in &asi.rows {
        let id = &row.id;
        let deployment = row.condition.as_ref().unwrap().deployments.join(" ");
        assert!(
            row.citation.section.to_lowercase().starts_with(&deployment),
            "{id}"
        );
        assert!(row.customisable && !row.transport_printed, "{id}");
    }
}

#[test]
fn asi_modules_share_what_all_modules_do() {
    let asi = system("interlink-asi");
    let modules = ["legacy", "core", "events", "datahub-module", "management"];
    for module in modules {
        let ids: BTreeSet<_> = asi.rows_of(module).map(|row| row.id.as_str()).collect();
        assert!(
            ids.contains("interlink-asi/clustered-internode-50443/out"),
            "{module}"
        );
        assert!(
            ids.contains("interlink-asi/clustered-users-52000/in"),
            "{module}"
        );
        assert!(!opens(&asi, module, 47100), "{module}");
    }
    assert!(asi.closure("asi").is_superset(&BTreeSet::from(modules)));
    assert!(opens(&asi, "asi", 47100) && !opens(&asi, "asi", 50443) && !opens(&asi, "asi", 58091));
    assert_eq!(peers(row(&asi, "clustered-users-443/in")), ["group users"]);
    assert_eq!(
        peers(row(&asi, "clustered-users-52000/in")),
        ["role load-balancer"]
    );
    assert_eq!(
        row(&asi, "clustered-internode-58092/in").peers,
        [Peer::SameRole]
    );
    assert!(opens(&asi, "datahub", 52003) && !opens(&asi, "datahub-module", 52003));
}
