//! The reply to a request: all that was added, as a document of the native format with marks.
//!
//! Written straight into the reply's text: a pipeline of ten thousand jobs is evaluated on every change.

use std::collections::HashSet;
use std::fmt::Write;

use crate::ci::{Ci, Entry, Evaluation, Need, NeedOn};
use crate::extension::{JobView, Origin, Place};
use crate::growth;
use crate::hook::Hook;
use crate::inputs::Run;
use crate::json::{Json, write_number, write_text};
use crate::mark::{Mark, Setting};
use crate::reads;
use crate::wire;

/// The most needs of all jobs together; at the bound the others are left out, with an error that names it.
pub const NEEDS_MAX: usize = 2_000_000;

/// The reply, without the line's end.
pub(crate) fn reply(ci: &Ci, hooks: &[Hook]) -> String {
    ci.look_at_statuses();
    surround(ci);
    let mut shared = ci.shared.borrow_mut();
    let shared = &mut *shared;
    let mut out = wire::reply_head();
    let hooks = wire::described(hooks, &mut shared.files);
    let _ = write!(out, ",\"hooks\":{hooks}");
    shared.tell_jobs_of_files();
    shared.tell_values_of_matrices();
    out.push_str(",\"document\":");
    document(shared, &mut out);
    list(&mut out, "holes", &shared.holes());
    list(&mut out, "questions", shared.questions.values());
    if !shared.statuses.is_empty() {
        let statuses = shared.statuses.iter().map(|(name, status)| (name.clone(), status.clone()));
        let _ = write!(out, ",\"statuses\":{}", Json::Object(statuses.collect()));
    }
    list(&mut out, "diagnostics", &shared.diagnostics);
    let files: Vec<&str> = shared.files.names().collect();
    let _ = write!(out, ",\"files\":{}}}", Json::from(files));
    out
}

/// Appends a list under a name, unless it is empty.
fn list<'a>(out: &mut String, name: &str, items: impl IntoIterator<Item = &'a Json>) {
    let mut opening = format!(",\"{name}\":[");
    for item in items {
        out.push_str(&opening);
        item.write(out);
        opening.replace_range(.., ",");
    }
    if opening == "," {
        out.push(']');
    }
}

/// Puts steps around jobs, now that all jobs are there.
fn surround(ci: &Ci) {
    let around = std::mem::take(&mut ci.shared.borrow_mut().around);
    if around.is_empty() {
        return;
    }
    // The program's closures are called while nothing is borrowed: they may look at the pipeline.
    let views = ci.jobs();
    let mut shared = ci.shared.borrow_mut();
    for around in around {
        drop(shared);
        let selected: HashSet<(Origin, &str)> =
            views.iter().filter(|job| (around.select)(job)).map(|job| (job.origin(), job.name())).collect();
        shared = ci.shared.borrow_mut();
        let step = around.step.json(&mut shared.files);
        shared.surround(&selected, around.place, &step);
    }
}

impl Evaluation {
    /// Gives a job its function: a step that says where the program finds it again. `known` are the jobs whose outcomes must be known, or the
    /// job is not added.
    pub(crate) fn add_function(&mut self, job: usize, run: Run, known: &[String], mark: Mark) {
        let payload = self.payload(job, &run, known, mark);
        let step = Json::object([("@", self.files.json(mark)), ("function", payload)]);
        self.jobs[job].settings.append("run", [step], mark);
        self.functions.insert(job, run);
    }

