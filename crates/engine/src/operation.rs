//! Operations: a job's identity as the digest of all that its result depends on.
//!
//! The manifest keeps every part under a name, so that two operations can be compared part by part
//! (`ropewalk explain`). Names of jobs and numbers of builds are no part of it: equal work is equal.

use std::collections::{BTreeMap, BTreeSet};

use graph::{BuildId, Digest, Event, Job, JobName, NeedResult, TestName, Text, Timestamp};
use serde::{Deserialize, Serialize};

/// All that a job's result depends on, part by part. The text is `kind:name`, such as `file:src/main.rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest(pub BTreeMap<String, String>);

/// The operation of `job`: its digest and what it is made of.
///
/// `files` are the inputs of the tree: path and content digest, sorted by path. `needs` are what came along
/// the edges. Of the event, only what the job's unevaluated expressions may read is part of it: all of it but its
/// time if one names `event`, the parameters if one names `params`; one that names `build`, `job` or `runner` reads
/// what no other attempt has, so the attempt's own `build` makes the operation like no other. `quarantine` are the tests that its
/// steps may leave out: what passed with them says nothing of a job without. Values longer than [`VALUE_BYTES_MAX`] stand in the manifest as their digest.
#[must_use]
pub fn operation(
    job: &Job,
    files: &[(String, Digest)],
    needs: &BTreeMap<JobName, NeedResult>,
    event: &Event,
    build: BuildId,
    quarantine: &[TestName],
) -> (Digest, Manifest) {
    let mut parts = BTreeMap::new();
    let mut put = |name: String, value: String| {
        let value = if value.len() > VALUE_BYTES_MAX {
            format!("digest {}", Digest(*blake3::hash(value.as_bytes()).as_bytes()))
        } else {
            value
        };
        parts.insert(name, value);
    };
    let json = |value: &dyn erased::Json| value.text();
    for (index, step) in job.steps.iter().enumerate() {
        let name = step.id.as_deref().map_or_else(|| index.to_string(), str::to_owned);
        put(format!("step:{index}:{name}"), json(step));
    }
    for (name, text) in &job.env {
        put(format!("env:{name}"), json(text));
    }
    for (name, value) in &job.matrix {
        put(format!("matrix:{name}"), value.to_string());
    }
    put("environment".to_owned(), json(&job.environment));
    if !job.services.is_empty() {
        put("services".to_owned(), json(&job.services));
    }
    put("workspace".to_owned(), json(&job.workspace));
    put("outputs".to_owned(), json(&job.outputs));
    put("artifacts".to_owned(), json(&job.artifacts));
    put("cache".to_owned(), json(&job.cache));
    put("secrets".to_owned(), json(&job.secrets));
    let read = contexts_read(job);
    if read.contains("event") {
        // Its time differs always and is nothing that work should depend on; nor is whether the files are committed.
        let (time, checkout) = (Timestamp::default(), graph::Checkout::default());
        put("event".to_owned(), json(&Event { time, checkout, parent: None, ..event.clone() }));
    }
    if read.contains("params") {
        for (name, value) in &event.params {
            put(format!("param:{name}"), value.to_string());
        }
    }
    if ["build", "job", "runner", "gate"].iter().any(|context| read.contains(*context)) {
        put("build".to_owned(), build.to_string());
    }
    if !quarantine.is_empty() {
        put("quarantine".to_owned(), graph::quarantine::variable(quarantine));
    }
    for (path, digest) in files {
        put(format!("file:{path}"), digest.to_string());
    }
    for (need, result) in needs {
        // Of the usual result nothing is said, so that it does not stand in every manifest.
        if result.result != "passed" {
            put(format!("result:{need}"), result.result.clone());
        }
        for (name, value) in &result.outputs {
            put(format!("output:{need}:{name}"), value.to_string());
        }
        for (name, artifact) in &result.artifacts {
            put(format!("artifact:{need}:{name}"), artifact.digest.to_string());
        }
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"ropewalk operation 1\n");
    for (name, value) in &parts {
        for text in [name, value] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    (Digest(*hasher.finalize().as_bytes()), Manifest(parts))
}

/// The contexts that the job's expressions name, as far as they are not evaluated yet. A text that cannot be parsed
/// fails when it is evaluated and reads nothing.
fn contexts_read(job: &Job) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    let texts = job
        .env
        .values()
        .chain(job.steps.iter().flat_map(|step| step.env.values().chain([&step.name]).chain(&step.working_directory)));
    let texts = texts.chain(job.environment.texts());
    let texts = texts.chain(job.services.values().flat_map(graph::Service::texts));
    let caches = job.cache.iter().flat_map(|cache| cache.restore.iter().chain([&cache.key]));
    for text in texts.chain(caches) {
        if let Text::Template(template) = text
            && let Ok(template) = expression::Template::parse(template)
        {
            read.extend(template.context_paths().into_iter().map(|path| path.context.to_string()));
        }
    }
    for condition in job.steps.iter().filter_map(|step| step.condition.as_deref()) {
        if let Ok(condition) = expression::Condition::parse(condition) {
            read.extend(condition.context_paths().into_iter().map(|path| path.context.to_string()));
        }
    }
    read
}

