//! Every key of the native format: its name, what it takes, its documentation, and the maps it may stand in.
//!
//! The one list of keys there is. `check.rs` finds unknown keys and wrong types by it, `schema.rs` writes the JSON
//! Schema from it. A key that may stand in several maps is one constant, named in each of them.
//!
//! Recipe, adding a key: write it here, read it in the file that lowers its map, add a golden case, accept the schema.

use expression::{Signature, WORKFLOW_FUNCTIONS};

/// What a value may be.
pub(crate) enum Type {
    /// Any value at all.
    Any,
    /// A string that is taken as it is.
    Text,
    /// A string, number or boolean that may hold `${{ }}` of this phase; numbers are taken as they are written.
    Template(Phase),
    /// A condition of this phase, with or without `${{ }}` around it.
    Condition(Phase),
    /// A shell script; its `${{ }}` become environment variables.
    Script,
    /// `true` or `false`.
    Boolean,
    /// A whole number between the two, both included.
    Integer(i64, i64),
    /// A number above zero.
    Number,
    /// A string, number or boolean: a value to compare with.
    Scalar,
    /// `30s`, `20m`, `6h`, `1d`, or several of them after one another.
    Duration,
    /// `512MiB`, `4GiB`; a whole number is bytes.
    Size,
    /// A regular expression that must match the whole text.
    Regex,
    /// A pattern of paths relative to the repository's root.
    Glob,
    /// Such a text, which may hold `${{ }}` of [`Phase::Plan`]: it is filled in while the graph is made, then checked.
    Filled(&'static Type),
    /// A path inside the workspace; may hold `${{ }}` of this phase.
    Directory(Phase),
    /// A path inside the workspace, or one under the home directory with `~/`.
    CachePath,
    /// Five fields of cron.
    Cron,
    /// A name of the IANA time zone database.
    Timezone,
    /// A name of this kind.
    Name(NameKind),
    /// One of these words, each with what it means.
    Word(&'static [(&'static str, &'static str)]),
    /// A list of such values.
    List(&'static Type),
    /// A map from names of this kind to such values.
    Map(NameKind, &'static Type),
    /// A map with these keys.
    Record(&'static Record),
    /// The first of these whose kind (text, number, list, map …) is that of the value.
    Either(&'static [Type]),
}

/// What a name may look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NameKind {
    /// A job, as its author names it: a letter or `_`, then letters, digits, `_` and `-`.
    JobId,
    /// A job that is needed: an id, or a matrix leg's full name.
    JobName,
    /// An environment variable: a letter or `_`, then letters, digits and `_`; none of Ropewalk's own.
    Variable,
    /// An axis, output, field, parameter, stage, step: as a job's id.
    Id,
    /// An artifact: as an axis, or with `${{ }}` of [`Phase::Plan`].
    Filled,
    /// Anything that is not empty and fits a line.
    Label,
    /// A plugin's job: `PLUGIN.JOB`.
    OfPlugin,
}

/// When a text's expressions are evaluated, which decides what they may read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// While the graph is made.
    Plan,
    /// While the graph is made, once the needed jobs have ended: a matrix.
    Matrix,
    /// When the job is ready: its `if`, its gate, its concurrency group.
    Ready,
    /// When the job asks for another build: it is ready, and its gate was answered.
    Asking,
    /// When the job is ready, by its `if`: with the status functions.
    ReadyCondition,
    /// When a worker starts the job.
    Start,
    /// When a worker starts a step.
    Step,
    /// When a worker decides on a step: with the status functions.
    StepCondition,
}

impl Phase {
    /// The contexts that expressions of this phase may read.
    pub(crate) fn contexts(self) -> &'static [&'static str] {
        match self {
            Phase::Plan => &["event", "params", "matrix", "env"],
            Phase::Matrix => &["event", "params", "needs"],
            Phase::Ready => &["event", "params", "matrix", "env", "needs", "job", "build"],
            Phase::Asking | Phase::ReadyCondition => {
                &["event", "params", "matrix", "env", "needs", "gate", "job", "build"]
            }
            Phase::Start => &["event", "params", "matrix", "env", "needs", "gate", "job", "build", "runner"],
            Phase::Step | Phase::StepCondition => {
                &["event", "params", "matrix", "env", "needs", "gate", "job", "build", "runner", "steps"]
            }
        }
    }

    /// The functions that expressions of this phase may call besides those of the language.
    pub(crate) fn functions(self) -> &'static [Signature<'static>] {
        // The status functions stand first, the two spellings of `hash_files` last.
        match self {
            Phase::Plan | Phase::Matrix | Phase::Ready | Phase::Asking => &[],
            Phase::ReadyCondition => &WORKFLOW_FUNCTIONS[..4],
            Phase::Start | Phase::Step => &WORKFLOW_FUNCTIONS[4..],
            Phase::StepCondition => WORKFLOW_FUNCTIONS,
        }
    }
}

/// A map with fixed keys.
pub(crate) struct Record {
    /// What it is called in messages and in the schema.
    pub name: &'static str,
    /// What it is for.
    pub documentation: &'static str,
    /// Its keys, in the order in which they are explained.
    pub keys: &'static [Key],
}

/// One key of a [`Record`].
pub(crate) struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub takes: Type,
    /// Shown by editors and by the manual.
    pub documentation: &'static str,
    /// Whether the map makes no sense without it.
    pub presence: Presence,
}

/// Whether a key must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// It may be left out.
    Optional,
    /// It must not.
    Required,
}

