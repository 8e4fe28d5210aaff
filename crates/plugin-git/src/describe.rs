//! What version a commit is.

use ropewalk::context::Command;
use ropewalk::{Cx, Data, Failure};

use crate::version::Version;

/// What version a commit is.
#[derive(Clone, Debug, PartialEq, Eq, Data)]
pub struct Described {
    /// The version of the last tag; `0.0.0` if there is none.
    pub version: Version,
    /// The last tag that is a version, as Git has it.
    pub tag: Option<String>,
    /// How many commits there are since; since the beginning if there is no tag.
    pub distance: u64,
    /// The commit.
    pub commit: String,
    /// All in one word: `1.2.3` of the tag itself, else `1.2.3-4-g0123456789ab`.
    pub text: String,
}

/// Runs git and gives what it says; `None` if it ends with another code than 0.
pub(crate) fn asked(cx: &mut Cx, words: &[&str]) -> Result<Option<String>, Failure> {
    let words: Vec<&str> = ["git"].iter().chain(words).copied().collect();
    let finished = cx.status(&Command::new(words).capture())?;
    Ok((finished.exit == 0).then_some(finished.output))
}

/// Runs git and gives what it says.
pub(crate) fn git(cx: &mut Cx, words: &[&str]) -> Result<String, Failure> {
    let words: Vec<&str> = ["git"].iter().chain(words).copied().collect();
    cx.run(&Command::new(words).capture())
}

/// The last tag before `commit`, or of it, that is a version. Letters that Git reads as patterns in a prefix mean themselves.
pub(crate) fn last_tag(cx: &mut Cx, prefix: &str, commit: &str) -> Result<Option<(String, Version)>, Failure> {
    let mut pattern = String::from("--match=");
    for letter in prefix.chars() {
        if matches!(letter, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push_str("[0-9]*.*.*");
    let Some(tag) = asked(cx, &["describe", "--tags", "--abbrev=0", &pattern, commit])? else { return Ok(None) };
    match tag.strip_prefix(prefix).unwrap_or(&tag).parse() {
        Ok(version) => Ok(Some((tag, version))),
        Err(error) => Err(Failure::new(format!("the last tag `{tag}` names no version: {error}"))),
    }
}

/// Says aloud where history is cut off.
pub(crate) fn warn_if_shallow(cx: &mut Cx) -> Result<(), Failure> {
    if asked(cx, &["rev-parse", "--is-shallow-repository"])?.as_deref() == Some("true") {
        cx.warning(
            "this clone holds only a part of the history: older tags are not seen (git fetch --unshallow --tags)",
        );
    }
    Ok(())
}

pub(crate) fn describe(cx: &mut Cx, prefix: &str) -> Result<Described, Failure> {
    warn_if_shallow(cx)?;
    let commit = git(cx, &["rev-parse", "HEAD"])?;
    let last = last_tag(cx, prefix, "HEAD")?;
    let range = last.as_ref().map_or_else(|| "HEAD".to_owned(), |(tag, _)| format!("{tag}..HEAD"));
    let count = git(cx, &["rev-list", "--count", &range])?;
    let distance = count.parse().map_err(|_| Failure::new(format!("git counts `{count}` commits")))?;
    let (tag, version) = last.map_or_else(|| (None, Version::default()), |(tag, version)| (Some(tag), version));
    let text = match (&tag, distance) {
        (Some(_), 0) => version.to_string(),
        _ => format!("{version}-{distance}-g{}", commit.get(..12).unwrap_or(&commit)),
    };
    cx.log(format!("this is {text}"));
    Ok(Described { version, tag, distance, commit, text })
}
