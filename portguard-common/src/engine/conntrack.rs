//! The conversations of the host: which of them it began, and when they end.
//!
//! Only what leaves the host, and its sockets, begin one. A set of seven cells and a word is one cache line. A cell holds a
//! keyed hash of the tuple, what is known of the conversation ([`Class`]), and a coarse time. A frame that belongs to no
//! conversation is taken for a reply if one of the seven tags of its set equals its own by chance: 7 x 2^-39 a frame at the
//! most, for a sender who does not know the key.
//!
//! UDP has no handshake to tell who began, so that a second table of the same shape keeps the tuples that the *other* end
//! began: undocumented datagrams that were let in. It only ever takes rights away.

mod cell;
mod next;
pub mod record;
mod set;
#[cfg(test)]
mod tests;
mod tuple;

pub use cell::{
    CLOSING, Class, Lifetimes, OPENING, OTHERS_WAYS, TCP_WAYS, WAYS, age, cell, is_live, now,
    same_flow, tag,
};
pub use next::{Next, Said, next};
pub use record::Record;
pub use set::{PAGE_PORTS, Page, Place, SERVED_WORDS, Set, bpf_spin_lock, gives_way, home};
pub(crate) use tuple::mix;
pub use tuple::{Hashed, Tuple};
