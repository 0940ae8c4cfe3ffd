//! Metrics of the heaviest causes of violations: so many series and no more, whatever the network sends.

use super::Text;
use portguard_observe::observe::Observed;

/// Callers that are named by interface. To become one of them takes more packets since the first load than the lightest
/// of them has sent: names change rarely.
const NAMED: usize = 10;

pub(super) fn write(text: &mut Text, observed: &[Observed]) {
    let name = "portguard_caller_packets";
    text.gauge(
        name,
        "Violations of the heaviest callers since the first load, estimated where they came too fast to look at each, and never \
         more than their port counted; IPv6 by /64.",
    );
    let mut bounds = Vec::new();
    for one in observed {
        let knocking = one.knocking(None, NAMED, true);
        bounds.push((&one.name, knocking.bound));
        for caller in &knocking.callers {
            let labels = [
                ("interface", one.name.as_str()),
                ("direction", caller.direction),
                ("reason", caller.reason),
                ("peer", caller.who()),
                ("port", &caller.what()),
            ];
            text.sample(name, &labels, caller.packets);
        }
    }
    let name = "portguard_caller_bound_packets";
    text.gauge(
        name,
        "Callers with more violations than this are known, and counted: in 99 of 100 cases where violations came too fast to look at \
         each, else for certain.",
    );
    for (interface, bound) in bounds {
        text.sample(name, &[("interface", interface)], bound);
    }
}
