//! The walk through the options of an IPv4 header, word by word (RFC 791 section 3.1).

/// Options by their type octet.
mod option {
    pub(super) const END: u64 = 0;
    pub(super) const NOP: u64 = 1;
    pub(super) const LOOSE_SOURCE_ROUTE: u64 = 131;
    pub(super) const STRICT_SOURCE_ROUTE: u64 = 137;
}

/// Where in the options a walk is, as one number:
///
/// ```text
/// bits 0-7    where the next option starts
/// bits 8-15   where the length octet of the option at hand stands
/// bits 16-23  where the options end
/// bits 24-31  where the word at hand starts
/// bit 32      it is known whether they are harmless
/// bit 33      they are not
/// ```
#[derive(Clone, Copy)]
pub(crate) struct Walk(pub(crate) u64);

impl Walk {
    /// It is known whether they are harmless.
    pub(crate) const DONE: u64 = 1 << 32;
    /// They are not.
    pub(crate) const HARMFUL: u64 = 1 << 33;
    /// Beyond all options: of what is not known yet, or not looked for.
    const NOWHERE: u64 = 0xff;

    #[inline(always)]
    pub(crate) const fn new(length: u64) -> Self {
        Self(Self::NOWHERE << 8 | length << 16)
    }

    #[inline(always)]
    pub(crate) const fn size_at(self) -> u64 {
        self.0 >> 8 & 0xff
    }

    #[inline(always)]
    pub(crate) const fn length(self) -> u64 {
        self.0 >> 16 & 0xff
    }
}

/// Goes on with a walk through the options by a word of them; numbers are hidden from verifiers by `barrier_var`.
#[inline(always)]
pub(crate) fn walk_word(walk: u64, octets: u32, barrier_var: impl Fn(u64) -> u64) -> u64 {
    let walk = Walk(walk);
    let length = walk.length();
    let mut next = walk.0 & 0xff;
    let mut size_at = walk.size_at();
    let mut position = walk.0 >> 24 & 0xff;
    for octet in octets.to_be_bytes() {
        let octet = u64::from(octet);
        // Compared as copies: what a comparison says of them must not make a state for the verifier.
        if position == barrier_var(size_at) {
            let end = position - 1 + octet;
            if octet < 2 || end > barrier_var(length) {
                return Walk::DONE | Walk::HARMFUL;
            }
            next = end;
        } else if position == barrier_var(next) {
            match octet {
                option::END => return Walk::DONE,
                option::NOP => next = position + 1,
                option::LOOSE_SOURCE_ROUTE | option::STRICT_SOURCE_ROUTE => {
                    return Walk::DONE | Walk::HARMFUL;
                }
                _ => {
                    size_at = position + 1;
                    next = Walk::NOWHERE;
                }
            }
        }
        next = barrier_var(next);
        size_at = barrier_var(size_at);
        position = barrier_var(position + 1);
    }
    next & 0xff | (size_at & 0xff) << 8 | length << 16 | (position & 0xff) << 24
}
