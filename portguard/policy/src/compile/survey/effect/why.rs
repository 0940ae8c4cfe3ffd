//! Why a setting has no effect, and what to do about it.

use std::collections::BTreeMap;

use super::super::outcome::{Candidate, policy};
use super::super::settings::{Key, Setting};
use super::{OTHER, Trial};
use crate::catalog::Row;
use crate::compile::views::Views;
use crate::compile::{Inputs, facts, some_of};

impl Trial<'_> {
    /// Why nothing depends on it, and what to do. Rows of an option that is off are closed by that, and what else closes them is
    /// seen where it is on.
    pub(super) fn why_without(&self, setting: &Setting) -> (String, &'static str) {
        if !matches!(setting.key, Key::Without(_)) {
            return self.why(setting);
        }
        let removed = setting.removed(self.inputs.site, &self.system.id);
        let inputs = Inputs {
            site: &removed,
            ..self.inputs.clone()
        };
        let trial = Trial {
            views: Views::new(&inputs),
            inputs,
            system: self.system,
            candidates: self.candidates.clone(),
            known: BTreeMap::new(),
        };
        trial.why(setting)
    }

    /// Why nothing depends on it, and what to do.
    pub(super) fn why(&self, setting: &Setting) -> (String, &'static str) {
        let rows = setting.rows(self.system);
        if rows.is_empty() {
            return ("no row depends on it".to_owned(), "remove it");
        }
        if self.is_required(setting) {
            return (
                "its document requires the option in this version".to_owned(),
                "remove it, or change the version",
            );
        }
        let users = rows.iter().filter_map(|row| {
            let mut all = self.candidates.iter();
            Some((row, all.find(|one| self.uses(setting, one, row))?))
        });
        let users: Vec<(&&Row, &Candidate)> = users.collect();
        if let Some(place) = self.nearer(setting, &rows) {
            let why = format!("{place} overrides it");
            return (why, "remove one of the two");
        }
        // The row that would open something if it were not for one thing.
        let holds = |(row, user): &&(&&Row, &Candidate)| {
            let view = &self.views.at(&self.system.id, user.index).site;
            let truth = facts::judge_row(row, self.system, view);
            row.inert.is_none() && !matches!(truth, facts::Truth::Fails(_))
        };
        let Some((row, user)) = users.iter().find(holds).or(users.first()).copied() else {
            let mut roles: Vec<String> = rows.iter().map(|row| row.role.clone()).collect();
            roles.sort_unstable();
            roles.dedup();
            let why = format!(
                "no host has the role {}, whose rows it is about",
                some_of(&roles)
            );
            return (why, "remove it, or give a host the role");
        };
        let view = &self.views.at(&self.system.id, user.index).site;
        if let Some(inert) = row.inert {
            return (
                format!("row `{}` opens nothing ({})", row.id, inert.as_str()),
                "remove it",
            );
        }
        if let facts::Truth::Fails(why) = facts::judge_row(row, self.system, view) {
            return (format!("row `{}` {why}", row.id), OTHER);
        }
        if let Some(off) = view.off(&self.system.id, &row.id) {
            return (
                format!("row `{}` is switched off ({off})", row.id),
                "remove it",
            );
        }
        let policy = policy(
            &self.inputs,
            &self.views,
            user,
            Some(&self.system.id),
            &mut Vec::new(),
        );
        let omitted = policy
            .omitted
            .iter()
            .find(|one| rows.iter().any(|row| row.id == one.row));
        if let Some(one) = omitted {
            return (
                format!("row `{}` opens nothing: {}", one.row, one.detail),
                OTHER,
            );
        }
        let why = format!("other settings decide what row `{}` opens", row.id);
        (why, "remove it, or the setting that overrides it")
    }

    /// Where all hosts whose rows it is about have something nearer that goes before it.
    fn nearer(&self, setting: &Setting, rows: &[&Row]) -> Option<String> {
        let id = &self.system.id;
        let site = self.inputs.site;
        let in_force = |one: &Candidate| {
            let view = &self.views.at(id, one.index).site;
            match &setting.key {
                Key::Deployment => view.deployment.as_ref().map(|(_, place)| *place),
                Key::Version => view.version.as_ref().map(|(_, place)| *place),
                Key::Choice(choice) => view.choices.get(choice).map(|chosen| chosen.place),
                Key::Peer(peer) => view.peers.get(peer).map(|(_, place)| *place),
                Key::Port(row, _) => view.ports.get(row).map(|(_, place)| *place),
                Key::Offset(role) => {
                    let host = one.index.and_then(|index| site.hosts.get(index));
                    let of_host = host.and_then(|host| host.offsets.get(&format!("{id}/{role}")));
                    of_host
                        .or_else(|| view.offsets.get(role))
                        .map(|(_, place)| *place)
                }
                _ => None,
            }
        };
        let mut first = None;
        let is_user = |one: &&Candidate| {
            self.is_own(setting, one) && rows.iter().any(|row| self.uses(setting, one, row))
        };
        for one in self.candidates.iter().filter(is_user) {
            let place = in_force(one).filter(|place| *place != setting.place)?;
            first.get_or_insert(place);
        }
        site.at(first?)
    }

    /// Rows that open what the setting's rows open.
    pub(super) fn same(&mut self, setting: &Setting) -> String {
        let own: Vec<String> = setting
            .rows(self.system)
            .iter()
            .map(|row| row.id.clone())
            .collect();
        format!("other rows open what {} open", some_of(&own))
    }
}