/// A key that may be left out, or with `required` must not. A macro, since a function's arguments cannot hold borrowed
/// statics in a constant.
macro_rules! key {
    ($name:expr, $takes:expr, $documentation:expr $(,)?) => {
        Key { name: $name, takes: $takes, documentation: $documentation, presence: Presence::Optional }
    };
    (required $name:expr, $takes:expr, $documentation:expr $(,)?) => {
        Key { name: $name, takes: $takes, documentation: $documentation, presence: Presence::Required }
    };
}

const REGEXES: Type = Type::Either(&[Type::Regex, Type::List(&Type::Regex)]);
const GLOBS: Type = Type::Either(&[Type::Glob, Type::List(&Type::Glob)]);
const FILLED_GLOB: Type = Type::Filled(&Type::Glob);
const FILLED_GLOBS: Type = Type::Either(&[FILLED_GLOB, Type::List(&FILLED_GLOB)]);
const INSTALLABLE: Type = Type::Filled(&Type::Text);
const FILLED_LABEL: Type = Type::Filled(&Type::Name(NameKind::Label));

/// The whole of a file.
pub(crate) static PIPELINE: Record = Record {
    name: "pipeline",
    documentation: "A pipeline of Ropewalk.",
    keys: &[
        key!("$schema", Type::Text, "The JSON Schema of this file, for editors. Ropewalk does not read it."),
        key!("name", Type::Text, "Shown to people. Default: the file's name."),
        key!("on", TRIGGERS, "Which events this pipeline answers to. Default: every event.",),
        key!("env", ENV_OF_PIPELINE, "Environment variables of every step of every job."),
        key!("defaults", Type::Record(&DEFAULTS), "What holds for every job that does not say otherwise."),
        key!(
            "plugins",
            Type::Either(&[Type::List(&Type::Name(NameKind::Id)), Type::Map(NameKind::Id, &Type::Record(&PLUGIN)),]),
            "Plugins whose jobs this pipeline uses: names of those that Ropewalk brings (`[cargo, git]`), or a map that says where others come from.",
        ),
        key!(
            "stages",
            Type::List(&Type::Name(NameKind::Id)),
            "Names of stages, in order. The jobs of a stage wait until the jobs of the one before have passed.",
        ),
        key!(
            "jobs",
            Type::Either(&[Type::Map(NameKind::JobId, &Type::Record(&JOB)), Type::List(&Type::Record(&LISTED_JOB)),]),
            "The jobs by id, or as a list with barriers: `[{job: a, …}, {wait: {}}, {job: b, …}]`.",
        ),
    ],
};

static PLUGIN: Record = Record {
    name: "plugin",
    documentation: "Where a plugin comes from: a folder, a Git repository or a registry. Empty: Ropewalk brings it.",
    keys: &[
        key!("path", Type::Text, "The folder of its package, relative to the repository's root."),
        key!("git", Type::Text, "The URL of the Git repository that holds its package."),
        key!("rev", Type::Text, "The commit in that repository."),
        key!("tag", Type::Text, "The tag in that repository."),
        key!("branch", Type::Text, "The branch of that repository; what it holds may change from build to build."),
        key!("version", Type::Text, "The version in the registry, as Cargo has it: `1.2`."),
        key!("package", Type::Text, "The package's name. Default: that of the folder, else `ropewalk-NAME`."),
    ],
};

