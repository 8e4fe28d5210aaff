//! One job as it is written, lowered to the jobs of a graph: one, or one for each leg of its matrix.
//!
//! Everything that does not depend on the leg is lowered once.

use std::collections::{BTreeMap, BTreeSet};

use expression::{ContextPath, Template, Value as ExpressionValue};
use graph::{
    CacheUse, Concurrency, ConcurrencyMode, Container, Digest, Environment, Gate, Health, Job, Network, Pull, Reports,
    Resources, Retry, RetryOn, Reuse, Service, SkipReason, Text, WorkspaceKind,
};
use serde_json::Value;

use super::check::{self, is_word};
use super::environment_files::{self, Whole};
use super::errors::{self, Faults};
use super::files::Source;
use super::keys::NameKind;
use super::measure;
use super::nodes;
use super::patterns;
use super::spelled;
use super::steps;
use super::texts::{AtPlan, Decision, EventTexts, EventValues};
use super::triggers;
use crate::tree::{Entry, Node, Sources};

/// What lowering a job looks at, beside the job.
pub(crate) struct Surroundings<'a> {
    pub sources: &'a Sources,
    pub values: &'a EventValues,
    /// The pipeline's environment variables.
    pub env: &'a [&'a Entry],
    pub defaults: &'a crate::hashing::QuickMap<&'a str, &'a Node>,
    /// The binary whose functions steps may be.
    pub program: Option<Digest>,
    /// How many files there are.
    pub files: usize,
}

impl Surroundings<'_> {
    /// Whether a program wrote the job.
    pub(crate) fn is_of_program(&self, job: &Source<'_>) -> bool {
        job.file >= self.files
    }
}

/// Whether the values of a matrix are literals of the file, which may be pasted into scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// They are.
    File,
    /// They came from a job's output or the event.
    Outside,
}

/// One key of a job: its own, or the pipeline's default.
pub(crate) fn field<'a>(job: &Source<'a>, around: &Surroundings<'a>, name: &str) -> Option<&'a Node> {
    job.body.get(name).or_else(|| around.defaults.get(name).copied())
}

/// All of a job that is the same in every leg, except texts with expressions.
pub(crate) fn base(job: &Source<'_>, around: &Surroundings<'_>, faults: &mut Faults) -> Job {
    let own = |name: &str| job.body.get(name);
    let or_default = |name: &str| field(job, around, name);
    let flag = |name: &str| own(name).and_then(Node::as_bool) == Some(true);
    let timeout_ms = timeout(or_default("timeout"), around.sources, faults);
    let mut base = Job {
        workspace: match or_default("workspace").and_then(Node::as_str) {
            Some(word) if is_word(word, "in_place") => WorkspaceKind::InPlace,
            _ => WorkspaceKind::Isolated,
        },
        outputs: own("outputs").map(set).unwrap_or_default(),
        artifacts: own("artifacts").map(artifacts).unwrap_or_default(),
        reports: Reports {
            junit: own("reports").and_then(|node| node.get("junit")).map(nodes::texts).unwrap_or_default(),
        },
        retry: or_default("retry").map_or_else(|| Retry::unasked(own("gate").is_some()), retry),
        timeout_ms,
        allow_failure: flag("allow_failure"),
        cleanup: flag("cleanup"),
        secrets: own("secrets").map(set).unwrap_or_default(),
        pool: or_default("pool").and_then(Node::as_str).unwrap_or_default().to_owned(),
        labels: or_default("labels").map(set).unwrap_or_default(),
        resources: or_default("resources").map(resources).unwrap_or_default(),
        ..Job::default()
    };
    base.reuse = reuse(job.body, &base);
    if let (Reuse::Inputs(globs), Some(node)) = (&base.reuse, or_default("environment")) {
        tell_whole_tree(job, globs, node, around.sources, faults);
    }
    if base.reuse == Reuse::Never {
        base.sees = own("inputs").map(nodes::texts);
    }
    if own("run").is_none() && own("gate").is_none() && own("use").is_none() {
        faults.push(errors::nothing_to_run(around.sources.location(job.key.span), job.id));
    }
    base
}

