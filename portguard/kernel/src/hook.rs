//! The hooks of an interface: attaching, replacing and detaching programs, and who else holds them.

pub mod attach;
pub mod egress;
pub mod holder;
