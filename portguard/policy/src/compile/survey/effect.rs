//! Settings without effect: whoever writes one believes that it does something.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::outcome::{Candidate, Outcome, enforcing};
use super::sample;
use super::settings::{self, Key, Level, Setting};
use crate::catalog::{Direction, Peer, Row, System};
use crate::compile::inventory::clusters_of;
use crate::compile::views::Views;
use crate::compile::{Inputs, Selection, facts};
use crate::diagnostic::{self, Diagnostic};
use crate::site::{Place, Site};

/// Hosts that are tried before a setting is said to have no effect, the likeliest first.
const MOST: usize = sample::MOST;

pub(super) fn missing(inputs: &Inputs<'_>, reported: &[Diagnostic]) -> Vec<Diagnostic> {
    let whole = enforcing(inputs.site);
    let own = match &inputs.host {
        Selection::Name(name) => whole.hosts.iter().position(|host| host.name == *name),
        Selection::Roles(_) | Selection::Local => None,
    };
    let hosts = sample::hosts(&whole, own);
    let is_whole = hosts.len() == whole.hosts.len();
    let site = sample::reduced(&whole, &hosts);
    // What a name resolves to has no say here, and that it was not looked up neither.
    let resolved = somewhere(inputs);
    let with = |site| Inputs {
        site,
        resolved: &resolved,
        ..inputs.clone()
    };
    let mut found = Vec::new();
    for system in inputs.catalog.systems.values() {
        let Some(mut trial) = Trial::new(with(&site), system) else {
            found.extend(unused(&whole, system, &with(&whole)));
            continue;
        };
        let is_reported = |place: Place| {
            let place = site.at(place);
            let mut errors = reported
                .iter()
                .filter(|one| one.level == diagnostic::Level::Error);
            place.is_some() && errors.any(|one| one.location == place)
        };
        // A flag goes before what clusters and hosts say by being said for each of them.
        let is_flag = |setting: &Setting| setting.place.line == 0 && setting.level != Level::System;
        let known = |setting: &&Setting| !is_reported(setting.place) && !is_flag(setting);
        let all = settings::all(&site, &system.id);
        let suspected: Vec<&Setting> = all
            .iter()
            .filter(known)
            .filter(|setting| trial.judge(setting).is_some())
            .collect();
        if is_whole || suspected.is_empty() {
            found.extend(
                suspected
                    .into_iter()
                    .filter_map(|setting| trial.judge(setting)),
            );
            continue;
        }
        // What nothing depends on among the hosts of the sample is tried on more of them.
        let Some(mut trial) = Trial::new(with(&whole), system) else {
            continue;
        };
        let places: BTreeSet<Place> = suspected.iter().map(|setting| setting.place).collect();
        let all = settings::all(&whole, &system.id).into_iter();
        let again: Vec<Setting> = all
            .filter(|setting| places.contains(&setting.place))
            .take(MOST)
            .collect();
        let is_suspected = |setting: &&Setting| {
            suspected
                .iter()
                .any(|one| one.key == setting.key && one.place == setting.place)
        };
        found.extend(
            again
                .iter()
                .filter(is_suspected)
                .filter_map(|setting| trial.judge(setting)),
        );
    }
    found
}

