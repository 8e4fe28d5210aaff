//! What `init` proposes for a `Makefile`: the targets that build and test by their names, or plain `make` where its first
//! target is known to do no more. What a target of another name does nobody can see, and `deploy` is a common one.

use super::{Found, Repository, has_target, job};

/// First targets that plain `make` may make: by these names nobody calls what changes anything outside the folder.
const HARMLESS: [&str; 11] =
    ["all", "build", "check", "compile", "default", "examples", "help", "lib", "lint", "test", "tests"];

/// Only where nothing else was found: a `Makefile` beside another build mostly calls it.
pub(super) fn look(repository: &Repository<'_>, found: &mut Found) {
    let Some(file) = ["GNUmakefile", "makefile", "Makefile"].into_iter().find(|file| repository.has(file)) else {
        return;
    };
    if !found.jobs.is_empty() {
        return;
    }
    let text = repository.text(file);
    let has = |target: &&str| has_target(&text, target);
    let build = ["build", "all"].into_iter().find(has).map(|target| format!("make {target}"));
    let test = ["check", "test"].into_iter().find(has).map(|target| format!("make {target}"));
    let mut run: Vec<String> = build.into_iter().chain(test).collect();
    if run.is_empty() {
        match first_target(&text) {
            Some(target) if HARMLESS.contains(&target) || makes_file(&text, target) => run.push("make".to_owned()),
            first => return found.remarks.push(left_out(file, first)),
        }
    }
    found.add(repository, &["make"], job("make", "Makes the targets of the Makefile.", run));
}

fn left_out(file: &str, first: Option<&str>) -> String {
    let why = match first {
        Some(target) => format!("it would make `{target}`, and a name does not say whether that is harmless"),
        None => format!("which target it would make is not seen in {file}"),
    };
    format!("plain `make` is left out: {why}; write `run: make TARGET` with the targets that build and test")
}

/// The target of plain `make`, if the file itself says it.
fn first_target(makefile: &str) -> Option<&str> {
    let lines = || makefile.lines().filter(|line| !line.starts_with(['\t', '#', ' ']));
    let goal = lines().find_map(|line| line.strip_prefix(".DEFAULT_GOAL"));
    if let Some(goal) = goal {
        return Some(goal.trim_start_matches([' ', ':', '?', '=']).trim());
    }
    for line in lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if matches!(first, "include" | "-include" | "sinclude" | "define") {
            return None;
        }
        let Some((targets, rest)) = line.split_once(':') else { continue };
        let is_assignment = targets.contains('=') || rest.trim_start_matches(':').starts_with('=');
        let Some(target) = targets.split_whitespace().next().filter(|_| !is_assignment) else { continue };
        // As make does: neither special targets nor patterns.
        let is_special = target.starts_with('.') && !target.contains('/');
        if !is_special && !target.contains('%') {
            return Some(target);
        }
    }
    None
}

/// Whether the rule of a target writes a file of its name: by a compiler's `-o`, by `>`, or by linking objects without a recipe.
fn makes_file(makefile: &str, target: &str) -> bool {
    let mut lines = makefile.lines().skip_while(|line| !has_target(line, target));
    let Some((_, needs)) = lines.next().and_then(|line| line.split_once(':')) else { return false };
    let recipe: Vec<&str> = lines.take_while(|line| line.starts_with('\t')).collect();
    let needs: Vec<&str> = needs.split_whitespace().collect();
    if recipe.is_empty() {
        return !needs.is_empty() && needs.iter().all(|need| need.ends_with(".o"));
    }
    let words: Vec<&str> = recipe.iter().flat_map(|line| line.split_whitespace()).collect();
    words.windows(2).any(|pair| matches!(pair[0], "-o" | ">") && (pair[1] == "$@" || pair[1] == target))
}