/// What `on` takes.
pub(crate) const TRIGGERS: Type =
    Type::Either(&[Type::Word(EVENTS), Type::List(&Type::Word(EVENTS)), Type::Record(&ON)]);
/// What `function` takes, the key of a program's step that no file may have.
pub(crate) const FUNCTION: Type = Type::Map(NameKind::Label, &Type::Any);

const ENV_OF_PIPELINE: Type = Type::Map(NameKind::Variable, &Type::Template(Phase::Start));
const ENV_OF_STEP: Type = Type::Map(NameKind::Variable, &Type::Template(Phase::Step));

/// Kinds of events, as [`graph::EventKind`] names them.
const EVENTS: &[(&str, &str)] = &[
    ("push", "Commits arrived on a branch."),
    ("tag", "A tag arrived."),
    ("pull_request", "A pull request was opened or changed."),
    ("schedule", "A schedule came due."),
    ("manual", "A person started it."),
    ("api", "A program started it."),
    ("build", "Another build started it."),
    ("command", "A person asked for one of its commands: `run --command NAME`."),
];

static ON: Record = Record {
    name: "on",
    documentation: "The events this pipeline answers to, each with what narrows it.",
    keys: &[
        key!("push", Type::Record(&ON_PUSH), "Commits arrived on a branch."),
        key!("tag", Type::Record(&ON_TAG), "A tag arrived."),
        key!("pull_request", Type::Record(&ON_PULL_REQUEST), "A pull request was opened or changed."),
        key!("schedule", Type::List(&Type::Record(&SCHEDULE)), "Points in time at which a build starts."),
        key!("manual", Type::Record(&ON_MANUAL), "A person started it, perhaps with parameters."),
        key!("api", Type::Record(&ON_OTHER), "A program started it."),
        key!("build", Type::Record(&ON_OTHER), "Another build started it."),
        key!("command", Type::Record(&ON_COMMAND), "A person asked for one of its commands: `run --command NAME`."),
    ],
};

static ON_PUSH: Record = Record {
    name: "push",
    documentation: "Narrows pushes.",
    keys: &[key!("branches", REGEXES, "Regexes; one must match the branch's whole name.")],
};

static ON_TAG: Record = Record {
    name: "tag",
    documentation: "Narrows tags.",
    keys: &[key!("names", REGEXES, "Regexes; one must match the tag's whole name.")],
};

static ON_PULL_REQUEST: Record = Record {
    name: "pull_request",
    documentation: "Narrows pull requests.",
    keys: &[key!("branches", REGEXES, "Regexes; one must match the whole name of the branch it is to be merged into.")],
};

static ON_MANUAL: Record = Record {
    name: "manual",
    documentation: "What a person may fill in.",
    keys: &[key!(
        "params",
        Type::Map(NameKind::Id, &Type::Record(&FIELD)),
        "Parameters by name: `${{ params.NAME }}`."
    )],
};

static ON_COMMAND: Record = Record {
    name: "command",
    documentation: "Narrows commands.",
    keys: &[key!("names", REGEXES, "Regexes; one must match the command's whole name.")],
};

static ON_OTHER: Record = Record { name: "event", documentation: "Nothing narrows this event.", keys: &[] };

static SCHEDULE: Record = Record {
    name: "schedule",
    documentation: "Points in time.",
    keys: &[
        key!(required "cron", Type::Cron, "Minute, hour, day of month, month, day of week."),
        key!("timezone", Type::Timezone, "A name such as `Europe/Paris`. Default: UTC."),
    ],
};

static FIELD: Record = Record {
    name: "field",
    documentation: "One thing to fill in.",
    keys: &[
        key!(
            "type",
            Type::Word(&[
                ("string", "Any text."),
                ("number", "A number."),
                ("boolean", "`true` or `false`."),
                ("choice", "One of `options`."),
            ]),
            "What may be filled in. Default: string.",
        ),
        key!("default", Type::Scalar, "Taken when nothing is filled in. Without it the field must be filled in."),
        key!("options", Type::List(&Type::Text), "What a `choice` may be."),
        key!("help", Type::Text, "Shown beside the field."),
    ],
};