/// Every domain name of the site and the documents with an address.
fn somewhere(inputs: &Inputs<'_>) -> BTreeMap<String, Vec<IpAddr>> {
    let rows = inputs
        .catalog
        .systems
        .values()
        .flat_map(|system| &system.rows);
    let printed = rows
        .flat_map(|row| &row.peers)
        .filter_map(|peer| match peer {
            Peer::Domain(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
    let said = inputs.site.domains().into_iter().map(str::to_owned);
    let names: BTreeSet<String> = printed.chain(said).collect();
    let numbered = names.into_iter().zip(0_u32..);
    let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 | number));
    numbered
        .map(|(name, number)| (name, vec![address(number)]))
        .collect()
}

/// All that is said of a system of which no host has a role.
fn unused(site: &Site, system: &System, inputs: &Inputs<'_>) -> Option<Diagnostic> {
    let said = site.systems.get(&system.id)?;
    let all = Candidate::all(inputs);
    if all.is_empty() || all.iter().any(|one| one.is_of(&system.id)) {
        return None;
    }
    let message = format!(
        "no host has a role of {}: its settings have no effect",
        system.id
    );
    let hint = "remove it, or give a host one of its roles";
    let place = site
        .at(said.place)
        .unwrap_or_else(|| "command line".to_owned());
    Some(Diagnostic::error("no-effect", message).at(place).hint(hint))
}

/// What to do where another setting decides.
const OTHER: &str = "remove it, or change the other setting";

/// What a setting does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Something is open, or said, that would not be without it.
    Changes,
    /// Rows open something, or do not, and others open the same.
    Cites,
    /// Without it all would be the same; with another value it would not.
    Confirms,
    Nothing,
}

struct Trial<'a> {
    inputs: Inputs<'a>,
    views: Views,
    system: &'a System,
    candidates: Vec<Candidate>,
    /// What the site as it is makes of each candidate.
    known: BTreeMap<usize, Outcome>,
}

impl<'a> Trial<'a> {
    /// `None` if no host has a role of the system.
    fn new(inputs: Inputs<'a>, system: &'a System) -> Option<Self> {
        let mut candidates = Candidate::all(&inputs);
        candidates.retain(|one| one.is_of(&system.id));
        (!candidates.is_empty()).then(|| Self {
            views: Views::new(&inputs),
            inputs,
            system,
            candidates,
            known: BTreeMap::new(),
        })
    }

    fn judge(&mut self, setting: &Setting) -> Option<Diagnostic> {
        let words = setting.words();
        let id = &self.system.id;
        let diagnostic = match self.effect(setting) {
            Effect::Changes | Effect::Cites if self.leaves_nobody(setting) => {
                let place = match &setting.level {
                    Level::System => "on any host".to_owned(),
                    Level::Cluster(name) => format!("in cluster `{name}`"),
                    Level::Host(index) => {
                        let host = self.inputs.site.hosts.get(*index);
                        format!("on `{}`", host.map_or("", |host| host.name.as_str()))
                    }
                };
                let message = format!("{words} of {id} leaves no peers {place}");
                Diagnostic::error("only-nobody", message).hint(
                    "name a peer that the document allows, or write `off = true` with a `reason`",
                )
            }
            Effect::Changes if self.serves_nothing(setting) => {
                let (why, hint) = self.why(setting);
                let message = format!("{words} opens nothing there: {why}");
                Diagnostic::error("no-effect", message).hint(hint)
            }
            Effect::Changes => {
                let (value, why) = self.opens_nothing(setting)?;
                let message = format!("{words} of {id}: {value} opens nothing on any host: {why}");
                Diagnostic::error("no-effect", message).hint("change one of the two settings")
            }
            Effect::Cites => {
                let message = format!(
                    "{words} of {id} opens and closes nothing: {}",
                    self.same(setting)
                );
                Diagnostic::warning("no-effect", message)
                    .hint("set the same for the other rows of these ports, or remove it")
            }
            Effect::Confirms => {
                let message =
                    format!("{words} of {id} makes no difference: without it the same is open");
                Diagnostic::new(diagnostic::Level::Note, "no-effect", message)
            }
            Effect::Nothing => {
                let (why, hint) = self.why_without(setting);
                let message = format!("{words} of {id} has no effect on any host: {why}");
                let is_answer = matches!(setting.key, Key::Choice(_)) && setting.place.line == 0;
                // On the command line all of a document's questions may be answered at once: no harm is done.
                // So is what the document requires and the site repeats.
                let is_repeated =
                    matches!(setting.key, Key::Option(_)) && self.is_required(setting);
                // Whether the product has the option is so, whatever else keeps its rows closed.
                let is_absent = matches!(setting.key, Key::Without(_)) && hint == OTHER;
                let level = if setting.is_fact() || is_answer || is_repeated || is_absent {
                    diagnostic::Level::Warning
                } else {
                    diagnostic::Level::Error
                };
                Diagnostic::new(level, "no-effect", message).hint(hint)
            }
        };
        let place = self.inputs.site.at(setting.place);
        Some(diagnostic.at(place.unwrap_or_else(|| "command line".to_owned())))
    }

