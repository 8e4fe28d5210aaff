//! What a pipeline came to in a test, and what can be demanded of it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::json::Json;

/// What a pipeline came to.
#[derive(Clone, Debug)]
pub struct Evaluated {
    graph: Json,
    faults: Vec<String>,
}

impl Evaluated {
    pub(super) fn new(lowered: Json) -> Self {
        let graph = lowered.get("graph").cloned().unwrap_or_default();
        let diagnostics = lowered.get("diagnostics").map(Json::items).unwrap_or_default();
        let is_error = |diagnostic: &&Json| diagnostic.get("severity").and_then(Json::as_str) != Some("warning");
        Self { graph, faults: diagnostics.iter().filter(is_error).map(fault).collect() }
    }

    /// What is wrong with the pipeline, each as `code: message (file:line)`.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The names of all jobs, sorted.
    #[must_use]
    pub fn jobs(&self) -> Vec<&str> {
        self.entries().iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The jobs that are not skipped from the start, sorted.
    #[must_use]
    pub fn runs(&self) -> Vec<&str> {
        let runs = self.entries().iter().filter(|(_, job)| job.get("skip").is_none());
        runs.map(|(name, _)| name.as_str()).collect()
    }

    /// The places that still wait for a result, by name, sorted.
    #[must_use]
    pub fn holes(&self) -> Vec<&str> {
        let holes = self.graph.get("holes").map(Json::items).unwrap_or_default();
        holes.iter().filter_map(|hole| hole.get("name")?.as_str()).collect()
    }

    /// What the pipeline says of a part of itself: its state (`ok`, `skipped`, `pending`, `failed`) and its text.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<(&str, &str)> {
        let status = self.graph.get("statuses")?.get(name)?;
        Some((status.get("state")?.as_str()?, status.get("text").and_then(Json::as_str).unwrap_or_default()))
    }

    /// A job.
    ///
    /// # Panics
    /// If there is none of this name: the message lists those that there are.
    #[track_caller]
    #[must_use]
    pub fn job(&self, name: &str) -> JobSeen<'_> {
        self.assert_right();
        match self.entries().iter().find(|(entry, _)| entry == name) {
            Some((name, job)) => JobSeen { name, job },
            None => panic!("there is no job `{name}`\n{}", self.listing()),
        }
    }

    /// Panics unless the pipeline is right.
    #[track_caller]
    pub fn assert_right(&self) -> &Self {
        assert!(self.faults.is_empty(), "the pipeline is wrong:\n  {}", self.faults.join("\n  "));
        self
    }

    /// Panics unless exactly these jobs run, in any order; others may be there and be skipped.
    #[track_caller]
    pub fn assert_runs<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> &Self {
        self.assert_right();
        let (expected, seen) = (names.into_iter().collect(), self.runs().into_iter().collect());
        assert_same("other jobs run than expected", &expected, &seen, &self.listing());
        self
    }

    /// Panics unless exactly these jobs are there and skipped.
    #[track_caller]
    pub fn assert_skipped<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> &Self {
        self.assert_right();
        let runs: BTreeSet<&str> = self.runs().into_iter().collect();
        let seen = self.jobs().into_iter().filter(|name| !runs.contains(name)).collect();
        assert_same("other jobs are skipped than expected", &names.into_iter().collect(), &seen, &self.listing());
        self
    }

    /// Panics unless exactly these places still wait for a result.
    #[track_caller]
    pub fn assert_holes<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> &Self {
        self.assert_right();
        let (expected, seen) = (names.into_iter().collect(), self.holes().into_iter().collect());
        assert_same("other places wait for results than expected", &expected, &seen, &self.listing());
        self
    }

    /// Panics unless some fault's text holds `part`.
    #[track_caller]
    pub fn assert_wrong(&self, part: &str) -> &Self {
        let is_there = self.faults.iter().any(|fault| fault.contains(part));
        assert!(is_there, "no fault says `{part}`; the faults are:\n  {}", self.faults.join("\n  "));
        self
    }

    fn entries(&self) -> &[(String, Json)] {
        self.graph.get("jobs").map(Json::entries).unwrap_or_default()
    }

    /// All jobs with their needs, a line each.
    pub(super) fn listing(&self) -> String {
        let mut text = "the pipeline has:\n".to_owned();
        for (name, job) in self.entries() {
            let job = JobSeen { name, job };
            let needs = job.needs();
            let after = if needs.is_empty() { String::new() } else { format!(" after {}", needs.join(", ")) };
            let skipped = job.skipped().map(|why| format!(" (skipped: {why})")).unwrap_or_default();
            let _ = writeln!(text, "  {name}{after}{skipped}");
        }
        for hole in self.holes() {
            let _ = writeln!(text, "  … {hole}");
        }
        text
    }
}

