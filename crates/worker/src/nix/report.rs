//! What became of a build by Nix: each derivation as a result, and each installable's store paths.

use std::collections::{BTreeMap, BTreeSet};

use graph::nix::installable_name;
use graph::{TestCase, TestOutcome};
use serde::Deserialize;

use super::log::{Heard, Told, What};
use super::name_of;

/// The suite of the results.
pub const SUITE: &str = "nix build";

/// What came of a build.
#[derive(Debug, Default, PartialEq)]
pub struct Built {
    /// Each derivation that Nix touched or that was asked for: those that failed first, then by name.
    pub results: Vec<TestCase>,
    /// Store paths by the name under which they are handed on: `app`, `app.dev` for an output that is not the first.
    pub outputs: BTreeMap<String, String>,
    /// `3 built, 1 cached, 1 failed`.
    pub summary: String,
}

/// One of the values that `nix build --json` prints. Fields that are not known are passed over.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "drvPath")]
    derivation: Option<String>,
    #[serde(default)]
    outputs: BTreeMap<String, Option<String>>,
}

/// How a derivation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Went {
    Failed,
    Unbuilt,
    Stopped,
    Built,
    Fetched,
    Cached,
}

impl Went {
    const ALL: [Self; 6] = [Self::Built, Self::Fetched, Self::Cached, Self::Failed, Self::Unbuilt, Self::Stopped];

    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unbuilt => "not built",
            Self::Stopped => "stopped",
            Self::Built => "built",
            Self::Fetched => "fetched",
            Self::Cached => "cached",
        }
    }

    fn outcome(self) -> TestOutcome {
        match self {
            Self::Failed => TestOutcome::Failed,
            Self::Stopped => TestOutcome::Errored,
            Self::Built => TestOutcome::Passed,
            Self::Unbuilt | Self::Fetched | Self::Cached => TestOutcome::Skipped,
        }
    }
}

/// Whether the build as a whole passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was built.
    Passed,
    /// Something was not.
    Failed,
    /// It was stopped before it knew.
    Stopped,
}

/// Puts together what was heard of the build of these installables.
#[must_use]
pub fn built(heard: &Heard, installables: &[String], ended: Ended) -> Built {
    let answers = answers(&heard.answers);
    let mut went: BTreeMap<&str, Went> =
        heard.paths.iter().map(|(path, told)| (path.as_str(), went(told, ended))).collect();
    let missing: BTreeSet<&str> = heard.missing.iter().map(String::as_str).collect();
    for path in &missing {
        let is_begun = went.contains_key(path);
        went.insert(path, if is_begun { Went::Failed } else { Went::Unbuilt });
    }
    // After a failure only what is not missing is there.
    for derivation in answers.iter().flatten().filter_map(|answer| answer.derivation.as_deref()) {
        went.entry(derivation).or_insert(Went::Cached);
    }
    let mut ordered: Vec<(Went, &str)> = went.into_iter().map(|(path, went)| (went, path)).collect();
    ordered.sort_by_key(|(went, path)| (*went, name_of(path)));
    let counts = Went::ALL.map(|kind| (ordered.iter().filter(|(went, _)| *went == kind).count(), kind.word()));
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    let summary = counts.collect::<Vec<_>>().join(", ");
    let results = ordered.iter().map(|(went, path)| result(*went, path, heard.paths.get(*path))).collect();
    let outputs = if ended == Ended::Passed { outputs(&answers, installables) } else { BTreeMap::new() };
    Built { results, outputs, summary }
}

fn went(told: &Told, ended: Ended) -> Went {
    // The signal that stops the build reaches the builder too, and Nix may yet have the time to tell of its death.
    let is_killed = ["failed due to signal", "interrupted by the user"].iter().any(|words| told.error.contains(words));
    match (told.what, ended) {
        (_, Ended::Stopped) if is_killed => Went::Stopped,
        _ if !told.error.is_empty() => Went::Failed,
        (_, Ended::Stopped) if !told.has_ended => Went::Stopped,
        (What::Substitute, _) => Went::Fetched,
        (What::Build, _) => Went::Built,
    }
}

fn result(went: Went, path: &str, told: Option<&Told>) -> TestCase {
    let reason = match went {
        Went::Unbuilt => "not built: something that it depends on failed",
        Went::Fetched => "fetched from another store",
        Went::Cached => "cached: it was in the store",
        Went::Stopped => "stopped before its end",
        Went::Failed | Went::Built => "",
    };
    let (error, output) = told.map(|told| (told.error.as_str(), told.output.as_str())).unwrap_or_default();
    let message = match (reason, went, error) {
        ("", Went::Failed, "") => format!("{path} was not built"),
        ("", _, error) => error.to_owned(),
        (reason, ..) => reason.to_owned(),
    };
    let message = match (went, output) {
        // The builder's last words say more than Nix's.
        (Went::Failed, output) if !output.is_empty() => format!("{}\n{message}", last_lines(output)),
        _ => message,
    };
    TestCase {
        suite: SUITE.to_owned(),
        name: name_of(path).to_owned(),
        outcome: went.outcome(),
        duration_ms: told.map_or(0, |told| told.last_us.saturating_sub(told.began_us) / 1000),
        message,
        output: output.to_owned(),
    }
}

/// The last three lines.
fn last_lines(output: &str) -> &str {
    let start = output.rmatch_indices('\n').nth(2).map_or(0, |(at, _)| at + 1);
    &output[start..]
}

