//! Operations: a job's identity as the digest of all that its result depends on.
//!
//! The manifest keeps every part under a name, so that two operations can be compared part by part
//! (`ropewalk explain`). Names of jobs and numbers of builds are no part of it: equal work is equal.

use std::collections::{BTreeMap, BTreeSet};

use expression::ContextPath;
use graph::{BuildId, Digest, Event, Job, JobName, NeedResult, TestName, Text, Timestamp};
use serde::{Deserialize, Serialize};

/// All that a job's result depends on, part by part. The text is `kind:name`, such as `file:src/main.rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest(pub BTreeMap<String, String>);

/// Parts that no second build has: its number, and the time of its event.
const OF_ONE_BUILD: [&str; 4] = ["build", "variable:ROPEWALK_BUILD", "read:time", "read:event"];

impl Manifest {
    /// Whether another build may come to the same.
    #[must_use]
    pub fn may_recur(&self) -> bool {
        !OF_ONE_BUILD.iter().any(|part| self.0.contains_key(*part))
    }
}

/// What an operation is worked out of.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The job's name.
    pub name: &'a JobName,
    /// What it does.
    pub job: &'a Job,
    /// The inputs of the tree: path and content digest, sorted by path.
    pub files: &'a [(String, Digest)],
    /// What came along the edges.
    pub needs: &'a BTreeMap<JobName, NeedResult>,
    /// What happened.
    pub event: &'a Event,
    /// The build that wants it.
    pub build: BuildId,
    /// The project on a server, so that none takes what another made, with its secrets perhaps; empty on a laptop, where
    /// each project keeps its own.
    pub project: &'a str,
    /// The tests that its steps may leave out: what passed with them says nothing of a job without.
    pub quarantine: &'a [TestName],
}

