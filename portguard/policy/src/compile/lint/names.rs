//! Names that the site writes for peers: whether anybody has them.

use super::super::Inputs;
use super::super::select::suggest;
use super::Lint;
use crate::catalog::Catalog;
use crate::diagnostic::Diagnostic;
use crate::site::{Place, Term};

impl Lint<'_, '_> {
    pub(super) fn terms(&mut self) {
        let site = self.site;
        for (term, place) in site.terms() {
            match term {
                Term::Prefix(_) => {}
                Term::Group(name) if site.groups.contains_key(name) => {}
                Term::Group(name) => {
                    let known: Vec<_> = site.groups.keys().map(String::as_str).collect();
                    self.error(
                        *place,
                        "unknown-group",
                        format!("there is no group `{name}`"),
                        suggest(name, &known),
                    );
                }
                Term::Role(id) => self.any_role(id, *place),
                Term::Host(name) => {
                    if site.host(name).is_none() {
                        let known: Vec<_> =
                            site.hosts.iter().map(|host| host.name.as_str()).collect();
                        let message = format!("there is no host `{}`", name.escape_debug());
                        self.error(*place, "unknown-host", message, suggest(name, &known));
                    }
                }
                Term::Domain(name) => {
                    if self.inputs.resolved.get(name).is_some_and(Vec::is_empty) {
                        let message = format!(
                            "domain `{}` does not resolve and matches nobody",
                            name.escape_debug()
                        );
                        let hint = "check the name, or write its addresses";
                        self.push(
                            *place,
                            Diagnostic::warning("unresolved-domain", message),
                            hint,
                        );
                    }
                }
                Term::File(path) => {
                    if !self.inputs.files.contains_key(path) {
                        let message = format!("prefix file `{}` was not read", path.escape_debug());
                        self.error(*place, "missing-file", message, "");
                    }
                }
            }
        }
    }

    pub(super) fn any_role(&mut self, id: &str, place: Place) {
        if let Some(diagnostic) = unknown_role(self.inputs.catalog, id) {
            self.push(place, diagnostic, "");
        }
    }
}

/// What is wrong with a role that is named as a peer, which may be abstract.
fn unknown_role(catalog: &Catalog, id: &str) -> Option<Diagnostic> {
    let id = id.split('@').next().unwrap_or(id);
    let system = id.split_once('/');
    let is_known = system.is_some_and(|(system, role)| {
        let system = catalog.systems.get(system);
        system.is_some_and(|system| system.roles.contains_key(role))
    });
    if is_known {
        return None;
    }
    catalog.role(id).err()
}

/// Whether a name among these terms, or among those of the groups that they name, is nobody's: each is reported where it stands.
pub(in crate::compile) fn is_mistyped<'a>(
    inputs: &Inputs<'a>,
    terms: &'a [(Term, Place)],
    above: &mut Vec<&'a str>,
) -> bool {
    terms.iter().any(|(term, _)| match term {
        Term::Prefix(_) | Term::Domain(_) => false,
        Term::Role(id) => unknown_role(inputs.catalog, id).is_some(),
        Term::Host(name) => inputs.site.host(name).is_none(),
        Term::File(path) => !inputs.files.contains_key(path),
        Term::Group(name) => match inputs.site.groups.get(name) {
            None => true,
            Some(_) if above.contains(&name.as_str()) => false,
            Some(group) => {
                above.push(name);
                let is_mistyped = is_mistyped(inputs, &group.members.0, above);
                above.pop();
                is_mistyped
            }
        },
    })
}
