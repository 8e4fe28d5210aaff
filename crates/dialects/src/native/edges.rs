//! The graph of all jobs: legs named, needs resolved, barriers put between.
//!
//! A barrier is a job without steps. It needs every job before it (passed or skipped) and the barrier before it; every
//! job after it needs the barrier alone. So a stage of thousands before a stage of thousands costs the sum of edges and
//! not the product, and a failure before a barrier skips the barrier and with it everything after.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use expression::Value as ExpressionValue;
use graph::validate::{self, JOBS_MAX};
use graph::{
    Accepts, Carries, Condition, Field, Gate, Graph, Hole, Job, JobName, Known, Location, Need, Question, SkipReason,
    Text,
};
use serde_json::Value;

use super::SourceFile;
use super::errors::{self, Faults};
use super::expand::{self, Expansion, Needed, Shape};
use super::files::{Merged, Source};
use super::jobs::{self, Origin, Surroundings, Writing};
use super::kept::{Kept, KeptLowering};
use super::nodes;
use super::patterns::Patterns;
use super::placed::JobPlaces;
use super::references::{self, Names};
use super::texts::{AtPlan, EventTexts};
use crate::hashing::{QuickMap, QuickSet};
use crate::suggest;
use crate::tree::{Node, Notation, Span};

/// The most edges of one graph.
pub(crate) const EDGES_MAX: usize = 2_000_000;
/// Edges walked to find out whether jobs that are read, but not needed, come before; over all jobs.
const LOOKS_MAX: usize = 10_000_000;
/// Names that are looked through for the one meant.
const NEAREST_MAX: usize = 1_000;

/// Everything that is known before jobs are lowered.
pub(crate) struct Given<'a> {
    pub merged: &'a Merged<'a>,
    pub around: &'a Surroundings<'a>,
    pub known: &'a Known,
    pub params: &'a BTreeMap<String, Field>,
    pub filled: &'a BTreeMap<String, Value>,
    pub files: &'a [SourceFile],
    /// Jobs that a program will add, each with its place.
    pub holes: &'a [(Hole, Span)],
    /// Jobs that are lowered already.
    pub kept: &'a Kept,
}

/// All jobs, joined.
pub(crate) struct Woven {
    pub graph: Graph,
    pub questions: BTreeSet<Question>,
    /// The jobs of a program that were lowered anew and are one job, by id; each with why it is skipped by itself.
    pub lowered: QuickMap<String, (Option<SkipReason>, Arc<Job>)>,
    /// Where each job was written.
    pub places: JobPlaces,
    /// See [`super::Lowered::conditions`].
    pub conditions: Vec<(JobName, Condition)>,
}

/// A job with its shape and the names of its legs.
struct Planned<'a> {
    source: &'a Source<'a>,
    expansion: Expansion,
    /// What a need on its id means: its legs, itself, or its id while it is a hole or if it came to no legs.
    names: Vec<JobName>,
}

impl Planned<'_> {
    /// Whether it stands for legs whose names nobody knows: they are to come, or never will because the job does not run.
    fn hides_legs(&self) -> bool {
        match &self.expansion.shape {
            Shape::Hole(_) => true,
            Shape::Single => self.expansion.skip.is_some() && self.source.body.get("matrix").is_some(),
            Shape::Legs(..) => false,
        }
    }
}

