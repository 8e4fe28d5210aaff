//! `ropewalk plan`: the graph, for the event at hand or a made-up one, without running anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use dialects::native::Lowered;
use engine::fact::{Ended, What};
use engine::{BuildRequest, Engine, Input, Reused, is_accepted};
use graph::{
    Answer, AttemptNumber, BuildId, Ending, Evaluation, Failure, Graph, Job, JobName, Known, Outcome, Question, Shell,
    SkipReason, canonical,
};
use serde_json::Value;

use super::Stop;
use crate::args::{Colour, GraphForm, Plan};
use crate::local::clock::now;
use crate::pipeline::{Pipeline, Unanswered};
use crate::project::Project;
use crate::{drawing, event, exit, output};

/// The most evaluations of one plan: each follows a new answer.
const EVALUATIONS_MAX: usize = 1000;

type Jobs = BTreeMap<JobName, Arc<Job>>;

/// Runs the command.
///
/// # Errors
/// If the pipeline or a flag is wrong.
pub fn run(arguments: &Plan, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let pipeline = Pipeline::load(project, arguments.source.pipeline.as_deref(), colour)?;
    let mut event = event::of(&arguments.event, project, None, now()).map_err(Stop::wrong)?;
    pipeline.check(&mut event, event::kind_choice(&arguments.event), Unanswered::Noted, colour)?;
    let mut known = Known::of(event);
    let mut given = BTreeMap::new();
    for text in &arguments.given {
        let (job, outcome) = given_outcome(text).map_err(Stop::wrong)?;
        given.insert(job, outcome);
    }
    if !arguments.changed.is_empty() {
        let mut files = arguments.changed.clone();
        files.sort();
        known.answers.insert(Question::ChangedFiles, Answer::Files(files));
    }
    let first = pipeline.lower(&Known::of(known.event.clone()));
    let Planned { settled, graph, told } = planned(&pipeline, &mut known, &mut given, project)?;
    pipeline.check_grown(&first, &settled, colour)?;
    refuse_strangers(&given, &settled.evaluation.graph)?;
    match arguments.output {
        GraphForm::Tree => output::print(drawing::tree::draw(&graph, &words_of(&told)))?,
        GraphForm::Json => output::print_parts(canonical::graph_parts(&graph).chain(["\n".to_owned()]))?,
        GraphForm::Dot => output::print(drawing::dot::draw(&graph))?,
        GraphForm::Svg => output::print(drawing::svg::draw(&graph))?,
    }
    for note in undeclared_outputs(&told, &graph) {
        let _ = writeln!(std::io::stderr(), "note: {note}");
    }
    Ok(exit::PASSED)
}

/// What is known before anything runs.
struct Planned {
    settled: Rc<Lowered>,
    /// The graph, with the jobs marked that do not run.
    graph: Graph,
    /// The given outcomes, by job.
    told: BTreeMap<JobName, Outcome>,
}

/// Evaluates and decides until nothing more follows: of jobs that do not run it is known what others that wait to grow ask for.
fn planned(
    pipeline: &Pipeline,
    known: &mut Known,
    given: &mut BTreeMap<JobName, Outcome>,
    project: &Project,
) -> Result<Planned, Stop> {
    let mut followed: BTreeSet<JobName> = BTreeSet::new();
    let mut evaluations_left = EVALUATIONS_MAX;
    loop {
        let settled = settle(pipeline, known, given, project)?;
        let mut graph = settled.evaluation.graph.clone();
        let mut told = outcomes_of(known, &graph);
        told.retain(|job, _| !followed.contains(job));
        let open = settled.evaluation.questions.iter().filter(|question| !known.answers.contains_key(question));
        let open: BTreeSet<Question> = open.cloned().collect();
        decide(&mut graph, known, &told, open.clone());
        let answers_known = known.answers.len();
        for question in open {
            let Question::Outcome(name) = &question else { continue };
            let skips = legs(&graph.jobs, name).map(|(_, job)| job.skip.clone()).collect::<Option<Vec<_>>>();
            if let Some(reason) = skips.and_then(|skips| skips.into_iter().next()) {
                let jobs = legs(&graph.jobs, name).map(|(job, _)| job);
                followed.extend(jobs.filter(|job| !told.contains_key(*job)).cloned());
                known.answers.insert(question, Answer::Outcome(Outcome::Skipped(reason)));
            }
        }
        evaluations_left -= 1;
        if known.answers.len() == answers_known || evaluations_left == 0 {
            return Ok(Planned { settled, graph, told });
        }
    }
}

