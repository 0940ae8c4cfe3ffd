//! The hosts at a row's other end: whether they are meant, and whether the row is open there, too.

use super::{Asking, Resolver};
use crate::catalog::{Direction, Row};
use crate::compile::facts;
use crate::compile::narrow::{self, End};
use crate::site::Who;

impl<'a> Resolver<'a> {
    /// Whether a host has the role by another role than one of this host's; only some rows ask.
    pub(super) fn is_other(&self, asking: &Asking<'a, '_>, role: &str, index: usize) -> bool {
        let theirs = self.inventory.roles_at(&asking.system.id, role, index);
        let mut pairs = theirs
            .iter()
            .flat_map(|theirs| asking.users.iter().map(move |own| (own, theirs)));
        !asking.row.other_roles_only || pairs.any(|(own, theirs)| own != theirs)
    }

    /// Whether the site lets this host connect where only its own words say who may.
    pub(super) fn may_send(&mut self, asking: &Asking<'a, '_>) -> bool {
        let only = narrow::plain(&asking.view.site, asking.system, asking.row);
        let only = only.filter(|_| !narrow::is_lone_sender(asking.row));
        match (asking.direction, only, self.inventory.own()) {
            (Direction::Out, Some(only), Some(own)) => self.terms.is_among(only, own),
            (Direction::Out, Some(only), None) => *only == Who::Any,
            _ => true,
        }
    }

    /// Why a row is closed at its other end, and so at this one, too.
    pub(super) fn closed_at(&mut self, asking: &Asking<'a, '_>, index: usize) -> Option<String> {
        let Asking {
            system, row, view, ..
        } = asking;
        let theirs = self.views.at(&system.id, Some(index));
        if self.views.vary(&system.id)
            && let facts::Truth::Fails(why) = facts::judge_row(row, system, &theirs.site)
        {
            self.differs(row, index, &why);
            return Some(why);
        }
        let has = |far: &&Row| {
            !self
                .inventory
                .roles_at(&system.id, &far.role, index)
                .is_empty()
        };
        let far: Vec<&'a Row> = narrow::far_rows(system, row, asking.direction)
            .filter(has)
            .collect();
        // Where the document prints the other end by itself, that row has settings of its own.
        if far.is_empty() {
            return None;
        }
        let mut why = None;
        for far in far {
            let closed = self.closed_by(asking, far, index);
            match closed {
                None => return None,
                Some((reason, is_reported)) => why = Some((reason, is_reported)),
            }
        }
        let (why, is_reported) = why?;
        if is_reported && !narrow::is_spoken_of(&view.site, system, row) {
            self.differs(row, index, &why);
        }
        Some(why)
    }

    /// Why a row of the other end does not open it towards this host, and whether one of the two may not expect it.
    fn closed_by(
        &mut self,
        asking: &Asking<'a, '_>,
        far: &'a Row,
        index: usize,
    ) -> Option<(String, bool)> {
        let id = &asking.system.id;
        let theirs = &self.views.at(id, Some(index)).site;
        if let Some(reason) = theirs.off(id, &far.id) {
            return Some((format!("is switched off ({reason})"), true));
        }
        let host = self.site.hosts.get(index)?;
        if !narrow::is_served(asking.system, far, host) {
            return Some(("is served on no interface".to_owned(), true));
        }
        let end = match asking.direction {
            Direction::Out => End::Listener,
            Direction::In | Direction::Both => End::Sender,
        };
        let only = narrow::only(theirs, asking.system, far, end)?;
        let is_meant = self
            .inventory
            .own()
            .is_some_and(|own| self.terms.is_among(only, own));
        (!is_meant).then(|| ("is for others only".to_owned(), false))
    }

    fn differs(&mut self, row: &Row, index: usize, why: &str) {
        if let Some(host) = self.site.hosts.get(index) {
            self.missing.differs(&row.id, &host.name, why.to_owned());
        }
    }
}
