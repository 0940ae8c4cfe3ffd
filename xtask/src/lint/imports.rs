//! No cycle between modules: of two siblings, at most one may know the other, directly or by way of others.
//!
//! Cargo keeps the order of the crates; within a crate this does. Tests may look wherever they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

use crate::workspace::root;

/// The crates whose modules are held to it.
const CRATES: [&str; 8] = [
    "portguard-common",
    "portguard-ebpf",
    "portguard/policy",
    "portguard/kernel",
    "portguard/observe",
    "portguard/fleet",
    "portguard",
    "xtask",
];

/// A module as its path from the crate's root.
type Module = Vec<String>;

/// Fails if modules of a crate know each other in a circle, naming one place for each step.
pub(crate) fn check() -> Result<()> {
    let mut found = Vec::new();
    for name in CRATES {
        let source = root().join(name).join("src");
        let graph = Graph::read(&source).with_context(|| format!("in `{}`", source.display()))?;
        let circles = graph.circles().into_iter();
        found.extend(
            circles.map(|circle| format!("{name}: {} ({})", circle.modules, circle.places)),
        );
    }
    ensure!(
        found.is_empty(),
        "modules know each other in a circle:\n  {}\nhint: move what both need into a module below them",
        found.join("\n  ")
    );
    Ok(())
}

/// Modules that know each other, and the files in which they do.
#[derive(Debug, PartialEq, Eq)]
struct Circle {
    modules: String,
    places: String,
}

/// Which modules a crate has, and which paths each of them names.
#[derive(Debug, Default)]
struct Graph {
    modules: BTreeSet<Module>,
    /// From a module, to a path within the crate, and the file that names it.
    uses: Vec<(Module, Module, PathBuf)>,
}

impl Graph {
    fn read(source: &Path) -> Result<Self> {
        let mut graph = Self::default();
        for top in ["lib.rs", "main.rs"] {
            let file = source.join(top);
            if file.is_file() {
                graph.file(&file, source, &Vec::new())?;
            }
        }
        Ok(graph)
    }

    fn file(&mut self, file: &Path, folder: &Path, module: &Module) -> Result<()> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
        let parsed =
            syn::parse_file(&text).with_context(|| format!("cannot parse `{}`", file.display()))?;
        self.items(&parsed.items, file, folder, module)
    }

    fn items(&mut self, items: &[Item], file: &Path, folder: &Path, module: &Module) -> Result<()> {
        self.modules.insert(module.clone());
        for item in items {
            if let Item::Mod(child) = item {
                self.module(child, file, folder, module)?;
                continue;
            }
            let mut paths = Paths {
                module,
                found: Vec::new(),
            };
            paths.visit_item(item);
            for path in paths.found {
                self.uses.push((module.clone(), path, file.to_path_buf()));
            }
        }
        Ok(())
    }

    fn module(
        &mut self,
        child: &ItemMod,
        file: &Path,
        folder: &Path,
        parent: &Module,
    ) -> Result<()> {
        if child.attrs.iter().any(is_test) {
            return Ok(());
        }
        let name = child.ident.to_string();
        let mut module = parent.clone();
        module.push(name.clone());
        let inside = folder.join(&name);
        match &child.content {
            Some((_, items)) => self.items(items, file, &inside, &module),
            None => self.file(&folder.join(format!("{name}.rs")), &inside, &module),
        }
    }

    /// The circles among the children of each module.
    fn circles(&self) -> Vec<Circle> {
        let mut found = Vec::new();
        for parent in &self.modules {
            let steps = self.steps(parent);
            let mut known = BTreeSet::new();
            for start in steps.keys() {
                let Some(circle) = circle(&steps, start) else {
                    continue;
                };
                let members: BTreeSet<&str> = circle.iter().copied().collect();
                if known.insert(members) {
                    found.push(describe(parent, &circle, &steps));
                }
            }
        }
        found
    }

    /// Who among a module's children names which of its siblings, and where.
    fn steps(&self, parent: &Module) -> Steps<'_> {
        let depth = parent.len();
        let mut steps = Steps::new();
        for (from, to, file) in &self.uses {
            let (Some(child), Some(sibling)) = (from.get(depth), to.get(depth)) else {
                continue;
            };
            let is_below = from.starts_with(parent) && to.starts_with(parent);
            let is_module = self.modules.contains(to.get(..=depth).unwrap_or_default());
            if is_below && is_module && child != sibling {
                steps
                    .entry(child)
                    .or_default()
                    .entry(sibling)
                    .or_insert(file);
            }
        }
        steps
    }
}

