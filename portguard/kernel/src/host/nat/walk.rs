//! Walks through chains with all ports at once: which of them come to a rule that sends them elsewhere, whether that is so for
//! certain, and which rules on the way were not understood.
//!
//! Two sets of ports are carried along: those of which some packet may come here, and those of which one does for certain. A
//! rule that ends the chain for packets of a kind that is not known takes its ports out of the second only.

use super::ports::Ports;
use super::rules::{Rule, Step, Table, Target, Truth, When};
use super::world::World;
use super::{Published, Reading, Unread};

/// Chains that lead into each other, at most: the kernel's own limit.
const DEPTH: usize = 16;
/// Rules that are looked at in one table, at most: chains that are led to from many rules are walked through for each.
const STEPS: usize = 200_000;

/// What comes to a rule.
#[derive(Clone)]
struct Flow {
    /// Of these ports some packets may.
    reach: Ports,
    /// Of these some do.
    sure: Ports,
}

/// What did not come out of a chain again.
struct Ends {
    /// Nothing to these ports did.
    all: Ports,
    /// Of these, something may not have.
    some: Ports,
}

struct Walk<'w> {
    table: &'w Table,
    world: &'w World,
    reading: &'w mut Reading,
    steps: usize,
}

/// Adds what a table sends elsewhere.
pub(super) fn walk(table: &Table, world: &World, reading: &mut Reading) {
    for chain in &table.begin {
        let mut walk = Walk {
            table,
            world,
            reading: &mut *reading,
            steps: 0,
        };
        let all = table.family.map_or_else(Ports::all, Ports::of_family);
        let flow = Flow {
            reach: all.clone(),
            sure: all,
        };
        walk.chain(chain, flow, 0);
    }
}

impl Ends {
    fn none() -> Self {
        Self {
            all: Ports::none(),
            some: Ports::none(),
        }
    }

    /// Of what came, all.
    fn of(flow: &Flow) -> Self {
        Self {
            all: flow.reach.clone(),
            some: flow.reach.clone(),
        }
    }
}

/// One chain on the way.
struct Here {
    left: Flow,
    ends: Ends,
    /// Of these ports something went back to the chain before.
    back: Ports,
}

impl Here {
    /// What ended at a step that is for packets of such a kind.
    fn end(&mut self, when: &When, ends: &Ends) {
        if when.truth == Truth::Always {
            self.left.reach.remove(&ends.all);
            self.ends.all.add(&ends.all.clone().without(&self.back));
        }
        self.left.sure.remove(&ends.some);
        self.ends.some.add(&ends.some);
    }

    /// What goes back from here.
    fn back(&mut self, when: &When, ports: &Ports) {
        if when.truth == Truth::Always {
            self.left.reach.remove(ports);
        }
        self.left.sure.remove(ports);
        self.back.add(ports);
    }
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, flow: Flow, depth: usize) -> Ends {
        let table = self.table;
        let mut here = Here {
            left: flow,
            ends: Ends::none(),
            back: Ports::none(),
        };
        for rule in table.chains.get(name).into_iter().flatten() {
            self.steps += 1;
            self.rule(rule, &mut here, depth);
        }
        here.ends
    }

    fn rule(&mut self, rule: &Rule, here: &mut Here, depth: usize) {
        let mut so_far = When::always();
        for step in &rule.steps {
            let own = match step {
                Step::Only(when) => {
                    so_far = so_far.and(when);
                    continue;
                }
                Step::End(when)
                | Step::Return(when)
                | Step::Go { when, .. }
                | Step::Send { when, .. } => when.clone(),
                Step::Blind(_) => When::only(Truth::Unknown),
            };
            let when = so_far.and(&own);
            let flow = Flow {
                reach: when.cut(&here.left.reach),
                sure: if when.truth >= Truth::Some {
                    when.cut(&here.left.sure)
                } else {
                    Ports::none()
                },
            };
            if when.truth == Truth::Never || flow.reach.is_empty() {
                continue;
            }
            match step {
                Step::Only(_) => {}
                Step::End(_) => here.end(&when, &Ends::of(&flow)),
                Step::Return(_) => here.back(&when, &flow.reach),
                Step::Send { to, .. } => {
                    self.found(rule, to, &flow);
                    here.end(&when, &Ends::of(&flow));
                }
                Step::Go {
                    chain, comes_back, ..
                } => {
                    let ends = self.go(rule, chain, flow.clone(), depth);
                    here.end(&when, &ends);
                    if !comes_back {
                        here.back(&when, &flow.reach.without(&ends.all));
                    }
                }
                Step::Blind(why) => {
                    self.unread(rule, why);
                    here.end(&when, &Ends::of(&flow));
                    return;
                }
            }
        }
    }

    fn go(&mut self, rule: &Rule, chain: &str, flow: Flow, depth: usize) -> Ends {
        let why = if !self.table.chains.contains_key(chain) {
            format!("leads to `{chain}`, which is not there")
        } else if depth + 1 >= DEPTH {
            format!("leads to `{chain}` from {DEPTH} chains")
        } else if self.steps >= STEPS {
            format!("leads to `{chain}`, after {STEPS} rules that were looked at")
        } else {
            return self.chain(chain, flow, depth + 1);
        };
        self.unread(rule, &why);
        Ends {
            all: Ports::none(),
            some: flow.reach,
        }
    }

    fn found(&mut self, rule: &Rule, to: &Target, flow: &Flow) {
        let is_host = to
            .addresses
            .is_none_or(|(first, last)| self.world.keeps(first, last));
        if flow.reach.has_others() && (is_host || !self.world.is_of_others()) {
            let why = format!(
                "sends what has no port, such as GRE or ping, to {}",
                to.told()
            );
            self.unread(rule, &why);
        }
        let mut add = |ports: &Ports, is_certain| {
            for (transport, range) in ports.ranges() {
                let (first, last) = range.into_inner();
                self.reading.published.push(Published {
                    transport,
                    port: first,
                    port_last: (first != last).then_some(last),
                    to: to.told(),
                    is_host,
                    is_certain,
                    rule: rule.place.clone(),
                    address: to.addresses.map(|(first, _)| first),
                    inside: to.ports,
                });
            }
        };
        // What is sure in one family is sure, whatever may be in the other.
        let sure = flow.sure.in_any_family();
        add(&sure, true);
        add(&flow.reach.clone().without(&sure), false);
    }

    fn unread(&mut self, rule: &Rule, why: &str) {
        let unread = Unread {
            rule: rule.place.clone(),
            why: why.to_owned(),
        };
        if !self.reading.unread.contains(&unread) {
            self.reading.unread.push(unread);
        }
    }
}