    /// Whether a row that an interface is to serve is open on none, so that all that the list does is to close the others.
    fn serves_nothing(&mut self, setting: &Setting) -> bool {
        let Key::InterfaceRow(name, _) = &setting.key else {
            return false;
        };
        let rows = setting.rows(self.system);
        let is_there = |one: &Candidate| {
            Level::Host(one.index.unwrap_or(usize::MAX)) == setting.level
                && one.interface.as_ref() == Some(name)
        };
        let there: Vec<usize> = (0..self.candidates.len())
            .filter(|at| self.candidates.get(*at).is_some_and(is_there))
            .collect();
        there.into_iter().all(|at| {
            let open = &self.known(at).rows;
            !rows.iter().any(|row| open.contains(&row.id))
        })
    }

    /// A chosen value whose own rows hold nowhere, and why: all that it does is to close the others'.
    fn opens_nothing(&self, setting: &Setting) -> Option<(String, String)> {
        let Key::Choice(choice) = &setting.key else {
            return None;
        };
        let chosen = |one: &Candidate| {
            let view = &self.views.at(&self.system.id, one.index).site;
            let chosen = view
                .choices
                .get(choice)
                .filter(|chosen| chosen.place == setting.place);
            Some((view, chosen?))
        };
        let hosts: Vec<_> = self
            .candidates
            .iter()
            .filter_map(|one| Some((one, chosen(one)?)))
            .collect();
        let values = hosts
            .first()
            .map(|(_, (_, chosen))| chosen.values.clone())?;
        values.into_iter().find_map(|value| {
            let mut first = None;
            for row in setting.rows(self.system) {
                let wants = row
                    .condition
                    .as_ref()
                    .and_then(|condition| condition.choices.get(choice));
                if wants != Some(&value) {
                    continue;
                }
                for (one, (view, _)) in &hosts {
                    if !self.has(one, &row.role) {
                        continue;
                    }
                    let facts::Truth::Fails(why) = facts::judge_row(row, self.system, view) else {
                        return None;
                    };
                    first.get_or_insert(format!("row `{}` {why}", row.id));
                }
            }
            Some((value, first?))
        })
    }

    /// Whether a row is narrowed to nobody on all hosts that it is said of.
    fn leaves_nobody(&mut self, setting: &Setting) -> bool {
        let Key::Only(_) = &setting.key else {
            return false;
        };
        let mut rows = setting.rows(self.system);
        if setting.level != Level::System && rows.iter().any(|row| row.direction != Direction::Out)
        {
            // Without an end it is about who may connect.
            rows.retain(|row| row.direction != Direction::Out);
        }
        let theirs = |(_, one): &(usize, &Candidate)| {
            let is_own = setting.level == Level::System || self.is_own(setting, one);
            is_own && rows.iter().any(|row| self.has(one, &row.role))
        };
        let candidates = self.candidates.iter().enumerate();
        let theirs: Vec<usize> = candidates.filter(theirs).map(|(at, _)| at).collect();
        !theirs.is_empty()
            && theirs.into_iter().all(|at| {
                let open = &self.known(at).rows;
                !rows.iter().any(|row| open.contains(&row.id))
            })
    }

