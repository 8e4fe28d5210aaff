//! A job of the pipeline, and all that the native format can say of one.

use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;

use crate::ci::{Ci, Need, NeedOn};
use crate::context::{Cx, Failure};
use crate::data::{Data, DecodeError, Schema};
use crate::inputs::{Inputs, Output, Reading, Returned, Run, Source, Sources, Stopped};
use crate::json::Json;

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

impl Job {
    pub(crate) fn new(ci: Ci, index: usize) -> Self {
        Self { ci, index, sources: Sources::default(), read: <() as Inputs>::read, types: PhantomData }
    }

    /// What its function takes; each handle is also a need.
    #[track_caller]
    #[must_use]
    pub fn inputs<I: Inputs>(self, inputs: I) -> Job<(), I::Values> {
        let mark = Location::caller();
        let sources = Sources::of(&inputs);
        for source in &sources.list {
            self.need(NeedOn::Name(source.job.clone()), "success", mark);
        }
        for growth in &sources.growths {
            self.need(NeedOn::Growth(*growth), "success", mark);
        }
        Job { ci: self.ci, index: self.index, sources, read: I::read, types: PhantomData }
    }
}

impl<O, V> Job<O, V> {
    /// The job's full name.
    #[must_use]
    pub fn name(&self) -> String {
        self.ci.shared.borrow().jobs[self.index].name.clone()
    }

    pub(crate) fn need(&self, on: NeedOn, ending: &'static str, mark: crate::mark::Mark) {
        self.ci.shared.borrow_mut().jobs[self.index].needs.push(Need { on, ending, mark });
    }

    /// What its function will have returned.
    pub(crate) fn output_of_function(&self) -> Output<O>
    where
        O: Data,
    {
        let source = Source { job: self.name(), output: None, schema: Schema::of::<O>().digest() };
        Output { source, is: PhantomData }
    }

    /// A script; each call adds one step.
    #[track_caller]
    #[must_use]
    pub fn run(self, script: impl Into<String>) -> Self {
        let mark = Location::caller();
        let mut shared = self.ci.shared.borrow_mut();
        if let Json::List(steps) = shared.entry(self.index, "run", Json::List(Vec::new()), mark) {
            steps.push(Json::Text(script.into()));
        }
        drop(shared);
        self
    }
}

impl<V: 'static> Job<(), V> {
    /// The function that is the job: it runs where the job runs, by this same program.
    #[track_caller]
    #[must_use]
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
            let with_files = move |places: &[String]| {
                let mut places = places.iter();
                value.visit_files(&mut |path| path.clone_from(places.next().expect("a place for each file")));
                value.to_json()
            };
            Ok(Returned { value: json, files, with_files: Box::new(with_files) })
        };
        let run = Run { sources, output: Schema::of::<O>().digest(), call: Rc::new(call) };
        self.ci.shared.borrow_mut().functions.insert(self.index, run);
        Job { ci: self.ci, index: self.index, sources: self.sources, read: self.read, types: PhantomData }
    }
}
