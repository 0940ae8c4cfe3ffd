//! Empty on purpose: gives cargo a library to track, so that `portguard` can name this crate as a build dependency.
#![no_std]
