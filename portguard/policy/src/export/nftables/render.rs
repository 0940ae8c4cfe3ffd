//! The text of a ruleset: counters with their citations, sets, and what was made of maps and chains.

use std::fmt::Write;

use super::{Table, is_v6};

impl Table<'_> {
    pub(super) fn finish(self) -> String {
        let Self {
            policy,
            counters,
            sets,
            maps,
            chains,
        } = self;
        let mut out = String::new();
        let host = policy.host.as_deref().unwrap_or("this host");
        let _ = writeln!(
            out,
            "# The documented matrix of {} ({}), policy {}.\n# Written by portguard export; changes belong into the site file.",
            one_line(host),
            one_line(&policy.roles.join(", ")),
            policy.digest()
        );
        out.push_str(
            "\ntable inet portguard\ndelete table inet portguard\n\ntable inet portguard {\n",
        );
        for name in counters {
            if let Some(facts) = name.split_once('/').and_then(|(_, row)| policy.facts(row)) {
                let _ = writeln!(
                    out,
                    "\t# {}: {}",
                    one_line(&facts.citation),
                    one_line(&facts.purpose)
                );
            }
            let _ = writeln!(out, "\tcounter {name} {{}}");
        }
        for index in sets {
            let Some(set) = policy.set(index) else {
                continue;
            };
            for (v6, family) in [(false, 4), (true, 6)] {
                let prefixes: Vec<String> = set
                    .prefixes
                    .iter()
                    .filter(|net| is_v6(net) == v6)
                    .map(ToString::to_string)
                    .collect();
                if prefixes.is_empty() {
                    continue;
                }
                let _ = writeln!(
                    out,
                    "\n\t# {}\n\tset s{index}_v{family} {{\n\t\ttype ipv{family}_addr\n\t\tflags interval",
                    one_line(&set.name)
                );
                elements(&mut out, &prefixes);
                out.push_str("\t}\n");
            }
        }
        out.push_str(&maps);
        out.push_str(&chains);
        out.push_str("}\n");
        out
    }
}

/// The elements of a set or map, if there are any.
pub(super) fn elements(out: &mut String, elements: &[String]) {
    if !elements.is_empty() {
        let _ = writeln!(
            out,
            "\t\telements = {{\n\t\t\t{}\n\t\t}}",
            elements.join(",\n\t\t\t")
        );
    }
}

/// Names come from files: a line break would end a comment, and what follows would be a rule.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
