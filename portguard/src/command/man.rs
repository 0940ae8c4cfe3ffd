//! `portguard man`: pages of section 8 from the command line's own definition, and portguard-site(5).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap_mangen::Man;
use serde::Serialize;

use crate::stdout::{print, print_json};
use portguard_policy::error::Exit;

/// The day that pages are of: the same version has the same bytes whenever it is built.
const DATE: &str = "2026-11-28";
/// Bytes of a line of text.
const WIDTH: usize = 78;
/// How the text below the flags of a verb begins.
const EXAMPLES: &str = "Examples:\n";

/// Sections of portguard(8) that the command line does not know.
const MAIN: &str = include_str!("../../man/portguard.8");
/// What every verb's page ends with.
const VERB: &str = include_str!("../../man/verb.8");
/// The site file's page.
const SITE: &str = include_str!("../../man/portguard-site.5");
/// The page of the script that comes with the package.
const FAIL_CLOSED: &str = include_str!("../../man/portguard-fail-closed.8");
const MANUAL: &str = "portguard manual";

/// Write the manual page, or one for each verb into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard man | man -l -
  portguard man --out /usr/local/share/man/man8")]
pub struct ManArgs {
    /// Directory for all pages, including those of the verbs and portguard-site(5) [default: the main page, to standard
    /// output]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write JSON: the page as a string, or the names of the files that were written
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    /// Files that were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    written: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<String>,
}

/// Writes manual pages.
///
/// # Errors
/// If the output cannot be written.
pub fn run(args: &ManArgs, command: clap::Command) -> anyhow::Result<Exit> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut answer = Answer::default();
    if let Some(directory) = &args.out {
        answer.written = all(&command, directory)
            .with_context(|| format!("cannot write to `{}`", directory.display()))?;
    } else {
        let text = page(&command, MAIN)?;
        if !args.json {
            print(|out| out.write_all(&text))?;
        }
        answer.page = Some(String::from_utf8_lossy(&text).into_owned());
    }
    if args.json {
        print_json(&answer)?;
    }
    Ok(Exit::Ok)
}

/// The files that were written.
fn all(command: &clap::Command, directory: &Path) -> io::Result<Vec<String>> {
    let mut pages = vec![
        ("portguard.8".to_owned(), page(command, MAIN)?),
        (
            "portguard-site.5".to_owned(),
            folded(&SITE.replacen(" 5 \"\"", &format!(" 5 \"{DATE}\""), 1)).into_bytes(),
        ),
    ];
    pages.push((
        "portguard-fail-closed.8".to_owned(),
        folded(&FAIL_CLOSED.replacen(" 8 \"\"", &format!(" 8 \"{DATE}\""), 1)).into_bytes(),
    ));
    verbs(command, &mut pages)?;
    fs::create_dir_all(directory)?;
    let mut written = Vec::new();
    for (name, text) in pages {
        let path = directory.join(name);
        fs::write(&path, text)?;
        written.push(path.display().to_string());
    }
    Ok(written)
}

fn verbs(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_display_name().unwrap_or(verb.get_name());
        pages.push((format!("{name}.8"), page(verb, VERB)?));
        verbs(verb, pages)?;
    }
    Ok(())
}

/// What clap knows, then `rest`.
fn page(command: &clap::Command, rest: &str) -> io::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let version = command.get_version().unwrap_or_default();
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section("8")
        .source(format!("portguard {version}"))
        .manual(MANUAL);
    let mut generated = Vec::new();
    man.render_title(&mut generated)?;
    man.render_name_section(&mut generated)?;
    man.render_synopsis_section(&mut generated)?;
    man.render_description_section(&mut generated)?;
    man.render_options_section(&mut generated)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut generated)?;
    }
    let mut text = sectioned(&String::from_utf8_lossy(&generated));
    let below = command.get_after_help().map(ToString::to_string);
    if let Some(examples) = below
        .as_deref()
        .and_then(|text| text.strip_prefix(EXAMPLES))
    {
        text.push_str(".SH \"EXAMPLES\"\n.nf\n");
        for line in examples.lines() {
            text.push_str(&verbatim(line));
            text.push('\n');
        }
        text.push_str(".fi\n");
    }
    text.push_str(rest);
    Ok(folded(&text).into_bytes())
}

/// A line that stands in the page as it is.
fn verbatim(line: &str) -> String {
    let line = line.strip_prefix("  ").unwrap_or(line);
    line.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
}