    /// Whether a host is one of those that the setting is said of.
    fn is_own(&self, setting: &Setting, candidate: &Candidate) -> bool {
        match &setting.level {
            Level::System => true,
            Level::Cluster(name) => {
                let mut own = clusters_of(self.inputs.site, &self.system.id, candidate.index);
                own.any(|own| own == name)
            }
            Level::Host(index) => candidate.index == Some(*index),
        }
    }

    fn effect(&mut self, setting: &Setting) -> Effect {
        let order = self.order(setting);
        let removed = setting.removed(self.inputs.site, &self.system.id);
        let (mut effect, mut is_reported) = (Effect::Nothing, false);
        let views = self.views_of(&removed);
        for at in &order {
            let without = self.of(&removed, &views, *at);
            let with = self.known(*at);
            if with.open != without.open {
                return Effect::Changes;
            }
            // A setting that does nothing but raise findings does nothing.
            is_reported |= !without.reported.is_subset(&with.reported);
            if with.rows != without.rows {
                effect = Effect::Cites;
            }
        }
        // It answers a question, though other rows open the same.
        if is_reported {
            return Effect::Changes;
        }
        if effect == Effect::Cites {
            return effect;
        }
        for other in setting.others(self.inputs.site, self.system) {
            let views = self.views_of(&other);
            for at in &order {
                if self.of(&other, &views, *at) != *self.known(*at) {
                    return Effect::Confirms;
                }
            }
        }
        Effect::Nothing
    }

    fn views_of(&self, site: &Site) -> Views {
        Views::new(&Inputs {
            site,
            ..self.inputs.clone()
        })
    }

    fn of(&self, site: &Site, views: &Views, at: usize) -> Outcome {
        let inputs = Inputs {
            site,
            ..self.inputs.clone()
        };
        self.candidates
            .get(at)
            .map_or_else(Outcome::default, |one| {
                Outcome::of(&inputs, views, one, &self.system.id)
            })
    }

    fn known(&mut self, at: usize) -> &Outcome {
        if !self.known.contains_key(&at) {
            let outcome = self.of(self.inputs.site, &self.views, at);
            self.known.insert(at, outcome);
        }
        self.known.entry(at).or_default()
    }

    /// Hosts by how likely it is that the setting is theirs: whoever has its rows, its own host or cluster, then one of each kind.
    fn order(&self, setting: &Setting) -> Vec<usize> {
        let rows = setting.rows(self.system);
        let mut kinds: BTreeMap<&[String], usize> = BTreeMap::new();
        let mut ranked: Vec<(bool, bool, usize, usize)> = Vec::new();
        for (at, candidate) in self.candidates.iter().enumerate() {
            let is_own = self.is_own(setting, candidate);
            let has_rows = rows.iter().any(|row| self.has(candidate, &row.role));
            let before = kinds.entry(&candidate.roles).or_default();
            ranked.push((!is_own, !has_rows, *before, at));
            *before += 1;
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., at)| at).take(MOST).collect()
    }

    fn has(&self, candidate: &Candidate, role: &str) -> bool {
        let mut roles = candidate.roles.iter().filter_map(|id| id.split_once('/'));
        roles.any(|(of, own)| of == self.system.id && self.system.closure(own).contains(role))
    }

    /// Whether it is about an option that is on whatever the site says.
    fn is_required(&self, setting: &Setting) -> bool {
        let (Key::Option(option) | Key::Without(option)) = &setting.key else {
            return false;
        };
        self.candidates.iter().any(|one| {
            let view = &self.views.at(&self.system.id, one.index).site;
            facts::required(option, self.system, view) == Some(true)
        })
    }

    /// Whether a host has a row, and is the server that the setting is about.
    fn uses(&self, setting: &Setting, candidate: &Candidate, row: &Row) -> bool {
        let is_server = match &setting.key {
            Key::Offset(role) => self.has(candidate, role),
            _ => true,
        };
        is_server && self.has(candidate, &row.role)
    }
}
