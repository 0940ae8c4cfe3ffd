//! Parser, verdict and map layout.
#![no_std]