const ENVIRONMENT: Key = key!(
    "environment",
    Type::Either(&[
        Type::Word(&[
            ("host", "Processes of the machine, with what is installed there."),
            ("sandbox", "Processes with namespaces of their own and a read-only system."),
        ]),
        Type::Record(&ENVIRONMENT_FORM),
    ]),
    "Where the steps run. Default: host.",
);
const SERVICES: Key = key!(
    "services",
    Type::Map(NameKind::Id, &Type::Either(&[Type::Template(Phase::Start), Type::Record(&SERVICE)])),
    "Containers beside the job's own, by the name under which its steps reach them. A string is the image.",
);
const TIMEOUT: Key = key!("timeout", Type::Duration, "Limit on running time, such as `20m`; waiting does not count.");
const SHELL: Key = key!(
    "shell",
    Type::Either(&[Type::Text, Type::List(&Type::Text)]),
    "What reads the scripts: `sh` (run as `sh -e`, the default), `bash` (`bash -eo pipefail`), or a command such as `python3 {0}`.",
);
const WORKING_DIRECTORY: Key =
    key!("working_directory", Type::Directory(Phase::Step), "Where scripts run, relative to the repository's root.");
const WORKSPACE: Key = key!(
    "workspace",
    Type::Word(&[
        ("isolated", "The job's own copy of what git tracks and of untracked files that are not ignored."),
        ("in_place", "The user's tree itself."),
    ]),
    "Which files the steps see. Default: isolated.",
);
const RETRY: Key = key!(
    "retry",
    Type::Either(&[Type::Integer(0, 100), Type::Record(&RETRY_FORM)]),
    "When to try again. Default: twice after failures of the infrastructure and lost workers.",
);
const POOL: Key = key!("pool", FILLED_LABEL, "The pool whose workers may run it.");
const LABELS: Key =
    key!("labels", Type::Either(&[FILLED_LABEL, Type::List(&FILLED_LABEL)]), "Labels that the worker must have.",);
const RESOURCES: Key = key!("resources", Type::Record(&RESOURCES_FORM), "What it asks of the worker.");
const ALLOW_FAILURE: Key = key!("allow_failure", Type::Boolean, "Whether a failure is only a warning.");
const OUTPUTS: Key = key!(
    "outputs",
    Type::List(&Type::Name(NameKind::Id)),
    "Values it must hand on, each written by a step: `echo \"name=value\" >> \"$ROPEWALK_OUTPUT\"`.",
);

static DEFAULTS: Record = Record {
    name: "defaults",
    documentation: "What holds for every job that does not say otherwise.",
    keys: &[ENVIRONMENT, TIMEOUT, SHELL, WORKING_DIRECTORY, WORKSPACE, RETRY, POOL, LABELS, RESOURCES],
};

