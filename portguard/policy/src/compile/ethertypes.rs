//! What is not IP on a host that is strict about it.

use portguard_common::ethertypes::{self, EtherType};

use super::Compiler;
use crate::diagnostic::{Diagnostic, Level};

impl Compiler<'_, '_> {
    /// Non-IP protocols that pass a strict host, and a warning where the site leaves them to the default.
    pub(super) fn ethertypes(&mut self) -> u32 {
        let site = self.inputs.site;
        let is_among = |known: &EtherType| match &site.allowed_ethertypes {
            Some(names) => names.iter().any(|name| name == known.name),
            None => known.by_default,
        };
        if site.strict_ethertypes && site.allowed_ethertypes.is_none() {
            let message =
                "`strict_ethertypes` drops all that is not IP or ARP but lldp, lacp, eapol and stp";
            let hint = "list those that may pass, if any: allowed_ethertypes = [\"lldp\", \"lacp\", \"eapol\", \"stp\"]";
            self.diagnostics
                .push(Diagnostic::warning("ethertypes-by-default", message).hint(hint));
        }
        if let (true, Some(names)) = (site.strict_ethertypes, &site.allowed_ethertypes) {
            let needs = [
                ("lacp", "a bond of mode 802.3ad loses its links"),
                ("eapol", "a port with 802.1X loses its network"),
                ("stp", "a bridge with spanning tree may make a loop"),
            ];
            for (name, loss) in needs {
                if !names.iter().any(|allowed| allowed == name) {
                    let message = format!("`strict_ethertypes` drops {name}, without which {loss}");
                    let hint =
                        format!("add \"{name}\" to `allowed_ethertypes`, unless you mean it");
                    self.diagnostics.push(
                        Diagnostic::new(Level::Note, "ethertype-dropped", message).hint(hint),
                    );
                }
            }
        }
        (0..)
            .zip(ethertypes::ALL)
            .filter(|(_, known)| is_among(known))
            .fold(0, |bits, (index, _)| bits | 1 << index)
    }
}
