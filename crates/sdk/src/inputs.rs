//! What flows between jobs: typed outputs, and the inputs that functions take.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::ci::{Entry, Evaluation, Need, NeedOn};
use crate::context::{Cx, Failure};
use crate::data::{Data, DecodeError, Schema};
use crate::job::Job;
use crate::json::Json;
use crate::mark::Mark;

/// A value that a job will have handed on once it has passed. Passing it as an input makes the edge.
///
/// What does not fit does not build: the function takes a `Report`, and is given a `Version`.
///
/// ```compile_fail,E0631
/// # use ropewalk::{Ci, Cx, Data, Failure};
/// #[derive(Data)]
/// struct Version(String);
/// #[derive(Data)]
/// struct Report { failed: u32 }
///
/// fn judge(_: &mut Cx, report: Report) -> Result<(), Failure> {
///     if report.failed > 0 { Err(Failure::new("tests failed")) } else { Ok(()) }
/// }
///
/// fn pipeline(ci: &Ci) {
///     let version = ci.job("build").run("./build").output::<Version>("version");
///     ci.job("judge").inputs(&version).run_fn(judge);
/// }
/// ```
///
/// The same with a `Report` builds:
///
/// ```
/// # use ropewalk::{Ci, Cx, Data, Failure};
/// # #[derive(Data)]
/// # struct Report { failed: u32 }
/// # fn judge(_: &mut Cx, report: Report) -> Result<(), Failure> {
/// #     if report.failed > 0 { Err(Failure::new("tests failed")) } else { Ok(()) }
/// # }
/// fn pipeline(ci: &Ci) {
///     let report = ci.job("test").run("./test").output::<Report>("report");
///     ci.job("judge").inputs(&report).run_fn(judge);
/// }
/// ```
///
/// A handle to an output keeps its type wherever it goes:
///
/// ```compile_fail,E0308
/// # use ropewalk::{Ci, Data, Output};
/// # #[derive(Data)]
/// # struct Version(String);
/// # #[derive(Data)]
/// # struct Report { failed: u32 }
/// fn deploy(ci: &Ci, report: Output<Report>) {
///     ci.job("deploy").needs(&report).run("./deploy");
/// }
///
/// fn pipeline(ci: &Ci) {
///     let version: Output<Version> = ci.job("build").run("./build").output("version");
///     deploy(ci, version);
/// }
/// ```
pub struct Output<T> {
    pub(crate) source: Source,
    pub(crate) is: PhantomData<fn() -> T>,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), is: PhantomData }
    }
}

/// Where a value comes from, without its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The job's full name.
    pub job: String,
    /// `None`: the value that a function returned; [`FIELD_OF_VALUE`]: its field of the output's own name. Else the output of this
    /// name, which a step wrote as text.
    pub output: Option<String>,
    /// The digest of the type's schema.
    pub schema: String,
}

/// The output that holds the whole value of a function, with the digest of its schema.
pub(crate) const VALUE: &str = "value";
/// The field `value` of that value, which can be no output beside it. No output has a name with a dot.
pub(crate) const FIELD_OF_VALUE: &str = "value.value";

impl Source {
    /// The name of the output that it is read from.
    pub fn name(&self) -> &str {
        self.output.as_deref().filter(|name| *name != FIELD_OF_VALUE).unwrap_or(VALUE)
    }

    /// Reads the value out of a job's outputs.
    ///
    /// # Errors
    /// If it is missing, was made by another build of the program, or has not the type's shape.
    pub fn read<T: Data>(&self, outputs: &Json) -> Result<T, DecodeError> {
        let name = self.name();
        let value = outputs.get(name);
        match (self.output.as_deref(), value) {
            // A script that hands on an output `value` has no value of its own.
            (None, _) if Schema::of::<T>().text() == "unit" => T::from_json(&Json::Null),
            (None, Some(value)) => typed(value, &self.schema),
            (Some(FIELD_OF_VALUE), Some(value)) => {
                let whole = json_of(value)?;
                let field = whole.get("value").and_then(|value| value.get("value"));
                field.map_or_else(|| Err(DecodeError::new("the value has no field `value`")), T::from_json)
            }
            (Some(_), Some(value)) => text(value),
            (_, None) => Err(DecodeError::new(format!("the job `{}` handed on no `{name}`", self.job))),
        }
    }
}