/// Refuses results of jobs that are not in the graph, and nowhere where others grow.
fn refuse_strangers(given: &BTreeMap<JobName, Outcome>, graph: &Graph) -> Result<(), Stop> {
    let Some(name) = given.keys().next() else { return Ok(()) };
    if let Some(hole) = graph.holes.iter().find(|hole| hole.name == name.id()) {
        let after: Vec<_> = hole.after.iter().map(JobName::as_str).collect();
        let after = if after.is_empty() { "others".to_owned() } else { after.join(", ") };
        return Err(Stop::wrong(format!(
            "--given names `{name}`, which is still to grow: give a result of {after}, too"
        )));
    }
    let known: Vec<&str> = graph.jobs.keys().flat_map(|job| [job.id(), job.as_str()]).collect();
    let hint = dialects::suggest::nearest(name.as_str(), known)
        .map_or_else(|| "`ropewalk plan` shows all".to_owned(), |near| format!("did you mean `{near}`?"));
    Err(Stop::wrong(format!("--given names `{name}`, and the pipeline has no such job: {hint}")))
}

/// The given outcomes, by job.
fn outcomes_of(known: &Known, graph: &Graph) -> BTreeMap<JobName, Outcome> {
    let of_question = |(question, answer): (&Question, &Answer)| match (question, answer) {
        (Question::Outcome(name), Answer::Outcome(outcome)) => Some((name.clone(), outcome.clone())),
        _ => None,
    };
    let told = known.answers.iter().filter_map(of_question);
    told.flat_map(|(name, outcome)| {
        legs(&graph.jobs, &name).map(|(job, _)| (job.clone(), outcome.clone())).collect::<Vec<_>>()
    })
    .collect()
}

/// What the tree says of jobs whose outcomes are given.
fn words_of(told: &BTreeMap<JobName, Outcome>) -> BTreeMap<JobName, String> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Passed { .. } => "passed",
        Outcome::Failed(Failure::Canceled { .. }) => "canceled",
        Outcome::Failed(_) => "failed",
        Outcome::Skipped(_) => "skipped",
    };
    told.iter().map(|(job, outcome)| (job.clone(), format!("given: {}", word(outcome)))).collect()
}

/// Outputs that were given and that their jobs do not hand on: nothing reads them. Those of functions are told by their types.
fn undeclared_outputs(told: &BTreeMap<JobName, Outcome>, graph: &Graph) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, outcome) in told {
        let (Outcome::Passed { outputs }, Some(job)) = (outcome, graph.jobs.get(name)) else { continue };
        if job.steps.iter().any(|step| matches!(step.shell, Shell::Program(_))) {
            continue;
        }
        // A gate alone hands on what was filled in.
        let fields = job.gate.iter().filter(|_| job.steps.is_empty()).flat_map(|gate| gate.fields.keys());
        let declared: BTreeSet<&String> = job.outputs.iter().chain(fields).collect();
        let strangers: Vec<_> = outputs.keys().filter(|output| !declared.contains(output)).cloned().collect();
        if !strangers.is_empty() {
            let known: Vec<_> = declared.iter().map(|output| format!("`{output}`")).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            let strangers = strangers.join("`, `");
            notes.push(format!("--given: `{name}` hands on no output `{strangers}`: {known}"));
        }
    }
    notes
}

/// Evaluates until no question that this machine or `given` can answer is left. A given result is told once its job is in the
/// graph, and taken out of `given`.
fn settle(
    pipeline: &Pipeline,
    known: &mut Known,
    given: &mut BTreeMap<JobName, Outcome>,
    project: &Project,
) -> Result<Rc<Lowered>, Stop> {
    for _ in 0..EVALUATIONS_MAX {
        let lowered = pipeline.lower(known);
        let evaluation = &lowered.evaluation;
        let jobs = &evaluation.graph.jobs;
        let told: Vec<_> = given.extract_if(.., |name, _| legs(jobs, name).next().is_some()).collect();
        let has_told = !told.is_empty();
        for (name, outcome) in told {
            let outcome = match legs(jobs, &name).next() {
                Some((_, job)) => as_answer(&name, job, as_function(job, outcome))?,
                None => outcome,
            };
            known.answers.insert(Question::Outcome(name), Answer::Outcome(outcome));
        }
        let open: Vec<_> = evaluation
            .questions
            .iter()
            .filter(|question| !known.answers.contains_key(question) && !matches!(question, Question::Outcome(_)))
            .cloned()
            .collect();
        if open.is_empty() && !has_told {
            return Ok(lowered);
        }
        for question in open {
            let answer = crate::local::world::answer_from_repository(&project.root, &known.event, &question);
            known.answers.insert(question, answer);
        }
    }
    Ok(pipeline.lower(known))
}