fn fault(diagnostic: &Json) -> String {
    let text = |json: &Json, name: &str| json.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    let place = diagnostic.get("location").map_or_else(String::new, |location| {
        let line = location.get("line").cloned().unwrap_or_default();
        format!(" ({}:{line})", text(location, "file"))
    });
    format!("{}: {}{place}", text(diagnostic, "code"), text(diagnostic, "message"))
}

#[track_caller]
fn assert_same(what: &str, expected: &BTreeSet<&str>, seen: &BTreeSet<&str>, listing: &str) {
    if expected == seen {
        return;
    }
    let mut message = format!("{what}\n");
    for name in expected.union(seen) {
        let sign = match (expected.contains(name), seen.contains(name)) {
            (true, true) => ' ',
            (true, false) => '-',
            (false, _) => '+',
        };
        let _ = writeln!(message, "{sign} {name}");
    }
    panic!("{message}(- expected and not there, + there and not expected)\n{listing}");
}

/// A job as a test sees it.
#[derive(Clone, Copy, Debug)]
pub struct JobSeen<'a> {
    name: &'a str,
    job: &'a Json,
}

impl<'a> JobSeen<'a> {
    /// The jobs it needs, sorted.
    #[must_use]
    pub fn needs(&self) -> Vec<&'a str> {
        let needs = self.job.get("needs").map(Json::items).unwrap_or_default();
        needs.iter().filter_map(|need| need.get("job")?.as_str()).collect()
    }

    /// Why it is skipped from the start.
    #[must_use]
    pub fn skipped(&self) -> Option<String> {
        let skip = self.job.get("skip")?;
        let text = skip.get("text").or_else(|| skip.get("reason")).and_then(Json::as_str);
        Some(text.unwrap_or_default().to_owned())
    }

    /// The names of its secrets, sorted.
    #[must_use]
    pub fn secrets(&self) -> Vec<&'a str> {
        self.texts("secrets")
    }

    /// The scripts of its steps.
    #[must_use]
    pub fn scripts(&self) -> Vec<&'a str> {
        let steps = self.job.get("steps").map(Json::items).unwrap_or_default();
        steps.iter().filter_map(|step| step.get("run")?.as_str()).collect()
    }

    /// All of it, as the graph has it.
    #[must_use]
    pub fn json(&self) -> &'a Json {
        self.job
    }

    fn texts(&self, name: &str) -> Vec<&'a str> {
        self.job.get(name).map(Json::items).unwrap_or_default().iter().filter_map(Json::as_str).collect()
    }

    /// Panics unless it needs exactly these jobs.
    #[track_caller]
    pub fn assert_needs<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.assert_set("needs other jobs", names, self.needs());
        self
    }

    /// Panics unless it gets exactly these secrets.
    #[track_caller]
    pub fn assert_secrets<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.assert_set("gets other secrets", names, self.secrets());
        self
    }

    /// Panics unless it runs.
    #[track_caller]
    pub fn assert_runs(self) -> Self {
        if let Some(why) = self.skipped() {
            panic!("the job `{}` is skipped: {why}", self.name);
        }
        self
    }

    /// Panics unless it is skipped and the reason holds `part`.
    #[track_caller]
    pub fn assert_skipped(self, part: &str) -> Self {
        match self.skipped() {
            Some(why) if why.contains(part) => {}
            Some(why) => panic!("the job `{}` is skipped for another reason: {why}", self.name),
            None => panic!("the job `{}` is not skipped", self.name),
        }
        self
    }

    /// Panics unless one of its scripts holds `part`.
    #[track_caller]
    pub fn assert_script(self, part: &str) -> Self {
        let scripts = self.scripts();
        let is_there = scripts.iter().any(|script| script.contains(part));
        assert!(
            is_there,
            "no script of the job `{}` holds `{part}`; they are:\n{}",
            self.name,
            scripts.join("\n---\n")
        );
        self
    }

    #[track_caller]
    fn assert_set<'n>(&self, what: &str, expected: impl IntoIterator<Item = &'n str>, seen: Vec<&'a str>) {
        let (expected, seen) = (expected.into_iter().collect(), seen.into_iter().collect());
        assert_same(&format!("the job `{}` {what} than expected", self.name), &expected, &seen, "");
    }
}