/// The job of one leg; it begins as what all legs share.
pub(crate) fn leg(
    mut lowered: Job,
    job: &Source<'_>,
    coordinates: &BTreeMap<String, Value>,
    origin: Origin,
    around: &Surroundings<'_>,
    faults: &mut Faults,
) -> Job {
    lowered.matrix = coordinates.clone();
    let matrix = ExpressionValue::object(coordinates.iter().map(|(name, value)| (name.as_str(), value.into())));
    let empty = BTreeMap::new();
    let at =
        AtPlan { values: around.values, matrix: &matrix, env: &empty, env_now: &empty, texts: EventTexts::Finished };
    let mut writing = Writing { sources: around.sources, faults, at };
    let env_now = variables(job, around, &mut writing);
    let env = match around.values.texts {
        EventTexts::Finished => None,
        texts => {
            writing.at = AtPlan { texts, ..at };
            Some(variables(job, around, &mut writing))
        }
    };
    let env = env.as_ref().unwrap_or(&env_now);
    let of_job: BTreeSet<&str> =
        job.body.get("env").and_then(Node::entries).unwrap_or_default().iter().filter_map(Entry::name).collect();
    lowered.env_of_pipeline = env.keys().filter(|name| !of_job.contains(name.as_str())).cloned().collect();
    writing.at = AtPlan { env, env_now: &env_now, texts: around.values.texts, ..at };

    let text = |name: &str| job.body.get(name);
    lowered.title = text("name").map(|node| writing.text_of_plan(node)).unwrap_or_default();
    lowered.environment =
        field(job, around, "environment").map(|node| environment(node, &mut writing)).unwrap_or_default();
    lowered.services =
        text("services").map(|node| services(node, &lowered.environment, &mut writing)).unwrap_or_default();
    lowered.cache =
        text("cache").map(nodes::list).unwrap_or_default().iter().map(|node| cache(node, &mut writing)).collect();
    lowered.gate = text("gate").map(|node| gate(node, &mut writing));
    lowered.concurrency = text("concurrency").map(|node| concurrency(node, &mut writing));
    if let Some(node) = text("if") {
        match writing.decide(node) {
            Decision::Holds => {}
            Decision::Fails(text) => lowered.skip = Some(SkipReason::Condition { text }),
            Decision::FailsNow(text) => lowered.skip = Some(SkipReason::Condition { text: text.into() }),
            Decision::Later(expression) => {
                writing.tell_unfinished(node);
                lowered.condition = Some(expression);
            }
        }
    }
    fill(&mut lowered, job, around, &mut writing);
    environment_files::add(&mut lowered);
    lowered.steps = steps::steps(job, around, origin, &mut writing);
    lowered.env.clone_from(env);
    lowered
}

/// The environment variables of a leg: the pipeline's, overlaid by the job's.
fn variables(job: &Source<'_>, around: &Surroundings<'_>, writing: &mut Writing<'_>) -> BTreeMap<String, Text> {
    let of_pipeline = writing.env(around.env.iter().copied());
    let at = AtPlan { env: &of_pipeline, env_now: &of_pipeline, ..writing.at };
    let mut of_job = Writing { sources: writing.sources, faults: writing.faults, at };
    let entries = job.body.get("env").and_then(Node::entries).unwrap_or_default();
    let of_job = of_job.env(entries);
    let mut env = of_pipeline.clone();
    for (name, text) in &of_job {
        let text = match text {
            Text::Template(written) => Text::Template(uncovered(written, &of_pipeline, &of_job).into()),
            Text::Plain(_) => text.clone(),
        };
        env.insert(name.clone(), text);
    }
    if writing.at.texts == EventTexts::Finished {
        entries.iter().for_each(|entry| tell_covered(entry, &of_pipeline, &env, &of_job, writing));
    }
    env
}