/// The graph and its open questions.
pub(crate) fn graph(given: &Given<'_>, patterns: &mut Patterns, faults: &mut Faults) -> Woven {
    let ids = Ids::of(given, faults);
    references::check_variables(given.around.env.iter().copied(), &QuickSet::default(), given.around.sources, faults);
    let (planned, questions) = plan(given, &ids, patterns, faults);
    let mut weaving = Weaving {
        given,
        planned: &planned,
        ids: &ids,
        n_edges: 0,
        looks_left: Cell::new(LOOKS_MAX),
        dependents: OnceCell::new(),
        after: RefCell::default(),
        lowered: QuickMap::default(),
        faults,
    };
    let n_jobs = planned.iter().map(|job| job.names.len()).sum::<usize>() + given.merged.barriers.len();
    let barriers: Vec<Place> = (0..given.merged.barriers.len()).map(|index| weaving.place_of_barrier(index)).collect();
    let orders = orders(&planned, &barriers);
    let mut placed: Vec<(JobName, Arc<Job>)> = Vec::with_capacity(n_jobs);
    for index in 0..planned.len() {
        weaving.job(index, &orders, &mut placed);
    }
    for (index, &place) in barriers.iter().enumerate() {
        let (name, mut job) = weaving.barrier(index);
        job.order = orders(place);
        placed.push((name, Arc::new(job)));
    }
    let mut graph = Graph { holes: weaving.holes(), ..Graph::default() };
    // In the order of the text; of two of one name the later stands.
    graph.jobs = placed.into_iter().collect();
    let found = validate::faults(&graph, |job, need| weaving.place_of(job, need));
    let lowered = std::mem::take(&mut weaving.lowered);
    faults.extend(found);
    let places = planned.iter().map(|job| match &job.expansion.shape {
        Shape::Legs(..) => (JobName::from(job.source.id), job.source.key.span),
        Shape::Single | Shape::Hole(_) => (job.names[0].clone(), job.source.key.span),
    });
    let places = JobPlaces::new(places.collect());
    let holding = planned.iter().filter_map(|job| Some((job.source.id.into(), job.expansion.holds.clone()?)));
    Woven { graph, questions, lowered, places, conditions: holding.collect() }
}

/// Where something stands in the text: the job's number, behind it or not, the leg's or barrier's number.
type Place = (usize, u8, usize);

/// The number of every place in the order of the text. It depends on the files alone, never on what is known.
fn orders(planned: &[Planned<'_>], barriers: &[Place]) -> impl Fn(Place) -> u32 + use<> {
    let of_jobs = planned.iter().enumerate().map(|(index, job)| ((index, 0, 0), job.expansion.n_places));
    let of_barriers = barriers.iter().map(|&place| (place, 1));
    let mut places: Vec<(Place, usize)> = of_jobs.chain(of_barriers).collect();
    places.sort_unstable();
    let mut first = 0;
    let mut of_jobs = vec![(0, 0); planned.len()];
    let mut of_barriers: QuickMap<Place, (usize, usize)> = QuickMap::default();
    for (place, n_places) in places {
        match place {
            (index, 0, _) => of_jobs[index] = (first, n_places),
            _ => drop(of_barriers.insert(place, (first, n_places))),
        }
        first += n_places;
    }
    move |(index, kind, number)| {
        let found = if kind == 0 { of_jobs.get(index) } else { of_barriers.get(&(index, kind, number)) };
        let (first, n_places) = found.copied().unwrap_or_default();
        let leg = if kind == 0 { number.min(n_places.saturating_sub(1)) } else { 0 };
        u32::try_from(first + leg).unwrap_or(u32::MAX)
    }
}

/// What ids mean: jobs; groups of a program's jobs, `test` for `test/linux`; and holes of a program.
struct Ids<'a> {
    jobs: &'a QuickMap<&'a str, usize>,
    /// The members of each group, in the order of the text.
    groups: QuickMap<&'a str, Vec<usize>>,
    holes: QuickSet<&'a str>,
}

impl<'a> Ids<'a> {
    fn of(given: &Given<'a>, faults: &mut Faults) -> Self {
        let sources = &given.merged.jobs;
        let jobs = &given.merged.by_id;
        let mut groups: QuickMap<&str, Vec<usize>> = QuickMap::default();
        for (index, source) in sources.iter().enumerate() {
            for (end, _) in source.id.match_indices('/') {
                let group = &source.id[..end];
                groups.entry(group).or_default().push(index);
                if let Some(&job) = jobs.get(group) {
                    let place = |source: &Source<'_>| given.around.sources.location(source.key.span);
                    faults.push(errors::group_and_job(place(source), place(&sources[job]), source.id, group));
                }
            }
        }
        Self { jobs, groups, holes: given.holes.iter().map(|(hole, _)| hole.name.as_str()).collect() }
    }

    /// The job of this name, or the one whose leg would have it.
    fn owner(&self, name: &str) -> Option<usize> {
        let mut name = name;
        loop {
            if let Some(&index) = self.jobs.get(name) {
                return Some(index);
            }
            (name, _) = name.rsplit_once('/')?;
        }
    }

