//! Every command and output shown in README.md and in the manual is run and compared, so that none can rot.
//!
//! A page is one session in one fresh repository. A block ` ```yaml FILE ` (or any language and a file's name) writes that
//! file; a block ` ```console ` runs each line that begins with `$ ` by `sh` and compares what it prints, both streams
//! together, with the lines below it. `...` stands for any lines. Times, commits and dates are compared as such, not
//! by value. `ROPEWALK_ACCEPT=1` writes what was really printed into the page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[path = "manual/engine.rs"]
mod engine;
#[path = "manual/postgres.rs"]
mod postgres;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn what_the_pages_show_is_what_the_program_prints() {
    let mut pages = vec![root().join("README.md")];
    let manual = fs::read_dir(root().join("docs/manual")).expect("the manual is there");
    pages.extend(
        manual
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.extension().is_some_and(|end| end == "md") && !path.ends_with(WITH_ALL)),
    );
    pages.sort();
    let mut faults = Vec::new();
    let mut commands = 0;
    for page in pages {
        if page.ends_with("nix.md") && !has_nix() {
            continue;
        }
        let _engine = match page.ends_with("containers.md") {
            true => match engine::start() {
                Some(engine) => Some(engine),
                None => continue,
            },
            false => None,
        };
        let (count, fault) = check_file(&page);
        commands += count;
        faults.extend(fault);
    }
    assert!(commands > 10, "the pages show only {commands} commands: the reader of pages is broken");
    tell(&faults);
}

/// The page whose pipeline has a job in every environment. Here it is run as it is told: on this machine, then on a server with a
/// worker, with a real container engine, a real PostgreSQL and a real Nix.
const WITH_ALL: &str = "environments.md";

#[test]
fn one_pipeline_uses_every_environment() {
    if !has_nix() {
        return;
    }
    let Some(engine) = engine::start() else { return };
    if !engine.make_postgres() {
        return;
    }
    let (commands, fault) = check_file(&root().join("docs/manual").join(WITH_ALL));
    assert!(commands > 5, "the page shows only {commands} commands");
    tell(&Vec::from_iter(fault));
}

#[track_caller]
fn tell(faults: &[String]) {
    assert!(faults.is_empty(), "read the difference; then `cargo xtask accept`\n{}", faults.join("\n"));
}

/// Runs a page; how many commands it shows, and in what it differs, unless it is to be written anew.
fn check_file(page: &Path) -> (usize, Option<String>) {
    let text = fs::read_to_string(page).expect("a readable page");
    let (checked, count) = check_page(page, &text);
    if checked == text {
        return (count, None);
    }
    if std::env::var_os("ROPEWALK_ACCEPT").is_some() {
        fs::write(page, checked).expect("a page that can be written");
        return (count, None);
    }
    (count, Some(format!("{}\n{}", page.display(), difference(&text, &checked))))
}

/// Whether Nix is here, and speaks as its page shows it.
fn has_nix() -> bool {
    let version = Command::new("nix").arg("--version").output().ok().filter(|output| output.status.success());
    let Some(version) = version else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "nix is missing: `cargo xtask test` installs it");
        eprintln!("skipped: the page about Nix, which is not installed");
        return false;
    };
    let version = String::from_utf8_lossy(&version.stdout);
    let is_shown = version.contains(") 2.8.") && cfg!(target_arch = "x86_64");
    if !is_shown {
        eprintln!("skipped: the page about Nix shows the words of version 2.8 on x86_64; this is {version}");
    }
    is_shown
}

/// The page as it would be with what the program prints now, and how many commands it shows.
fn check_page(page: &Path, text: &str) -> (String, usize) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let repository = folder.path().join("demo");
    fs::create_dir(&repository).expect("a new folder");
    shell(
        &repository,
        folder.path(),
        "git init -q -b main && git config user.name Ada && git config user.email ada@example.org",
    );
    let mut checked = String::new();
    let mut commands = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        checked.push_str(line);
        checked.push('\n');
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else { continue };
        let mut block = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("```")) {
            block.push(line);
        }
        match info.split_once(' ') {
            None if info == "console" => {
                let (session, count) = session(page, &repository, folder.path(), &block);
                commands += count;
                checked.push_str(&session);
            }
            Some((_, file)) if !file.contains(' ') => {
                let path = repository.join(file);
                fs::create_dir_all(path.parent().expect("a file in the repository")).expect("a folder");
                fs::write(&path, block.join("\n") + "\n").expect("a file");
                keep(&mut checked, &block);
            }
            _ => keep(&mut checked, &block),
        }
    }
    (checked, commands)
}

