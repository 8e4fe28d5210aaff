//! Of which files of the repository a job's environment is made: its result depends on them, whatever its `inputs` say.
//!
//! Nothing here reads a file, so what a Dockerfile copies or a flake imports is not known: all that they may see counts.

use std::path::{Component, Path};

use graph::{Environment, Job, Reuse, Text};

use crate::tree::Node;

/// What an environment is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MadeOf {
    /// Of no file of the repository.
    Nothing,
    /// Of these, by glob.
    Files(Vec<String>),
    /// Of any of the project's folder.
    Project,
    /// Of any of the checkout.
    Checkout,
}

/// Makes a job that is reused by its inputs depend on the files of its environment too. Inputs that take nothing are left to
/// whoever tells that they mean nothing.
pub(crate) fn add(job: &mut Job) {
    let Reuse::Inputs(globs) = &mut job.reuse else { return };
    if !globs.is_empty() && globs.iter().all(|glob| glob.starts_with('!')) {
        return;
    }
    match made_of(&job.environment) {
        MadeOf::Nothing => {}
        MadeOf::Files(files) => globs.extend(files),
        MadeOf::Project => globs.push(WHOLE_PROJECT.to_owned()),
        MadeOf::Checkout => job.reuse = Reuse::Tree,
    }
}

/// What of an environment may be made of any file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    /// The image of its Dockerfile.
    OfDockerfile,
    /// The shell of its flake.
    OfFlake,
}

/// What of an environment, as it is written, surely is made of any file.
pub(crate) fn whole_of(environment: &Node) -> Option<Whole> {
    let text = |name: &str| environment.get(name).and_then(Node::scalar_text);
    if text("dockerfile").is_some() {
        return is_root(text("context").unwrap_or_default()).then_some(Whole::OfDockerfile);
    }
    let reference = text("nix").filter(|reference| !expression::Template::is_needed(reference))?;
    (of_flake(reference) == MadeOf::Checkout).then_some(Whole::OfFlake)
}

/// The glob that takes all of the project's folder.
pub(crate) const WHOLE_PROJECT: &str = "**";

/// Of what the environment is made. A path that is known only later may be any of the project.
pub(crate) fn made_of(environment: &Environment) -> MadeOf {
    match environment {
        Environment::Dockerfile { dockerfile, context, .. } => of_dockerfile(dockerfile, context),
        Environment::Nix { nix: Text::Plain(reference) } => of_flake(reference),
        Environment::Nix { nix: Text::Template(_) } => MadeOf::Checkout,
        Environment::Host
        | Environment::Sandbox { .. }
        | Environment::Image { .. }
        | Environment::Kubernetes { .. } => MadeOf::Nothing,
    }
}

/// The build sees its context and nothing beyond. A path that leads out of the project fails the job, and adds nothing here.
fn of_dockerfile(dockerfile: &Text, context: &str) -> MadeOf {
    let (Text::Plain(dockerfile), false) = (dockerfile, is_root(context)) else { return MadeOf::Project };
    MadeOf::Files([dockerfile, context].into_iter().filter_map(glob_of).collect())
}

/// Nix copies the whole repository of a flake before it evaluates it, also of one in a folder; `path:FOLDER` means the folder alone.
fn of_flake(reference: &str) -> MadeOf {
    let place = reference.split(['?', '#']).next().unwrap_or_default();
    if let Some(folder) = place.strip_prefix("path:") {
        return match glob_of(folder) {
            Some(glob) if !is_root(folder) => MadeOf::Files(vec![glob]),
            _ => MadeOf::Checkout,
        };
    }
    if is_elsewhere(place) { MadeOf::Nothing } else { MadeOf::Checkout }
}

/// Whether a flake's reference is an address, or a name of Nix's registry (`nixpkgs`, `nixpkgs/nixos-25.05`).
/// Source: nix.dev/manual/nix/latest/command-ref/new-cli/nix3-flake, "Flake references".
fn is_elsewhere(place: &str) -> bool {
    if let Some((scheme, _)) = place.split_once(':') {
        return !scheme.split('+').any(|part| matches!(part, "file" | "path"));
    }
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let (name, version) = place.split_once('/').unwrap_or((place, ""));
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(is_of_name)
        && !version.contains("..")
}

/// Whether a relative path is the folder that it begins in.
fn is_root(path: &str) -> bool {
    Path::new(path).components().all(|component| component == Component::CurDir)
}

/// The glob that means this file or folder and nothing else; `None` if the path leads out, or nowhere.
fn glob_of(path: &str) -> Option<String> {
    let mut names = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    let path = names.join("/");
    let mut glob = if path.starts_with('!') { "./".to_owned() } else { String::new() };
    for letter in path.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            glob.push('\\');
        }
        glob.push(letter);
    }
    (!path.is_empty()).then_some(glob)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &Environment) -> String {
        match made_of(environment) {
            MadeOf::Nothing => "nothing".to_owned(),
            MadeOf::Files(globs) => globs.join(" "),
            MadeOf::Project => "the project".to_owned(),
            MadeOf::Checkout => "the checkout".to_owned(),
        }
    }

    #[test]
    fn what_an_image_is_built_of() {
        let check = |dockerfile: Text, context: &str, expected: &str| {
            let (args, target, container) = Default::default();
            let environment = Environment::Dockerfile { dockerfile, context: context.into(), args, target, container };
            assert_eq!(of(&environment), expected, "{environment:?}");
        };
        check("Dockerfile".into(), "", "the project");
        check("ci/Dockerfile".into(), "./.", "the project");
        check("ci/Dockerfile".into(), "ci", "ci/Dockerfile ci");
        check("./a[b]/!D".into(), "!x/./y/", r"a\[b\]/!D ./!x/y");
        check(Text::Template("${{ needs.a.outputs.file }}".into()), "ci", "the project");
        check("../Dockerfile".into(), "/tmp", "");
    }

    #[test]
    fn what_a_flakes_shell_is_made_of() {
        let check = |references: &[&str], expected: &str| {
            for reference in references {
                let environment = Environment::Nix { nix: (*reference).into() };
                assert_eq!(of(&environment), expected, "{reference}");
            }
        };
        check(
            &[".", "#ci", ".#ci", "./nix#ci", "..", "git+file:.?dir=nix", "path:.#ci", "path:/x", "path:../x"],
            "the checkout",
        );
        check(&["path:nix#ci", "path:./nix/?x=1"], "nix");
        check(&["nixpkgs", "nixpkgs/nixos-25.05#hello", "github:a/b#ci", "git+https://a.b/c?dir=d"], "nothing");
        assert_eq!(made_of(&Environment::Nix { nix: Text::Template("${{ env.X }}".into()) }), MadeOf::Checkout);
    }

    #[test]
    fn globs_mean_what_the_environment_is_made_of() {
        let matches = |path: &str, file: &str| {
            graph::patterns::Patterns::new(&[glob_of(path).unwrap()]).unwrap().matches(Path::new(file))
        };
        assert!(matches("!a[b]*/{c}\\d", "!a[b]*/{c}\\d"));
        assert!(matches("./a/", "a/b/.c") && !matches("a", "ab"));
    }
}
