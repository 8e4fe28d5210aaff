//! A job of the pipeline, and all that the native format can say of one.

use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use crate::ci::{Ci, Need, NeedOn};
use crate::condition::Condition;
use crate::context::{Cx, Failure};
use crate::data::DecodeError;
use crate::data::{Data, Schema};
use crate::fields::{Field, Fill};
use crate::inputs::{FIELD_OF_VALUE, Inputs, Output, Reading, Returned, Run, Source, Sources, Stopped, VALUE};
use crate::json::Json;
use crate::mark::Mark;
use crate::step::{Step, one_or_list};
use crate::texts::Texts;
use crate::words::{self, Cache, Concurrency, Environment, Matrix, Retry, Reuse, Service, Workspace};

/// A job: `O` is what its function returns, `V` what its function takes.
///
/// A handle: methods write to the evaluation at once and give the handle back.
pub struct Job<O = (), V = ()> {
    pub(crate) ci: Ci,
    pub(crate) index: usize,
    sources: Sources,
    read: Read<V>,
    types: PhantomData<fn() -> O>,
}

/// Reads the values that a function takes.
type Read<V> = fn(&mut Reading<'_>) -> Result<V, DecodeError>;

impl<O, V> Clone for Job<O, V> {
    fn clone(&self) -> Self {
        Self {
            ci: self.ci.clone(),
            index: self.index,
            sources: self.sources.clone(),
            read: self.read,
            types: PhantomData,
        }
    }
}

/// Jobs that another waits for: a name, a handle, an output, or a tuple or list of them. A name is the full one, or that of a group.
pub trait Needs {
    #[doc(hidden)]
    fn needs(&self, out: &mut NeedList);
}

/// What some needs name.
#[doc(hidden)]
#[derive(Default)]
pub struct NeedList(pub(crate) Vec<NeedOn>);

impl Needs for str {
    fn needs(&self, out: &mut NeedList) {
        out.0.push(NeedOn::Name(self.to_owned()));
    }
}

impl Needs for String {
    fn needs(&self, out: &mut NeedList) {
        out.0.push(NeedOn::Name(self.clone()));
    }
}

impl<O, V> Needs for Job<O, V> {
    fn needs(&self, out: &mut NeedList) {
        out.0.push(NeedOn::Name(self.name()));
    }
}

impl<T> Needs for Output<T> {
    fn needs(&self, out: &mut NeedList) {
        out.0.push(NeedOn::Name(self.source.job.clone()));
    }
}

impl<N: Needs + ?Sized> Needs for &N {
    fn needs(&self, out: &mut NeedList) {
        N::needs(self, out);
    }
}

impl<N: Needs> Needs for [N] {
    fn needs(&self, out: &mut NeedList) {
        self.iter().for_each(|need| need.needs(out));
    }
}

impl<N: Needs, const COUNT: usize> Needs for [N; COUNT] {
    fn needs(&self, out: &mut NeedList) {
        self.iter().for_each(|need| need.needs(out));
    }
}

impl<N: Needs> Needs for Vec<N> {
    fn needs(&self, out: &mut NeedList) {
        self.iter().for_each(|need| need.needs(out));
    }
}

macro_rules! tuple {
    ($($name:ident),+) => {
        impl<$($name: Needs),+> Needs for ($($name,)+) {
            fn needs(&self, out: &mut NeedList) {
                #[allow(non_snake_case, reason = "named as the type it is of")]
                let ($($name,)+) = self;
                $($name.needs(out);)+
            }
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);
tuple!(A, B, C, D, E, F, G);
tuple!(A, B, C, D, E, F, G, H);

impl Job {
    pub(crate) fn new(ci: Ci, index: usize) -> Self {
        Self { ci, index, sources: Sources::default(), read: <() as Inputs>::read, types: PhantomData }
    }

    /// What its function takes; each handle is also a need.
    #[track_caller]
    pub fn inputs<I: Inputs>(self, inputs: I) -> Job<(), I::Values> {
        let mark = Location::caller();
        let sources = Sources::of(&inputs);
        for source in &sources.list {
            self.need(NeedOn::Name(source.job.clone()), "success", mark);
        }
        for growth in &sources.growths {
            self.need(NeedOn::Values(*growth), "success", mark);
        }
        Job { ci: self.ci, index: self.index, sources, read: I::read, types: PhantomData }
    }
}

/// Keys that a job and the pipeline's defaults both have. `$edit` calls its argument with the settings.
macro_rules! settings_of_both {
    () => {
        /// Where the steps run. Without it: on the machine itself.
        #[track_caller]
        pub fn environment(self, environment: Environment) -> Self {
            self.put("environment", environment.0)
        }

        /// Limit on running time; waiting does not count.
        #[track_caller]
        pub fn timeout(self, limit: Duration) -> Self {
            self.put("timeout", words::duration(limit))
        }

        /// What reads the scripts: `sh` (without it), `bash`, or a command such as `python3 {0}`.
        #[track_caller]
        pub fn shell(self, shell: impl Texts) -> Self {
            self.put("shell", one_or_list(shell))
        }

        /// Where scripts run, relative to the repository's root; may hold `${{ }}`.
        #[track_caller]
        pub fn working_directory(self, path: impl Into<String>) -> Self {
            self.put("working_directory", Json::Text(path.into()))
        }

        /// Which files the steps see. Without it: a copy of the job's own.
        #[track_caller]
        pub fn workspace(self, workspace: Workspace) -> Self {
            let word = match workspace {
                Workspace::Isolated => "isolated",
                Workspace::InPlace => "in_place",
            };
            self.put("workspace", word.into())
        }

        /// When to try again; a number is the most further tries. Without it: twice after failures of the infrastructure and lost workers.
        #[track_caller]
        pub fn retry(self, retry: impl Into<Retry>) -> Self {
            self.put("retry", Json::Object(retry.into().0))
        }

        /// The pool whose workers may run it.
        #[track_caller]
        pub fn pool(self, name: impl Into<String>) -> Self {
            self.put("pool", Json::Text(name.into()))
        }

        /// Labels that the worker must have, besides those of earlier calls.
        #[track_caller]
        pub fn labels(self, labels: impl Texts) -> Self {
            self.append("labels", labels)
        }

        /// Cores that it asks of its worker; fractions are taken.
        #[track_caller]
        pub fn cpu(self, cores: impl Into<f64>) -> Self {
            let cores = cores.into();
            let whole = cores as i128;
            let json = if whole as f64 == cores { Json::Int(whole) } else { Json::Float(cores) };
            self.insert("resources", "cpu".to_owned(), json)
        }

        /// Memory that it asks of its worker, such as `4GiB`.
        #[track_caller]
        pub fn memory(self, size: impl Into<String>) -> Self {
            self.insert("resources", "memory".to_owned(), Json::Text(size.into()))
        }
    };
}

/// What holds for every job that does not say otherwise: see [`Ci::defaults`].
#[derive(Clone)]
pub struct Defaults {
    pub(crate) ci: Ci,
}

impl Defaults {
    settings_of_both!();

    #[track_caller]
    fn put(self, key: &'static str, value: Json) -> Self {
        self.ci.shared.borrow_mut().defaults.set(key, value, Location::caller());
        self
    }

    #[track_caller]
    fn append(self, key: &'static str, texts: impl Texts) -> Self {
        let texts = texts.texts().into_iter().map(Json::Text);
        self.ci.shared.borrow_mut().defaults.append(key, texts, Location::caller());
        self
    }

    #[track_caller]
    fn insert(self, key: &'static str, name: String, value: Json) -> Self {
        self.ci.shared.borrow_mut().defaults.insert(key, name, value, Location::caller());
        self
    }
}

impl<O, V> Job<O, V> {
    settings_of_both!();

    /// The job's full name.
    #[must_use]
    pub fn name(&self) -> String {
        self.ci.shared.borrow().jobs[self.index].name.clone()
    }

    /// What is shown to people in place of the name; may hold `${{ }}`.
    #[track_caller]
    pub fn title(self, title: impl Into<String>) -> Self {
        self.put("name", Json::Text(title.into()))
    }

    /// Jobs that must pass first; the files of their artifacts appear at the same paths.
    #[track_caller]
    pub fn needs(self, needs: impl Needs) -> Self {
        self.needed(&needs, "success", Location::caller())
    }

    /// Jobs of which a step must have failed, or that ran out of time.
    #[track_caller]
    pub fn after_failure(self, needs: impl Needs) -> Self {
        self.needed(&needs, "failure", Location::caller())
    }

    /// Jobs that must have ended, however.
    #[track_caller]
    pub fn after_finished(self, needs: impl Needs) -> Self {
        self.needed(&needs, "finished", Location::caller())
    }

    fn needed(self, needs: &impl Needs, ending: &'static str, mark: Mark) -> Self {
        let mut list = NeedList::default();
        needs.needs(&mut list);
        list.0.into_iter().for_each(|on| self.need(on, ending, mark));
        self
    }

    pub(crate) fn need(&self, on: NeedOn, ending: &'static str, mark: Mark) {
        self.ci.shared.borrow_mut().jobs[self.index].needs.push(Need { on, ending, mark });
    }

    /// A condition on the event; the job is skipped where it does not hold. Several calls mean all of them.
    #[track_caller]
    pub fn when(self, condition: impl Into<Condition>) -> Self {
        let mark = Location::caller();
        self.ci.shared.borrow_mut().jobs[self.index].settings.append("when", [condition.into().0], mark);
        self
    }

    /// An expression (`if` of the native format); the job is skipped where it does not hold.
    #[track_caller]
    pub fn run_if(self, expression: impl Into<String>) -> Self {
        self.put("if", Json::Text(expression.into()))
    }

    /// The job once for every combination of the axes. A need of its name means all of them.
    #[track_caller]
    pub fn matrix(self, matrix: Matrix) -> Self {
        self.put("matrix", matrix.0)
    }

    /// A script; each call adds one step.
    #[track_caller]
    pub fn run(self, script: impl Into<String>) -> Self {
        self.step(Step::sh(script))
    }

    /// A step with what is said of it.
    #[track_caller]
    pub fn step(self, step: impl Into<Step>) -> Self {
        let mark = Location::caller();
        let mut shared = self.ci.shared.borrow_mut();
        let step = step.into().json(&mut shared.files);
        shared.jobs[self.index].settings.append("run", [step], mark);
        drop(shared);
        self
    }

    /// Steps, in order.
    #[track_caller]
    pub fn steps<S: Into<Step>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        let mark = Location::caller();
        let steps: Vec<Step> = steps.into_iter().map(Into::into).collect();
        let mut shared = self.ci.shared.borrow_mut();
        let steps: Vec<Json> = steps.into_iter().map(|step| step.json(&mut shared.files)).collect();
        shared.jobs[self.index].settings.append("run", steps, mark);
        drop(shared);
        self
    }

    /// An environment variable of all its steps; may hold `${{ }}`.
    #[track_caller]
    pub fn env(self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.insert("env", name.into(), value.into())
    }

    /// The files its result depends on (`inputs` of the native format), besides those of earlier calls. Where they, its steps and what it
    /// needs are unchanged, an earlier result is reused. An empty list is none at all.
    #[track_caller]
    pub fn input_files(self, globs: impl Texts) -> Self {
        self.append("inputs", globs)
    }

    /// Whether an earlier result is reused.
    #[track_caller]
    pub fn reuse(self, reuse: Reuse) -> Self {
        self.put("reuse", Json::Bool(reuse == Reuse::Always))
    }

    /// Values that it must hand on, each written by a step: `echo "name=value" >> "$ROPEWALK_OUTPUT"`.
    #[track_caller]
    pub fn outputs(self, names: impl Texts) -> Self {
        let mark = Location::caller();
        names.texts().into_iter().for_each(|name| self.declare_output(name, mark));
        self
    }

    /// A value that one of its steps writes, as an input for other jobs. A `String` is the text as it is written; anything else is read as JSON,
    /// and a word of an enum without quotes too. Of a job with a function each field of the struct that it returns is one; its `value`
    /// is the field of this name, or the whole where it is read as what the function returns.
    #[track_caller]
    pub fn output<T: Data>(&self, name: impl Into<String>) -> Output<T> {
        let name = name.into();
        let (schema, mark) = (Schema::of::<T>().digest(), Location::caller());
        let output = if name == VALUE { self.value_as(&schema, mark) } else { Some(name.clone()) };
        self.declare_output(name, mark);
        Output { source: Source { job: self.name(), output, schema }, is: PhantomData }
    }

    /// Where the output `value` is read from as a type of this schema: a function hands on the whole of what it returns by this name,
    /// beside which a field of the name has no place.
    fn value_as(&self, schema: &str, mark: Mark) -> Option<String> {
        let job = self.name();
        let mut shared = self.ci.shared.borrow_mut();
        let Some(run) = shared.functions.get(&self.index) else { return Some(VALUE.to_owned()) };
        if run.output == schema {
            return None;
        }
        if !run.fields.contains(&VALUE) {
            let message = format!("the function of `{job}` returns another type than its `value` is read as here");
            let help = "read it as what the function returns, or one of its fields by the field's name";
            shared.fault("value-of-another-type", message, "read here", help, mark, &[]);
        }
        Some(FIELD_OF_VALUE.to_owned())
    }

    fn declare_output(&self, name: String, mark: Mark) {
        let mut shared = self.ci.shared.borrow_mut();
        let settings = &mut shared.jobs[self.index].settings;
        if let Json::List(names) = settings.entry("outputs", Json::List(Vec::new()), mark)
            && !names.iter().any(|other| other.as_str() == Some(&name))
        {
            names.push(Json::Text(name));
        }
    }

    /// Files it hands on under a name; they appear at the same paths in the jobs that need it. May hold `${{ }}`.
    #[track_caller]
    pub fn artifact(self, name: impl Into<String>, globs: impl Texts) -> Self {
        self.insert("artifacts", name.into(), globs.texts().into())
    }

    /// Files it hands on under the name `files`.
    #[track_caller]
    pub fn artifacts(self, globs: impl Texts) -> Self {
        self.artifact("files", globs)
    }

    /// Directories kept across builds; each call adds one.
    #[track_caller]
    pub fn cache(self, cache: Cache) -> Self {
        let mark = Location::caller();
        self.ci.shared.borrow_mut().jobs[self.index].settings.append("cache", [Json::Object(cache.0)], mark);
        self
    }

    /// JUnit XML files to read when it has ended.
    #[track_caller]
    pub fn junit(self, globs: impl Texts) -> Self {
        self.insert("reports", "junit".to_owned(), globs.texts().into())
    }

    /// A failure is only a warning.
    #[track_caller]
    pub fn allow_failure(self) -> Self {
        self.put("allow_failure", Json::Bool(true))
    }

    /// It also runs when the build is canceled.
    #[track_caller]
    pub fn cleanup(self) -> Self {
        self.put("cleanup", Json::Bool(true))
    }

    /// A person's approval, asked once the needs are there; it stands before the steps. The prompt may hold `${{ }}`; an empty one is the job's
    /// name.
    #[track_caller]
    pub fn gate(self, prompt: impl Into<String>) -> Self {
        match prompt.into() {
            prompt if prompt.is_empty() => self.put("gate", Json::Object(Vec::new())),
            prompt => self.insert("gate", "prompt".to_owned(), Json::Text(prompt)),
        }
    }

    /// Something that is filled in with the approval: `${{ gate.NAME }}`.
    #[track_caller]
    pub fn gate_field<T: Fill>(self, field: Field<T>) -> Self {
        let mark = Location::caller();
        let (name, form) = field.entry();
        let mut shared = self.ci.shared.borrow_mut();
        if let Json::Object(gate) = shared.entry(self.index, "gate", Json::Object(Vec::new()), mark) {
            match gate.iter_mut().find(|(key, _)| key == "fields") {
                Some((_, Json::Object(fields))) => fields.push((name, form)),
                _ => gate.push(("fields".to_owned(), Json::Object(vec![(name, form)]))),
            }
        }
        drop(shared);
        self
    }

    /// The group in which only one job runs at a time, over all builds; a name alone is a queue.
    #[track_caller]
    pub fn concurrency(self, concurrency: impl Into<Concurrency>) -> Self {
        self.put("concurrency", concurrency.into().0)
    }

    /// Names of secrets, besides those of earlier calls; they arrive as environment variables of this job alone.
    #[track_caller]
    pub fn secrets(self, names: impl Texts) -> Self {
        self.append("secrets", names)
    }

    /// A container beside the job's own, which its steps reach by this name.
    #[track_caller]
    pub fn service(self, name: impl Into<String>, service: Service) -> Self {
        let mark = Location::caller();
        let entry = (name.into(), Json::Object(service.0));
        let mut shared = self.ci.shared.borrow_mut();
        if let Json::Object(services) = shared.entry(self.index, "services", Json::Object(Vec::new()), mark) {
            services.retain(|(name, _)| *name != entry.0);
            services.push(entry);
        }
        drop(shared);
        self
    }

    /// The stage it belongs to.
    #[track_caller]
    pub fn stage(self, name: impl Into<String>) -> Self {
        self.put("stage", Json::Text(name.into()))
    }

    /// It replaces the job of the same name in a config file beside the program.
    #[track_caller]
    pub fn overrides(self) -> Self {
        self.put("override", Json::Bool(true))
    }

    #[track_caller]
    fn put(self, key: &'static str, value: Json) -> Self {
        self.ci.shared.borrow_mut().set(self.index, key, value, Location::caller());
        self
    }

    #[track_caller]
    fn append(self, key: &'static str, texts: impl Texts) -> Self {
        let texts = texts.texts().into_iter().map(Json::Text);
        self.ci.shared.borrow_mut().jobs[self.index].settings.append(key, texts, Location::caller());
        self
    }

    #[track_caller]
    fn insert(self, key: &'static str, name: String, value: Json) -> Self {
        self.ci.shared.borrow_mut().jobs[self.index].settings.insert(key, name, value, Location::caller());
        self
    }

    /// What its function will have returned.
    pub(crate) fn output_of_function(&self) -> Output<O>
    where
        O: Data,
    {
        let source = Source { job: self.name(), output: None, schema: Schema::of::<O>().digest() };
        Output { source, is: PhantomData }
    }
}

impl<T> Output<T> {
    /// The value as an expression for texts of the native format: `${{ needs.build.outputs.version }}`. A job that reads it must need the job; passing
    /// the output to [`Job::needs`] or [`Job::inputs`] does.
    #[must_use]
    pub fn expression(&self) -> String {
        format!("${{{{ {} }}}}", self.path())
    }

    /// The same without `${{ }}`, for conditions: `needs.build.outputs.version`. The value of a function is read from JSON.
    #[must_use]
    pub fn path(&self) -> String {
        let is_plain =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let job = match self.source.job.as_str() {
            name if is_plain(name) => format!("needs.{name}"),
            name => format!("needs['{name}']"),
        };
        match self.source.output.as_deref() {
            Some(FIELD_OF_VALUE) => format!("fromJSON({job}.outputs.value).value.value"),
            Some(output) => format!("{job}.outputs.{output}"),
            None => format!("fromJSON({job}.outputs.value).value"),
        }
    }
}

impl<V: 'static> Job<(), V> {
    /// The function that is the job: it runs where the job runs, by this same program.
    #[track_caller]
    pub fn run_fn<O, F>(self, function: F) -> Job<O, V>
    where
        O: Data,
        F: Fn(&mut Cx, V) -> Result<O, Failure> + 'static,
    {
        let sources = self.sources.clone();
        let (reading, read) = (sources.clone(), self.read);
        let call = move |cx: &mut Cx, outputs_of: &dyn Fn(&str) -> Json| {
            let values = read(&mut reading.reading(outputs_of)).map_err(Stopped::Inputs)?;
            let mut value = function(cx, values).map_err(Stopped::Failed)?;
            let mut files = Vec::new();
            value.visit_files(&mut |path| files.push(path.clone()));
            let json = value.to_json();
            if let Some((path, what)) = json.unsayable() {
                return Err(Stopped::Failed(Failure::new(format!(
                    "the value that the function returned cannot be handed on: {} is {what}",
                    if path.is_empty() { "it" } else { &path }
                ))));
            }
            let with_files = move |places: &[String]| {
                let mut places = places.iter();
                value.visit_files(&mut |path| path.clone_from(places.next().expect("a place for each file")));
                value.to_json()
            };
            Ok(Returned { value: json, files, with_files: Box::new(with_files) })
        };
        let (schema, mark) = (Schema::of::<O>(), Location::caller());
        let run = Run { sources, output: schema.digest(), fields: O::PARTS, call: Rc::new(call) };
        let fields = O::PARTS.iter().copied().filter(|name| *name != VALUE);
        let parts: Vec<&str> =
            if schema.text() == "unit" { Vec::new() } else { [VALUE].into_iter().chain(fields).collect() };
        parts.into_iter().for_each(|name| self.declare_output(name.to_owned(), mark));
        self.ci.shared.borrow_mut().add_function(self.index, run, &self.ci.scope.known, mark);
        if schema.holds_files() {
            let globs = Json::Text(format!(".ropewalk-files/{}/**", self.name()));
            self.ci.shared.borrow_mut().jobs[self.index].settings.insert("artifacts", "value".to_owned(), globs, mark);
        }
        Job { ci: self.ci, index: self.index, sources: self.sources, read: self.read, types: PhantomData }
    }
}
