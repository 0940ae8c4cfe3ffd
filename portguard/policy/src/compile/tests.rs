//! The compiler as a whole.

mod agree;
mod asks;
mod changeovers;
mod embedded;
mod ends;
pub(crate) mod fixture;
mod laws;
mod limits;
mod listeners;
mod meaning;
mod messages;
mod names;
mod scale;
mod settings;
mod shapes;
mod sites;
mod sweep;
mod unused;
