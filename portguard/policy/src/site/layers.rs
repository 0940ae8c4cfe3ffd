//! What the site says of a system at several levels, put together: host before cluster before system.

use super::SystemSite;

impl SystemSite {
    /// This, and `nearer` wherever it says something.
    #[must_use]
    pub fn with(&self, nearer: &Self) -> Self {
        let mut both = self.clone();
        let from = |ours: &mut Option<_>, theirs: &Option<_>| {
            if theirs.is_some() {
                ours.clone_from(theirs);
            }
        };
        from(&mut both.deployment, &nearer.deployment);
        if nearer.version.is_some() {
            both.version.clone_from(&nearer.version);
        }
        if nearer.unprinted_peers.is_some() {
            both.unprinted_peers.clone_from(&nearer.unprinted_peers);
            // A nearer answer to all questions goes before a farther one to one of them.
            both.unprinted_classes.clear();
        }
        both.unprinted_classes
            .extend(nearer.unprinted_classes.clone());
        for (option, place) in &nearer.options {
            both.without.remove(option);
            both.options.insert(option.clone(), *place);
        }
        for (option, place) in &nearer.without {
            both.options.remove(option);
            both.without.insert(option.clone(), *place);
        }
        both.choices.extend(nearer.choices.clone());
        both.peers.extend(nearer.peers.clone());
        both.offsets.extend(nearer.offsets.clone());
        both.ports.extend(nearer.ports.clone());
        both.rows.extend(nearer.rows.clone());
        both
    }
}
