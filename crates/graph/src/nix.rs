//! Words about Nix that the pipeline's author, the worker and the server must agree on.

/// The label of workers on whose machine Nix is installed. A worker finds out by itself whether it has it.
pub const LABEL: &str = "nix";

/// How a glob of an artifact begins that means what an installable of the job came to: `nix:app`.
pub const ARTIFACT_PREFIX: &str = "nix:";

/// The directory of the workspace at which such files appear in the jobs that need them.
pub const RESULTS_DIRECTORY: &str = "result";

/// The name under which an installable's store path is handed on: the last part of its attribute (`app` of
/// `.#packages.x86_64-linux.app`), `default` if it has none. A letter or `_`, then letters, digits, `_` and `-`: all other
/// characters become `_`.
#[must_use]
pub fn installable_name(installable: &str) -> String {
    let (_, attribute) = installable.split_once('#').unwrap_or((installable, ""));
    // Which outputs are wanted stands after `^`.
    let attribute = attribute.split('^').next().unwrap_or_default();
    let last = attribute.trim_matches('"').rsplit(['.', '"']).find(|part| !part.is_empty()).unwrap_or("default");
    let is_kept = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let name: String = last.chars().map(|letter| if is_kept(letter) { letter } else { '_' }).collect();
    if name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') { name } else { format!("_{name}") }
}

#[cfg(test)]
mod tests {
    use super::installable_name;

    #[test]
    fn names_of_installables() {
        let names = [
            (".#app", "app"),
            (".", "default"),
            (".#", "default"),
            ("nixpkgs#python3Packages.requests", "requests"),
            (".#packages.x86_64-linux.app", "app"),
            (".#checks.x86_64-linux.\"a.b\"", "b"),
            (".#openssl^out,dev", "openssl"),
            (".#7zip", "_7zip"),
            (".#gtk+", "gtk_"),
        ];
        for (installable, name) in names {
            assert_eq!(installable_name(installable), name, "{installable}");
        }
    }
}
