//! The help pages are golden: `docs/manual/help.txt` holds what `--help` of every command prints.

use std::fs;
use std::path::Path;
use std::process::Command;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ropewalk"))
        .args(arguments)
        .arg("--help")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .expect("ropewalk starts");
    assert!(output.status.success(), "--help of {arguments:?} ended with {}", output.status);
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

#[test]
fn help_pages_are_as_the_manual_has_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/manual/help.txt");
    let commands = [
        "",
        "run",
        "plan",
        "check",
        "test",
        "init",
        "builds",
        "show",
        "logs",
        "retry",
        "cancel",
        "urge",
        "approve",
        "explain",
        "cache list",
        "cache explain",
        "cache clear",
        "shell",
        "export",
        "serve",
        "work",
        "submit",
        "doctor",
        "backup",
        "restore",
        "migrate-store",
        "completions",
    ];
    let mut text = String::new();
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().collect();
        text.push_str(&format!("$ ropewalk {}\n", [arguments.as_slice(), &["--help"]].concat().join(" ")));
        let page = help(&arguments);
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