const NEEDS: Key = key!(
    "needs",
    Type::Either(&[
        Type::Name(NameKind::JobName),
        Type::Record(&NEED),
        Type::List(&Type::Either(&[Type::Name(NameKind::JobName), Type::Record(&NEED)])),
    ]),
    "Jobs that must pass first; the files of their artifacts appear at the same paths. A matrix job's id means all its legs.",
);
const NAME: Key = key!("name", Type::Template(Phase::Plan), "Shown to people. Default: the job's full name.");
const WHEN: Key = key!(
    "when",
    Type::Either(&[Type::Record(&WHEN_FORM), Type::List(&Type::Record(&WHEN_FORM))]),
    "A condition on the event; the job is skipped where it does not hold. A list means all of them.",
);
const IF: Key = key!(
    "if",
    Type::Either(&[Type::Condition(Phase::ReadyCondition), Type::Boolean]),
    "An expression; the job is skipped where it does not hold. Decided at once if it reads only the event, params, matrix and env.",
);
const MATRIX: Key = key!(
    "matrix",
    Type::Either(&[Type::Template(Phase::Matrix), Type::Record(&MATRIX_FORM)]),
    "The job once for every combination of these axes: `{os: [linux, mac], shard: [1, 2]}`.",
);
const RUN: Key = key!(
    "run",
    Type::Either(&[Type::Script, Type::List(&Type::Either(&[Type::Script, Type::Record(&STEP)]))]),
    "A string is one script; a list is steps. `${{ }}` in a script arrives through environment variables.",
);
const USE: Key = key!(
    "use",
    Type::Name(NameKind::OfPlugin),
    "A plugin's job that this one begins as: `cargo.clippy`. Every other key of the job stands in place of the plugin's.",
);
const WITH: Key = key!("with", Type::Map(NameKind::Id, &Type::Any), "Options of the plugin's job.");
const ENV: Key = key!("env", ENV_OF_PIPELINE, "Environment variables of all its steps.");
const INPUTS: Key = key!(
    "inputs",
    FILLED_GLOBS,
    "The files its result depends on. Where they, its steps and what it needs are unchanged, an earlier result is reused. `[]` is none.",
);
const REUSE: Key = key!(
    "reuse",
    Type::Boolean,
    "`true`: reuse an earlier result, by `inputs` or else the whole tree, even with secrets or a gate. `false`: run every time.",
);
const ARTIFACTS: Key = key!(
    "artifacts",
    Type::Either(&[FILLED_GLOB, Type::List(&FILLED_GLOB), Type::Map(NameKind::Filled, &FILLED_GLOBS)]),
    "Files it hands on, by name. A string or list alone is named `files`.",
);
const CACHE: Key = key!(
    "cache",
    Type::Either(&[Type::Record(&CACHE_FORM), Type::List(&Type::Record(&CACHE_FORM))]),
    "Directories kept across builds.",
);
const REPORTS: Key = key!("reports", Type::Record(&REPORTS_FORM), "Reports to read when it has ended.");
const CLEANUP: Key = key!("cleanup", Type::Boolean, "Whether it also runs when the build is canceled.");
const GATE: Key = key!(
    "gate",
    Type::Either(&[Type::Template(Phase::Ready), Type::Record(&GATE_FORM)]),
    "A person's approval, asked once the needs are there. With `run` it stands before the steps. A string is the prompt.",
);
const CONCURRENCY: Key = key!(
    "concurrency",
    Type::Either(&[Type::Template(Phase::Ready), Type::Record(&CONCURRENCY_FORM)]),
    "The group in which only one job runs at a time, over all builds. A string is the group.",
);
const SECRETS: Key = key!(
    "secrets",
    Type::List(&Type::Name(NameKind::Variable)),
    "Names of secrets; they arrive as environment variables of this job alone.",
);
const STAGE: Key = key!("stage", Type::Name(NameKind::Id), "The stage it belongs to.");
const OVERRIDE: Key =
    key!("override", Type::Boolean, "Whether it replaces the job of the same id in a file that was read before.");

/// A job under its id.
pub(crate) static JOB: Record = Record {
    name: "job",
    documentation: "One job: what it waits for, where it runs, its steps.",
    keys: &[
        NEEDS,
        RUN,
        USE,
        WITH,
        NAME,
        WHEN,
        IF,
        MATRIX,
        ENV,
        ENVIRONMENT,
        SERVICES,
        WORKSPACE,
        WORKING_DIRECTORY,
        SHELL,
        INPUTS,
        REUSE,
        OUTPUTS,
        ARTIFACTS,
        CACHE,
        REPORTS,
        RETRY,
        TIMEOUT,
        ALLOW_FAILURE,
        CLEANUP,
        GATE,
        CONCURRENCY,
        SECRETS,
        POOL,
        LABELS,
        RESOURCES,
        STAGE,
        OVERRIDE,
    ],
};

/// An item of a list of jobs: a job, or a barrier.
pub(crate) static LISTED_JOB: Record = Record {
    name: "listed_job",
    documentation: "A job with its id under `job`; or a barrier, `wait` or `gate` without `job`: all after it wait for all before it.",
    keys: &[
        key!("job", Type::Name(NameKind::JobId), "The job's id."),
        key!("wait", Type::Record(&WAIT), "All jobs after it wait until all jobs before it have passed."),
        NEEDS,
        RUN,
        USE,
        WITH,
        NAME,
        WHEN,
        IF,
        MATRIX,
        ENV,
        ENVIRONMENT,
        SERVICES,
        WORKSPACE,
        WORKING_DIRECTORY,
        SHELL,
        INPUTS,
        REUSE,
        OUTPUTS,
        ARTIFACTS,
        CACHE,
        REPORTS,
        RETRY,
        TIMEOUT,
        ALLOW_FAILURE,
        CLEANUP,
        GATE,
        CONCURRENCY,
        SECRETS,
        POOL,
        LABELS,
        RESOURCES,
        STAGE,
        OVERRIDE,
    ],
};

