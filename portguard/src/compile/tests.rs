//! The compiler as a whole.

pub(super) mod fixture;

use fixture::{SITE, compiled, lines};

fn told(compiled: &crate::policy::Compiled) -> Vec<String> {
    compiled
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn omitted(compiled: &crate::policy::Compiled) -> Vec<String> {
    compiled
        .policy
        .omitted
        .iter()
        .map(|omitted| format!("{}: {}", omitted.row, omitted.reason))
        .collect()
}

#[test]
fn every_shape_of_row_of_a_node() {
    let compiled = compiled(SITE, "node1");
    assert_eq!(told(&compiled), Vec::<String>::new());
    assert_eq!(
        lines(&compiled),
        [
            "management/tcp-22 tcp/22 <- 10.8.0.1/32 10.9.0.0/24",
            "baseline/dhcp udp/68 <- any",
            "baseline/dhcp6 udp/546 <- any",
            "acme/base tcp/100 <- 10.0.0.2/31",
            "acme/blank tcp/500 <- 10.8.0.1/32 10.9.0.0/24",
            "acme/cluster tcp/2100 <- 10.0.0.2/31",
            "acme/cluster tcp/2200-2202 <- 10.0.0.2/31",
            "acme/desk tcp/400 <- 203.0.113.0/24",
            "acme/from-worker tcp/300 <- 10.0.0.3/32",
            "acme/jmx tcp/900 <- 10.0.0.2/31",
            "acme/new tcp/800 <- 10.0.0.2/31",
            "acme/only-clustered tcp/700 <- 10.0.0.2/31",
            "baseline/dhcp udp/67 -> any",
            "baseline/dhcp6 udp/547 -> any",
            "baseline/dns tcp/53 -> any",
            "baseline/dns udp/53 -> any",
            "baseline/ntp udp/123 -> any",
            "acme/cluster tcp/2100 -> 10.0.0.2/31",
            "acme/cluster tcp/2200-2202 -> 10.0.0.2/31",
            "acme/names tcp/443 -> 198.51.100.7/32",
            "acme/relay tcp/587 -> 192.0.2.25/32",
        ]
    );
    assert_eq!(
        omitted(&compiled),
        [
            "acme/dyn: dynamic",
            "acme/ipmi: out-of-band",
            "acme/self: loopback"
        ]
    );
    let names: Vec<_> = compiled
        .policy
        .sets
        .iter()
        .map(|set| set.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "group admins",
            "role acme/abstract-base, role acme/node",
            "role acme/worker",
            "acme support",
            "192.0.2.25",
            "domain Updates.example"
        ]
    );
}
