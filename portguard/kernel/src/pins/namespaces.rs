//! The other network namespaces of this machine, as far as they can be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::pins::identity::{self, Namespace};

/// Where tools keep names of network namespaces: iproute2, Docker.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Whether this host passes packets on.
pub fn is_forwarding() -> bool {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
        .iter()
        .any(|key| {
            fs::read_to_string(format!("/proc/sys/net/{key}")).is_ok_and(|text| text.trim() != "0")
        })
}

/// What runs a command in a network namespace: by the name that it has, or by a process in it. `None` = it is not found.
pub fn way(namespace: Option<Namespace>) -> Option<String> {
    let Some(namespace) = namespace else {
        return Some("nsenter --net=/proc/1/ns/net".to_owned());
    };
    let is_it = |path: &Path| inode(path) == Some(namespace.inode) && is_at(path, namespace);
    let entries = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
    let named = NAMED.into_iter().flat_map(entries);
    let named = named.map(|entry| entry.path()).find(|path| is_it(path));
    let process = || {
        let all = entries("/proc").map(|entry| entry.path().join("ns/net"));
        all.filter(|path| path.components().nth(2).is_some_and(is_number))
            .find(|path| is_it(path))
    };
    let path = named.or_else(process)?;
    Some(format!("nsenter --net={}", path.display()))
}

fn is_number(part: Component<'_>) -> bool {
    let part = part.as_os_str().as_encoded_bytes();
    part.iter().all(u8::is_ascii_digit)
}

/// Of each of these, whether anybody is in it, holds it, or has a name for it; `None` = cannot be told, since some process does
/// not let itself be looked at. However many are asked about, every process is looked at once.
pub fn alive(asked: &BTreeSet<Namespace>) -> BTreeMap<Namespace, Option<bool>> {
    let mut search = Search::of(asked);
    // The kernel gave the inode to the namespace that this process is in: the other one has ended.
    if let Some(own) = inode(Path::new("/proc/thread-self/ns/net")) {
        let own_namespace = Namespace::own();
        search.settle(own, |one| {
            own_namespace.is_some_and(|own_namespace| own_namespace.is(one))
        });
    }
    for directory in NAMED {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            search.found(&entry.path());
        }
    }
    search.processes();
    search.answer
}

/// Looks for namespaces until all of them are found.
struct Search {
    /// Not found yet, by inode.
    missing: BTreeMap<u64, Vec<Namespace>>,
    answer: BTreeMap<Namespace, Option<bool>>,
}

impl Search {
    fn of(asked: &BTreeSet<Namespace>) -> Self {
        let mut missing: BTreeMap<u64, Vec<Namespace>> = BTreeMap::new();
        for one in asked {
            missing.entry(one.inode).or_default().push(*one);
        }
        Self {
            missing,
            answer: asked.iter().map(|one| (*one, None)).collect(),
        }
    }

    fn settle(&mut self, inode: u64, is_alive: impl Fn(Namespace) -> bool) {
        for one in self.missing.remove(&inode).into_iter().flatten() {
            self.answer.insert(one, Some(is_alive(one)));
        }
    }

    fn found(&mut self, path: &Path) {
        if let Some(inode) = inode(path)
            && self.missing.contains_key(&inode)
        {
            self.settle(inode, |one| is_at(path, one));
        }
    }

    fn processes(&mut self) {
        // Every namespace has a `net/dev` with a number of its own, which everybody may ask for: by it, who does not let itself
        // be looked at is found where others are that do.
        let table = |process: &Path| inode(&process.join("net/dev"));
        let mut known: BTreeSet<u64> = table(Path::new("/proc/thread-self")).into_iter().collect();
        let mut closed = Vec::new();
        let mut open = Vec::new();
        if self.missing.is_empty() {
            return;
        }
        let Ok(all) = fs::read_dir("/proc") else {
            return;
        };
        for entry in all.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let process = entry.path();
            let there = process.join("ns/net");
            match fs::metadata(&there) {
                Ok(_) => {
                    self.found(&there);
                    known.extend(table(&process));
                    open.push(process);
                }
                // It ended meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(_) => closed.extend(table(&process)),
            }
            if self.missing.is_empty() {
                return;
            }
        }
        // Few hold one without being in it: they are asked only where nobody is in it.
        for process in open {
            self.held_by(&process);
            if self.missing.is_empty() {
                return;
            }
        }
        if closed.iter().all(|table| known.contains(table)) {
            for one in std::mem::take(&mut self.missing).into_values().flatten() {
                self.answer.insert(one, Some(false));
            }
        }
    }

    /// By another thread, or by an open file.
    fn held_by(&mut self, process: &Path) {
        let entries = |name: &str| {
            fs::read_dir(process.join(name))
                .into_iter()
                .flatten()
                .flatten()
        };
        for thread in entries("task") {
            self.found(&thread.path().join("ns/net"));
        }
        for file in entries("fd") {
            let link = fs::read_link(file.path()).unwrap_or_default();
            if link.as_os_str().as_encoded_bytes().starts_with(b"net:[") {
                self.found(&file.path());
            }
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

/// Whether the namespace at a path is this one, whose inode it has: the kernel gives that to another one as soon as the first has
/// ended. Where it cannot be entered to ask for its cookie, it is taken for the same.
fn is_at(path: &Path, namespace: Namespace) -> bool {
    if namespace.cookie == 0 {
        return true;
    }
    let cookie = fs::File::open(path).ok().and_then(|there| {
        let ask = move || {
            setns(there, CloneFlags::CLONE_NEWNET).ok()?;
            identity::cookie()
        };
        thread::spawn(ask).join().ok()?
    });
    cookie.is_none_or(|cookie| cookie == namespace.cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_alive(namespace: Namespace) -> Option<bool> {
        alive(&[namespace].into()).remove(&namespace).flatten()
    }

    #[test]
    fn the_own_namespace_is_alive_and_a_made_up_one_is_not() {
        let namespace = |cookie, inode| Namespace { cookie, inode };
        let parent = inode(Path::new("/proc/self/ns/net")).expect("an inode");
        thread::spawn(move || {
            if nix::sched::unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let own = Namespace::own().expect("not the first");
            assert_eq!(is_alive(own), Some(true));
            assert_eq!(is_alive(namespace(own.cookie + 1, own.inode)), Some(false));
        })
        .join()
        .expect("no panic");
        let parent_cookie = identity::cookie().unwrap_or(0);
        for (cookie, is_expected) in [
            (parent_cookie, true),
            (parent_cookie + 1, parent_cookie == 0),
        ] {
            let there = thread::spawn(move || {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET).ok()?;
                is_alive(namespace(cookie, parent))
            });
            let said = there.join().expect("no panic");
            assert!(
                said.is_none_or(|said| said == is_expected),
                "{cookie}: {said:?}"
            );
        }
        assert_ne!(is_alive(namespace(1, 1)), Some(true));
        if nix::unistd::geteuid().is_root() {
            // Though there may be processes that not even root may look at.
            assert_eq!(is_alive(namespace(1, 1)), Some(false));
        }
    }
}
