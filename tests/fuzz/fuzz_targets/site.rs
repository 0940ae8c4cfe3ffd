//! The reader of site files on anything: refused with a place, or read.
#![no_main]

use portguard_policy::site::Site;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(rejected) = Site::parse("site.toml", input) {
        assert!(!rejected.to_string().is_empty(), "a refusal says why");
    }
});