/// The longest value that a manifest holds as it is.
pub const VALUE_BYTES_MAX: usize = 4096;

/// One part in which two manifests differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The part's name.
    pub part: String,
    /// Its value in the earlier manifest, if it had the part.
    pub before: Option<String>,
    /// Its value in the later one, if it has the part.
    pub after: Option<String>,
}

/// Every part in which `before` and `after` differ, in order of name.
#[must_use]
pub fn differences(before: &Manifest, after: &Manifest) -> Vec<Difference> {
    let names: std::collections::BTreeSet<_> = before.0.keys().chain(after.0.keys()).collect();
    names
        .into_iter()
        .filter(|&name| before.0.get(name) != after.0.get(name))
        .map(|name| Difference {
            part: name.clone(),
            before: before.0.get(name).cloned(),
            after: after.0.get(name).cloned(),
        })
        .collect()
}

/// Canonical JSON of any part, behind one door.
mod erased {
    pub trait Json {
        fn text(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn text(&self) -> String {
            // Our types serialize to JSON whatever they hold.
            serde_json::to_string(self).expect("parts of a job always serialize")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use graph::{BuildId, Digest, Event, EventKind, Job, Step, Text};

    use super::{Manifest, differences, operation};

    fn manifest(job: &Job, branch: &str, build: u64) -> (Digest, Manifest) {
        let mut event = Event::new(EventKind::Push);
        event.branch = Some(branch.to_owned());
        operation(job, &[("a".to_owned(), Digest([1; 32]))], &BTreeMap::new(), &event, BuildId(build), &[])
    }

    fn job_with(text: Text) -> Job {
        let env = BTreeMap::from([("X".to_owned(), text)]);
        Job { steps: vec![Step { run: "true".into(), env, ..Step::default() }], ..Job::default() }
    }

    #[test]
    fn the_event_counts_only_if_an_expression_reads_it() {
        let plain = job_with("${{ event.branch }}".into());
        assert_eq!(manifest(&plain, "main", 1), manifest(&plain, "other", 2), "a finished text is never evaluated");
        let reading = job_with(Text::Template("${{ event.branch }}".into()));
        assert_ne!(manifest(&reading, "main", 1).0, manifest(&reading, "other", 1).0);
        assert_eq!(manifest(&reading, "main", 1), manifest(&reading, "main", 2));
        let own = job_with(Text::Template("${{ build.number }}".into()));
        assert_ne!(manifest(&own, "main", 1).0, manifest(&own, "main", 2).0);
    }

    #[test]
    fn what_may_be_left_out_counts() {
        let event = Event::new(EventKind::Push);
        let with = |names: &[&str]| {
            let test = |name: &&str| graph::TestName { suite: "s".to_owned(), name: (*name).to_owned() };
            let tests: Vec<_> = names.iter().map(test).collect();
            operation(&job_with("1".into()), &[], &BTreeMap::new(), &event, BuildId(1), &tests)
        };
        let (none, one, two) = (with(&[]), with(&["a"]), with(&["a", "b"]));
        assert!(!none.1.0.contains_key("quarantine") && one.1.0["quarantine"] == "s\ta");
        assert!(none.0 != one.0 && one.0 != two.0);
    }

    #[test]
    fn manifests_differ_part_by_part() {
        let (_, before) = manifest(&job_with("1".into()), "main", 1);
        let (_, after) = manifest(&job_with("2".into()), "main", 1);
        let parts: Vec<_> = differences(&before, &after).into_iter().map(|difference| difference.part).collect();
        assert_eq!(parts, ["step:0:0"]);
    }
}
