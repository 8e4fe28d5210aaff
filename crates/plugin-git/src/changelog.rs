//! The changes since the last tag, as Markdown.

use ropewalk::context::Command;
use ropewalk::{Cx, Data, Failure, File};

use crate::describe::{asked, git, last_tag, warn_if_shallow};

/// The file that the changes are handed on as, relative to where the job's steps run.
pub const FILE: &str = "changes.md";

/// The most changes that are listed; one more line says how many there are beyond.
pub const CHANGES_MAX: usize = 500;

/// The longest subject of a change that is shown, in characters.
const SUBJECT_CHARACTERS_MAX: usize = 150;

/// The changes since a tag.
#[derive(Clone, Debug, PartialEq, Eq, Data)]
pub struct Changelog {
    /// The tag; `None` if there was none, and all changes are meant.
    pub since: Option<String>,
    /// How many changes there are. Merges do not count.
    pub count: u64,
    /// The file with all of it as Markdown.
    pub file: File,
}

/// A heading, and the words of conventional commits that belong under it. Source: conventionalcommits.org, 1.0.0.
const PARTS: [(&str, &[&str]); 4] =
    [("Breaking", &[]), ("New", &["feat"]), ("Mended", &["fix", "perf", "revert"]), ("Other", &[])];

pub(crate) fn changelog(cx: &mut Cx, prefix: &str) -> Result<Changelog, Failure> {
    warn_if_shallow(cx)?;
    let since = tag_before(cx, prefix)?;
    let range = since.as_ref().map_or_else(|| "HEAD".to_owned(), |tag| format!("{tag}..HEAD"));
    let count = git(cx, &["rev-list", "--count", "--no-merges", &range])?;
    let count = count.parse().map_err(|_| Failure::new(format!("git counts `{count}` commits")))?;
    let most = format!("--max-count={CHANGES_MAX}");
    let listed = git(cx, &["log", "--no-merges", "--format=%h %s", &most, &range])?;
    let text = markdown(since.as_deref(), &listed, count);
    // Through the shell, so that a test of it writes nothing.
    let write = r#"printf '%s' "$CHANGES" > "$FILE"; if [ -n "${ROPEWALK_SUMMARY:-}" ]; then printf '%s' "$CHANGES" >> "$ROPEWALK_SUMMARY"; fi"#;
    cx.run(&Command::sh(write).env("CHANGES", text).env("FILE", FILE))?;
    Ok(Changelog { since, count, file: cx.file(FILE)? })
}

/// The last tag before the commit; its own does not count.
fn tag_before(cx: &mut Cx, prefix: &str) -> Result<Option<String>, Failure> {
    let Some((tag, _)) = last_tag(cx, prefix, "HEAD")? else { return Ok(None) };
    if git(cx, &["rev-list", "--count", &format!("{tag}..HEAD")])? != "0" {
        return Ok(Some(tag));
    }
    // The first commit of all has none before it.
    match asked(cx, &["rev-parse", "--verify", "--quiet", "HEAD^"])? {
        Some(before) => Ok(last_tag(cx, prefix, &before)?.map(|(tag, _)| tag)),
        None => Ok(None),
    }
}

/// A change as its commit's first line says it.
struct Change<'a> {
    commit: &'a str,
    subject: &'a str,
    /// The place of its heading in [`PARTS`].
    part: usize,
}

impl<'a> Change<'a> {
    fn read(line: &'a str) -> Self {
        let (commit, subject) = line.split_once(' ').unwrap_or((line, ""));
        let kind = subject.split_once(": ").map(|(kind, _)| kind).unwrap_or_default();
        let word = kind.trim_end_matches('!').split('(').next().unwrap_or_default();
        let is_kind = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let of_word = || PARTS.iter().position(|(_, words)| words.contains(&word));
        let part = match is_kind {
            true if kind.ends_with('!') => 0,
            true => of_word().unwrap_or(PARTS.len() - 1),
            false => PARTS.len() - 1,
        };
        Self { commit, subject, part }
    }
}

pub(crate) fn markdown(since: Option<&str>, listed: &str, count: u64) -> String {
    let title = since.map_or_else(|| "# Changes\n".to_owned(), |tag| format!("# Changes since {tag}\n"));
    let changes: Vec<Change<'_>> = listed.lines().filter(|line| !line.is_empty()).map(Change::read).collect();
    let mut text = title;
    let is_one_list = changes.iter().all(|change| change.part == PARTS.len() - 1);
    for (part, (heading, _)) in PARTS.iter().enumerate() {
        let mut members = changes.iter().filter(|change| change.part == part).peekable();
        if members.peek().is_none() {
            continue;
        }
        text.push('\n');
        if !is_one_list {
            text.push_str(&format!("## {heading}\n\n"));
        }
        members.for_each(|change| text.push_str(&format!("- {} ({})\n", shown(change.subject), change.commit)));
    }
    let beyond = count.saturating_sub(changes.len() as u64);
    match (changes.is_empty(), beyond) {
        (true, _) => text.push_str("\nNothing has changed.\n"),
        (false, 0) => {}
        (false, beyond) => text.push_str(&format!("\n{beyond} older changes are not listed.\n")),
    }
    text
}

/// A subject that Markdown shows as it is.
fn shown(subject: &str) -> String {
    let mut text = String::new();
    for letter in subject.chars().take(SUBJECT_CHARACTERS_MAX) {
        if matches!(letter, '*' | '_' | '[' | ']' | '<' | '>' | '\\' | '#') {
            text.push('\\');
        }
        text.push(letter);
    }
    if subject.chars().nth(SUBJECT_CHARACTERS_MAX).is_some() {
        text.push('…');
    }
    text
}
