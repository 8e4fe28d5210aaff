//! Which jobs of the graph one job as it is written becomes: one, a leg for each combination, or a hole for now.

use std::collections::{BTreeMap, HashMap};

use expression::{Contexts, Template, Value as ExpressionValue};
use graph::{Condition, JobName, Known, NeedResult, Outcome, Question, SkipReason};
use serde_json::Value;

use super::check::place_in;
use super::errors::{self, Faults};
use super::files::Source;
use super::jobs::{Origin, Surroundings};
use super::matrix::{self, LEGS_MAX, Leg, Legs, Matrix, Values};
use super::nodes;
use super::patterns::Patterns;
use super::when::{self, Truth};
use crate::tree::{Entry, Node, NodeValue};

/// What a job becomes.
pub(crate) enum Shape {
    /// One job of the same name.
    Single,
    /// One job for each leg.
    Legs(Vec<Leg>, Origin),
    /// Not known before these jobs have ended; or, if there are none, before another question is answered.
    Hole(Vec<JobName>),
}

/// A job's shape, and whether it is already known that it does not run.
pub(crate) struct Expansion {
    pub shape: Shape,
    pub skip: Option<SkipReason>,
    /// The `when` that holds or cannot be known.
    pub holds: Option<Condition>,
    /// How many places in the order of jobs it takes: the legs of a matrix that the file itself holds, else one. It is the
    /// same whatever is known, so that an answer never changes the place of a job that has begun.
    pub n_places: usize,
}

/// What a matrix can know of a job whose outputs it reads.
pub(crate) enum Needed<'a> {
    /// It is one job, or none.
    Job,
    /// It is these legs, in order.
    Legs(&'a [JobName]),
    /// They are a group of these, in order.
    Group(Vec<JobName>),
    /// Its legs are not known before these jobs have ended.
    Hole(&'a [JobName]),
    /// It has a matrix of its own and stands later in the text.
    Later,
}

/// What expanding a job looks at, beside the job.
pub(crate) struct Given<'a> {
    pub around: &'a Surroundings<'a>,
    pub known: &'a Known,
    pub params: &'a BTreeMap<String, Value>,
    /// What stands behind an id.
    pub needed: &'a dyn Fn(&str) -> Needed<'a>,
}

/// Why a matrix has no values.
enum NoMatrix {
    /// These jobs must end first.
    Pending(Vec<JobName>),
    /// This job did not pass, so its outputs never come. All that is read has ended, and of several it is the smallest name:
    /// the order in which they end changes nothing.
    Never(JobName),
    /// A fault, which was told.
    Faulty,
}

/// Decides `when` and makes the legs of the matrix; what must be known first is added to `questions`.
pub(crate) fn expand(
    job: &Source<'_>,
    given: &Given<'_>,
    patterns: &mut Patterns,
    questions: &mut Vec<Question>,
    faults: &mut Faults,
) -> Expansion {
    let mut skip = None;
    let mut holds = None;
    let mut hole = None;
    if let Some(node) = job.body.get("when") {
        let condition = when::condition(node);
        let mut open = Vec::new();
        match when::decide(&condition, given.known, given.params, patterns, &mut open) {
            Truth::Holds | Truth::Unknown => holds = Some(condition),
            Truth::Fails => skip = Some(SkipReason::Condition { text: when::spoken(&condition) }),
            Truth::Open => {
                questions.append(&mut open);
                hole = Some(Vec::new());
            }
        }
    }
    let mut n_places = 1;
    let mut shape = Shape::Single;
    if let Some(node) = job.body.get("matrix") {
        let is_skipped = skip.is_some();
        let mut reading = Reading { given, around: given.around, is_skipped, origin: Origin::File, faults };
        match reading.matrix(node) {
            Ok(matrix) => {
                if let Some(legs) = reading.legs(job, node, &matrix) {
                    if reading.origin == Origin::File {
                        n_places = legs.len();
                    }
                    shape = Shape::Legs(legs, reading.origin);
                }
            }
            // What would never run need not be known.
            Err(NoMatrix::Pending(after)) if skip.is_none() && hole.is_none() => {
                questions.extend(after.iter().cloned().map(Question::Outcome));
                hole = Some(after);
            }
            Err(NoMatrix::Never(because)) => skip = skip.or(Some(SkipReason::Need { because })),
            Err(NoMatrix::Pending(_) | NoMatrix::Faulty) => {}
        }
    }
    if let Some(after) = hole {
        shape = Shape::Hole(after);
    }
    Expansion { shape, skip, holds, n_places }
}

struct Reading<'r, 'g> {
    given: &'r Given<'g>,
    around: &'g Surroundings<'g>,
    /// Whether the job does not run in any case.
    is_skipped: bool,
    origin: Origin,
    faults: &'r mut Faults,
}