/// The text of a job's variable with the pipeline's values in it of those variables that the job has too: a worker has only the job's.
fn uncovered(written: &str, of_pipeline: &BTreeMap<String, Text>, of_job: &BTreeMap<String, Text>) -> String {
    let mut text = written.to_owned();
    while let Some((path, Text::Plain(value))) = covered(&text, of_pipeline, of_job) {
        let place = spelled::place(&text, &path, 0..=1);
        if place.is_empty() {
            break;
        }
        text.replace_range(place, &format!("'{}'", value.replace('\'', "''")));
    }
    text
}

/// The first of the pipeline's variables that a text reads and the job has too, those first whose values are known.
fn covered<'e>(
    text: &str,
    of_pipeline: &'e BTreeMap<String, Text>,
    of_job: &BTreeMap<String, Text>,
) -> Option<(ContextPath, &'e Text)> {
    let paths = Template::parse(text).ok()?.context_paths();
    let of_env = paths.into_iter().filter(|path| &*path.context == "env");
    let meant = |path: ContextPath| {
        let name = path.name(0).filter(|name| of_job.contains_key(*name))?;
        Some((of_pipeline.get(name)?, path)).map(|(text, path)| (path, text))
    };
    of_env.filter_map(meant).min_by_key(|(_, text)| text.as_plain().is_none())
}

/// Tells a job's variable that reads one of the pipeline's which the worker has to evaluate and does not get.
fn tell_covered(
    entry: &Entry,
    of_pipeline: &BTreeMap<String, Text>,
    env: &BTreeMap<String, Text>,
    of_job: &BTreeMap<String, Text>,
    writing: &mut Writing<'_>,
) {
    let Some(Text::Template(text)) = entry.name().and_then(|name| env.get(name)) else { return };
    if let Some((path, Text::Template(value))) = covered(text, of_pipeline, of_job) {
        let written = entry.value.scalar_text().unwrap_or_default();
        let span = check::place_in(writing.sources, &entry.value, written, spelled::place(written, &path, 0..=1));
        let name = path.name(0).unwrap_or_default();
        writing.faults.push(errors::variable_covered(writing.sources.location(span), name, value));
    }
}

/// Fills in what must be plain text in the graph and differs from leg to leg.
fn fill(lowered: &mut Job, job: &Source<'_>, around: &Surroundings<'_>, writing: &mut Writing<'_>) {
    let own = |name: &str| job.body.get(name).filter(|node| holds_expression(node));
    let or_default = |name: &str| field(job, around, name).filter(|node| holds_expression(node));
    let inputs = match &mut lowered.reuse {
        Reuse::Inputs(globs) => Some(globs),
        Reuse::Never | Reuse::Tree => lowered.sees.as_mut(),
    };
    if let (Some(node), Some(globs)) = (own("inputs"), inputs) {
        *globs = writing.filled(node, Filling::Glob);
    }
    if let Some(node) = own("artifacts") {
        lowered.artifacts = filled_artifacts(node, writing);
    }
    if let Some(node) = own("reports").and_then(|node| node.get("junit")) {
        lowered.reports.junit = writing.filled(node, Filling::Glob);
    }
    if let Some(node) = or_default("pool") {
        lowered.pool = writing.filled(node, Filling::Label).pop().unwrap_or_default();
    }
    if let Some(node) = or_default("labels") {
        lowered.labels = writing.filled(node, Filling::Label).into_iter().collect();
    }
}

/// Whether some text under the node, or some key, has an expression.
fn holds_expression(node: &Node) -> bool {
    node.as_str().is_some_and(expression::Template::is_needed)
        || node.items().unwrap_or_default().iter().any(holds_expression)
        || node
            .entries()
            .unwrap_or_default()
            .iter()
            .any(|entry| entry.name().is_some_and(expression::Template::is_needed) || holds_expression(&entry.value))
}