fn keep(checked: &mut String, block: &[&str]) {
    for line in block {
        checked.push_str(line);
        checked.push('\n');
    }
}

fn session(page: &Path, repository: &Path, home: &Path, block: &[&str]) -> (String, usize) {
    let mut text = String::new();
    let mut commands = 0;
    let mut lines = block.iter().peekable();
    while let Some(line) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let Some(command) = line.strip_prefix("$ ") else {
            panic!("{}: `{line}` stands in a console block before any command", page.display());
        };
        let mut expected = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            expected.push(*line);
        }
        commands += 1;
        let printed = shell(repository, home, command);
        let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
        let shown = if matches(&expected, &printed) { expected } else { printed };
        for line in shown {
            text.push_str(line);
            text.push('\n');
        }
    }
    (text, commands)
}

/// Where the toolchain of the user lies, which pages with Rust programs need though they have a home of their own.
fn of_user(variable: &str, name: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(name);
    std::env::var_os(variable).map_or_else(home, PathBuf::from)
}

/// What `command` prints, both streams together in order.
fn shell(repository: &Path, home: &Path, command: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_ropewalk")).parent().expect("a folder");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(repository)
        .env("PATH", path)
        .env("HOME", home)
        .env("ROPEWALK_DATA", home.join("data"))
        .env("ROPEWALK_CACHE", home.join("cache"))
        .env("CARGO_HOME", of_user("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", of_user("RUSTUP_HOME", ".rustup"))
        // A store of the page's own, that nobody else builds in and nothing is fetched for.
        .env("NIX_STORE_DIR", home.join("nix/store"))
        .env("NIX_STATE_DIR", home.join("nix/state"))
        .env("NIX_LOG_DIR", home.join("nix/log"))
        .env("NIX_CONFIG", "sandbox = false\nsubstitute = false\nbuild-users-group =\n")
        .env("DOCKER_HOST", engine::host())
        .env("EXAMPLES", root().join("examples"))
        .env("RUST_BACKTRACE", "0")
        .env("NO_COLOR", "1")
        .env("USER", "ada")
        .env("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z")
        .env("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z")
        .env_remove("CI")
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&output.stdout).replace(&home.display().to_string(), "~")
}

fn matches(expected: &[&str], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((&"...", rest)) => (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..])),
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, others)| normal(line) == normal(first) && matches(rest, others))
        }
    }
}

/// The line with what differs from run to run replaced by its kind.
fn normal(line: &str) -> String {
    let rules = [
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?", "<date>"),
        // Before durations, which an age holds.
        (r"\b\d+ (s|min) ago\b|\bjust now\b", "<age>"),
        (r"\b\d+ h \d+ m\b|\b\d+ m \d+ s\b|\b\d+(\.\d+)? (ms|s)\b|\b\d+\.\d+s\b", "<duration>"),
        (r#""(duration_ms|peak_memory_bytes|cpu_user_us|cpu_system_us)":\d+"#, "<usage>"),
        // Against the usual time, told only where it differs much.
        (r" +[▲▼] [+-]\d+ %", ""),
        (r"\b\d+(\.\d+)? ([KMG]i)?B\b", "<size>"),
        (r"\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b|\b[0-9a-f]{12}\b|\b[0-9a-f]{8}\b", "<digest>"),
        // Of a store path; the letters are those of Nix's own base 32.
        (r"\b[0-9a-df-np-sv-z]{32}-", "<hash>-"),
        (r" +", " "),
    ];
    rules.iter().fold(line.trim_end().to_owned(), |line, (pattern, kind)| {
        regex::Regex::new(pattern).expect("a pattern").replace_all(&line, *kind).into_owned()
    })
}

fn difference(before: &str, after: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same = before.iter().zip(&after).take_while(|(before, after)| before == after).count();
    let tail = before[same..].iter().rev().zip(after[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut text = format!("from line {}:\n", same + 1);
    for line in &before[same..before.len() - tail] {
        text.push_str(&format!("- {line}\n"));
    }
    for line in &after[same..after.len() - tail] {
        text.push_str(&format!("+ {line}\n"));
    }
    text
}