impl Reading<'_, '_> {
    fn legs(&mut self, job: &Source<'_>, node: &Node, matrix: &Matrix) -> Option<Vec<Leg>> {
        let place = self.around.sources.location(node.span);
        let Ok(Legs { legs, idle_excludes, strange_excludes }) = matrix::legs(matrix) else {
            self.faults.push(errors::too_many_legs(place, job.id, LEGS_MAX));
            return None;
        };
        let excludes = node.get("exclude").and_then(Node::items).unwrap_or_default();
        // Those that are written as they are were told by `excludes_by_axes`.
        if let Some((_, key)) = strange_excludes.first().filter(|_| excludes.is_empty()) {
            let node = node.get("exclude").unwrap_or(node);
            let axes: Vec<&str> = matrix.axes.iter().map(|(name, _)| name.as_str()).collect();
            self.faults.push(errors::exclude_by_no_axis(self.around.sources.location(node.span), key, &axes));
            return None;
        }
        for exclude in idle_excludes.into_iter().filter_map(|index| excludes.get(index)) {
            self.faults.push(errors::excludes_nothing(self.around.sources.location(exclude.span)));
        }
        if legs.is_empty() && self.origin == Origin::File {
            self.faults.push(errors::no_legs(place, job.id));
            return None;
        }
        if let Some(name) = matrix::repeated_name(&legs) {
            self.faults.push(errors::same_leg(place, &format!("{}/{name}", job.id)));
            return None;
        }
        Some(legs)
    }

    fn matrix(&mut self, node: &Node) -> Result<Matrix, NoMatrix> {
        let mut matrix = Matrix::default();
        if node.scalar_text().is_some() {
            let value = self.evaluate(node)?;
            let ExpressionValue::Object(object) = &value else { return self.unfit(node, "a map of axes") };
            for (name, value) in object.entries() {
                self.add_value(&mut matrix, name, value, node)?;
            }
            return Ok(matrix);
        }
        let (mut is_whole, mut pending, mut never) = (true, Vec::new(), None);
        // Any other kind was told.
        let entries = node.entries().ok_or(NoMatrix::Faulty)?;
        for entry in entries {
            let Some(name) = entry.name() else { continue };
            if entry.value.scalar_text().is_none() {
                self.add_literal(&mut matrix, name, &entry.value);
                continue;
            }
            match self.evaluate(&entry.value) {
                Ok(value) => self.add_value(&mut matrix, name, &value, &entry.value)?,
                Err(NoMatrix::Pending(mut after)) => {
                    is_whole = false;
                    pending.append(&mut after);
                }
                Err(NoMatrix::Never(job)) => never = Some(never.map_or(job.clone(), |before: JobName| before.min(job))),
                Err(NoMatrix::Faulty) => return Err(NoMatrix::Faulty),
            }
        }
        self.excludes_by_axes(node);
        pending.sort();
        pending.dedup();
        match never {
            _ if !is_whole => Err(NoMatrix::Pending(pending)),
            Some(job) => Err(NoMatrix::Never(job)),
            None => Ok(matrix),
        }
    }

    /// Tells every key of an `exclude` that is no axis: without it the rest would take out more than is meant.
    fn excludes_by_axes(&mut self, node: &Node) {
        let names = node.entries().unwrap_or_default().iter().filter_map(Entry::name);
        let axes: Vec<&str> = names.filter(|name| !matches!(*name, "include" | "exclude")).collect();
        let excludes = node.get("exclude").and_then(Node::items).unwrap_or_default();
        for entry in excludes.iter().filter_map(Node::entries).flatten() {
            if let Some(name) = entry.name().filter(|name| !axes.contains(name)) {
                let place = self.around.sources.location(entry.key.span);
                let help = "an `exclude` takes combinations out by axes that the matrix has";
                self.faults.push(errors::unknown_reference(place, "axis of this matrix", name, &axes, help));
            }
        }
    }

    fn add_literal(&mut self, matrix: &mut Matrix, name: &str, node: &Node) {
        let items = node.items().unwrap_or_default();
        // What is left out is only compared.
        if name != "exclude" {
            items.iter().for_each(|item| self.warn_of_rounding(item));
        }
        let of_map = |node: &Node| -> Values {
            let entries = node.entries().unwrap_or_default().iter();
            entries.filter_map(|entry| Some((entry.name()?.to_owned(), nodes::json(&entry.value)))).collect()
        };
        match name {
            "include" => matrix.include = items.iter().map(of_map).collect(),
            "exclude" => matrix.exclude = items.iter().map(of_map).collect(),
            _ => matrix.axes.push((name.to_owned(), items.iter().map(nodes::json).collect())),
        }
    }

    /// `3.10` as a version of Python is a slip that costs an afternoon; so is `012345678901` as a number of something.
    fn warn_of_rounding(&mut self, node: &Node) {
        if let NodeValue::Integer { raw, .. } | NodeValue::Float { raw, .. } = &node.value
            && is_decimal(raw)
        {
            let value = ExpressionValue::from(&nodes::json(node));
            let value = value.to_text();
            if *value != **raw {
                self.faults.push(errors::rounded_number(self.around.sources.location(node.span), raw, &value));
            }
        }
        let entries = node.entries().unwrap_or_default().iter().map(|entry| &entry.value);
        node.items().unwrap_or_default().iter().chain(entries).for_each(|node| self.warn_of_rounding(node));
    }