fn filled_artifacts(node: &Node, writing: &mut Writing<'_>) -> BTreeMap<String, Vec<String>> {
    let Some(entries) = node.entries() else {
        return BTreeMap::from([(UNNAMED_ARTIFACTS.to_owned(), writing.filled(node, Filling::Glob))]);
    };
    let mut artifacts = BTreeMap::new();
    for entry in entries {
        let Some(name) = writing.filled(&entry.key, Filling::ArtifactName).pop() else { continue };
        let globs = writing.filled(&entry.value, Filling::Glob);
        if artifacts.insert(name.clone(), globs).is_some() {
            writing.faults.push(errors::artifact_twice(writing.sources.location(entry.key.span), &name));
        }
    }
    artifacts
}

/// What a filled text must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filling {
    Glob,
    CachePath,
    Label,
    ArtifactName,
    Installable,
}

impl Filling {
    /// What is wrong with a filled text, in a few words.
    fn fault(self, text: &str) -> Option<String> {
        let name_fault = |kind| check::name_fault(text, kind).map(|_| "that cannot be a name here".to_owned());
        match self {
            Self::Glob => patterns::check_glob(text).err().map(|cause| format!("that is no glob: {cause}")),
            Self::CachePath => (!check::is_cache_path(text)).then(|| "that lies outside the workspace".to_owned()),
            Self::Label => name_fault(NameKind::Label),
            Self::ArtifactName => name_fault(NameKind::Id),
            Self::Installable => (!super::steps::is_installable(text)).then(|| "that is no installable".to_owned()),
        }
    }
}

/// Texts of one leg, with what they may read.
pub(crate) struct Writing<'a> {
    pub sources: &'a Sources,
    pub faults: &'a mut Faults,
    pub at: AtPlan<'a>,
}