/// The operation of a job: its digest and what it is made of.
///
/// What a pipeline's program had read of the event before it gave a job its function is a part, since the function may have taken it along. What it reads
/// while it runs is not known here: such a result is not kept ([`graph::AttemptReport::may_stand_for_others`]).
///
/// Of the event, only what the job's unevaluated expressions may read is part of it: all of it but its
/// time if one names `event`, the parameters if one names `params`; one that names `build`, `job`, `runner` or `event.time` reads
/// what no other attempt has, so the attempt's own `build` makes the operation like no other. Of what it needs it knows outputs and artifacts,
/// and how each ended if that is not the usual, or if an expression names it. Of the variables that a worker gives to each step
/// those count that a script or a text of the job names; the commit, the branch and the tag also if a script asks git for them
/// (not for what the files are). Values longer than [`VALUE_BYTES_MAX`] stand in the manifest as their digest.
#[must_use]
pub fn operation(work: &Work<'_>) -> (Digest, Manifest) {
    let Work { job, files, needs, event, build, quarantine, .. } = *work;
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
        match step.without_reads() {
            None => put(format!("step:{index}:{name}"), json(step)),
            Some((read, step)) => {
                put(format!("step:{index}:{name}"), json(&step));
                read.iter().for_each(|(part, value)| put(format!("read:{part}"), value.to_string()));
            }
        }
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
    if job.reports != graph::Reports::default() {
        put("reports".to_owned(), json(&job.reports));
    }
    put("secrets".to_owned(), json(&job.secrets));
    if !work.project.is_empty() {
        put("project".to_owned(), work.project.to_owned());
    }
    // What passes on one kind of machine says nothing of another.
    if !job.pool.is_empty() {
        put("pool".to_owned(), job.pool.clone());
    }
    let labels = job.wanted_labels();
    if !labels.is_empty() {
        put("labels".to_owned(), json(&labels));
    }
    for (variable, value) in named_variables(work) {
        put(format!("variable:{variable}"), value);
    }
    if job.steps.iter().any(|step| asks_git(&step.run)) {
        put("git:commit".to_owned(), event.commit.clone());
        put("git:branch".to_owned(), event.branch.clone().unwrap_or_default());
        put("git:tag".to_owned(), event.tag.clone().unwrap_or_default());
    }
    let read = paths_read(job);
    let reads = |context: &str| read.iter().any(|path| &*path.context == context);
    if reads("event") {
        // Its time differs always and is nothing that work should depend on; nor is whether the files are committed.
        let (time, checkout) = (Timestamp::default(), graph::Checkout::default());
        put("event".to_owned(), json(&Event { time, checkout, parent: None, ..event.clone() }));
    }
    if reads("params") {
        for (name, value) in &event.params {
            put(format!("param:{name}"), value.to_string());
        }
    }
    let reads_time = read.iter().any(|path| &*path.context == "event" && names_key(path, "time"));
    if reads_time || ["build", "job", "runner", "gate"].into_iter().any(reads) {
        put("build".to_owned(), build.to_string());
    }
    if !quarantine.is_empty() {
        put("quarantine".to_owned(), graph::quarantine::variable(quarantine));
    }
    for (path, digest) in files {
        put(format!("file:{path}"), digest.to_string());
    }
    for (need, result) in needs {
        // Of the usual result nothing is said, so that it does not stand in every manifest; who looks at the needs sees that there is this one.
        let is_looked_at = || read.iter().any(|path| &*path.context == "needs" && may_read(path, need));
        if result.result != "passed" || is_looked_at() {
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

/// The variables about its build that a worker gives to each step, as far as a text of the job names them, with what they hold.
fn named_variables<'a>(work: &Work<'a>) -> Vec<(&'static str, String)> {
    let Work { job, event, .. } = *work;
    let texts = serde_json::to_string(&(&job.steps, &job.env, &job.services)).unwrap_or_default();
    let text = |value: Option<&'a str>| value.unwrap_or_default().to_owned();
    let variables = [
        ("ROPEWALK_BUILD", work.build.to_string()),
        ("ROPEWALK_JOB", work.name.to_string()),
        ("ROPEWALK_EVENT", event.kind.name().to_owned()),
        ("ROPEWALK_BRANCH", text(event.branch.as_deref())),
        ("ROPEWALK_TAG", text(event.tag.as_deref())),
        ("ROPEWALK_COMMIT", event.commit.clone()),
    ];
    variables.into_iter().filter(|(name, _)| names(&texts, name)).collect()
}

/// Whether a JSON text holds a variable's name; `ROPEWALK_BUILDS` does not name `ROPEWALK_BUILD`. What stands before it may be
/// the end of an escape, and is not looked at.
fn names(text: &str, variable: &str) -> bool {
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.match_indices(variable).any(|(at, _)| !text.as_bytes().get(at + variable.len()).is_some_and(goes_on))
}

/// Whether the first key of a path is this one.
fn names_key(path: &ContextPath, key: &str) -> bool {
    path.name(0).is_some_and(|name| name.eq_ignore_ascii_case(key))
}

/// Whether a path of `needs` may lead to this one: by its name, by that of the job whose leg it is, or because the key is computed or
/// there is none.
fn may_read(path: &ContextPath, need: &JobName) -> bool {
    path.name(0).is_none() || names_key(path, need.as_str()) || names_key(path, need.id())
}

/// What git says of the history alone, by subcommand. `diff`, `status`, `add` and `config` are none of these: after a
/// generator they look at the files, which are inputs, and would make its job run at each commit.
const GIT_OF_HISTORY: [&str; 20] = [
    "archive",
    "blame",
    "branch",
    "cat-file",
    "cherry",
    "describe",
    "for-each-ref",
    "format-patch",
    "log",
    "ls-tree",
    "merge-base",
    "name-rev",
    "reflog",
    "rev-list",
    "rev-parse",
    "shortlog",
    "show",
    "show-ref",
    "symbolic-ref",
    "tag",
];

/// Options of git that take the next word as their value.
const GIT_OPTIONS_WITH_VALUE: [&str; 4] = ["-C", "-c", "--git-dir", "--work-tree"];

/// Whether a script calls git for what the commit, the branch or the tag is, or leads to: by one of [`GIT_OF_HISTORY`], or with a commit
/// before this one (`HEAD~2`). What a program that it calls asks git is not known here.
fn asks_git(script: &str) -> bool {
    let ends_word = |character: char| character.is_whitespace() || "\"'`$(){};|&<>".contains(character);
    script.lines().any(|line| {
        let mut words = line.split(ends_word).filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if word != "git" && !word.ends_with("/git") {
                continue;
            }
            let mut rest = words.clone();
            let mut subcommand = rest.next();
            while let Some(option) = subcommand.filter(|word| word.starts_with('-')) {
                if GIT_OPTIONS_WITH_VALUE.contains(&option) {
                    rest.next();
                }
                subcommand = rest.next();
            }
            let is_before =
                |word: &str| word.starts_with("HEAD~") || word.starts_with("HEAD^") || word.starts_with("HEAD@");
            if subcommand.is_some_and(|subcommand| GIT_OF_HISTORY.contains(&subcommand)) || rest.any(is_before) {
                return true;
            }
        }
        false
    })
}

/// What the job's expressions read of contexts, as far as they are not evaluated yet. A text that cannot be parsed
/// fails when it is evaluated and reads nothing.
fn paths_read(job: &Job) -> BTreeSet<ContextPath> {
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
            read.extend(template.context_paths());
        }
    }
    for condition in job.steps.iter().filter_map(|step| step.condition.as_deref()) {
        if let Ok(condition) = expression::Condition::parse(condition) {
            read.extend(condition.context_paths());
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

    use graph::{BuildId, Digest, Event, EventKind, Job, JobName, NeedResult, Reports, Shell, Step, TestName, Text};

    use super::{Manifest, Work, asks_git, differences, operation};

    /// The operation of a job named `j` in a build of a project.
    fn operation_of(project: &str, job: &Job, branch: &str, build: u64) -> (Digest, Manifest) {
        let mut event = Event::new(EventKind::Push);
        event.branch = Some(branch.to_owned());
        let (name, files, needs) = (JobName::from("j"), [("a".to_owned(), Digest([1; 32]))], BTreeMap::new());
        operation(&Work {
            name: &name,
            job,
            files: &files,
            needs: &needs,
            event: &event,
            build: BuildId(build),
            project,
            quarantine: &[],
        })
    }

    fn manifest(job: &Job, branch: &str, build: u64) -> (Digest, Manifest) {
        operation_of("", job, branch, build)
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
    fn what_a_program_read_before_its_function_counts() {
        let function = |branch: &str| {
            let run = format!(r#"{{"job":"j","read":{{"branch":"{branch}"}}}}"#).into();
            Job {
                steps: vec![Step { run, shell: Shell::Program(Digest([2; 32])), ..Step::default() }],
                ..Job::default()
            }
        };
        let (before, after) = (manifest(&function("main"), "main", 1), manifest(&function("next"), "next", 2));
        assert_eq!(before, manifest(&function("main"), "main", 3));
        let parts: Vec<_> = differences(&before.1, &after.1).into_iter().map(|difference| difference.part).collect();
        assert_eq!(parts, ["read:branch"]);
    }

    #[test]
    fn a_variable_of_the_worker_counts_if_a_text_names_it() {
        let says = |run: &str| Job { steps: vec![Step { run: run.into(), ..Step::default() }], ..Job::default() };
        let plain = says("echo $ROPEWALK_BRANCHES");
        assert_eq!(manifest(&plain, "main", 1), manifest(&plain, "other", 2));
        let reading = says("echo \"${ROPEWALK_BRANCH#a}\"");
        assert_ne!(manifest(&reading, "main", 1).0, manifest(&reading, "other", 1).0);
        assert_eq!(manifest(&reading, "main", 1), manifest(&reading, "main", 2));
        let named = says("./test.sh $ROPEWALK_JOB");
        assert_eq!(manifest(&named, "main", 1).1.0["variable:ROPEWALK_JOB"], "j");
    }

    #[test]
    fn a_project_and_a_kind_of_machine_count() {
        let (job, of) = (job_with("1".into()), |job: &Job| manifest(job, "main", 1).0);
        let of_project = |name: &str| operation_of(name, &job, "main", 1).0;
        assert_ne!(of_project("sails"), of_project("ropes"));
        assert_ne!(of(&job), of_project("sails"));
        let arm = Job { labels: ["arm64".to_owned()].into(), ..job.clone() };
        let pool = Job { pool: "arm".to_owned(), ..job.clone() };
        assert_ne!(of(&job), of(&arm));
        assert_ne!(of(&job), of(&pool));
    }

    /// The operation of a job that needs these, all of which passed.
    fn operation_after(job: &Job, needs: &[&str]) -> (Digest, Manifest) {
        let passed =
            || NeedResult { result: "passed".to_owned(), outputs: BTreeMap::new(), artifacts: BTreeMap::new() };
        let needs = needs.iter().map(|name| (JobName::from(*name), passed())).collect();
        let (name, event) = (JobName::from("j"), Event::new(EventKind::Push));
        operation(&Work {
            name: &name,
            job,
            files: &[],
            needs: &needs,
            event: &event,
            build: BuildId(1),
            project: "",
            quarantine: &[],
        })
    }

    #[test]
    fn a_need_that_passed_counts_if_an_expression_looks_at_it() {
        let check = |text: &str, is_looked_at: bool| {
            let job = job_with(Text::Template(text.into()));
            let (two, three) = (&["m", "m/a", "m/b", "n"][..], &["m", "m/a", "m/b", "m/c", "n"]);
            let (before, after) = (operation_after(&job, two), operation_after(&job, three));
            let parts: Vec<_> = differences(&before.1, &after.1).into_iter().map(|it| it.part).collect();
            assert_eq!(parts, if is_looked_at { vec!["result:m/c"] } else { vec![] }, "{text}");
            assert_eq!(before.0 != after.0, is_looked_at, "{text}");
        };
        check("${{ toJSON(needs.m.legs) }}", true);
        check("${{ toJSON(needs) }}", true);
        check("${{ needs[env.X].result }}", true);
        check("${{ needs['m/c'].result }}", true);
        check("${{ needs.n.result }}", false);
        check("${{ toJSON(event) }}", false);
    }

    #[test]
    fn reports_count_if_there_are_any() {
        let plain = job_with("1".into());
        let reporting = Job { reports: Reports { junit: vec!["r.xml".to_owned()] }, ..plain.clone() };
        let (before, after) = (manifest(&plain, "main", 1), manifest(&reporting, "main", 1));
        assert!(before.0 != after.0 && !before.1.0.contains_key("reports"));
        let parts: Vec<_> = differences(&before.1, &after.1).into_iter().map(|it| it.part).collect();
        assert_eq!(parts, ["reports"]);
    }

    #[test]
    fn who_reads_the_time_is_like_no_other() {
        let with = |text: &str| job_with(Text::Template(text.into()));
        let of = |job: &Job, build| manifest(job, "main", build);
        let timed = with("${{ event.time }} ${{ gate.x }}");
        assert_ne!(of(&timed, 1).0, of(&timed, 2).0);
        let timed = with("${{ event['Time'] }}");
        assert!(!of(&timed, 1).1.may_recur());
        let other = with("${{ event.branch }}");
        assert!(of(&other, 1).1.may_recur());
    }

    #[test]
    fn a_script_that_asks_git_for_history_counts_with_its_commit() {
        for script in [
            "git describe --tags",
            "V=$(git rev-parse HEAD)",
            "cd x && git -C .. --no-pager log -1",
            "echo \"`/usr/bin/git show -s`\"",
            "true\nif git diff --quiet HEAD~1; then exit; fi",
        ] {
            assert!(asks_git(script), "{script}");
        }
        for script in [
            "git diff --exit-code",
            "git status --porcelain",
            "legit log",
            "echo digit; log",
            "git -c user.name=log commit",
        ] {
            assert!(!asks_git(script), "{script}");
        }
        let job = |run: &str| Job { steps: vec![Step { run: run.into(), ..Step::default() }], ..Job::default() };
        let asking = job("git describe > version");
        let (before, after) = (manifest(&asking, "main", 1), manifest(&asking, "next", 1));
        let parts: Vec<_> = differences(&before.1, &after.1).into_iter().map(|it| it.part).collect();
        assert_eq!(parts, ["git:branch"]);
        let plain = job("git diff --exit-code");
        assert_eq!(manifest(&plain, "main", 1), manifest(&plain, "next", 1));
    }

    #[test]
    fn what_may_be_left_out_counts() {
        let with = |names: &[&str]| {
            let test = |name: &&str| TestName { suite: "s".to_owned(), name: (*name).to_owned() };
            let tests: Vec<_> = names.iter().map(test).collect();
            let mut event = Event::new(EventKind::Push);
            event.branch = Some("main".to_owned());
            let (name, needs) = (JobName::from("j"), BTreeMap::new());
            let (job, build) = (job_with("1".into()), BuildId(1));
            let work = Work {
                name: &name,
                job: &job,
                files: &[],
                needs: &needs,
                event: &event,
                build,
                project: "",
                quarantine: &tests,
            };
            operation(&work)
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