    fn add_value(
        &mut self,
        matrix: &mut Matrix,
        name: &str,
        value: &ExpressionValue,
        node: &Node,
    ) -> Result<(), NoMatrix> {
        let ExpressionValue::Array(array) = value else { return self.unfit(node, "a list") };
        if array.items().len() > LEGS_MAX {
            return self.unfit(node, "a shorter list");
        }
        if name != "include" && name != "exclude" {
            matrix.axes.push((name.to_owned(), array.items().iter().map(ExpressionValue::to_json).collect()));
            return Ok(());
        }
        let mut list = Vec::new();
        for item in array.items() {
            let ExpressionValue::Object(object) = item else { return self.unfit(node, "a list of maps") };
            list.push(object.entries().iter().map(|(name, value)| (name.to_string(), value.to_json())).collect());
        }
        *(if name == "include" { &mut matrix.include } else { &mut matrix.exclude }) = list;
        Ok(())
    }

    fn unfit<T>(&mut self, node: &Node, wanted: &str) -> Result<T, NoMatrix> {
        let place = self.around.sources.location(node.span);
        let message = format!("the expression does not give {wanted}");
        let help = "an output is a text: read it by `${{ fromJSON(needs.plan.outputs.shards) }}`";
        self.faults.push(errors::bad_value("bad-matrix", place, message, "not usable as a matrix", help));
        Err(NoMatrix::Faulty)
    }

    /// The value of a scalar that is exactly one `${{ }}`.
    fn evaluate(&mut self, node: &Node) -> Result<ExpressionValue, NoMatrix> {
        self.origin = Origin::Outside;
        let text = node.scalar_text().unwrap_or_default();
        // Where a list or a map should stand, that was told.
        if !Template::is_needed(text) {
            return Err(NoMatrix::Faulty);
        }
        let Ok(template) = Template::parse(text) else { return Err(NoMatrix::Faulty) };
        if template.single().is_none() {
            return self.unfit(node, "a list or a map: it is not exactly one `${{ }}`");
        }
        let mut needs: BTreeMap<JobName, NeedResult> = BTreeMap::new();
        let mut pending = Vec::new();
        let reads_needs = template.context_paths().iter().any(|path| &*path.context == "needs");
        // A job that never runs is one job from the beginning, so it stays one also when another job's question has brought the outcome.
        let mut is_pending = self.is_skipped && reads_needs;
        let mut never: Option<JobName> = None;
        let mut order: Vec<JobName> = Vec::new();
        for path in template.context_paths().iter().filter(|path| &*path.context == "needs") {
            let Some(id) = path.name(0) else {
                return self.unfit(node, "a value: write the needed job's name into it");
            };
            let names = match (self.given.needed)(id) {
                Needed::Job => vec![JobName::from(id)],
                Needed::Legs(legs) => legs.to_vec(),
                Needed::Group(members) => members,
                Needed::Hole(after) => {
                    pending.extend_from_slice(after);
                    is_pending = true;
                    continue;
                }
                Needed::Later => {
                    self.faults.push(errors::matrix_of_later(self.around.sources.location(node.span), id));
                    return Err(NoMatrix::Faulty);
                }
            };
            for name in names {
                match self.given.known.outcome(&name) {
                    None => pending.push(name),
                    Some(Outcome::Passed { outputs }) => {
                        let (result, outputs) = ("passed".to_owned(), outputs.clone());
                        order.push(name.clone());
                        needs.insert(name, NeedResult { result, outputs, artifacts: BTreeMap::new() });
                    }
                    Some(_) => never = Some(never.map_or(name.clone(), |before| before.min(name))),
                }
            }
        }
        if is_pending || !pending.is_empty() {
            return Err(NoMatrix::Pending(pending));
        }
        if let Some(name) = never {
            return Err(NoMatrix::Never(name));
        }
        let order: HashMap<JobName, u32> = order.into_iter().zip(0..).collect();
        graph::legs::join(&mut needs, |name| order.get(name).copied().unwrap_or_default());
        let values = self.around.values;
        let contexts = Contexts::new()
            .with("event", values.event.clone())
            .with("params", values.params.clone())
            .with("needs", ExpressionValue::from(&graph::legs::context(&needs)));
        template.evaluate_value(&contexts).map_err(|error| {
            let span = place_in(self.around.sources, node, text, error.range.clone());
            let help = "the value is known now and does not fit; is the output written in every case?".to_owned();
            self.faults.push(errors::expression(self.around.sources.location(span), &error, help));
            NoMatrix::Faulty
        })
    }
}

/// Whether a number is written as digits and perhaps a point, in which nobody expects other digits.
fn is_decimal(written: &str) -> bool {
    let digits = written.strip_prefix('-').unwrap_or(written);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
}