static WAIT: Record = Record { name: "wait", documentation: "A barrier.", keys: &[] };

static NEED: Record = Record {
    name: "need",
    documentation: "A job that must have ended in some way.",
    keys: &[
        key!(required "job", Type::Name(NameKind::JobName), "The job's id, or a matrix leg's full name: `test/linux/1`."),
        key!(
            "on",
            Type::Word(&[
                ("success", "It passed."),
                ("failure", "A step failed or time ran out."),
                ("finished", "It ended, however."),
            ]),
            "The ending waited for. Default: success.",
        ),
    ],
};

static WHEN_FORM: Record = Record {
    name: "when",
    documentation: "A condition on the event; several keys mean all of them.",
    keys: &[
        key!(
            "branch",
            REGEXES,
            "Regexes; one must match the branch's whole name; for a tag, some branch that holds its commit."
        ),
        key!("tag", REGEXES, "Regexes; one must match the tag's whole name."),
        key!("event", Type::Either(&[Type::Word(EVENTS), Type::List(&Type::Word(EVENTS))]), "Kinds of events."),
        key!("actor", REGEXES, "Regexes; one must match the whole name of the one who caused it."),
        key!("param", Type::Map(NameKind::Id, &Type::Scalar), "Parameters with the values they must have."),
        key!("changed", GLOBS, "Globs; one must match a changed file. Where changes are not known it holds."),
        key!("all", Type::List(&Type::Record(&WHEN_FORM)), "All of these hold."),
        key!("any", Type::List(&Type::Record(&WHEN_FORM)), "At least one of these holds."),
        key!(
            "not",
            Type::Either(&[Type::Record(&WHEN_FORM), Type::List(&Type::Record(&WHEN_FORM))]),
            "This does not hold.",
        ),
    ],
};

/// The only record with keys of the author's own choice beside these two: every other key is an axis.
pub(crate) static MATRIX_FORM: Record = Record {
    name: "matrix",
    documentation: "Axes by name, each a list of values; `include` and `exclude` as GitHub has them.",
    keys: &[
        key!(
            "include",
            MATRIX_OBJECTS,
            "Adds to combinations whose axes it fits; else it is a combination of its own."
        ),
        key!("exclude", MATRIX_OBJECTS, "Takes out the combinations that have all these values."),
    ],
};
const MATRIX_OBJECTS: Type =
    Type::Either(&[Type::Template(Phase::Matrix), Type::List(&Type::Map(NameKind::Id, &Type::Any))]);
/// What an axis takes.
pub(crate) const AXIS: Type = Type::Either(&[Type::Template(Phase::Matrix), Type::List(&Type::Any)]);

pub(crate) static STEP: Record = Record {
    name: "step",
    documentation: "One script of a job.",
    keys: &[
        key!("name", Type::Template(Phase::Step), "Shown to people. Default: the script's first line."),
        key!("id", Type::Name(NameKind::Id), "The name by which later steps find it: `${{ steps.ID.outputs.NAME }}`."),
        key!("run", Type::Script, "The script."),
        key!(
            "nix_build",
            Type::Either(&[INSTALLABLE, Type::List(&INSTALLABLE)]),
            "Instead of `run`: Nix installables such as `.#app`. Each derivation is reported; the store path of each is an output of the step.",
        ),
        key!(
            "build",
            Type::Record(&CHILD_BUILD),
            "Instead of `run`: another build of the same files, in the same project. It is the only step of its job. `{}` is the repository's own pipeline.",
        ),
        key!(
            "if",
            Type::Either(&[Type::Condition(Phase::StepCondition), Type::Boolean]),
            "An expression; the step is skipped where it does not hold. Default: `success()`.",
        ),
        key!("env", ENV_OF_STEP, "Environment variables of this step."),
        WORKING_DIRECTORY,
        SHELL,
        TIMEOUT,
        ALLOW_FAILURE,
        OUTPUTS,
    ],
};

