//! The parser and the verdict on anything: see `check`.
#![no_main]

#[path = "../../../portguard-common/tests/fuzzed.rs"]
mod fuzzed;
#[allow(dead_code, reason = "the tests that it is shared with use more of it")]
#[path = "../../../portguard-common/tests/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzed::check(input));