/// The job of this name, or all legs of the matrix that has it as its id.
fn legs<'g>(jobs: &'g Jobs, name: &JobName) -> impl Iterator<Item = (&'g JobName, &'g Arc<Job>)> {
    let is_job = jobs.contains_key(name);
    jobs.iter().filter(move |(job, _)| if is_job { *job == name } else { job.id() == name.as_str() })
}

/// Marks the jobs that do not run because of those that are skipped, and of given results. The engine says which: what `plan` shows
/// is what `run` would do. `open` are the questions that have no answer.
fn decide(graph: &mut Graph, known: &Known, told: &BTreeMap<JobName, Outcome>, open: BTreeSet<Question>) {
    let given: BTreeMap<_, _> = told
        .iter()
        .map(|(job, outcome)| {
            let artifacts = BTreeMap::new();
            let from = Reused { build: BuildId(0), attempt: AttemptNumber(0), job: job.clone(), artifacts };
            (job.clone(), (from, outcome.clone()))
        })
        .collect();
    let skipped = graph.jobs.iter().filter_map(|(job, it)| Some((job.clone(), Outcome::Skipped(it.skip.clone()?))));
    let mut ends: BTreeMap<JobName, Outcome> = skipped.collect();
    ends.extend(given.iter().map(|(job, (_, outcome))| (job.clone(), outcome.clone())));
    let build = BuildId(1);
    let request = BuildRequest { given, ..BuildRequest::new(known.event.clone(), String::new()) };
    // What is still to grow waits for answers that nobody gives; what needs it waits with it.
    let evaluation = Evaluation { graph: graph.clone(), questions: open, ..Evaluation::default() };
    let mut engine = Engine::new();
    let now = known.event.time;
    engine.step(now, vec![Input::BuildRequested { build, request: Box::new(request) }]);
    let evaluated = Input::Evaluated { build, answers_known: 0, evaluation: Box::new(evaluation) };
    for fact in engine.step(now, vec![evaluated]).facts {
        match fact.what {
            // All jobs of a pipeline that cannot go on are canceled, which says nothing of any of them.
            What::JobEnded { outcome: Outcome::Failed(Failure::Canceled { .. }), .. } => {}
            What::JobEnded { job, outcome, how: Ended::Decided } => drop(ends.insert(job, outcome)),
            _ => {}
        }
    }
    // The engine waits for all needs of a job before it skips it; one that is not as needed is enough to know.
    let names: Vec<JobName> = drawing::layers(graph).rows.into_iter().flatten().cloned().collect();
    for name in names {
        let reason = match ends.get(&name) {
            Some(Outcome::Skipped(reason)) => Some(reason.clone()),
            Some(_) => None,
            None => refused_by(graph, &name, &ends).map(|because| SkipReason::Need { because }),
        };
        let Some(reason) = reason else { continue };
        ends.entry(name.clone()).or_insert_with(|| Outcome::Skipped(reason.clone()));
        if let Some(job) = graph.jobs.get_mut(&name).filter(|job| job.skip.is_none()) {
            Arc::make_mut(job).skip = Some(reason);
        }
    }
}

/// A need of the job whose end is known and not as needed.
fn refused_by(graph: &Graph, name: &JobName, ends: &BTreeMap<JobName, Outcome>) -> Option<JobName> {
    let job = &graph.jobs[name];
    let refused = job.needs.iter().find(|need| {
        let end = ends.get(&need.job).zip(graph.jobs.get(&need.job));
        end.is_some_and(|(outcome, needed)| !is_accepted(need, Ending::of(outcome, needed.toleration()), job))
    });
    refused.map(|need| need.job.clone())
}

/// The outcome as a job that is a function of the program hands it on: `value` with the digest of its type, and each field of
/// a struct as an output of its own. That of another job stays.
fn as_function(job: &Job, outcome: Outcome) -> Outcome {
    let schema = job.steps.iter().find_map(|step| match step.shell {
        Shell::Program(_) => serde_json::from_str::<Value>(&step.run).ok()?.get("output").cloned(),
        _ => None,
    });
    let (Some(schema), Outcome::Passed { mut outputs }) = (schema, outcome.clone()) else { return outcome };
    let value = outputs.remove("value").unwrap_or_default();
    // What a build recorded has its digest already.
    let read = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let value = read.unwrap_or(value);
    if value.get("schema").is_some() && value.get("value").is_some() {
        outputs.insert("value".to_owned(), Value::from(value.to_string()));
        return Outcome::Passed { outputs };
    }
    for (name, part) in value.as_object().into_iter().flatten() {
        let text = part.as_str().map_or_else(|| part.to_string(), str::to_owned);
        outputs.entry(name.clone()).or_insert_with(|| Value::from(text));
    }
    let typed = serde_json::json!({ "schema": schema, "value": value });
    outputs.insert("value".to_owned(), Value::from(typed.to_string()));
    Outcome::Passed { outputs }
}

