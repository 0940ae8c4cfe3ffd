//! Programs only; see `src/*.rs`. The library is there so that cargo rebuilds `portguard-bench` when something changes.
#![no_std]
