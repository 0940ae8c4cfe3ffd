//! The documents of a package: those of the repository, without what only its source can do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::docs::{DOCUMENTS, copy_tree};
use crate::links;
use crate::workspace::root;

/// A line that ends with this is for who has the source.
const LINE: &str = "<!-- source -->";
/// What stands between two such lines is, too.
const BEGIN: &str = "<!-- source: -->";
const END: &str = "<!-- :source -->";

/// Pages about the source: how it is built, tested and measured. All others are to be followed where only the package is.
const OF_SOURCE: [&str; 9] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "GLOSSARY.md",
    "SECURITY.md",
    "SPECIFICATION.md",
    "docs/decisions.md",
    "docs/performance.md",
    "docs/performance/verbs.md",
];

/// What such a page says of that, below its title.
const NEEDS_SOURCE: &str = "*Commands with `cargo` and paths of tests belong to portguard's source, which is not in this package.*";

/// Where the package has what `LICENSE-MIT` and `LICENSE-APACHE` are in the repository.
const LICENCES: (&str, &str) = (
    "[MIT](LICENSE-MIT) or [Apache 2.0](LICENSE-APACHE), as you choose.",
    "MIT or Apache 2.0, as you choose: the texts are named in `/usr/share/doc/portguard/copyright` (.deb), or are in\n\
     `/usr/share/licenses/portguard` (.rpm).",
);

/// Lays them out below `folder`, in the folders that they are in here, so that what they link to is found.
pub(super) fn lay_out(folder: &Path) -> Result<()> {
    copy_tree(&root().join("docs"), &folder.join("docs"))?;
    for name in DOCUMENTS {
        fs::copy(root().join(name), folder.join(name))?;
    }
    // Only for the site.
    for name in ["book.toml", "SUMMARY.md"] {
        fs::remove_file(folder.join("docs").join(name))?;
    }
    for path in links::all(folder)? {
        if path.extension().is_some_and(|end| end == "md") {
            let name = path.strip_prefix(folder)?.display().to_string();
            let text = fs::read_to_string(&path)?;
            let text = for_users(&name, &text).with_context(|| name)?;
            fs::write(&path, text)?;
        }
    }
    // What pages tell to use.
    for name in ["packaging/kubernetes", "packaging/ansible"] {
        copy_tree(&root().join(name), &folder.join(name))?;
    }
    Ok(())
}

/// What is wrong with documents that were laid out: a line for each link to what is not there, for each command that takes the
/// source, and for each file that only the source has.
pub(super) fn faults(folder: &Path) -> Result<Vec<String>> {
    let mut found = links::dead(folder)?;
    let shipped: BTreeSet<_> = links::all(folder)?.into_iter().collect();
    for path in &shipped {
        let name = path.strip_prefix(folder)?.display().to_string();
        if path.extension().is_none_or(|end| end != "md") || OF_SOURCE.contains(&name.as_str()) {
            continue;
        }
        for (index, line) in fs::read_to_string(path)?.lines().enumerate() {
            let place = format!("{name}:{}", index + 1);
            if line.contains("cargo ") || line.contains("cargo`") {
                found.push(format!("{place}: takes the source: {line}"));
            }
            for word in line.split('`').skip(1).step_by(2) {
                let is_path = !word.is_empty() && !word.starts_with('/') && !word.contains(' ');
                if is_path && root().join(word).is_file() && !folder.join(word).exists() {
                    found.push(format!("{place}: `{word}` is only in the source"));
                }
            }
        }
    }
    Ok(found)
}

/// A page as the package has it.
fn for_users(name: &str, text: &str) -> Result<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        match line.trim() {
            BEGIN | END => {
                ensure!(is_inside != (line.trim() == BEGIN), "`{line}` twice");
                is_inside = !is_inside;
                // One empty line is enough between what is left.
                if !is_inside && kept.last() == Some(&"") {
                    kept.pop();
                }
            }
            line if is_inside || line.ends_with(LINE) => {}
            _ => kept.push(line),
        }
    }
    ensure!(!is_inside, "`{BEGIN}` without `{END}`");
    if OF_SOURCE.contains(&name) && text.contains("cargo ") {
        let title = kept.iter().position(|line| line.starts_with("# "));
        let below = title.map_or(0, |title| title + 1);
        kept.splice(below..below, ["", NEEDS_SOURCE]);
    }
    let (from, to) = LICENCES;
    Ok(kept.join("\n").replace(from, to) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_a_package_take_no_repository() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("portguard-doc-{}", std::process::id()));
        lay_out(&folder)?;
        let found = faults(&folder)?;
        let readme = fs::read_to_string(folder.join("README.md"))?;
        let contributing = fs::read_to_string(folder.join("CONTRIBUTING.md"))?;
        fs::remove_dir_all(&folder)?;
        assert!(found.is_empty(), "{}", found.join("\n"));
        assert!(
            readme.contains("## Use it") && readme.contains("## Licence"),
            "{readme}"
        );
        // The licences are said where they are.
        assert!(!readme.contains("LICENSE-"), "{readme}");
        assert!(readme.contains(LICENCES.1), "{readme}");
        assert!(contributing.contains(NEEDS_SOURCE), "{contributing}");
        Ok(())
    }

    #[test]
    fn what_is_marked_is_left_out() -> Result<()> {
        let text = "# A\n\nb\n\n<!-- source: -->\n## C\n\nd\n<!-- :source -->\n\n| e | <!-- source -->\n| f |\n";
        assert_eq!(for_users("a.md", text)?, "# A\n\nb\n\n| f |\n");
        for wrong in [BEGIN, END] {
            assert!(for_users("a.md", wrong).is_err());
        }
        Ok(())
    }
}
