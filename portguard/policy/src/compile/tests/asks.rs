//! Asking for a host of a site of the embedded matrices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fixture::lines;
use crate::catalog::Catalog;
use crate::compile::{Inputs, Selection, review};
use crate::policy::Compiled;
use crate::site::Site;

/// Which host, and when.
pub(super) struct Ask<'a> {
    pub(super) host: Selection,
    pub(super) interface: Option<&'a str>,
    pub(super) addresses: &'a [IpAddr],
    pub(super) today: &'a str,
}

/// Goes before every site of these tests.
const HEAD: &str = "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\nunresolved_peers = \"none\"\nunresolved_ports = \"none\"\n";

/// Where the line of a site's own text that has `words` is.
pub(super) fn line_of(text: &str, words: &str) -> String {
    let at = text
        .lines()
        .position(|line| line.contains(words))
        .unwrap_or_else(|| panic!("no {words}"));
    format!("s.toml:{}:", at + 1 + HEAD.lines().count())
}

pub(super) fn ask(text: &str, ask: Ask<'_>) -> Compiled {
    let text = format!("{HEAD}{text}");
    let site = Site::parse("s.toml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let catalog = Catalog::embedded().unwrap();
    let catalog = catalog.with_profiles(site.roles()).unwrap();
    let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
    review(&Inputs {
        catalog: &catalog,
        site: &site,
        host: ask.host,
        interface: ask.interface,
        local_addresses: ask.addresses,
        hostname: None,
        resolved: &resolved,
        files: &files,
        today: Some(ask.today),
    })
}

pub(super) fn named(text: &str, host: &str) -> Compiled {
    ask(
        text,
        Ask {
            host: Selection::Name(host.to_owned()),
            interface: None,
            addresses: &[],
            today: "2026-11-28",
        },
    )
}

/// Lines of the rows whose id begins so.
pub(super) fn of(compiled: &Compiled, row: &str) -> Vec<String> {
    let all = lines(compiled).into_iter();
    all.filter(|line| line.starts_with(row)).collect()
}

pub(super) fn codes(compiled: &Compiled) -> Vec<&'static str> {
    compiled.diagnostics.iter().map(|d| d.code).collect()
}

/// A finding with this code whose words have all of these; panics with all findings if there is none.
pub(super) fn messages_of(compiled: &Compiled, code: &str, words: &[&str]) -> String {
    let all = super::fixture::messages(compiled);
    let is_it = |line: &&String| {
        line.contains(&format!("[{code}]")) && words.iter().all(|word| line.contains(word))
    };
    all.iter()
        .find(is_it)
        .cloned()
        .unwrap_or_else(|| panic!("no {code} with {words:?} in {all:#?}"))
}
