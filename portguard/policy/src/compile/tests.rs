//! The compiler as a whole.

mod agree;
mod embedded;
pub(super) mod fixture;
mod laws;
mod meaning;
mod messages;
mod names;
mod scale;
mod shapes;
mod sites;