    /// What a worker hands back to the program, so that it finds the function again. The answers by which it was added come to it as what needed
    /// jobs hand on, where those passed; so they are not written into each of a thousand jobs.
    fn payload(&mut self, job: usize, run: &Run, known: &[String], mark: Mark) -> Json {
        let inputs = run.sources.list.iter().map(|source| {
            let output = source.output.as_deref().map_or(Json::Null, Json::from);
            Json::List(vec![source.job.as_str().into(), output, source.schema.as_str().into()])
        });
        let inputs = Json::List(inputs.collect());
        let (mut passed, mut answers) = (Vec::new(), Vec::new());
        let mut told = HashSet::new();
        for name in known.iter().chain(&run.sources.known).filter(|name| told.insert(name.as_str())) {
            let Some(answer) = self.answer(name) else { continue };
            if growth::is_passed(answer) {
                passed.push(Json::from(name.as_str()));
                let need = Need { on: NeedOn::Name(name.clone()), ending: "success", mark };
                self.jobs[job].needs.push(need);
            } else {
                answers.push(Json::List(vec![growth::outcome_of(name), answer.clone()]));
            }
        }
        let mut payload = vec![
            ("job", self.jobs[job].name.as_str().into()),
            ("inputs", inputs),
            ("output", run.output.as_str().into()),
            ("hooks", Json::List(self.hooks.iter().map(|hook| Json::Int(*hook as i128)).collect())),
            ("passed", Json::List(passed)),
            ("answers", Json::List(answers)),
        ];
        let read: Vec<(String, Json)> = self.reads.parts().into_iter().map(|part| self.part_of_event(part)).collect();
        if !read.is_empty() {
            payload.push(("read", Json::Object(read)));
        }
        Json::Object(payload.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// A part of the event by its name in [`crate::reads`].
    fn part_of_event(&self, part: String) -> (String, Json) {
        let value = match part.split_once('.') {
            _ if part == reads::WHOLE => Some(&self.event),
            Some((of, name)) => self.event.get(of).and_then(|of| of.get(name)),
            None => self.event.get(&part),
        };
        let value = value.cloned().unwrap_or_default();
        (part, value)
    }

    /// Puts a step before or after the steps of these jobs.
    fn surround(&mut self, selected: &HashSet<(Origin, &str)>, place: Place, step: &Json) {
        let before = |steps: &mut Vec<Json>| match place {
            Place::Before => steps.insert(0, step.clone()),
            Place::After => steps.push(step.clone()),
        };
        for job in &mut self.jobs {
            let setting = job.settings.0.iter_mut().find(|setting| setting.key == "run");
            if let Some(Json::List(steps)) = setting.map(|setting| &mut setting.value)
                && selected.contains(&(Origin::Program, job.name.as_str()))
            {
                before(steps);
            }
        }
        let Self { document, changed, .. } = self;
        each_job_of(document, &mut |name, body| {
            if !selected.contains(&(Origin::File, name)) {
                return;
            }
            changed.insert(name.to_owned());
            let Json::Object(entries) = body else { return };
            match entries.iter_mut().find(|(key, _)| key == "run").map(|(_, run)| run) {
                Some(Json::List(steps)) => before(steps),
                Some(script @ Json::Text(_)) => {
                    let mut steps = vec![std::mem::take(script)];
                    before(&mut steps);
                    *script = Json::List(steps);
                }
                _ => {}
            }
        });
    }

    /// Tells which jobs of the program have the name of one in a file, and do not say that they replace it.
    fn tell_jobs_of_files(&mut self) {
        let mut twice = Vec::new();
        let Self { document, jobs, by_name, .. } = self;
        let places = document.get("jobs").map(Json::entries).unwrap_or_default().iter();
        for (name, place) in places.filter_map(|(key, place)| Some((key.strip_prefix('@')?, place))) {
            if let Some(&index) = by_name.get(name)
                && jobs[index].settings.get("override") != Some(&Json::Bool(true))
            {
                twice.push((index, place.clone()));
            }
        }
        for (index, place) in twice {
            let Entry { name, mark, .. } = &self.jobs[index];
            let message = format!("the job `{name}` is in a config file and in the program");
            let mark = self.files.json(mark);
            self.diagnostic(Json::object([
                ("code", "job-twice".into()),
                ("message", message.into()),
                ("label", "in the program".into()),
                ("help", "give it another name, or say `.overrides()` to replace the one of the file".into()),
                ("@", mark),
                ("related", Json::List(vec![Json::object([("@", place), ("remark", "in the file".into())])])),
            ]));
        }
    }
}

/// Calls `visit` with every job of the files' document, which has them by name.
fn each_job_of(document: &mut Json, visit: &mut dyn FnMut(&str, &mut Json)) {
    let Json::Object(entries) = document else { return };
    let jobs = entries.iter_mut().find(|(key, _)| key == "jobs").map(|(_, jobs)| jobs);
    let Some(Json::Object(jobs)) = jobs else { return };
    for (name, body) in jobs.iter_mut().filter(|(name, _)| !name.starts_with('@')) {
        visit(name, body);
    }
}

impl Ci {
    /// All jobs as they stand now: those of config files beside the program, then those that the program has added.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobView> {
        let mut shared = self.shared.borrow_mut();
        let Evaluation { document, jobs, defaults, .. } = &mut *shared;
        let of_files = document.get("defaults").and_then(|defaults| defaults.get("labels"));
        let labels = defaults.get("labels").or(of_files).cloned();
        let mut views = Vec::with_capacity(jobs.len());
        each_job_of(document, &mut |name, body| {
            views.push(JobView::new(name.to_owned(), body.clone(), Origin::File, labels.as_ref()));
        });
        for job in jobs {
            let entries =
                job.settings.0.iter().map(|setting| (setting.key.to_owned(), setting.value.clone())).collect();
            views.push(JobView::new(job.name.clone(), Json::Object(entries), Origin::Program, labels.as_ref()));
        }
        views
    }
}

/// Writes the document: the keys of the pipeline, its jobs, and those jobs of files that are changed.
fn document(shared: &mut Evaluation, out: &mut String) {
    out.push('{');
    let settings = std::mem::take(&mut shared.settings);
    let mut writer = Writer { shared, n_needs: 0, is_first: true, marks: [(0, 0, 0); MARKS_KEPT] };
    for Setting { key, value, mark } in &settings.0 {
        writer.key(key, mark, out);
        value.write(out);
        out.push(',');
    }
    let defaults = std::mem::take(&mut writer.shared.defaults);
    if !defaults.0.is_empty() {
        out.push_str("\"defaults\":{");
        for Setting { key, value, mark } in &defaults.0 {
            writer.comma(out);
            writer.key(key, mark, out);
            value.write(out);
        }
        out.push_str("},");
        writer.is_first = true;
    }
    out.push_str("\"jobs\":");
    writer.jobs(out);
    out.push('}');
}

/// Writes the jobs.
struct Writer<'a> {
    shared: &'a mut Evaluation,
    n_needs: usize,
    is_first: bool,
    /// Marks that were written not long ago: the mark's address, and where its text stands in the reply. Few calls of the
    /// program make most jobs, and a text that is there is quicker copied than made.
    marks: [(usize, usize, usize); MARKS_KEPT],
}

