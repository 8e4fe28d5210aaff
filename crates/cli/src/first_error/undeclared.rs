//! Files that a job missed because it did not declare them: in a sandbox a job with `inputs` sees nothing else of the tree. Also
//! files that it could not write because they are somebody else's.

use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use graph::{Environment, Job, JobName};
use regex::Regex;
use worker::patterns::Patterns;
use worker::tree::Tree;

use super::ExcerptLine;
use crate::columns;

/// What the system says (`EOVERFLOW`) where a program writes, in an overlay of a user namespace, a file that is not of its one user
/// and group.
const OF_SOMEBODY_ELSE: &str = "Value too large for defined data type";
const OF_SOMEBODY_ELSE_HELP: &str = "the file may belong to another user or group, and an overlay of yours cannot change it: `chown` \
                                     makes it yours, `workspace: in_place` works in your tree itself";

/// A name that more files of the tree end with tells nothing.
const FILES_MAX: usize = 3;

/// How programs say that a file is not there; the first group is its name.
static MISSING: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        // Shells, coreutils, compilers: NAME: No such file or directory, also quoted.
        r#"['"‘`]?([^\s:'"‘’`]+)['"’`]?: No such file or directory"#,
        // Python's FileNotFoundError and its like.
        r#"No such file or directory: b?['"]([^'"]+)['"]"#,
        // Node.
        r"ENOENT: no such file or directory, \w+ '([^']+)'",
        r"Cannot find module '(\.[^']+)'",
        // Go.
        r"\b(?:open|stat|lstat|chdir) (\S+): no such file or directory",
        // Rust.
        r#"(?:couldn't|could not|failed to) read [`'"]([^`'"]+)[`'"]"#,
        // Shells on a program, Python on a script.
        r"(?:^|\s)(\S*/\S+): (?:command )?not found",
        r"can't open (?:file )?['\x22]?([^'\x22\s]+?)['\x22]?(?::|$)",
        // make.
        r"No rule to make target '([^']+)'",
    ]
    .iter()
    .map(|pattern| Regex::new(pattern).expect("the patterns of this file are valid"))
    .collect()
});
/// Python's modules, whose names are not paths.
static MODULE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"No module named '?([\w.]+)").expect("a valid pattern"));
/// What a name may lack at its end to be a file's.
const ENDS: &[&str] = &["", ".py", "/__init__.py", ".js", ".ts", ".mjs", ".cjs", ".json", "/index.js", "/index.ts"];

/// A hint about files of the tree at `root` that `lines` miss and `job` does not declare; `None` if there are none, or it
/// sees the whole tree. About files that it could not write in any case.
pub fn hint(root: &Path, name: &JobName, job: &Job, lines: &[ExcerptLine]) -> Option<String> {
    if lines.iter().any(|line| line.text.contains(OF_SOMEBODY_ELSE)) {
        return Some(OF_SOMEBODY_ELSE_HELP.to_owned());
    }
    if !matches!(job.environment, Environment::Sandbox { .. }) {
        return None;
    }
    let globs = job.inputs()?;
    let missing = missing(root, lines);
    if missing.is_empty() {
        return None;
    }
    let tree = Tree::list(root).ok()?;
    let files = undeclared(tree.paths(), globs, &missing);
    let listed = files.iter().map(|file| format!("`{}`", columns::one_line(file))).collect::<Vec<_>>().join(", ");
    let (is, it) = if files.len() == 1 { ("is", "it") } else { ("are", "them") };
    (!files.is_empty()).then(|| {
        format!("{listed} {is} in the repository but not among the `inputs` of `{}`, all that it sees in a sandbox: add {it} there", name.id())
    })
}

/// The names that lines say are not there, as paths below the root or ends of such paths.
fn missing(root: &Path, lines: &[ExcerptLine]) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for line in lines {
        let text = columns::bare(&line.text);
        names.extend(MISSING.iter().filter_map(|regex| Some(regex.captures(&text)?[1].to_owned())));
        names.extend(MODULE.captures(&text).map(|captures| captures[1].trim_matches('.').replace('.', "/")));
    }
    let mut paths: Vec<PathBuf> = names.iter().filter_map(|name| below(root, Path::new(name))).collect();
    paths.dedup();
    paths
}