impl Writing<'_> {
    /// A scalar that may hold `${{ }}`; finished if that can be.
    pub(crate) fn text(&mut self, node: &Node) -> Text {
        let written = node.scalar_text().unwrap_or_default();
        self.at.text(written).unwrap_or_else(|error| {
            self.evaluation_fault(node, &error);
            Text::default()
        })
    }

    /// The same, of a text that nobody finishes later.
    pub(crate) fn text_of_plan(&mut self, node: &Node) -> Text {
        let written = node.scalar_text().unwrap_or_default();
        if matches!(self.at.now().text(written), Ok(Text::Template(_)))
            && self.at.now().reads_only_variables_beyond(written)
        {
            self.faults.push(errors::not_known_yet(self.sources.location(node.span)));
        }
        self.text(node)
    }

    /// The same, of a text that is finished once the job is ready, before a worker has it.
    fn text_of_ready(&mut self, node: &Node) -> Text {
        let text = self.text(node);
        if text.as_plain().is_none() {
            self.tell_unfinished(node);
        }
        text
    }

    /// Tells a variable that is read before a worker can have finished or set it.
    fn tell_unfinished(&mut self, node: &Node) {
        let written = node.scalar_text().unwrap_or_default();
        let paths = match expression::Template::is_needed(written) {
            true => expression::Template::parse(written).map(|template| template.context_paths()),
            false => expression::Condition::parse(written).map(|condition| condition.context_paths()),
        };
        let paths = paths.unwrap_or_default();
        if let Some((path, variable)) = self.at.unfinished(&paths) {
            let span = check::place_in(self.sources, node, written, spelled::place(written, path, 0..=1));
            let name = path.name(0).unwrap_or_default();
            self.faults.push(errors::variable_not_known_yet(self.sources.location(span), name, variable));
        } else if let Some((path, name)) = self.at.unfinished_of_all(&paths) {
            let span = check::place_in(self.sources, node, written, spelled::place(written, path, 0..=0));
            self.faults.push(errors::variables_not_known_yet(self.sources.location(span), name));
        } else if let Some(path) = self.at.unset(&paths) {
            let span = check::place_in(self.sources, node, written, spelled::place(written, path, 0..=1));
            let known: Vec<&str> = self.at.env_now.keys().map(String::as_str).collect();
            let name = path.name(0).unwrap_or_default();
            self.faults.push(errors::variable_unset(self.sources.location(span), name, &known));
        }
    }

    /// The texts of a string or of a list, filled in. What cannot be filled is told and left out.
    pub(crate) fn filled(&mut self, node: &Node, filling: Filling) -> Vec<String> {
        nodes::list(node).iter().filter_map(|node| self.filled_text(node, filling)).collect()
    }

    fn filled_text(&mut self, node: &Node, filling: Filling) -> Option<String> {
        let written = node.as_str()?;
        if !expression::Template::is_needed(written) {
            return Some(written.to_owned());
        }
        match self.at.now().text(written) {
            Ok(Text::Plain(text)) => match filling.fault(&text) {
                None => Some(text.into()),
                // What does not parse is empty, and was told.
                Some(_) if expression::Template::parse(written).is_err() => None,
                Some(cause) => {
                    self.faults.push(errors::filled_badly(self.sources.location(node.span), &text, &cause));
                    None
                }
            },
            Ok(Text::Template(_)) => {
                if self.at.now().reads_only_variables_beyond(written) {
                    self.faults.push(errors::not_known_yet(self.sources.location(node.span)));
                }
                None
            }
            Err(error) => {
                self.evaluation_fault(node, &error);
                None
            }
        }
    }

    /// A condition, or `true` or `false`.
    pub(crate) fn decide(&mut self, node: &Node) -> Decision {
        match (node.as_bool(), node.as_str()) {
            (Some(false), _) => Decision::Fails("false".to_owned()),
            (None, Some(written)) => self.at.decide(written).unwrap_or_else(|error| {
                self.evaluation_fault(node, &error);
                Decision::Holds
            }),
            _ => Decision::Holds,
        }
    }

    pub(crate) fn env<'n>(&mut self, entries: impl IntoIterator<Item = &'n Entry>) -> BTreeMap<String, Text> {
        let named = entries.into_iter().filter_map(|entry| Some((entry.name()?.to_owned(), &entry.value)));
        named.map(|(name, value)| (name, self.text(value))).collect()
    }

    fn evaluation_fault(&mut self, node: &Node, error: &expression::Error) {
        let written = node.scalar_text().unwrap_or_default();
        let span = super::check::place_in(self.sources, node, written, error.range.clone());
        let help = "its values are known while the graph is made, and do not fit".to_owned();
        self.faults.push(errors::expression(self.sources.location(span), error, help));
    }
}

fn set(node: &Node) -> BTreeSet<String> {
    nodes::texts(node).into_iter().collect()
}

/// A limit on time; zero is told and left out.
pub(crate) fn timeout(node: Option<&Node>, sources: &Sources, faults: &mut Faults) -> Option<u64> {
    let node = node?;
    let limit = measure::duration_ms(node.as_str()?)?;
    if limit == 0 {
        let place = sources.location(node.span);
        let help = "leave `timeout` out for no limit";
        faults.push(errors::bad_value(
            "bad-value",
            place,
            "a timeout is above zero".to_owned(),
            "no time at all",
            help,
        ));
        return None;
    }
    Some(limit)
}

/// `inputs` or `reuse: true` make a job reusable, but for one that asks for a build; secrets or a gate only the latter; `reuse: false` never.
fn reuse(body: &Node, job: &Job) -> Reuse {
    let says = body.get("reuse").and_then(Node::as_bool);
    let inputs = body.get("inputs").map(nodes::texts);
    if body.get("run").is_some_and(|run| nodes::list(run).iter().any(|step| step.get("build").is_some())) {
        // Its result is another build's, whose own jobs are reused.
        return Reuse::Never;
    }
    let needs_word = !job.secrets.is_empty() || body.get("gate").is_some();
    match (says, inputs) {
        (Some(false), _) | (None, None) => Reuse::Never,
        (None, Some(_)) if needs_word => Reuse::Never,
        (_, Some(inputs)) => Reuse::Inputs(inputs),
        (Some(true), None) => Reuse::Tree,
    }
}

