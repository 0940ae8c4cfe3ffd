//! The reader of `iptables-save` on anything.
#![no_main]

use portguard_kernel::host::nat::{World, read_iptables};

libfuzzer_sys::fuzz_target!(|input: &str| {
    let world = World::new(["eth0".to_owned()], ["192.0.2.1".parse().expect("an address")]);
    for family in ["ip", "ip6"] {
        for published in &read_iptables(family, input, &world).published {
            assert!(!published.ports().is_empty(), "a redirect is of some port");
        }
    }
});
