//! Guards whose interface is in another network namespace now, where they go on: their pins make room for the interface that has
//! its name here.

use std::fs;

use portguard_common::reason::Direction;

use super::effective;
use crate::error::Context as _;
use crate::hook::attach;
use crate::notice;
use crate::pins::bpffs::Layout;

/// What such a guard is called here. No interface can have this name.
const MOVED: &str = ":moved";

/// Whether a layout is that of such a guard.
pub(crate) fn is_aside(layout: &Layout) -> bool {
    layout.interface().0.contains(MOVED)
}

/// Gives the pins of a layout another name if they are those of such a guard. Gives the layout that it has then.
///
/// # Errors
/// If pins cannot be looked at or renamed.
pub(crate) fn make_room(layout: &Layout) -> crate::Result<Option<Layout>> {
    let link = attach::inspect(&layout.link(Direction::Ingress))?;
    if link.is_none_or(|link| link.ifindex == 0 || effective::runs(layout, link)) {
        return Ok(None);
    }
    let (name, _) = layout.interface();
    let number = |count: u32| match count {
        1 => String::new(),
        count => count.to_string(),
    };
    let mut names = (1..).map(|count| format!("{name}{MOVED}{}", number(count)));
    let free = names.find(|name| !Layout::of(name).directory.exists());
    let called = free.context("no name is free")?;
    let aside = Layout::of(&called);
    rename(layout, &aside)?;
    notice::say(&format!(
        "{name}: the interface that was called so is in another network namespace now, where its guard goes on; it is `{called}` \
         here: `portguard unload --interface {called}` ends it"
    ));
    Ok(Some(aside))
}

/// Takes [`make_room`] back, where nothing has taken the place.
pub(crate) fn put_back(layout: &Layout, aside: &Layout) {
    if !layout.directory.exists() {
        // Best effort: it follows an error that says more.
        let _ = rename(aside, layout);
    }
}

fn rename(from: &Layout, to: &Layout) -> crate::Result<()> {
    let (from, to) = (&from.directory, &to.directory);
    fs::rename(from, to)
        .with_context(|| format!("cannot rename `{}` to `{}`", from.display(), to.display()))
}