    /// The jobs that a name in `needs` may mean.
    fn meant(&self, name: &str) -> &[usize] {
        self.groups.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

fn plan<'a>(
    given: &Given<'a>,
    ids: &Ids<'a>,
    patterns: &mut Patterns,
    faults: &mut Faults,
) -> (Vec<Planned<'a>>, BTreeSet<Question>) {
    let mut questions = Vec::new();
    let mut planned: Vec<Planned<'a>> = Vec::with_capacity(given.merged.jobs.len());
    let mut n_jobs = 0;
    for source in &given.merged.jobs {
        let needed = |id: &str| needed(id, given, ids, &planned);
        let given_to =
            expand::Given { around: given.around, known: given.known, params: given.filled, needed: &needed };
        let mut expansion = expand::expand(source, &given_to, patterns, &mut questions, faults);
        if let Shape::Legs(legs, _) = &mut expansion.shape
            && n_jobs + legs.len() > JOBS_MAX
        {
            let place = given.around.sources.location(source.key.span);
            let message = format!("with job `{}` the pipeline has more than {JOBS_MAX} jobs", source.id);
            faults.push(errors::bad_value(
                "too-many-jobs",
                place,
                message,
                "too many legs",
                "split the pipeline in two",
            ));
            legs.clear();
        }
        let names = match &expansion.shape {
            Shape::Single | Shape::Hole(_) => vec![JobName::from(source.id)],
            Shape::Legs(legs, _) if legs.is_empty() => vec![JobName::from(source.id)],
            Shape::Legs(legs, _) => {
                legs.iter().map(|leg| JobName::from(format!("{}/{}", source.id, leg.name))).collect()
            }
        };
        n_jobs += names.len();
        planned.push(Planned { source, expansion, names });
    }
    (planned, questions.into_iter().collect())
}

/// What a matrix can know of the jobs behind an id.
fn needed<'p>(id: &str, given: &Given<'_>, ids: &Ids<'_>, planned: &'p [Planned<'_>]) -> Needed<'p> {
    let Some(&index) = ids.jobs.get(id) else {
        let members = ids.meant(id);
        let Some(members) = members.iter().map(|&index| planned.get(index)).collect::<Option<Vec<_>>>() else {
            return Needed::Later;
        };
        return if members.is_empty() {
            Needed::Job
        } else {
            Needed::Group(members.iter().flat_map(|job| job.names.clone()).collect())
        };
    };
    match planned.get(index) {
        None if given.merged.jobs[index].body.get("matrix").is_some() => Needed::Later,
        None => Needed::Job,
        Some(job) => match &job.expansion.shape {
            Shape::Single => Needed::Job,
            Shape::Legs(..) => Needed::Legs(&job.names),
            Shape::Hole(_) if job.source.body.get("matrix").is_none() => Needed::Job,
            Shape::Hole(after) => Needed::Hole(after),
        },
    }
}

/// What stands for a job whose matrix came to no legs: it does nothing, but what needs the job waits for what the job waits for, for its
/// condition and for its gate all the same.
fn without_legs(id: &str, bare: Job) -> Job {
    let Job { title, gate, env, env_of_pipeline, condition, .. } = bare;
    let title = if gate.is_some() { title } else { Text::Plain(format!("{id} (no legs)").into()) };
    Job { title, gate, env, env_of_pipeline, condition, ..Job::default() }
}

struct Weaving<'a, 'f> {
    given: &'a Given<'a>,
    planned: &'a [Planned<'a>],
    ids: &'a Ids<'a>,
    n_edges: usize,
    /// See [`LOOKS_MAX`].
    looks_left: Cell<usize>,
    dependents: OnceCell<Vec<Vec<usize>>>,
    after: RefCell<QuickMap<usize, Rc<QuickSet<usize>>>>,
    /// See [`Woven::lowered`].
    lowered: QuickMap<String, (Option<SkipReason>, Arc<Job>)>,
    faults: &'f mut Faults,
}

impl<'a> Weaving<'a, '_> {
    /// Lowers one job into its legs.
    fn job(&mut self, index: usize, orders: &impl Fn(Place) -> u32, placed: &mut Vec<(JobName, Arc<Job>)>) {
        let Planned { source, expansion, names } = &self.planned[index];
        let is_single = matches!(expansion.shape, Shape::Single);
        if is_single && let Some(kept) = self.given.kept.job(source.id, source.body) {
            let job = self.taken_over(index, kept, orders((index, 0, 0)));
            return placed.push((names[0].clone(), job));
        }
        let read_beyond = if references::are_needed(source.body) { self.references(index) } else { BTreeSet::new() };
        let mut base = jobs::base(source, self.given.around, self.faults);
        let needs = self.needs(source, &read_beyond, names.len());
        let around = self.given.around;
        match &expansion.shape {
            Shape::Legs(legs, origin) if legs.is_empty() => {
                let bare = self.leg(base, source, &BTreeMap::new(), *origin);
                let skip = expansion.skip.clone().or_else(|| bare.skip.clone());
                let job = Job { needs, skip, order: orders((index, 0, 0)), ..without_legs(source.id, bare) };
                placed.push((names[0].clone(), Arc::new(job)));
            }
            Shape::Legs(legs, origin) => {
                (base.needs, base.skip) = (needs, expansion.skip.clone());
                for (number, (leg, name)) in legs.iter().zip(names).enumerate() {
                    let mut job = self.leg(base.clone(), source, &leg.coordinates, *origin);
                    job.order = orders((index, 0, number));
                    placed.push((name.clone(), Arc::new(job)));
                }
            }
            Shape::Single => {
                let bare = self.leg(base, source, &BTreeMap::new(), Origin::File);
                let own_skip = bare.skip.clone();
                let skip = expansion.skip.clone().or_else(|| own_skip.clone());
                let job = Arc::new(Job { needs, skip, order: orders((index, 0, 0)), ..bare });
                if around.program.is_some() {
                    self.lowered.insert(source.id.to_owned(), (own_skip, Arc::clone(&job)));
                }
                placed.push((names[0].clone(), job));
            }
            // Lowered for its faults alone.
            Shape::Hole(_) if source.body.get("matrix").is_none() => {
                jobs::leg(base, source, &BTreeMap::new(), Origin::File, around, self.faults);
            }
            Shape::Hole(_) => {}
        }
    }

