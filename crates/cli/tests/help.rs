//! The help pages are golden: `docs/manual/help.txt` holds what `--help` of every command prints, hidden ones apart. Every one of them
//! stands in the table of `docs/manual/commands.md` too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn manual(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/manual").join(page)
}

fn help(command: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ropewalk"))
        .args(command)
        .arg("--help")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .expect("ropewalk starts");
    assert!(output.status.success(), "--help of {command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The names of commands in a help page, in its order: they stand under every heading that is not of arguments or options. A name
/// stands two blanks in; its text, where it wraps, further.
fn subcommands(page: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut heading = "";
    for line in page.lines() {
        if let Some(new) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            heading = new;
        } else if !matches!(heading, "" | "Arguments" | "Options" | "Builds of a server") {
            let line = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
            names.extend(line.and_then(|line| line.split_whitespace().next()).map(str::to_owned));
        }
    }
    names
}

/// This command and every one under it, each before those under it, with their help pages.
fn pages(command: &[String]) -> Vec<(Vec<String>, String)> {
    let page = help(command);
    let below = subcommands(&page);
    let mut all = vec![(command.to_vec(), page)];
    all.extend(below.into_iter().flat_map(|name| pages(&[command, &[name]].concat())));
    all
}

#[test]
fn help_pages_are_as_the_manual_has_them() {
    let path = manual("help.txt");
    let mut text = String::new();
    for (command, page) in pages(&[]) {
        text.push_str(&format!("$ ropewalk {}\n", [command, vec!["--help".to_owned()]].concat().join(" ")));
        for line in page.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    if std::env::var_os("ROPEWALK_ACCEPT").is_some() {
        fs::write(&path, &text).expect("the page can be written");
    }
    let golden = fs::read_to_string(&path).expect("docs/manual/help.txt: make it with `cargo xtask accept`");
    assert_eq!(text, golden, "the help pages changed: read them, then `cargo xtask accept`");
}

/// Of each row of the tables of a page, the words that stand as code in its first cell.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.map(|cell| cell.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect()).collect()
}

#[test]
fn every_command_has_its_row_in_the_manual() {
    let page = fs::read_to_string(manual("commands.md")).expect("docs/manual/commands.md");
    let rows = rows(&page);
    for (command, _) in pages(&[]) {
        let is_named = rows.iter().any(|row| command.iter().all(|word| row.contains(&word.as_str())));
        assert!(
            is_named,
            "no row of docs/manual/commands.md names `ropewalk {}`: say there what it does",
            command.join(" ")
        );
    }
}
