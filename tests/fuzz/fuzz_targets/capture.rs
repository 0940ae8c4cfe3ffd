//! The reader of captures on anything, in both formats.
#![no_main]

use portguard_policy::explain::capture::{self, CaptureError};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut last = 0;
    let _ = capture::read(input, |frame| {
        assert!(frame.number > last, "frames are numbered in order");
        last = frame.number;
        Ok::<(), CaptureError>(())
    });
});