/// Why no value is taken of a job with a matrix.
pub(crate) const MATRIX_HAS_MANY: &str = "each of its legs returns one of its own";
/// What to do instead.
pub(crate) const MATRIX_HELP: &str = "make the jobs with `ci.matrix(name, values, |job, value| …)`, which gives a list of \
     handles: its values come as a list";

impl Evaluation {
    /// Where the matrix of the job is said whose function's value this is, if it has one.
    pub(crate) fn matrix_of(&self, source: &Source) -> Option<Mark> {
        let job = &self.jobs[*self.by_name.get(&source.job)?];
        let matrix = job.settings.0.iter().find(|setting| setting.key == "matrix")?;
        // That all legs passed is one fact, and what a step wrote is that of the last leg that did (docs/manual/format.md).
        (source.output.is_none() && source.schema != Schema::of::<()>().digest()).then_some(matrix.mark)
    }

    /// Tells where the value of a function is taken of which a matrix makes many: one leg's would be handed on by chance.
    pub(crate) fn tell_values_of_matrices(&mut self) {
        let mut taken: BTreeSet<(Mark, String, Mark)> = BTreeSet::new();
        for (&job, run) in &self.functions {
            let Entry { mark, needs, .. } = &self.jobs[job];
            for source in &run.sources.list {
                let Some(matrix) = self.matrix_of(source) else { continue };
                let is_it = |need: &&Need| matches!(&need.on, NeedOn::Name(name) if *name == source.job);
                let place = needs.iter().find(is_it).map_or(*mark, |need| need.mark);
                taken.insert((place, source.job.clone(), matrix));
            }
        }
        for growth in &self.growths {
            for source in &growth.sources {
                let Some(matrix) = self.matrix_of(source) else { continue };
                taken.insert((growth.mark, source.job.clone(), matrix));
            }
        }
        for (place, job, matrix) in taken {
            let message =
                format!("the job `{job}` has a matrix, so its function has no single value: {MATRIX_HAS_MANY}");
            let related = [(matrix, "its matrix")];
            self.fault("value-of-matrix", message, "its value is taken here", MATRIX_HELP, place, &related);
        }
    }
}

/// A value with the digest of its schema, as functions hand it on: JSON, or the text of it.
fn typed<T: Data>(value: &Json, schema: &str) -> Result<T, DecodeError> {
    let value = json_of(value)?;
    match value.get("schema").and_then(Json::as_str) {
        Some(theirs) if theirs == schema => T::from_json(value.get("value").unwrap_or(&Json::Null)),
        _ => Err(DecodeError::new("the value was made by another build of the program, with another type")),
    }
}

/// What a text says as JSON; other values are it already.
fn json_of(value: &Json) -> Result<Json, DecodeError> {
    match value {
        Json::Text(text) => {
            Json::read(text).map_err(|error| DecodeError::new(format!("the value is no JSON: {error}")))
        }
        value => Ok(value.clone()),
    }
}

/// A value that a step wrote as text: a `String` is the text, anything else is JSON.
fn text<T: Data>(value: &Json) -> Result<T, DecodeError> {
    let Json::Text(text) = value else { return T::from_json(value) };
    if Schema::of::<T>().text() == "text" {
        return T::from_json(value);
    }
    match Json::read(text) {
        Ok(json) => T::from_json(&json),
        // A choice is written without quotes.
        Err(_) => T::from_json(value),
    }
}

/// What a function takes: a handle, or a tuple or list of them.
pub trait Inputs {
    /// What the function gets.
    type Values: 'static;

    /// Appends where the values come from, in the order of the handles.
    #[doc(hidden)]
    fn sources(&self, out: &mut Sources);

    /// Reads the values, in the same order.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    #[doc(hidden)]
    fn read(sources: &mut Reading<'_>) -> Result<Self::Values, DecodeError>;
}

/// The sources of some inputs.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Sources {
    /// In the order in which they are read.
    pub(crate) list: Vec<Source>,
    /// How many items each list of handles had, in the order in which they are read.
    pub(crate) lengths: Vec<usize>,
    /// The numbers of the growths (see [`crate::growth`]) that the handles came out of.
    pub(crate) growths: Vec<usize>,
    /// The jobs by whose outcomes those have grown.
    pub(crate) known: Vec<String>,
}

impl Sources {
    /// The sources of these inputs.
    pub fn of(inputs: &impl Inputs) -> Self {
        let mut sources = Self::default();
        inputs.sources(&mut sources);
        sources
    }