/// The outcome as a gate hands on what was filled in: each of its fields of the field's type, and its default where none is given. That of
/// another job stays.
///
/// # Errors
/// If a value is none that the gate takes.
fn as_answer(name: &JobName, job: &Job, outcome: Outcome) -> Result<Outcome, Stop> {
    let Some(gate) = job.gate.as_ref().filter(|_| job.steps.is_empty()) else { return Ok(outcome) };
    let Outcome::Passed { mut outputs } = outcome else { return Ok(outcome) };
    for (field, kind) in &gate.fields {
        let value = match outputs.get(field) {
            Some(Value::String(typed)) => Some(kind.parse(typed).map_err(|fault| {
                Stop::wrong(format!("--given answers the gate `{name}`, whose field `{field}` {fault}"))
            })?),
            Some(_) => None,
            None => kind.default.clone(),
        };
        outputs.extend(value.map(|value| (field.clone(), value)));
    }
    Ok(Outcome::Passed { outputs })
}

/// `NAME=VALUE[,NAME=VALUE…]`. A value that begins as a list, an object or a quoted text of JSON ends where that ends; another
/// one at the comma.
fn given_outputs(mut rest: &str) -> Option<BTreeMap<String, Value>> {
    let mut outputs = BTreeMap::new();
    while !rest.is_empty() {
        let (name, text) = rest.split_once('=')?;
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let is_json = text.starts_with(['{', '[', '"']);
        let (value, end) = match values.next() {
            Some(Ok(value)) if is_json => (value.to_string(), values.byte_offset()),
            _ => {
                let end = text.find(',').unwrap_or(text.len());
                (text[..end].to_owned(), end)
            }
        };
        outputs.insert(name.to_owned(), Value::from(value));
        rest = match &text[end..] {
            "" => "",
            more => more.strip_prefix(',').filter(|more| !more.is_empty())?,
        };
    }
    Some(outputs)
}

/// `JOB=OUTCOME[,OUTPUT=VALUE…]`.
fn given_outcome(given: &str) -> Result<(JobName, Outcome), String> {
    let form = || format!("--given takes JOB=OUTCOME[,OUTPUT=VALUE…], such as build=passed,version=1.2, not `{given}`");
    let (job, rest) = given.split_once('=').ok_or_else(form)?;
    let (word, outputs) = rest.split_once(',').unwrap_or((rest, ""));
    let outputs = given_outputs(outputs).ok_or_else(form)?;
    let outcome = match word {
        "passed" => Outcome::Passed { outputs },
        "failed" => Outcome::Failed(Failure::Step { step: 0, exit: 1, message: None }),
        "canceled" => Outcome::Failed(Failure::Canceled { by: "--given".to_owned() }),
        "skipped" => Outcome::Skipped(SkipReason::Condition { text: "--given".to_owned() }),
        _ => return Err(format!("`{word}` is no outcome: passed, failed, canceled, skipped")),
    };
    Ok((job.into(), outcome))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::given_outputs;

    #[track_caller]
    fn check(text: &str, expected: Option<serde_json::Value>) {
        assert_eq!(given_outputs(text).map(|outputs| json!(outputs)), expected, "{text}");
    }

    #[test]
    fn values_given_end_at_commas_or_with_their_json() {
        check("", Some(json!({})));
        check("v=1.2,w=", Some(json!({ "v": "1.2", "w": "" })));
        check(r#"value={"shards":[1,2]},v=a"#, Some(json!({ "value": r#"{"shards":[1,2]}"#, "v": "a" })));
        check(r#"legs=["x","y"]"#, Some(json!({ "legs": r#"["x","y"]"# })));
        check(r#"value="a,b""#, Some(json!({ "value": r#""a,b""# })));
        check("v={not json},w=1", Some(json!({ "v": "{not json}", "w": "1" })));
        check("v", None);
        check("v=1,", None);
        check("v=[1]2", None);
    }
}
