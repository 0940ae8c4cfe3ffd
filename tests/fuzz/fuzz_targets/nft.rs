//! The reader of nftables' rulesets on anything.
#![no_main]

use portguard_kernel::host::nat::{World, read_nft};

libfuzzer_sys::fuzz_target!(|input: &str| {
    let world = World::new(["eth0".to_owned()], ["192.0.2.1".parse().expect("an address")]);
    if let Some(reading) = read_nft(input, &world) {
        for published in &reading.published {
            assert!(!published.ports().is_empty(), "a redirect is of some port");
        }
    }
});
