//! Streams that other ends began and audit lets in: who is heard at ports that the kernel picked.

use std::collections::BTreeSet;

use portguard_common::packet::protocol;
use portguard_common::reason::Direction;
use portguard_kernel::conversations::{Heard, Table, streams};
use portguard_kernel::host::sockets::Session;
use portguard_observe::events::stream::{boot_time, booted};
use portguard_observe::observe::guards;
use portguard_observe::talkers::{Talker, Talkers};

/// Nanoseconds for which somebody goes on to be no mere attempt.
const GOES_ON: u64 = 2_000_000_000;

/// The sessions of those who were let in as violations, and go on. Who was forgotten in a flood is not among them.
pub(super) fn open(table: &Table) -> portguard_kernel::Result<Vec<Session>> {
    let mut heard = BTreeSet::new();
    for guard in guards(None)? {
        let idle = guard.live.meta.policy.settings.udp_idle;
        let since = (booted() + boot_time()).saturating_sub(u64::from(idle) * 1_000_000_000);
        let talkers = Talkers::read(&guard.layout.shared(), booted())?;
        heard.extend(talkers.heaviest.iter().filter_map(|one| stream(one, since)));
    }
    streams(&heard, table)
}

/// What is known of the stream of a talker that was heard lately.
fn stream(talker: &Talker, since: u64) -> Option<Heard> {
    let goes_on = talker.last >= since && talker.last - talker.first >= GOES_ON;
    let is_one = goes_on
        && talker.direction == Direction::Ingress
        && talker.protocol == protocol::UDP
        && talker.packets > talker.dropped;
    is_one.then(|| {
        if talker.to_client {
            Heard::From((talker.peer, talker.service).into())
        } else {
            Heard::To(talker.peer, talker.port)
        }
    })
}