/// How many marks the writer keeps: a power of two.
const MARKS_KEPT: usize = 64;

/// How the jobs are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// By name.
    Map,
    /// As a list, since there are barriers between.
    List,
}

impl Writer<'_> {
    fn jobs(&mut self, out: &mut String) {
        let mut barriers = std::mem::take(&mut self.shared.barriers).into_iter().peekable();
        let form = if barriers.peek().is_some() { Form::List } else { Form::Map };
        out.push(if form == Form::List { '[' } else { '{' });
        self.jobs_of_files(form, out);
        for index in 0..=self.shared.jobs.len() {
            while let Some((_, mark)) = barriers.next_if(|(place, _)| *place == index) {
                self.comma(out);
                let place = self.shared.files.json(mark);
                let _ = write!(out, "{{\"@\":{place},\"wait\":{{}}}}");
            }
            if index < self.shared.jobs.len() && self.is_known(index) {
                self.begin_job(&self.shared.jobs[index].name.clone(), form, out);
                self.body(index, out);
            }
        }
        out.push(if form == Form::List { ']' } else { '}' });
    }

    /// The jobs of files that have changed. They keep their places among the barriers of their files.
    fn jobs_of_files(&mut self, form: Form, out: &mut String) {
        let Json::Object(entries) = std::mem::take(&mut self.shared.document) else { return };
        let jobs = entries.into_iter().find(|(key, _)| key == "jobs").map(|(_, jobs)| jobs).unwrap_or_default();
        for (name, body) in jobs.entries() {
            if !self.shared.changed.contains(name) || self.shared.by_name.contains_key(name) {
                continue;
            }
            let marked = format!("@{name}");
            let place = jobs.get(&marked).cloned().unwrap_or_default();
            self.begin_job(name, form, out);
            let _ = write!(out, "\"@\":{place}");
            for (key, value) in body.entries().iter().filter(|(key, _)| key != "@") {
                out.push(',');
                write_text(key, out);
                out.push(':');
                value.write(out);
            }
            out.push('}');
        }
    }

    /// All of a job that stands before its own keys.
    fn begin_job(&mut self, name: &str, form: Form, out: &mut String) {
        self.comma(out);
        match form {
            Form::Map => {
                write_text(name, out);
                out.push_str(":{");
            }
            Form::List => {
                out.push_str("{\"job\":");
                write_text(name, out);
                out.push(',');
            }
        }
    }

    /// A key with its mark.
    fn key(&mut self, key: &str, mark: Mark, out: &mut String) {
        out.push_str("\"@");
        out.push_str(key);
        out.push_str("\":");
        self.mark(mark, out);
        out.push_str(",\"");
        out.push_str(key);
        out.push_str("\":");
    }

    fn comma(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.is_first) {
            out.push(',');
        }
    }

    /// Whether the job is the first of its name; of another it has been told that it is there twice.
    fn is_known(&self, index: usize) -> bool {
        self.shared.by_name.get(&self.shared.jobs[index].name) == Some(&index)
    }

    /// The keys of a job, from its mark to the end.
    fn body(&mut self, index: usize, out: &mut String) {
        let mark = self.shared.jobs[index].mark;
        out.push_str("\"@\":");
        self.mark(mark, out);
        self.needs(index, out);
        let mut must_hold = self.shared.values_are_there(index);
        let settings = std::mem::take(&mut self.shared.jobs[index].settings);
        for Setting { key, value, mark } in &settings.0 {
            out.push(',');
            self.key(key, mark, out);
            match (*key, value, must_hold.take_if(|_| *key == "if")) {
                ("if", Json::Text(own), Some(term)) => {
                    let own = own.trim();
                    let bare = own.strip_prefix("${{").and_then(|own| own.strip_suffix("}}")).unwrap_or(own);
                    write_text(&format!("{term} && ({bare})"), out);
                }
                _ => value.write(out),
            }
        }
        if let Some(term) = must_hold {
            out.push(',');
            self.key("if", mark, out);
            write_text(&term, out);
        }
        self.shared.jobs[index].settings = settings;
        out.push('}');
    }

    fn mark(&mut self, mark: Mark, out: &mut String) {
        let address = std::ptr::from_ref(mark).addr();
        let slot = (address >> 3) % MARKS_KEPT;
        let (known, start, end) = self.marks[slot];
        if known == address {
            // Nothing is ever taken off the reply while jobs are written.
            return out.extend_from_within(start..end);
        }
        let start = out.len();
        self.write_mark(mark, out);
        self.marks[slot] = (address, start, out.len());
    }

    fn write_mark(&mut self, mark: Mark, out: &mut String) {
        let file = u32::try_from(self.shared.files.number_of(mark)).expect("as many files as there are in a program");
        out.push('[');
        write_number(file, out);
        out.push(',');
        write_number(mark.line(), out);
        out.push(',');
        write_number(mark.column(), out);
        out.push(']');
    }

    fn needs(&mut self, index: usize, out: &mut String) {
        let needs = std::mem::take(&mut self.shared.jobs[index].needs);
        if needs.is_empty() {
            return;
        }
        if let [Need { on: NeedOn::Name(name), ending, mark }] = needs.as_slice() {
            if self.counts(mark) {
                self.need(",\"needs\":[{\"@\":", name, ending, mark, out);
                out.push(']');
            }
            self.shared.jobs[index].needs = needs;
            return;
        }
        let mut known: HashSet<(String, &str)> = HashSet::new();
        let mut is_first = true;
        for need in &needs {
            let names: Vec<String> = self.shared.needed_names(need).into_iter().map(str::to_owned).collect();
            for name in names {
                if needs.len() > 1 && !known.insert((name.clone(), need.ending)) {
                    continue;
                }
                if !self.counts(need.mark) {
                    break;
                }
                let before = if std::mem::take(&mut is_first) { ",\"needs\":[{\"@\":" } else { ",{\"@\":" };
                self.need(before, &name, need.ending, need.mark, out);
            }
        }
        if !is_first {
            out.push(']');
        }
        self.shared.jobs[index].needs = needs;
    }

    fn need(&mut self, before: &str, name: &str, ending: &str, mark: Mark, out: &mut String) {
        out.push_str(before);
        self.mark(mark, out);
        out.push_str(",\"job\":");
        write_text(name, out);
        if ending != "success" {
            let _ = write!(out, ",\"on\":\"{ending}\"");
        }
        out.push('}');
    }

    /// Counts one more need; tells when there are too many.
    fn counts(&mut self, mark: Mark) -> bool {
        self.n_needs += 1;
        if self.n_needs == NEEDS_MAX + 1 {
            let message = format!("the jobs of the program need each other more than {NEEDS_MAX} times");
            let help = "put a barrier between with `ci.wait()`, or a job that many need";
            self.shared.fault("too-many-needs", message, "the first too many", help, mark, &[]);
        }
        self.n_needs <= NEEDS_MAX
    }
}
