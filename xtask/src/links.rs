//! Whether what documents link to is there. Only files of our own: nothing is asked of the network.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Links of the Markdown files below a folder whose file or heading is missing there, as `FILE:LINE: TARGET`.
pub(crate) fn dead(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in all(folder)? {
        if path.extension().is_some_and(|end| end == "md") {
            let text = read(&path)?;
            for (line, target) in targets(&text) {
                if let Some(why) = fault(folder, &path, &text, &target)? {
                    let name = path.strip_prefix(folder)?.display();
                    found.push(format!("{name}:{line}: `{target}`: {why}"));
                }
            }
        }
    }
    Ok(found)
}

/// What is wrong with one link.
fn fault(folder: &Path, page: &Path, text: &str, target: &str) -> Result<Option<&'static str>> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let place = if file.is_empty() {
        page.to_owned()
    } else {
        page.parent().context("a folder")?.join(file)
    };
    let Ok(place) = place.canonicalize() else {
        return Ok(Some("no such file"));
    };
    if !place.starts_with(folder.canonicalize()?) {
        return Ok(Some("outside of what is delivered"));
    }
    if heading.is_empty() {
        return Ok(None);
    }
    let there = if file.is_empty() {
        text.to_owned()
    } else {
        read(&place)?
    };
    Ok((!headings(&there).contains(heading)).then_some("no such heading"))
}

/// The targets of inline links and pictures, with their lines; code is left out.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second piece of a line is code.
        for piece in line.split('`').step_by(2) {
            for rest in piece.split("](").skip(1) {
                if let Some(target) = rest.split([')', ' ']).next() {
                    found.push((number, target.to_owned()));
                }
            }
        }
        // A link whose text is code: the pieces above cut it apart.
        for rest in line.split("`](").skip(1) {
            if let Some(target) = rest.split([')', ' ']).next() {
                found.push((number, target.to_owned()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Lines outside of blocks of code, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        inside ^= is_fence;
        (!inside && !is_fence).then_some((index + 1, line))
    })
}

/// Names by which headings are linked: as GitHub and mdBook make them.
fn headings(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'))
                .map(|char| if char == ' ' { '-' } else { char })
                .collect()
        })
        .collect()
}

/// All files and folders below a folder, and itself, sorted.
pub(crate) fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_path_buf()];
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(all(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "[a](b.md) and `[c](d)` and [`e`](f.md#g)\n```\n[h](i)\n```\n![j](k.svg)\n";
        assert_eq!(
            targets(text),
            [
                (1, "b.md".to_owned()),
                (1, "f.md#g".to_owned()),
                (5, "k.svg".to_owned())
            ]
        );
    }

    #[test]
    fn headings_are_named_as_readers_link_to_them() {
        let text = "# The *site* file\n```\n# not one\n```\n## What's `--here`?\n";
        let names = headings(text);
        assert!(names.contains("the-site-file"), "{names:?}");
        assert!(names.contains("whats---here"), "{names:?}");
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn missing_files_headings_and_what_lies_outside_are_dead() {
        let folder = std::env::temp_dir().join(format!("portguard-links-{}", std::process::id()));
        fs::create_dir_all(folder.join("docs")).unwrap();
        fs::write(
            folder.join("a.md"),
            "# A\n[x](docs/b.md#b) [y](no.md) [z](#c)",
        )
        .unwrap();
        fs::write(folder.join("docs/b.md"), "# B\n[up](../a.md) [out](../../)").unwrap();
        let found = dead(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            found,
            [
                "a.md:2: `#c`: no such heading",
                "a.md:2: `no.md`: no such file",
                "docs/b.md:2: `../../`: outside of what is delivered",
            ]
        );
    }
}
