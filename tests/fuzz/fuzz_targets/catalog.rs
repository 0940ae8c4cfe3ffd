//! The reader of catalog files on anything: refused with a place, or read.
#![no_main]

use portguard_policy::catalog::load_bytes;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(rejected) = load_bytes("catalog.toml", input) {
        assert!(!rejected.to_string().is_empty(), "a refusal says why");
    }
});
