//! Many hosts of one site: what is the same for all of them is made once.

use super::inventory::Inventory;
use super::select::Subject;
use super::views::Views;
use super::{Compiler, Inputs, lint, sorted};
use crate::diagnostic::Diagnostic;
use crate::policy::{Compiled, Policy};

/// What the hosts of a site have in common.
#[derive(Debug)]
pub struct Batch<'a> {
    /// What is wrong with the site, whichever host is asked for.
    lints: Vec<Diagnostic>,
    views: Views,
    inventory: Inventory<'a>,
}

impl<'a> Batch<'a> {
    /// Of the site of these inputs, whatever their host is.
    pub fn new(inputs: &Inputs<'a>) -> Self {
        let mut lints = Vec::new();
        lint::site(inputs, &mut lints);
        Self {
            lints,
            views: Views::new(inputs),
            inventory: Inventory::new(inputs, None),
        }
    }

    /// As [`super::compile`] does with these inputs, which may differ from those of [`Self::new`] in host and interface alone.
    pub fn compile(&self, inputs: &Inputs<'a>) -> Compiled {
        let mut diagnostics = self.lints.clone();
        let policy = match Subject::select(inputs, &mut diagnostics) {
            Some(subject) => {
                let inventory = self.inventory.of(subject.index);
                let views = &self.views;
                Compiler::with(inputs, &subject, views, inventory, &mut diagnostics).run()
            }
            None => Policy::default(),
        };
        sorted(&mut diagnostics);
        Compiled {
            policy,
            diagnostics,
        }
    }
}