/// The values on stdout, as far as they are whole.
fn answers(text: &[u8]) -> Vec<Vec<Answer>> {
    serde_json::Deserializer::from_slice(text).into_iter().map_while(Result::ok).collect()
}

/// One installable's answer is the only one; several were asked for again, one after the other, after all together.
fn outputs(answers: &[Vec<Answer>], installables: &[String]) -> BTreeMap<String, String> {
    let of_each = if installables.len() == 1 { answers } else { answers.get(1..).unwrap_or_default() };
    let mut outputs = BTreeMap::new();
    for (installable, answer) in installables.iter().zip(of_each) {
        let name = installable_name(installable);
        for built in answer {
            let paths = built.outputs.iter().filter_map(|(output, path)| Some((output.as_str(), path.as_ref()?)));
            let paths: Vec<(&str, &String)> = paths.collect();
            let first = paths.iter().find(|(output, _)| *output == "out").or(paths.first());
            if let Some((_, path)) = first {
                outputs.entry(name.clone()).or_insert_with(|| (*path).clone());
            }
            for (output, path) in paths.iter().filter(|(output, _)| *output != "out") {
                outputs.entry(format!("{name}.{output}")).or_insert_with(|| (*path).clone());
            }
        }
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::{Ended, built};
    use crate::nix::log::{Heard, Told, What};

    fn heard(paths: &[(&str, Told)], missing: &[&str], answers: &str) -> Heard {
        Heard {
            paths: paths.iter().map(|(path, told)| ((*path).to_owned(), told.clone())).collect(),
            missing: missing.iter().map(|path| (*path).to_owned()).collect(),
            answers: answers.as_bytes().to_vec(),
            ..Heard::default()
        }
    }

    fn check(heard: &Heard, installables: &[&str], ended: Ended, expected: &str) {
        let installables: Vec<String> = installables.iter().map(|&installable| installable.to_owned()).collect();
        let built = built(heard, &installables, ended);
        let results = built.results.iter().map(|case| format!("{} {:?} {:?}", case.name, case.outcome, case.message));
        let outputs = built.outputs.iter().map(|(name, path)| format!("{name}={path}"));
        let lines: Vec<String> = results.chain(outputs).chain([built.summary.clone()]).collect();
        assert_eq!(lines.join("\n"), expected);
    }

    fn told(error: &str) -> Told {
        Told { error: error.to_owned(), has_ended: true, ..Told::default() }
    }

    #[test]
    fn one_installable_with_two_outputs() {
        let answer = r#"[{"drvPath":"/s/0-a.drv","outputs":{"dev":"/s/2-a-dev","out":"/s/1-a"},"new":1}]"#;
        let expected = "a Passed \"\"\na=/s/1-a\na.dev=/s/2-a-dev\n1 built";
        check(&heard(&[("/s/0-a.drv", told(""))], &[], answer), &[".#a"], Ended::Passed, expected);
    }

    #[test]
    fn several_are_told_apart_by_being_asked_again() {
        let [a, b] =
            ["a", "b"].map(|name| format!(r#"{{"drvPath":"/s/0-{name}.drv","outputs":{{"out":"/s/1-{name}"}}}}"#));
        let answers = format!("[{b},{a}]\n[{a}]\n[{b}]\n");
        let fetched = Told { what: What::Substitute, ..told("") };
        let expected = "a Passed \"\"\nlib Skipped \"fetched from another store\"\nb Skipped \"cached: it was in the store\"\n\
                        a=/s/1-a\nb=/s/1-b\n1 built, 1 fetched, 1 cached";
        let paths = [("/s/0-a.drv", told("")), ("/s/9-lib", fetched)];
        check(&heard(&paths, &[], &answers), &[".#a", ".#b"], Ended::Passed, expected);
    }

    #[test]
    fn a_failure_keeps_what_depends_on_it_unbuilt() {
        let answers = r#"[{"drvPath":"/s/0-a.drv"},{"drvPath":"/s/0-c.drv"},{"drvPath":"/s/0-d.drv"}]"#;
        let bad = Told { output: "1\n2\n3\n4".to_owned(), ..told("error: builder failed") };
        let paths = [("/s/0-a.drv", bad), ("/s/0-b.drv", told("")), ("/s/0-e.drv", told(""))];
        let expected = "a Failed \"2\\n3\\n4\\nerror: builder failed\"\ne Failed \"/s/0-e.drv was not built\"\n\
                        c Skipped \"not built: something that it depends on failed\"\nb Passed \"\"\n\
                        d Skipped \"cached: it was in the store\"\n1 built, 1 cached, 2 failed, 1 not built";
        let missing = ["/s/0-a.drv", "/s/0-c.drv", "/s/0-e.drv"];
        check(&heard(&paths, &missing, answers), &[".#a", ".#c", ".#d"], Ended::Failed, expected);
    }

    #[test]
    fn a_build_that_was_stopped_or_never_began() {
        let killed = told("error: builder for '/s/0-c.drv' failed due to signal 15 (Terminated)");
        let paths = [("/s/0-a.drv", Told::default()), ("/s/0-b.drv", told("")), ("/s/0-c.drv", killed)];
        let stopped = "Errored \"stopped before its end\"";
        let expected = format!("a {stopped}\nc {stopped}\nb Passed \"\"\n1 built, 2 stopped");
        let expected = expected.as_str();
        check(&heard(&paths, &[], "[{"), &[".#a"], Ended::Stopped, expected);
        check(&heard(&[], &[], "no JSON"), &[".#a"], Ended::Failed, "");
    }
}
