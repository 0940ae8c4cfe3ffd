//! A violation that is sampled: for the event and for the talkers.

/// What is said of it beyond the packet.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// How many violations it stands for.
    pub(crate) weight: u32,
    /// Whether it is dropped.
    pub(crate) is_drop: bool,
    /// Boot-time clock, nanoseconds.
    pub(crate) time: u64,
}
