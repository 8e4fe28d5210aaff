//! Regexes and globs of a pipeline, each compiled once and bounded.

use std::rc::Rc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use regex::{Regex, RegexBuilder};

use crate::hashing::QuickMap;

/// Bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 2_000;
/// Different regexes of one pipeline.
const REGEXES_MAX: usize = 300;
/// Different globs of one pipeline.
const GLOBS_MAX: usize = 50_000;
/// Bytes of one compiled regex.
const REGEX_COMPILED_BYTES_MAX: usize = 256 << 10;

/// Compiled patterns by what was written; a fault is kept as its sentence.
#[derive(Default)]
pub(crate) struct Patterns {
    regexes: QuickMap<Box<str>, Result<Regex, String>>,
    globs: QuickMap<Box<str>, Result<(), String>>,
    sets: QuickMap<Vec<String>, Option<Rc<Globs>>>,
}

impl Patterns {
    /// The regex that matches the whole of a text.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub(crate) fn regex(&mut self, pattern: &str) -> Result<&Regex, &str> {
        if !self.regexes.contains_key(pattern) {
            let compiled = if self.regexes.len() >= REGEXES_MAX {
                Err(format!("a pipeline has at most {REGEXES_MAX} different regexes"))
            } else {
                compile_regex(pattern)
            };
            self.regexes.insert(pattern.into(), compiled);
        }
        self.regexes[pattern].as_ref().map_err(String::as_str)
    }

    /// Says what is wrong with a glob, in a few words.
    pub(crate) fn glob_fault(&mut self, pattern: &str) -> Option<&str> {
        if !self.globs.contains_key(pattern) {
            let checked = if self.globs.len() >= GLOBS_MAX {
                Err(format!("a pipeline has at most {GLOBS_MAX} different globs"))
            } else {
                check_glob(pattern)
            };
            self.globs.insert(pattern.into(), checked);
        }
        self.globs[pattern].as_ref().err().map(String::as_str)
    }

    /// Whether the globs, which were found without fault, mean some of the files. As the worker reads them: a glob
    /// means what it matches and all below; one with `!` takes away again; the last that matches decides.
    pub(crate) fn any_file_matches(&mut self, globs: &[String], files: &[String]) -> bool {
        if !self.sets.contains_key(globs) {
            self.sets.insert(globs.to_vec(), compile_set(globs).map(Rc::new));
        }
        let Some(set) = self.sets[globs].clone() else { return true };
        files.iter().any(|file| {
            let decides = set.iter().rev().find(|(_, glob)| glob.is_match(file));
            decides.is_some_and(|(sense, _)| *sense == Sense::Takes)
        })
    }
}

fn compile_regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("it has more than {PATTERN_BYTES_MAX} bytes"));
    }
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .dfa_size_limit(REGEX_COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| regex_fault(&error))
    };
    // By itself first: `a)(b` would be whole inside the group that anchors it.
    compile(pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}

/// The last line of a regex error, which says what is wrong; the others draw the pattern.
fn regex_fault(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it would become too large a machine".to_owned(),
        _ => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// The regex that was meant by a text in which a `*` stands as in a glob: behind a plain character, as in `v*`, behind another
/// such `*`, or behind nothing. `None` if each repeats what regexes repeat: `.`, an escape, a class, a group.
pub(crate) fn meant_by_glob(pattern: &str) -> Option<String> {
    /// What stands before a place in a pattern.
    #[derive(Clone, Copy, PartialEq)]
    enum Before {
        /// Nothing that could be repeated: the beginning of the pattern, of a group or of an alternative.
        Nothing,
        Plain,
        /// A `*` as in a glob.
        Star,
        /// What regexes repeat.
        Repeatable,
    }
    let mut meant = String::new();
    let mut before = Before::Nothing;
    let mut is_glob = false;
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '*' && before != Before::Repeatable {
            is_glob = true;
            if before != Before::Star {
                meant.push_str(".*");
            }
            before = Before::Star;
            continue;
        }
        meant.push(letter);
        before = match letter {
            '\\' => {
                let escaped = letters.next();
                meant.extend(escaped);
                // The letters and digits behind these belong to them: `\pL`, `\x2a`.
                while escaped.is_some_and(|escaped| "pPxuU".contains(escaped))
                    && let Some(letter) = letters.next_if(char::is_ascii_alphanumeric)
                {
                    meant.push(letter);
                }
                Before::Repeatable
            }
            '[' => {
                meant.push_str(&rest_of_class(&mut letters));
                Before::Repeatable
            }
            '^' | '|' | '(' => Before::Nothing,
            '.' | ')' | ']' | '}' | '*' | '+' | '?' | '$' => Before::Repeatable,
            _ => Before::Plain,
        };
    }
    is_glob.then_some(meant)
}