type Steps<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Path>>;

/// The shortest way from a module back to itself.
fn circle<'a>(steps: &Steps<'a>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let next = way.last().and_then(|last| steps.get(last));
            for to in next.into_iter().flatten().map(|(to, _)| *to) {
                if to == start {
                    return Some(way);
                }
                if seen.insert(to) {
                    longer.push([way.as_slice(), &[to]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

fn describe(parent: &Module, circle: &[&str], steps: &Steps<'_>) -> Circle {
    let mut modules = parent.join("::");
    if !modules.is_empty() {
        modules.push_str(": ");
    }
    modules.push_str(&circle.join(" -> "));
    let next = circle.iter().skip(1).chain(circle.first());
    let places: Vec<String> = circle
        .iter()
        .zip(next)
        .filter_map(|(from, to)| steps.get(from)?.get(to))
        .map(|file| {
            file.strip_prefix(root())
                .unwrap_or(file)
                .display()
                .to_string()
        })
        .collect();
    Circle {
        modules,
        places: places.join(", "),
    }
}

/// Whether an attribute is `#[cfg(test)]`.
fn is_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|path| path.is_ident("test"))
}

/// Collects the paths of this crate that an item names.
struct Paths<'a> {
    module: &'a Module,
    found: Vec<Module>,
}

impl Paths<'_> {
    /// A path from the crate's root; `None` if it begins elsewhere.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let mut at = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            _ => return None,
        };
        for (index, segment) in path.iter().enumerate() {
            match segment.as_str() {
                "crate" | "self" if index == 0 => {}
                "super" => {
                    at.pop()?;
                }
                name => at.push(name.to_owned()),
            }
        }
        Some(at)
    }

    fn tree(&mut self, prefix: &[String], tree: &UseTree) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self
                .found
                .extend(self.resolve(&with(name.ident.to_string()))),
            UseTree::Rename(name) => self
                .found
                .extend(self.resolve(&with(name.ident.to_string()))),
            UseTree::Glob(_) => self.found.extend(self.resolve(prefix)),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(prefix, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.found.extend(self.resolve(&names));
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(name: &str, files: &[(&str, &str)]) -> Graph {
        let folder =
            std::env::temp_dir().join(format!("portguard-imports-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let graph = Graph::read(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        graph
    }

    #[test]
    fn a_circle_is_named_with_its_files() {
        let graph = graph(
            "circle",
            &[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::b::{self, X};"),
                ("b.rs", "mod deep;"),
                ("b/deep.rs", "fn f() { super::super::c::g() }"),
                ("c.rs", "pub fn g() { let _ = crate::a::Y; }"),
            ],
        );
        let circles = graph.circles();
        assert_eq!(circles.len(), 1, "{circles:?}");
        assert_eq!(circles[0].modules, "a -> b -> c");
        assert!(circles[0].places.contains("deep.rs"), "{circles:?}");
    }

    #[test]
    fn tests_and_ways_down_are_no_circle() {
        let graph = graph(
            "tree",
            &[
                ("lib.rs", "mod a; mod b;"),
                (
                    "a.rs",
                    "use crate::b::X; #[cfg(test)] mod tests { use crate::b; }",
                ),
                (
                    "b.rs",
                    "pub struct X; #[cfg(test)] mod tests { use crate::a; }",
                ),
            ],
        );
        assert_eq!(graph.circles(), Vec::<Circle>::new());
    }
}
