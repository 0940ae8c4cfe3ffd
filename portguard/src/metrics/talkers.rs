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
        "Violations of the heaviest talkers since the first load, estimated where they came too fast to look at each, and never \
         more than their port counted; of an IPv6 /64 from which very many came all together.",
    );
    let mut bounds = Vec::new();
    for one in observed {
        let top_talkers = one.top_talkers(None, NAMED, true);
        bounds.push((&one.name, top_talkers.bound));
        for talker in &top_talkers.talkers {
            let labels = [
                ("interface", one.name.as_str()),
                ("direction", talker.direction),
                ("reason", talker.reason),
                ("peer", talker.who()),
                ("port", &talker.what()),
            ];
            text.sample(name, &labels, talker.packets);
        }
    }
    let name = "portguard_caller_bound_packets";
    text.gauge(
        name,
        "Talkers with more violations than this are known, and counted: in 99 of 100 cases where violations came too fast to look at \
         each, else for certain.",
    );
    for (interface, bound) in bounds {
        text.sample(name, &[("interface", interface)], bound);
    }
}