    /// A job that is lowered already, with what others decide.
    fn taken_over(&mut self, index: usize, kept: &KeptLowering, order: u32) -> Arc<Job> {
        let Planned { source, expansion, .. } = &self.planned[index];
        let reads_nothing = kept.reads_nothing(source.body);
        let read_beyond = if reads_nothing { BTreeSet::new() } else { self.references(index) };
        let needs = self.needs(source, &read_beyond, 1);
        let skip = expansion.skip.as_ref().or(kept.skip.as_ref());
        let mut last = kept.last.borrow_mut();
        if last.order != order || last.needs != needs || last.skip.as_ref() != skip {
            *last = Arc::new(Job { needs, skip: skip.cloned(), order, ..Job::clone(&last) });
        }
        Arc::clone(&last)
    }

    fn leg(&mut self, base: Job, source: &Source<'_>, coordinates: &BTreeMap<String, Value>, origin: Origin) -> Job {
        let skip = base.skip.clone();
        let mut job = jobs::leg(base, source, coordinates, origin, self.given.around, self.faults);
        // `when` was asked first; its reason stands.
        job.skip = skip.or(job.skip);
        job
    }

    /// The needs of a job as written, each with its node; in EDN under the name that the needed job has.
    fn written_needs(&self, source: &Source<'a>) -> Vec<(Cow<'a, str>, &'a Node, Accepts)> {
        let nodes = source.body.get("needs").map(nodes::list).unwrap_or_default();
        let read = |node: &'a Node| {
            let job = node.get("job").unwrap_or(node);
            let accepts = match node.get("on").and_then(Node::as_str) {
                Some("failure") => Accepts::FAILURE,
                Some("finished") => Accepts::FINISHED,
                _ => Accepts::SUCCESS,
            };
            Some((self.meant(job.as_str()?, job), job, accepts))
        };
        nodes.iter().filter_map(read).collect()
    }

    fn needs(&mut self, source: &Source<'a>, read_beyond: &BTreeSet<String>, n_legs: usize) -> Vec<Need> {
        let mut needs: BTreeMap<JobName, Need> = BTreeMap::new();
        // They have ended anyway; the edges only bring their outputs along.
        for id in read_beyond {
            for job in self.ids.jobs.get(id.as_str()).map(|&index| &self.planned[index].names).into_iter().flatten() {
                needs.insert(job.clone(), Need::new(job.clone(), Accepts::FINISHED, Carries::Outputs));
            }
        }
        for (name, node, accepts) in self.written_needs(source) {
            let Some(jobs) = self.named(&name) else {
                self.unknown_need(source, &name, node);
                continue;
            };
            self.failure_of_all(source, &name, node, accepts);
            for job in jobs.iter() {
                let need = Need::new(job.clone(), accepts, Carries::Artifacts);
                if needs.insert(job.clone(), need).is_some_and(|before| before.accepts != accepts) {
                    let place = self.given.around.sources.location(node.span);
                    self.faults.push(errors::needed_twice(place, source.id, &name));
                }
            }
        }
        for &barrier in &source.after {
            let name = JobName::from(self.given.merged.barriers[barrier].name.as_str());
            needs.insert(name.clone(), Need::new(name, Accepts::SUCCESS, Carries::Order));
        }
        let n_edges = needs.len().saturating_mul(n_legs);
        if self.n_edges.saturating_add(n_edges) > EDGES_MAX {
            let place = self.given.around.sources.location(source.key.span);
            self.faults.push(errors::too_many_edges(place, source.id, EDGES_MAX));
            return Vec::new();
        }
        self.n_edges += n_edges;
        needs.into_values().collect()
    }

    /// A need of a matrix's id is one of every leg: tells one that waits for failures, of which most would be content with one.
    fn failure_of_all(&mut self, source: &Source<'_>, name: &str, node: &Node, accepts: Accepts) {
        let Some(&index) = self.ids.jobs.get(name).filter(|_| accepts == Accepts::FAILURE) else { return };
        let needed = &self.planned[index];
        let has_several = match &needed.expansion.shape {
            Shape::Single => false,
            Shape::Legs(legs, _) => legs.len() > 1,
            Shape::Hole(_) => needed.source.body.get("matrix").is_some(),
        };
        if has_several && !needed.source.allows_failure() {
            let place = self.given.around.sources.location(node.span);
            self.faults.push(errors::every_leg_must_fail(place, source.id, name));
        }
    }

    /// The name that is meant where this one stands: EDN's keywords as keys of `jobs` have lost their dashes.
    fn meant(&self, name: &'a str, node: &Node) -> Cow<'a, str> {
        let is_edn = self.given.files.get(node.span.source as usize).is_some_and(|file| file.notation == Notation::Edn);
        if !is_edn || !name.contains('-') || self.named(name).is_some() {
            return Cow::Borrowed(name);
        }
        // A leg's values keep theirs.
        let of_leg = name.split_once('/').map(|(id, leg)| format!("{}/{leg}", id.replace('-', "_")));
        let mut possible = of_leg.into_iter().chain([name.replace('-', "_")]);
        possible.find(|name| self.named(name).is_some()).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// The jobs that a name in `needs` means: those of an id or group, one leg, or a hole.
    fn named(&self, name: &str) -> Option<Cow<'a, [JobName]>> {
        if let Some(&index) = self.ids.jobs.get(name) {
            return Some(Cow::Borrowed(&self.planned[index].names));
        }
        let mut group: Vec<JobName> =
            self.ids.meant(name).iter().flat_map(|&index| &self.planned[index].names).cloned().collect();
        if self.ids.holes.contains(name) {
            group.push(JobName::from(name));
        }
        if !group.is_empty() {
            return Some(Cow::Owned(group));
        }
        let job = &self.planned[self.ids.owner(name)?];
        if job.hides_legs() {
            return Some(Cow::Borrowed(&job.names));
        }
        let leg = job.names.iter().position(|leg| leg.as_str() == name)?;
        Some(Cow::Borrowed(&job.names[leg..=leg]))
    }

    /// Every place where jobs will grow: matrices and conditions that wait, and those that a program names.
    fn holes(&self) -> Vec<Hole> {
        let of_jobs = self.planned.iter().filter_map(|job| match &job.expansion.shape {
            Shape::Hole(after) => Some(Hole { name: job.source.id.to_owned(), after: after.clone() }),
            _ => None,
        });
        let of_program = self.given.holes.iter().map(|(hole, _)| {
            let after = hole.after.iter().flat_map(|job| match self.named(job.as_str()) {
                Some(jobs) => jobs.into_owned(),
                None => vec![job.clone()],
            });
            Hole { name: hole.name.clone(), after: after.collect() }
        });
        let mut holes: Vec<Hole> = of_jobs.chain(of_program).collect();
        holes.sort_by(|left, right| left.name.cmp(&right.name));
        holes.dedup_by(|second, first| second.name == first.name);
        holes
    }

    fn unknown_need(&mut self, source: &Source<'_>, name: &str, node: &Node) {
        let (planned, ids, sources) = (self.planned, self.ids, self.given.around.sources);
        self.faults.push_with(|| {
            let legs: Vec<&str> = match ids.owner(name) {
                Some(index) => planned[index].names.iter().map(JobName::as_str).take(NEAREST_MAX).collect(),
                None => Vec::new(),
            };
            let groups = ids.groups.keys().copied().collect::<BTreeSet<&str>>().into_iter();
            let others = planned.iter().map(|job| job.source.id).filter(|id| *id != source.id).chain(groups);
            let known = if legs.is_empty() { others.take(NEAREST_MAX).collect() } else { legs };
            let nearest = suggest::nearest(name, known.iter().copied());
            errors::unknown_need(sources.location(node.span), source.id, name, nearest, &known)
        });
    }

    fn references(&mut self, index: usize) -> BTreeSet<String> {
        let source = self.planned[index].source;
        let gate = source.body.get("gate").and_then(|gate| gate.get("fields")?.entries()).unwrap_or_default();
        let is_before = |id: &str| self.ids.jobs.get(id).is_some_and(|&read| self.after(read).contains(&index));
        let outputs = |id: &str| {
            let body = self.planned[*self.ids.jobs.get(id)?].source.body;
            // What a plugin was to write is not known where it was not asked.
            if body.get("use").is_some() {
                return None;
            }
            let listed = body.get("outputs").map(nodes::list).unwrap_or_default();
            let mut outputs: Vec<String> = listed.iter().filter_map(Node::as_str).map(str::to_owned).collect();
            // A gate alone hands on what was filled in.
            if let (None, Some(gate)) = (body.get("run"), body.get("gate")) {
                let fields = gate.get("fields").and_then(Node::entries).unwrap_or_default();
                outputs.extend(fields.iter().filter_map(|entry| entry.name()).map(str::to_owned));
            }
            Some(outputs)
        };
        let is_leg = |name: &str| {
            let planned = self.ids.owner(name).map(|index| &self.planned[index]);
            planned.is_some_and(|job| job.hides_legs() || job.names.iter().any(|leg| leg.as_str() == name))
        };
        let has_legs = |id: &str| match self.ids.jobs.get(id) {
            Some(&index) => self.planned[index].source.body.get("matrix").is_some(),
            None => self.ids.owner(id).is_none(),
        };
        let needs = self.written_needs(source);
        let names = Names {
            env: self.given.around.env,
            needs: needs
                .iter()
                .flat_map(|(name, ..)| [&**name, name.split_once('/').map_or(&**name, |(id, _)| id)])
                .collect(),
            axes: references::axes(source.body.get("matrix")),
            params: self.given.params,
            gate: gate.iter().filter_map(|entry| entry.name()).collect(),
            outputs: &outputs,
            is_leg: &is_leg,
            is_before: &is_before,
            has_legs: &has_legs,
        };
        let mut faults = Faults::default();
        let read_beyond = references::check(source, &names, self.given.around.sources, &mut faults);
        self.faults.absorb(faults);
        read_beyond
    }

    /// The jobs that start only after this one has ended, found once for each job that is asked for.
    fn after(&self, job: usize) -> Rc<QuickSet<usize>> {
        if let Some(after) = self.after.borrow().get(&job) {
            return Rc::clone(after);
        }
        let dependents = self.dependents.get_or_init(|| self.dependents());
        let mut after = QuickSet::default();
        let mut ahead = vec![job];
        let mut looks_left = self.looks_left.get();
        while let Some(place) = ahead.pop() {
            looks_left = looks_left.saturating_sub(dependents[place].len() + 1);
            if looks_left == 0 {
                break;
            }
            ahead.extend(dependents[place].iter().copied().filter(|&dependent| after.insert(dependent)));
        }
        self.looks_left.set(looks_left);
        let after = Rc::new(after);
        self.after.borrow_mut().insert(job, Rc::clone(&after));
        after
    }

    /// What waits for each job, and behind the jobs for each barrier.
    fn dependents(&self) -> Vec<Vec<usize>> {
        let (n_jobs, barriers) = (self.planned.len(), &self.given.merged.barriers);
        let mut dependents = vec![Vec::new(); n_jobs + barriers.len()];
        for (index, job) in self.planned.iter().enumerate() {
            for (name, ..) in self.written_needs(job.source) {
                for &needed in self.ids.meant(&name).iter().chain(&self.ids.owner(&name)) {
                    dependents[needed].push(index);
                }
            }
            job.source.after.iter().for_each(|&barrier| dependents[n_jobs + barrier].push(index));
        }
        for (index, barrier) in barriers.iter().enumerate() {
            barrier.members.iter().for_each(|&member| dependents[member].push(n_jobs + index));
            if let Some(previous) = barrier.previous {
                dependents[n_jobs + previous].push(n_jobs + index);
            }
        }
        dependents
    }

    fn barrier(&mut self, index: usize) -> (JobName, Job) {
        let barrier = &self.given.merged.barriers[index];
        let members = barrier.members.iter().flat_map(|&member| &self.planned[member].names);
        let mut needs: Vec<Need> = members.map(|job| Need::barrier(job.clone())).collect();
        if let Some(previous) = barrier.previous {
            let previous = self.given.merged.barriers[previous].name.as_str();
            needs.push(Need::new(previous, Accepts::SUCCESS, Carries::Order));
        }
        needs.sort_by(|left, right| left.job.cmp(&right.job));
        let mut job = Job { needs, ..Job::default() };
        if let Some(item) = barrier.gate {
            let (gate, env) = self.gate(item);
            (job.title, job.gate) = gate;
            // Read where the prompt is evaluated.
            if job.gate.as_ref().is_some_and(|gate| gate.prompt.as_plain().is_none()) {
                job.env = env;
            }
        }
        (JobName::from(barrier.name.as_str()), job)
    }

    /// The title and the gate of an item of a list, and the pipeline's variables, which they may read.
    fn gate(&mut self, item: &Node) -> ((Text, Option<Gate>), BTreeMap<String, Text>) {
        let (matrix, none) = (ExpressionValue::object::<&str>([]), BTreeMap::new());
        let around = self.given.around;
        let texts = EventTexts::Finished;
        let at = AtPlan { values: around.values, matrix: &matrix, env: &none, env_now: &none, texts };
        let mut writing = Writing { sources: around.sources, faults: self.faults, at };
        let env_now = writing.env(around.env.iter().copied());
        writing.at = AtPlan { texts: around.values.texts, ..at };
        let env = writing.env(around.env.iter().copied());
        writing.at = AtPlan { env: &env, env_now: &env_now, ..writing.at };
        let title = item.get("name").map(|node| writing.text_of_plan(node)).unwrap_or_default();
        let gate = item.get("gate").map(|node| jobs::gate(node, &mut writing));
        ((title, gate), env)
    }

    /// Behind the last job before it.
    fn place_of_barrier(&self, index: usize) -> Place {
        let barriers = &self.given.merged.barriers;
        let mut last = None;
        let mut at = Some(index);
        while let (None, Some(barrier)) = (last, at) {
            last = barriers[barrier].members.iter().max().copied();
            at = barriers[barrier].previous;
        }
        (last.unwrap_or(0), 1, index)
    }

    /// Where the user wrote a job, or one of its needs.
    fn place_of(&self, job: &JobName, need: Option<&JobName>) -> Option<Location> {
        let source = self.planned[self.ids.owner(job.as_str())?].source;
        let node = need.and_then(|need| {
            let is_in_group = |group: &str| need.as_str().strip_prefix(group).is_some_and(|rest| rest.starts_with('/'));
            let means = |name: &str| name == need.as_str() || is_in_group(name);
            self.written_needs(source).into_iter().find(|(name, ..)| means(name)).map(|(_, node, _)| node)
        });
        Some(self.given.around.sources.location(node.unwrap_or(source.key).span))
    }
}
