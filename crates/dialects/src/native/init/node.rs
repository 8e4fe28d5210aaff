//! What `init` proposes for a Node project: install by its package manager, then those scripts that only look.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Found, Kept, Repository, job};

/// For each thing to do the scripts that do it, the fittest for an unattended run first.
const SCRIPTS: [&[&str]; 3] =
    [&["lint:ci", "lint:check", "check:lint", "lint"], &["build"], &["test:ci", "test", "test:unit"]];

/// Flags by which linters and formatters change the files that they look at.
const WRITING_FLAGS: [&str; 5] = ["--fix", "--write", "--apply", "--apply-unsafe", "--autofix"];

pub(super) fn look(repository: &Repository<'_>, found: &mut Found) {
    let Ok(package) = serde_json::from_str::<Value>(&repository.text("package.json")) else { return };
    let (program, install) = manager(repository);
    let has_packages = ["dependencies", "devDependencies", "optionalDependencies", "workspaces"]
        .iter()
        .any(|key| package[key].as_object().is_some_and(|map| !map.is_empty()) || package[key].is_array());
    let scripts = Scripts(package["scripts"].as_object());
    let mut run: Vec<String> = Vec::new();
    for names in SCRIPTS {
        let there: Vec<&str> = names.iter().copied().filter(|name| scripts.text(name).is_some()).collect();
        let unfit = |name: &str| scripts.unfitness(name, &mut BTreeSet::new());
        match there.iter().find(|name| unfit(name).is_none()) {
            Some(name) => run.push(format!("{program} run {name}")),
            None => found.remarks.extend(
                there
                    .first()
                    .and_then(|name| Some(format!("`{program} run {name}` is left out: it {}", unfit(name)?.spoken()))),
            ),
        }
    }
    // Installing alone proves nothing.
    if run.is_empty() {
        return;
    }
    if has_packages {
        run.insert(0, install.to_owned());
    }
    let programs: &[&str] = if program == "bun" { &["bun"] } else { &["node", program] };
    let comment = match (has_packages, install.contains("--no-package-lock")) {
        (false, _) => "Runs the scripts of package.json.",
        (true, true) => "Installs what package.json asks for, then runs its scripts.",
        (true, false) => "Installs what the lock file says, then runs the scripts of package.json.",
    };
    let mut proposal = job("node", comment, run);
    if has_packages && let Some(lock) = LOCKS_OF_NPM.into_iter().find(|lock| repository.has(lock) && program == "npm") {
        // `npm ci` removes `node_modules`, so what it fetched is kept instead.
        proposal.run[0] = format!("{install} --cache .npm --prefer-offline");
        let key = format!("npm-${{{{ hash_files('{lock}') }}}}");
        proposal.cache = Some(Kept { key, path: ".npm", restore: Some("npm-") });
    }
    found.add(repository, programs, proposal);
}

/// The lock files of npm.
const LOCKS_OF_NPM: [&str; 2] = ["package-lock.json", "npm-shrinkwrap.json"];

/// The program and how it installs, by the lock file.
fn manager(repository: &Repository<'_>) -> (&'static str, &'static str) {
    match () {
        () if repository.has("pnpm-lock.yaml") => ("pnpm", "pnpm install --frozen-lockfile"),
        () if repository.has("yarn.lock") => ("yarn", "yarn install --frozen-lockfile"),
        () if repository.has("bun.lock") || repository.has("bun.lockb") => ("bun", "bun install --frozen-lockfile"),
        () if LOCKS_OF_NPM.iter().any(|lock| repository.has(lock)) => ("npm", "npm ci"),
        () => ("npm", "npm install --no-package-lock"),
    }
}

/// Why a script is not for an unattended run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unfitness {
    Writes,
    Watches,
}

impl Unfitness {
    fn spoken(self) -> &'static str {
        match self {
            Self::Writes => "changes files; a script `lint:check` that only looks would be taken",
            Self::Watches => "waits for changes; a script `test:ci` that ends would be taken",
        }
    }
}

/// The scripts of `package.json`.
struct Scripts<'a>(Option<&'a Map<String, Value>>);

impl<'a> Scripts<'a> {
    /// A script that somebody wrote.
    fn text(&self, name: &str) -> Option<&'a str> {
        let text = self.0?.get(name)?.as_str()?;
        (!text.is_empty() && !text.contains("no test specified")).then_some(text)
    }

    /// What makes a script unfit, itself or through the scripts it names.
    fn unfitness(&self, name: &str, seen: &mut BTreeSet<String>) -> Option<Unfitness> {
        if !seen.insert(name.to_owned()) {
            return None;
        }
        let words = || {
            let text = self.text(name).unwrap_or_default();
            text.split(|c: char| c.is_whitespace() || "\"';&|()".contains(c)).filter(|word| !word.is_empty())
        };
        if words().any(|word| WRITING_FLAGS.contains(&word)) {
            return Some(Unfitness::Writes);
        }
        if words().any(|word| matches!(word, "--watch" | "--watchAll" | "--watch=true" | "--watchAll=true")) {
            return Some(Unfitness::Watches);
        }
        words().find_map(|word| self.called(word).into_iter().find_map(|called| self.unfitness(called, seen)))
    }

    /// The scripts that a word of a script names: `lint:js`, or all of `lint:*`.
    fn called(&self, word: &str) -> Vec<&'a str> {
        let names = self.0.into_iter().flatten().map(|(name, _)| name.as_str());
        match word.strip_suffix('*') {
            Some(prefix) if prefix.ends_with(':') => names.filter(|name| name.starts_with(prefix)).collect(),
            _ => names.filter(|name| *name == word).collect(),
        }
    }
}
