//! The compiler as a whole.

mod embedded;
pub(super) mod fixture;
mod laws;
mod messages;
mod scale;
mod shapes;