/// A path without what leads to the root, `.` and `..`; `None` if it lies elsewhere.
fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            component => clean.push(component),
        }
    }
    let clean = match clean.is_absolute() {
        true => clean.strip_prefix(root).ok()?.to_path_buf(),
        false => clean,
    };
    (clean != Path::new("")).then_some(clean)
}

/// The files, or folders, of `paths` that are missing and that no glob names.
fn undeclared(paths: &[PathBuf], globs: &[String], missing: &[PathBuf]) -> Vec<String> {
    let Ok(patterns) = Patterns::new(globs) else { return Vec::new() };
    let declared: std::collections::HashSet<usize> = patterns.select(paths).into_iter().collect();
    let hidden: Vec<&Path> = paths
        .iter()
        .enumerate()
        .filter(|(place, _)| !declared.contains(place))
        .map(|(_, path)| path.as_path())
        .collect();
    let mut files: Vec<String> = Vec::new();
    for name in missing {
        let ends: Vec<PathBuf> = ENDS.iter().map(|end| PathBuf::from(format!("{}{end}", name.display()))).collect();
        let exact =
            hidden.iter().find(|path| ends.iter().any(|end| end == *path)).map(|path| path.display().to_string());
        let folder = || hidden.iter().any(|path| path.starts_with(name)).then(|| format!("{}/**", name.display()));
        if let Some(file) = exact.or_else(folder) {
            files.push(file);
            continue;
        }
        let like: Vec<String> = hidden
            .iter()
            .filter(|path| ends.iter().any(|end| path.ends_with(end)))
            .take(FILES_MAX + 1)
            .map(|path| path.display().to_string())
            .collect();
        if like.len() <= FILES_MAX {
            files.extend(like);
        }
    }
    files.sort();
    files.dedup();
    files.truncate(FILES_MAX);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let tree = [
            "config/app.toml",
            "data/a b.csv",
            "include/far/rope.h",
            "lib/x/index.js",
            "pkg/mod.py",
            "src/main.c",
            "t/run.sh",
        ];
        let paths: Vec<PathBuf> = tree.iter().map(PathBuf::from).collect();
        let line = ExcerptLine { number: 1, text: line.to_owned() };
        let missing = missing(Path::new("/home/ada/project"), std::slice::from_ref(&line));
        assert_eq!(undeclared(&paths, &["src/**".to_owned()], &missing), expected, "{}", line.text);
    }

    #[test]
    fn files_that_programs_miss_are_found_in_the_tree() {
        check("cat: config/app.toml: No such file or directory", &["config/app.toml"]);
        check("cat: ../config/app.toml: No such file or directory", &["config/app.toml"]);
        check("ls: cannot access 'data': No such file or directory", &["data/**"]);
        check("src/main.c:1:10: fatal error: rope.h: No such file or directory", &["include/far/rope.h"]);
        check("FileNotFoundError: [Errno 2] No such file or directory: 'data/a b.csv'", &["data/a b.csv"]);
        check(
            "Error: ENOENT: no such file or directory, open '/home/ada/project/config/app.toml'",
            &["config/app.toml"],
        );
        check("Error: Cannot find module './lib/x'", &["lib/x/index.js"]);
        check("panic: open config/app.toml: no such file or directory", &["config/app.toml"]);
        check("ModuleNotFoundError: No module named 'pkg.mod'", &["pkg/mod.py"]);
        check(
            "python: can't open file '/home/ada/project/t/run.sh': [Errno 2] No such file or directory",
            &["t/run.sh"],
        );
        check("sh: 1: t/run.sh: not found", &["t/run.sh"]);
        check(
            "\u{1b}[31mmake: *** No rule to make target 'config/app.toml', needed by 'all'.  Stop.\u{1b}[0m",
            &["config/app.toml"],
        );
    }

    #[test]
    fn what_is_declared_or_elsewhere_is_not_told() {
        check("cat: src/main.c: No such file or directory", &[]);
        check("cat: nowhere: No such file or directory", &[]);
        check("cat: /etc/config/app.toml: No such file or directory", &[]);
        check("all is well with config/app.toml", &[]);
    }
}