/// What follows the `[` of a class, to the `]` that closes it. A class may hold classes, and a `]` as its first letter.
fn rest_of_class(letters: &mut impl Iterator<Item = char>) -> String {
    let mut rest = String::new();
    let mut open = 1;
    let mut is_first = true;
    while open > 0
        && let Some(letter) = letters.next()
    {
        rest.push(letter);
        match letter {
            '\\' => rest.extend(letters.next()),
            '[' => open += 1,
            ']' if !is_first => open -= 1,
            _ => {}
        }
        is_first = letter == '[' || (is_first && letter == '^');
    }
    rest
}

/// Whether a text is a glob.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(crate) fn check_glob(pattern: &str) -> Result<(), String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("it has more than {PATTERN_BYTES_MAX} bytes"));
    }
    let path = pattern.strip_prefix('!').unwrap_or(pattern);
    if path.is_empty() {
        return Err("it is empty".to_owned());
    }
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err("it leaves the repository".to_owned());
    }
    if pattern.contains('\0') {
        return Err("it holds a NUL character".to_owned());
    }
    // Stars, question marks and plain characters are never wrong, and pipelines of thousands of jobs have little else.
    if !path.contains(['[', ']', '{', '}', '\\']) {
        return Ok(());
    }
    GlobBuilder::new(path)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(drop)
        .map_err(|error| error.kind().to_string())
}

/// Globs in order, each with what it does.
type Globs = Vec<(Sense, GlobSet)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sense {
    Takes,
    Drops,
}

fn compile_set(globs: &[String]) -> Option<Globs> {
    let compile = |glob: &String| {
        let (sense, glob) = glob.strip_prefix('!').map_or((Sense::Takes, glob.as_str()), |rest| (Sense::Drops, rest));
        let glob = glob.strip_prefix("./").unwrap_or(glob).trim_end_matches('/');
        let mut set = GlobSetBuilder::new();
        for pattern in [glob, &format!("{glob}/**")] {
            set.add(GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build().ok()?);
        }
        Some((sense, set.build().ok()?))
    };
    globs.iter().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::{Patterns, meant_by_glob};

    #[test]
    fn regexes_match_the_whole_text() {
        let mut patterns = Patterns::default();
        let mut check = |pattern: &str, text: &str, expected: Result<bool, &str>| {
            assert_eq!(patterns.regex(pattern).map(|regex| regex.is_match(text)), expected, "{pattern} {text}");
        };
        check("main", "main", Ok(true));
        check("main", "mainly", Ok(false));
        check("a|b", "ab", Ok(false));
        check("release/.*", "release/1\n2", Ok(false));
        check("a)(b", "ab", Err("unopened group"));
        check("(a{1000}){1000}", "a", Err("it would become too large a machine"));
    }

    #[test]
    fn stars_of_globs() {
        let check = |pattern: &str, meant: Option<&str>| {
            assert_eq!(meant_by_glob(pattern).as_deref(), meant, "{pattern}");
        };
        check("release/*", Some("release/.*"));
        check("release/**", Some("release/.*"));
        check("release/**/x-*", Some("release/.*/x-.*"));
        check("v*", Some("v.*"));
        check("*", Some(".*"));
        check("*-rc|(*)", Some(".*-rc|(.*)"));
        check("\\d*-v*", Some("\\d*-v.*"));
        for regex in [
            "main",
            ".*",
            "a.*b",
            "[0-9]*",
            "[^]*]*",
            "[[:alpha:]*]*",
            r"\d*",
            r"\pL*",
            r"\x2a*",
            r"a\*",
            "(a|b)*",
            "a{2}*",
            "[/]*",
        ] {
            check(regex, None);
        }
    }

    #[test]
    fn globs_match_paths() {
        let mut patterns = Patterns::default();
        let mut check = |glob: &str, file: &str, expected: bool| {
            assert_eq!(patterns.any_file_matches(&[glob.to_owned()], &[file.to_owned()]), expected, "{glob} {file}");
        };
        check("src/**", "src/a/b.rs", true);
        check("src/*", "src/a/b.rs", true);
        check("*.rs", "src/a.rs", false);
        check("src", "src/a.rs", true);
        check("src", "srcs/a.rs", false);
        check("Cargo.*", "Cargo.lock", true);
    }

    #[test]
    fn globs_stay_inside() {
        let mut patterns = Patterns::default();
        for glob in ["../x", "a/../../b", "/etc/*", ""] {
            assert!(patterns.glob_fault(glob).is_some(), "{glob}");
        }
        assert_eq!(patterns.glob_fault("a..b/*"), None);
    }
}