/// With lines of text that editors and mandoc find short enough; examples and macros keep theirs.
fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_verbatim = false;
    for line in text.lines() {
        match line {
            ".nf" | ".EX" => is_verbatim = true,
            ".fi" | ".EE" => is_verbatim = false,
            _ => {}
        }
        if is_verbatim || line.starts_with('.') {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let mut width = 0;
        for word in line.split(' ') {
            if width > 0 && width + 1 + word.len() > WIDTH {
                out.push('\n');
                width = 0;
                // A line that begins so would be a macro.
                if word.starts_with(['.', '\'']) {
                    out.push_str("\\&");
                }
            } else if width > 0 {
                out.push(' ');
                width += 1;
            }
            out.push_str(word);
            width += word.len();
        }
        out.push('\n');
    }
    out
}

/// References to verbs' pages in their section, where the generator writes section 1; a title line with a place for the date
/// that it leaves out, since what follows would be taken for it; and one macro for an empty line, where it writes three.
fn sectioned(text: &str) -> String {
    let text = text
        .replace("(1)", "(8)")
        .replacen(" 8  \"", &format!(" 8 \"{DATE}\" \""), 1)
        .replace("\n.br\n\n.br\n", "\n.sp\n");
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        clean.push_str(line.trim_end());
        clean.push('\n');
    }
    clean
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn pages() -> Vec<(String, String)> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let mut found = vec![(
            "portguard".to_owned(),
            String::from_utf8(page(&command, MAIN).unwrap()).unwrap(),
        )];
        for verb in command.get_subcommands() {
            let text = String::from_utf8(page(verb, VERB).unwrap()).unwrap();
            found.push((verb.get_display_name().unwrap().to_owned(), text));
        }
        found
    }

    #[test]
    fn every_page_says_where_else_to_look_and_what_the_exit_status_means() {
        for (name, text) in pages() {
            for section in ["EXIT STATUS", "SEE ALSO"] {
                assert!(
                    text.contains(&format!(".SH \"{section}\"")),
                    "{name}(8) has no {section}"
                );
            }
            let title = text.lines().find(|line| line.starts_with(".TH "));
            let title = title.expect("a title line");
            assert!(
                title.contains(&format!(" 8 \"{DATE}\" \"portguard ")),
                "{title}"
            );
            let is_one = name == "portguard" || text.contains(".SH \"EXAMPLES\"\n.nf\n");
            assert!(is_one, "{name}(8) has no EXAMPLES");
            let longest = text
                .lines()
                .filter(|line| !line.starts_with('.'))
                .map(str::len)
                .max();
            assert!(
                longest < Some(120),
                "{name}(8) has a line of {longest:?} bytes"
            );
            assert!(
                !text.contains(".br\n\n"),
                "{name}(8) has two breaks for one"
            );
            let elsewhere = text.split("portguard").skip(1).find(|rest| {
                rest.trim_start_matches(|char: char| {
                    char.is_ascii_lowercase() || "\\-".contains(char)
                })
                .starts_with("(1)")
            });
            assert_eq!(elsewhere, None, "{name}(8) refers to section 1");
        }
    }

    #[test]
    fn the_main_pages_have_the_sections_that_a_reader_expects() {
        for (name, text) in [("portguard.8", MAIN), ("portguard-site.5", SITE)] {
            for section in [
                "EXAMPLES",
                "FILES",
                "ENVIRONMENT",
                "EXIT STATUS",
                "SEE ALSO",
            ] {
                assert!(
                    text.contains(&format!(".SH \"{section}\"")),
                    "{name} has no {section}"
                );
            }
        }
    }

    #[test]
    fn every_environment_variable_of_a_flag_is_in_the_main_page() {
        fn collect(command: &clap::Command, found: &mut Vec<String>) {
            found.extend(
                command
                    .get_arguments()
                    .filter_map(|flag| flag.get_env())
                    .map(|name| name.to_string_lossy().into_owned()),
            );
            for verb in command.get_subcommands() {
                collect(verb, found);
            }
        }
        let mut variables = Vec::new();
        collect(&Cli::command(), &mut variables);
        assert!(!variables.is_empty());
        for name in variables {
            assert!(MAIN.contains(&name), "portguard(8) does not list {name}");
        }
    }

    #[test]
    fn the_site_pages_example_is_a_site_file_that_parses() {
        let example: String = SITE
            .split(".SH \"EXAMPLES\"")
            .nth(1)
            .and_then(|rest| rest.split(".EX\n").nth(1))
            .and_then(|rest| rest.split(".EE").next())
            .unwrap()
            .replace("\\-", "-");
        portguard_policy::site::Site::parse("example", example.as_bytes()).unwrap();
    }
}