    /// Reads them, given the outputs of a job by its name.
    pub(crate) fn reading<'a>(&'a self, outputs_of: &'a dyn Fn(&str) -> Json) -> Reading<'a> {
        Reading { sources: self.list.iter(), lengths: self.lengths.iter(), outputs_of }
    }
}

/// Inputs being read.
#[doc(hidden)]
pub struct Reading<'a> {
    pub(crate) sources: std::slice::Iter<'a, Source>,
    pub(crate) lengths: std::slice::Iter<'a, usize>,
    /// The outputs of a job.
    pub(crate) outputs_of: &'a dyn Fn(&str) -> Json,
}

impl Reading<'_> {
    fn next<T: Data>(&mut self) -> Result<T, DecodeError> {
        let source = self.sources.next().expect("as many sources were written as are read");
        source.read((&(self.outputs_of)(&source.job)) as &Json).map_err(|error| error.in_field(&source.job))
    }
}

impl<T: Data> Inputs for Output<T> {
    type Values = T;

    fn sources(&self, out: &mut Sources) {
        out.list.push(self.source.clone());
    }

    fn read(sources: &mut Reading<'_>) -> Result<T, DecodeError> {
        sources.next()
    }
}

impl<T: Data, V> Inputs for Job<T, V> {
    type Values = T;

    fn sources(&self, out: &mut Sources) {
        self.output_of_function().sources(out);
    }

    fn read(sources: &mut Reading<'_>) -> Result<T, DecodeError> {
        sources.next()
    }
}

impl<I: Inputs> Inputs for &I {
    type Values = I::Values;

    fn sources(&self, out: &mut Sources) {
        I::sources(self, out);
    }

    fn read(sources: &mut Reading<'_>) -> Result<I::Values, DecodeError> {
        I::read(sources)
    }
}

impl<I: Inputs> Inputs for Vec<I> {
    type Values = Vec<I::Values>;

    fn sources(&self, out: &mut Sources) {
        out.lengths.push(self.len());
        self.iter().for_each(|input| input.sources(out));
    }

    fn read(sources: &mut Reading<'_>) -> Result<Self::Values, DecodeError> {
        let length = *sources.lengths.next().expect("as many lengths were written as are read");
        (0..length).map(|_| I::read(sources)).collect()
    }
}

impl Inputs for () {
    type Values = ();

    fn sources(&self, _: &mut Sources) {}

    fn read(_: &mut Reading<'_>) -> Result<(), DecodeError> {
        Ok(())
    }
}

macro_rules! tuple {
    ($($name:ident),+) => {
        impl<$($name: Inputs),+> Inputs for ($($name,)+) {
            type Values = ($($name::Values,)+);

            fn sources(&self, out: &mut Sources) {
                #[allow(non_snake_case, reason = "named as the type it is of")]
                let ($($name,)+) = self;
                $($name.sources(out);)+
            }

            fn read(sources: &mut Reading<'_>) -> Result<Self::Values, DecodeError> {
                Ok(($($name::read(sources)?,)+))
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

/// A job's function, without its types.
#[derive(Clone)]
pub(crate) struct Run {
    pub sources: Sources,
    /// The digest of the schema of what it returns.
    pub output: String,
    /// The fields of what it returns, as [`Data::PARTS`] has them.
    pub fields: &'static [&'static str],
    /// Reads the inputs (given the outputs of a job by name), runs, and gives the value and its files' new places.
    pub call: Rc<Call>,
}

/// Runs a function: the context and the outputs of a job by its name go in, the value comes out.
pub(crate) type Call = dyn Fn(&mut Cx, &dyn Fn(&str) -> Json) -> Result<Returned, Stopped>;

/// A value as JSON with these paths in place of its own.
pub(crate) type WithFiles = dyn FnOnce(&[String]) -> Json;

/// What a function returned.
pub(crate) struct Returned {
    /// The value as JSON; paths of files are still those that the function gave.
    pub value: Json,
    /// Every path of a file or directory inside it, in the order of [`Data::visit_files`].
    pub files: Vec<String>,
    /// Writes the value again with these paths in place of those.
    pub with_files: Box<WithFiles>,
}

/// Why there is no value.
pub(crate) enum Stopped {
    /// An input is missing or does not decode.
    Inputs(DecodeError),
    /// The function said so.
    Failed(Failure),
}