/// Tells an environment that may be made of any file, so that inputs which name some of them spare nothing.
fn tell_whole_tree(job: &Source<'_>, globs: &[String], environment: &Node, sources: &Sources, faults: &mut Faults) {
    let takes_all = |glob: &String| matches!(glob.as_str(), "." | environment_files::WHOLE_PROJECT);
    let whole = environment_files::whole_of(environment);
    if let Some(whole) = whole.filter(|_| !globs.iter().any(takes_all)) {
        let place = sources.location(environment.span);
        faults.push(match whole {
            Whole::OfDockerfile => errors::image_of_whole_project(place, job.id),
            Whole::OfFlake => errors::shell_of_whole_checkout(place, job.id),
        });
    }
}

/// The name of artifacts that are given without one.
const UNNAMED_ARTIFACTS: &str = "files";

fn artifacts(node: &Node) -> BTreeMap<String, Vec<String>> {
    match node.entries() {
        Some(entries) => {
            entries.iter().filter_map(|entry| Some((entry.name()?.to_owned(), nodes::texts(&entry.value)))).collect()
        }
        None => BTreeMap::from([(UNNAMED_ARTIFACTS.to_owned(), nodes::texts(node))]),
    }
}

fn retry(node: &Node) -> Retry {
    let mut retry = Retry::default();
    let max = node.as_integer().or_else(|| node.get("max")?.as_integer());
    retry.max = max.and_then(|max| u32::try_from(max).ok()).map_or(retry.max, |max| max.min(Retry::MAX_MAX));
    if let Some(kinds) = node.get("on").and_then(Node::items) {
        retry.on = kinds.iter().filter_map(retry_on).collect();
    }
    retry.backoff_ms =
        node.get("backoff").and_then(Node::as_str).and_then(measure::duration_ms).unwrap_or(retry.backoff_ms);
    retry
}

fn retry_on(node: &Node) -> Option<RetryOn> {
    if let Some(codes) = node.get("exit") {
        let code = |node: &Node| i32::try_from(node.as_integer()?).ok();
        return Some(RetryOn::Exit(nodes::list(codes).iter().filter_map(code).collect()));
    }
    match node.as_str()? {
        "infra" => Some(RetryOn::Infra),
        "lost" => Some(RetryOn::Lost),
        "timeout" => Some(RetryOn::Timeout),
        "step" => Some(RetryOn::Step),
        _ => None,
    }
}

