//! The command line of portguard.

fn main() {}