static CHILD_BUILD: Record = Record {
    name: "build",
    documentation: "Another build: its pipeline, and what its event says. What is not said is as with the build that asks.",
    keys: &[
        key!(
            "file",
            Type::Template(Phase::Asking),
            "The pipeline's file, relative to the repository's root. Default: what the repository has."
        ),
        key!("event", Type::Word(EVENTS), "The kind of its event. Default: that of `command` or `tag`, else `build`."),
        key!(
            "command",
            Type::Template(Phase::Asking),
            "The command that is asked for, of a pipeline that is a program."
        ),
        key!(
            "branch",
            Type::Template(Phase::Asking),
            "The branch of its event. What is built are the files of this build all the same."
        ),
        key!("tag", Type::Template(Phase::Asking), "The tag of its event."),
        key!("params", Type::Map(NameKind::Id, &Type::Template(Phase::Asking)), "Its parameters, by name."),
        key!(
            "hand_on",
            Type::Map(NameKind::Id, &Type::Text),
            "What the job hands on of the outputs of its jobs: `{url: pack.url}`. Name them in the job's `outputs` too."
        ),
        key!("wait", Type::Boolean, "Whether the job waits for it and ends as it does. Default: true."),
    ],
};

pub(crate) static ENVIRONMENT_FORM: Record = Record {
    name: "environment",
    documentation: "An environment with settings: exactly one of `sandbox`, `image`, `dockerfile`, `nix` and `kubernetes`, and what goes with it.",
    keys: &[
        key!("sandbox", Type::Record(&SANDBOX), "Namespaces of its own and a read-only system."),
        key!("image", Type::Template(Phase::Start), "A container of this image."),
        key!("dockerfile", Type::Template(Phase::Start), "A container of the image that this file builds."),
        key!("nix", Type::Template(Phase::Start), "The development shell of this flake: `.`, `.#ci`."),
        key!("kubernetes", Type::Any, "A pod after this template."),
        key!("context", Type::Text, "`dockerfile`: the directory that the build sees. Default: the project's."),
        key!("args", ENV_OF_PIPELINE, "`dockerfile`: arguments of the build."),
        key!("target", Type::Text, "`dockerfile`: the stage that is built. Default: the last."),
        key!(
            "entrypoint",
            Type::Either(&[Type::Text, Type::List(&Type::Text)]),
            "Containers: the program and arguments that start the container's first process. The image's own is not used.",
        ),
        key!(
            "user",
            Type::Either(&[Type::Text, Type::Integer(0, 4_294_967_295)]),
            "Containers: the user of the steps, with or without `:GROUP`. Default: the ids of the worker.",
        ),
        NETWORK,
        key!(
            "platform",
            Type::Text,
            "Containers: `OS/ARCHITECTURE`, such as `linux/arm64`. Default: the engine's own."
        ),
        PULL,
        LOGIN,
    ],
};

const NETWORK: Key = key!(
    "network",
    Type::Either(&[Type::Word(&[("on", "As the machine reaches it."), ("off", "Loopback only.")]), Type::Boolean,]),
    "Whether the steps reach the network. Default: on.",
);
const PULL: Key = key!(
    "pull",
    Type::Word(&[
        ("missing", "Where the engine has no image of this name."),
        ("always", "Once a build."),
        ("never", "The image must be there."),
    ]),
    "When the image is fetched. Default: missing.",
);
const LOGIN: Key = key!(
    "login",
    Type::Name(NameKind::Variable),
    "The name of a secret that holds `user:password` for the image's registry.",
);

static SANDBOX: Record = Record { name: "sandbox", documentation: "Settings of a sandbox.", keys: &[NETWORK] };

