//! The frontmatter of a single-file program: a manifest between `---` lines, as cargo script has it.
//!
//! Source: RFC 3503. A file may begin with a shebang line and empty lines; then a line of three or more `-`, perhaps
//! followed by `cargo`; the manifest; and a line of as many `-`. The compiler of today does not know it everywhere, so
//! programs are compiled from a copy in which these lines are empty and all others keep their numbers.

/// A program's text, parted.
#[derive(Debug, PartialEq, Eq)]
pub struct Parted<'a> {
    /// What stands between the fences; `None` if there are none.
    pub manifest: Option<&'a str>,
    /// The program with its frontmatter left empty; `None` if it can be compiled as it is.
    pub program: Option<String>,
}

/// Parts a program's text.
///
/// # Errors
/// The line (from 1) on which a fence was opened that nothing closes, or that names another language than `cargo`.
pub fn part(text: &str) -> Result<Parted<'_>, Fault> {
    let mut offset = 0;
    let mut lines = text.split_inclusive('\n').enumerate().peekable();
    if let Some((_, first)) = lines.next_if(|(_, line)| line.starts_with("#!") && !line.starts_with("#![")) {
        offset += first.len();
    }
    while let Some((_, empty)) = lines.next_if(|(_, line)| line.trim().is_empty()) {
        offset += empty.len();
    }
    let Some((number, open)) = lines.next_if(|(_, line)| line.starts_with("---")) else {
        return Ok(Parted { manifest: None, program: None });
    };
    let dashes = open.len() - open.trim_start_matches('-').len();
    let fence = &open[..dashes];
    let language = open[dashes..].trim();
    if !language.is_empty() && language != "cargo" {
        return Err(Fault { line: number + 1, message: format!("the frontmatter is `{language}`, not `cargo`") });
    }
    let start = offset + open.len();
    let mut end = start;
    for (_, line) in lines {
        if line.strip_prefix(fence).is_some_and(|rest| rest.trim().is_empty()) {
            let after = end + line.len();
            let left_empty = "\n".repeat(text[offset..after].matches('\n').count());
            let program = format!("{}{left_empty}{}", &text[..offset], &text[after..]);
            return Ok(Parted { manifest: Some(&text[start..end]), program: Some(program) });
        }
        end += line.len();
    }
    Err(Fault { line: number + 1, message: format!("nothing closes the frontmatter: a line `{fence}` is missing") })
}

/// What is wrong with a frontmatter.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// A sentence.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::{Fault, Parted, part};

    fn check(text: &str, manifest: Option<&str>, program: Option<&str>) {
        let expected = Parted { manifest, program: program.map(str::to_owned) };
        assert_eq!(part(text), Ok(expected), "{text:?}");
    }

    #[test]
    fn frontmatter_is_parted() {
        check("fn main() {}\n", None, None);
        check("#![allow(x)]\nfn main() {}\n", None, None);
        check("---\nx = 1\n---\nfn main() {}\n", Some("x = 1\n"), Some("\n\n\nfn main() {}\n"));
        check("#!/usr/bin/env cargo\n\n---cargo\nx\n---\ny", Some("x\n"), Some("#!/usr/bin/env cargo\n\n\n\n\ny"));
        check("----\n---\n----\ny\n", Some("---\n"), Some("\n\n\ny\n"));
    }

    #[test]
    fn fences_that_stay_open_are_told() {
        let fault = |line, message: &str| Err(Fault { line, message: message.to_owned() });
        assert_eq!(part("---\nx"), fault(1, "nothing closes the frontmatter: a line `---` is missing"));
        assert_eq!(part("\n---toml\nx"), fault(2, "the frontmatter is `toml`, not `cargo`"));
    }
}