fn resources(node: &Node) -> Resources {
    let cpu = node.get("cpu").and_then(Node::as_float).filter(|cpu| (0.0..1e6).contains(cpu)).unwrap_or_default();
    let memory = node.get("memory").and_then(|node| match node.as_integer() {
        Some(bytes) => u64::try_from(bytes).ok(),
        None => measure::size_bytes(node.as_str()?),
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between zero and a million")]
    Resources { cpu_milli: (cpu * 1000.0).ceil() as u64, memory_bytes: memory.unwrap_or_default() }
}

fn environment(node: &Node, writing: &mut Writing<'_>) -> Environment {
    if let Some(word) = node.as_str() {
        return match word {
            "sandbox" => Environment::Sandbox { network: Network::On },
            _ => Environment::Host,
        };
    }
    let entries = node.entries().unwrap_or_default();
    let kind = |entry: &&Entry| entry.name().is_some_and(|name| ENVIRONMENTS.iter().any(|(kind, _)| *kind == name));
    let mut kinds = entries.iter().filter(kind);
    let (Some(Entry { key, value }), None) = (kinds.next(), kinds.next()) else {
        let place = writing.sources.location(node.span);
        let message = "an environment is exactly one thing".to_owned();
        let help = "keep one of `sandbox`, `image`, `dockerfile`, `nix`, `kubernetes`";
        writing.faults.push(errors::bad_value("bad-value", place, message, "none, or several", help));
        return Environment::Host;
    };
    let kind = key.scalar_text().unwrap_or_default();
    tell_foreign_settings(kind, entries, writing);
    let network = |node: &Node| {
        let network = node.get("network");
        let is_off = network.is_some_and(|node| node.as_bool() == Some(false) || node.as_str() == Some("off"));
        if is_off { Network::Off } else { Network::On }
    };
    let plain = |name: &str| node.get(name).and_then(Node::scalar_text).unwrap_or_default().into();
    match kind {
        "sandbox" => Environment::Sandbox { network: network(value) },
        "image" => Environment::Image { image: writing.text(value), container: container(node, network(node)) },
        "dockerfile" => Environment::Dockerfile {
            dockerfile: writing.text(value),
            context: plain("context"),
            args: writing.env(node.get("args").and_then(Node::entries).unwrap_or_default()),
            target: plain("target"),
            container: container(node, network(node)),
        },
        "nix" => Environment::Nix { nix: writing.text(value) },
        "kubernetes" => Environment::Kubernetes { kubernetes: nodes::json(value) },
        _ => Environment::Host,
    }
}

/// Each kind of environment with the settings that go with it.
pub(super) const ENVIRONMENTS: [(&str, &[&str]); 5] = [
    ("sandbox", &[]),
    ("image", &["entrypoint", "user", "network", "platform", "pull", "login"]),
    ("dockerfile", &["context", "args", "target", "entrypoint", "user", "network", "platform", "login"]),
    ("nix", &[]),
    ("kubernetes", &[]),
];

/// Tells settings that belong to another kind of environment. Those that belong to none were told already.
fn tell_foreign_settings(kind: &str, entries: &[Entry], writing: &mut Writing<'_>) {
    let of = |wanted: &str| ENVIRONMENTS.iter().find(|(kind, _)| *kind == wanted).map_or(&[][..], |(_, names)| *names);
    for entry in entries {
        let Some(name) = entry.name().filter(|name| *name != kind && !of(kind).contains(name)) else { continue };
        let owners: Vec<String> = ENVIRONMENTS
            .iter()
            .filter(|(_, names)| names.contains(&name))
            .map(|(kind, _)| format!("`{kind}`"))
            .collect();
        if !owners.is_empty() {
            let place = writing.sources.location(entry.key.span);
            let message = format!("`{name}` does not go with `{kind}`");
            let help = format!("it goes with {}", owners.join(" and "));
            writing.faults.push(errors::bad_value("bad-value", place, message, "belongs elsewhere", &help));
        }
    }
}

fn container(node: &Node, network: Network) -> Box<Container> {
    let plain = |name: &str| node.get(name).and_then(Node::scalar_text).unwrap_or_default().into();
    Box::new(Container {
        entrypoint: node.get("entrypoint").map(nodes::texts).unwrap_or_default(),
        user: plain("user"),
        network,
        platform: plain("platform"),
        pull: pull(node),
        login: plain("login"),
    })
}

fn pull(node: &Node) -> Pull {
    match node.get("pull").and_then(Node::as_str) {
        Some("always") => Pull::Always,
        Some("never") => Pull::Never,
        _ => Pull::Missing,
    }
}

/// The services of a job; of one that runs in no container they are told and left out.
fn services(node: &Node, environment: &Environment, writing: &mut Writing<'_>) -> BTreeMap<String, Service> {
    let entries = node.entries().unwrap_or_default();
    let fault = if environment.container().is_none() {
        Some(("services are for jobs in containers", "add `environment: { image: … }` or `{ dockerfile: … }`"))
    } else if entries.len() > Job::SERVICES_MAX {
        Some(("a job has at most 50 services", "leave some out"))
    } else {
        None
    };
    if let Some((message, help)) = fault.filter(|_| !entries.is_empty()) {
        let place = writing.sources.location(node.span);
        writing.faults.push(errors::bad_value("bad-value", place, message.to_owned(), "these services", help));
        return BTreeMap::new();
    }
    entries.iter().filter_map(|entry| Some((entry.name()?.to_owned(), service(&entry.value, writing)))).collect()
}

fn service(node: &Node, writing: &mut Writing<'_>) -> Service {
    if node.scalar_text().is_some() {
        return Service { image: writing.text(node), ..Service::default() };
    }
    let port = |node: &Node| u16::try_from(node.as_integer()?).ok();
    Service {
        image: node.get("image").map(|node| writing.text(node)).unwrap_or_default(),
        command: node.get("command").map(|node| command(node, writing)).unwrap_or_default(),
        env: writing.env(node.get("env").and_then(Node::entries).unwrap_or_default()),
        ports: node.get("ports").map(nodes::list).unwrap_or_default().iter().filter_map(port).collect(),
        health: node.get("health").map(health),
        tmpfs: node.get("tmpfs").map(set).unwrap_or_default(),
        pull: pull(node),
        login: node.get("login").and_then(Node::as_str).unwrap_or_default().into(),
    }
}

/// The words of a list, or of a string that is parted at its spaces. A string in which that would tear something is told.
fn command(node: &Node, writing: &mut Writing<'_>) -> Vec<Text> {
    let Some(text) = node.scalar_text() else {
        return nodes::list(node).iter().map(|node| writing.text(node)).collect();
    };
    if text.contains(['\'', '"', '\\']) || text.contains("${{") {
        let place = writing.sources.location(node.span);
        let message = "a command in one string is parted at its spaces, and quotes and `${{ }}` are not".to_owned();
        let help = "write its words as a list: `[postgres, -c, \"log_statement=all\"]`";
        writing.faults.push(errors::bad_value("bad-value", place, message, "words that cannot be told apart", help));
    }
    text.split_whitespace().map(Text::from).collect()
}

fn health(node: &Node) -> Health {
    let command = node.get("command").unwrap_or(node).as_str().unwrap_or_default().into();
    let interval_ms = node.get("interval").and_then(Node::as_str).and_then(measure::duration_ms);
    let retries = node.get("retries").and_then(Node::as_integer).and_then(|retries| u32::try_from(retries).ok());
    Health {
        command,
        interval_ms: interval_ms.unwrap_or(Health::INTERVAL_MS),
        retries: retries.map_or(Health::RETRIES, |retries| retries.min(Health::RETRIES_MAX)),
    }
}

fn cache(node: &Node, writing: &mut Writing<'_>) -> CacheUse {
    CacheUse {
        key: node.get("key").map(|node| writing.text(node)).unwrap_or_default(),
        restore: node
            .get("restore")
            .map(nodes::list)
            .unwrap_or_default()
            .iter()
            .map(|node| writing.text(node))
            .collect(),
        paths: node.get("paths").map(|node| writing.filled(node, Filling::CachePath)).unwrap_or_default(),
    }
}

/// The gate of a job or of a list; a scalar is the prompt.
pub(crate) fn gate(node: &Node, writing: &mut Writing<'_>) -> Gate {
    if node.scalar_text().is_some() {
        return Gate { prompt: writing.text_of_ready(node), fields: BTreeMap::new() };
    }
    let fields = node.get("fields").and_then(Node::entries).unwrap_or_default();
    Gate {
        prompt: node.get("prompt").map(|node| writing.text_of_ready(node)).unwrap_or_default(),
        fields: triggers::fields(fields, writing.sources, writing.faults),
    }
}

fn concurrency(node: &Node, writing: &mut Writing<'_>) -> Concurrency {
    let mode = match node.get("mode").and_then(Node::as_str) {
        Some(word) if is_word(word, "cancel_waiting") => ConcurrencyMode::CancelWaiting,
        Some(word) if is_word(word, "cancel_running") => ConcurrencyMode::CancelRunning,
        _ => ConcurrencyMode::Queue,
    };
    let group = node.get("group").unwrap_or(node);
    Concurrency { group: writing.text_of_ready(group), mode }
}