static SERVICE: Record = Record {
    name: "service",
    documentation: "A container beside the job's own.",
    keys: &[
        key!(required "image", Type::Template(Phase::Start), "Its image."),
        key!(
            "command",
            Type::Either(&[Type::Template(Phase::Start), Type::List(&Type::Template(Phase::Start))]),
            "What it runs instead of the image's `CMD`. A string is words parted by spaces.",
        ),
        key!("env", ENV_OF_PIPELINE, "Its environment variables."),
        key!(
            "ports",
            Type::Either(&[Type::Integer(1, 65535), Type::List(&Type::Integer(1, 65535))]),
            "TCP ports on which it must listen before the first step.",
        ),
        key!(
            "health",
            Type::Either(&[Type::Text, Type::Record(&HEALTH)]),
            "What must pass in it before the first step. A string is the command.",
        ),
        key!("tmpfs", Type::Either(&[Type::Text, Type::List(&Type::Text)]), "Directories that it keeps in memory."),
        PULL,
        LOGIN,
    ],
};

static HEALTH: Record = Record {
    name: "health",
    documentation: "By what a service says that it is ready.",
    keys: &[
        key!(required "command", Type::Text, "A script for its `/bin/sh`."),
        key!("interval", Type::Duration, "The wait between two tries. Default: 1s."),
        key!("retries", Type::Integer(1, 10_000), "The most tries. Default: 60."),
    ],
};

pub(crate) static CACHE_FORM: Record = Record {
    name: "cache",
    documentation: "Directories kept across builds under a key.",
    keys: &[
        key!(required "key", Type::Template(Phase::Start), "Written once per key, after the job has passed."),
        key!(
            "restore",
            Type::Either(&[Type::Template(Phase::Start), Type::List(&Type::Template(Phase::Start))]),
            "Prefixes of keys, tried in order where there is no entry of the key itself.",
        ),
        key!(required
            "paths",
            Type::Either(&[Type::Filled(&Type::CachePath), Type::List(&Type::Filled(&Type::CachePath))]),
            "Paths relative to the repository's root, or under the home directory with `~/`.",
        ),
    ],
};

static REPORTS_FORM: Record = Record {
    name: "reports",
    documentation: "Reports to read when the job has ended.",
    keys: &[key!("junit", FILLED_GLOBS, "JUnit XML files.")],
};

static RETRY_FORM: Record = Record {
    name: "retry",
    documentation: "When to try again.",
    keys: &[
        key!("max", Type::Integer(0, 100), "The most further tries. Default: 2."),
        key!(
            "on",
            Type::List(&Type::Either(&[
                Type::Word(&[
                    ("infra", "The infrastructure's fault."),
                    ("lost", "A worker that fell silent."),
                    ("timeout", "A limit on time."),
                    ("step", "Any step that failed."),
                ]),
                Type::Record(&RETRY_EXIT),
            ])),
            "Which failures are tried again. Default: `[infra, lost]`.",
        ),
        key!("backoff", Type::Duration, "The wait before the first further try, doubled each time. Default: 1s."),
    ],
};

static RETRY_EXIT: Record = Record {
    name: "exit",
    documentation: "Exit codes.",
    keys: &[key!(required
        "exit",
        Type::Either(&[Type::Integer(0, 255), Type::List(&Type::Integer(0, 255))]),
        "A step that ended with one of these codes.",
    )],
};

static GATE_FORM: Record = Record {
    name: "gate",
    documentation: "A person's approval.",
    keys: &[
        key!("prompt", Type::Template(Phase::Ready), "The question asked. Default: the job's name."),
        key!("fields", Type::Map(NameKind::Id, &Type::Record(&FIELD)), "What to fill in, by name: `${{ gate.NAME }}`."),
    ],
};

static CONCURRENCY_FORM: Record = Record {
    name: "concurrency",
    documentation: "A group in which only one job runs at a time.",
    keys: &[
        key!(required "group", Type::Template(Phase::Ready), "The group's name."),
        key!(
            "mode",
            Type::Word(&[
                ("queue", "Jobs wait in order of arrival."),
                ("cancel_waiting", "Jobs that wait are canceled; the one that runs goes on."),
                ("cancel_running", "The job that runs is canceled too."),
            ]),
            "What happens to a job that finds the group taken. Default: queue.",
        ),
    ],
};

static RESOURCES_FORM: Record = Record {
    name: "resources",
    documentation: "What a job asks of its worker.",
    keys: &[
        key!("cpu", Type::Number, "Cores; fractions are taken."),
        key!("memory", Type::Size, "Memory, such as `4GiB`."),
    ],
};
