//! The reply to a request: all that was added, as a document of the native format with marks.
//!
//! Written straight into the reply's text: a pipeline of ten thousand jobs is evaluated on every change.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use crate::ci::{Ci, Entry, Evaluation};
use crate::extension::{JobView, Origin, Place};
use crate::inputs::Run;
use crate::json::Json;
use crate::mark::{Files, Mark, Settings};
use crate::wire;

/// The most needs of all jobs together; at the bound the others are left out, with an error that names it.
pub const NEEDS_MAX: usize = 2_000_000;

/// The reply, without the line's end.
pub(crate) fn reply(ci: &Ci) -> String {
    ci.look_at_statuses();
    finish(ci);
    let mut shared = ci.shared.borrow_mut();
    let shared = &mut *shared;
    let mut out = wire::reply_head();
    let mut base = std::mem::take(&mut shared.document);
    let replaced = shared.settle_overrides(&mut base);
    out.push_str(",\"document\":");
    document(shared, base, replaced, &mut out);
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

/// Writes down what can be known only once all jobs are there: statuses, and steps around jobs.
fn finish(ci: &Ci) {
    ci.look_at_statuses();
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

/// What a worker hands back to the program, so that it finds the function again.
fn payload(job: &str, run: &Run, of_scope: &[(Json, Json)], hooks: &[usize]) -> Json {
    let inputs = run.sources.list.iter().map(|source| {
        let output = source.output.as_deref().map_or(Json::Null, Json::from);
        Json::List(vec![source.job.as_str().into(), output, source.schema.as_str().into()])
    });
    let mut known = HashSet::new();
    let answers =
        of_scope.iter().chain(&run.sources.answers).filter(|(question, _)| known.insert(question.to_string()));
    let answers = answers.map(|(question, answer)| Json::List(vec![question.clone(), answer.clone()]));
    Json::object([
        ("job", job.into()),
        ("inputs", Json::List(inputs.collect())),
        ("output", run.output.as_str().into()),
        ("hooks", Json::List(hooks.iter().map(|hook| Json::Int(*hook as i64)).collect())),
        ("answers", Json::List(answers.collect())),
    ])
}

impl Evaluation {
    /// Gives a job its function: a step that says where the program finds it again. `answers` are those without which the
    /// job is not added.
    pub(crate) fn add_function(&mut self, job: usize, run: Run, answers: &[(Json, Json)], mark: Mark) {
        let payload = payload(&self.jobs[job].name, &run, answers, &self.hooks);
        let step = Json::object([("@", self.files.json(mark)), ("function", payload)]);
        self.jobs[job].settings.append("run", [step], mark);
        self.functions.insert(job, run);
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
        each_job_of(&mut self.document, &mut |name, body| {
            if !selected.contains(&(Origin::File, name)) {
                return;
            }
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

    /// Takes out of the files' document the jobs that the program overrides; tells which are there twice. Gives the program's jobs that replace
    /// one.
    fn settle_overrides(&mut self, base: &mut Json) -> HashSet<usize> {
        let mut replaced = HashSet::new();
        let mut twice = Vec::new();
        let Self { jobs, by_name, .. } = self;
        let mut stays = |name: &str, body: &Json| {
            let Some(&index) = by_name.get(name) else { return true };
            let overrides = jobs[index].settings.get("override") == Some(&Json::Bool(true));
            match overrides {
                true => drop(replaced.insert(index)),
                false => twice.push((index, body.get("@").cloned().unwrap_or_default())),
            }
            false
        };
        if let Json::Object(entries) = base
            && let Some((_, jobs)) = entries.iter_mut().find(|(key, _)| key == "jobs")
        {
            match jobs {
                Json::Object(jobs) => jobs.retain(|(name, body)| name.starts_with('@') || stays(name, body)),
                Json::List(items) => items.retain(|item| {
                    let name = item.get("job").and_then(Json::as_str);
                    name.is_none_or(|name| stays(name, item))
                }),
                _ => {}
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
        replaced
    }
}

/// Calls `visit` with every job of a document that has a name.
pub(crate) fn each_job_of(document: &mut Json, visit: &mut dyn FnMut(&str, &mut Json)) {
    let Json::Object(entries) = document else { return };
    match entries.iter_mut().find(|(key, _)| key == "jobs").map(|(_, jobs)| jobs) {
        Some(Json::Object(jobs)) => {
            for (name, body) in jobs.iter_mut().filter(|(name, _)| !name.starts_with('@')) {
                visit(name, body);
            }
        }
        Some(Json::List(items)) => {
            for item in items {
                if let Some(name) = item.get("job").and_then(Json::as_str).map(str::to_owned) {
                    visit(&name, item);
                }
            }
        }
        _ => {}
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

/// Writes the document: the files', with the program's keys and jobs added.
fn document(shared: &mut Evaluation, base: Json, replaced: HashSet<usize>, out: &mut String) {
    let mut entries = if let Json::Object(entries) = base { entries } else { Vec::new() };
    let jobs = match entries.iter().position(|(key, _)| key == "jobs") {
        Some(index) => entries.remove(index).1,
        None => Json::Null,
    };
    let settings = std::mem::take(&mut shared.settings);
    overlay(&mut entries, settings, &mut shared.files);
    let defaults = std::mem::take(&mut shared.defaults);
    if !defaults.0.is_empty() {
        let index = entries.iter().position(|(key, _)| key == "defaults").unwrap_or_else(|| {
            entries.push(("defaults".to_owned(), Json::Object(Vec::new())));
            entries.len() - 1
        });
        if let Json::Object(of_files) = &mut entries[index].1 {
            overlay(of_files, defaults, &mut shared.files);
        }
    }
    out.push('{');
    for (key, value) in &entries {
        Json::Text(key.clone()).write(out);
        out.push(':');
        value.write(out);
        out.push(',');
    }
    out.push_str("\"jobs\":");
    let mut writer = Writer { shared, replaced, n_needs: 0, is_first: true };
    match jobs {
        Json::List(items) => writer.list(&items, out),
        Json::Object(jobs) if writer.shared.barriers.is_empty() => writer.map(&jobs, out),
        Json::Object(jobs) => writer.list(&listed(jobs), out),
        _ if writer.shared.barriers.is_empty() => writer.map(&[], out),
        _ => writer.list(&[], out),
    }
    out.push('}');
}

/// Sets these keys; maps keep the entries that are not set.
fn overlay(entries: &mut Vec<(String, Json)>, settings: Settings, files: &mut Files) {
    for setting in settings.0 {
        let marked = format!("@{}", setting.key);
        let place = files.json(setting.mark);
        let old = entries.iter_mut().find(|(key, _)| key == setting.key);
        match (old.map(|(_, value)| value), setting.value) {
            (Some(Json::Object(old)), Json::Object(new)) if setting.key == "env" => {
                for (name, value) in new {
                    let marked = format!("@{name}");
                    old.retain(|(key, _)| *key != name && *key != marked);
                    old.push((marked, place.clone()));
                    old.push((name, value));
                }
            }
            (Some(old), value) => {
                *old = value;
                entries.retain(|(key, _)| *key != marked);
                entries.push((marked, place));
            }
            (None, value) => entries.extend([(marked, place), (setting.key.to_owned(), value)]),
        }
    }
}

/// Jobs by name as a list.
fn listed(jobs: Vec<(String, Json)>) -> Vec<Json> {
    let marks: HashMap<String, Json> = jobs.iter().filter(|(name, _)| name.starts_with('@')).cloned().collect();
    let jobs = jobs.into_iter().filter(|(name, _)| !name.starts_with('@'));
    jobs.map(|(name, body)| {
        let mark = marks.get(&format!("@{name}")).cloned();
        let mut entries = vec![("job".to_owned(), Json::Text(name))];
        entries.extend(mark.map(|mark| ("@job".to_owned(), mark)));
        if let Json::Object(body) = body {
            entries.extend(body);
        }
        Json::Object(entries)
    })
    .collect()
}

/// Writes the jobs.
struct Writer<'a> {
    shared: &'a mut Evaluation,
    /// The program's jobs that stand in place of one of a file.
    replaced: HashSet<usize>,
    n_needs: usize,
    is_first: bool,
}

impl Writer<'_> {
    fn map(&mut self, of_files: &[(String, Json)], out: &mut String) {
        out.push('{');
        for (name, body) in of_files {
            self.comma(out);
            Json::Text(name.clone()).write(out);
            out.push(':');
            body.write(out);
        }
        for index in 0..self.shared.jobs.len() {
            if self.is_known(index) {
                self.comma(out);
                crate::json::write_text(&self.shared.jobs[index].name, out);
                out.push_str(":{");
                self.body(index, out);
            }
        }
        out.push('}');
    }

    /// As a list, with barriers. The files' jobs stand first, so a barrier of a file holds for the program's jobs too.
    fn list(&mut self, of_files: &[Json], out: &mut String) {
        out.push('[');
        for item in of_files {
            self.comma(out);
            item.write(out);
        }
        let mut barriers = std::mem::take(&mut self.shared.barriers).into_iter().peekable();
        for index in 0..=self.shared.jobs.len() {
            while let Some((_, mark)) = barriers.next_if(|(place, _)| *place == index) {
                self.comma(out);
                let place = self.shared.files.json(mark);
                let _ = write!(out, "{{\"@\":{place},\"wait\":{{}}}}");
            }
            if index < self.shared.jobs.len() && self.is_known(index) {
                self.comma(out);
                out.push_str("{\"job\":");
                crate::json::write_text(&self.shared.jobs[index].name, out);
                out.push(',');
                self.body(index, out);
            }
        }
        out.push(']');
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
        let is_replacement = self.replaced.contains(&index);
        let settings = std::mem::take(&mut self.shared.jobs[index].settings);
        for setting in &settings.0 {
            if setting.key == "override" && is_replacement {
                continue;
            }
            let _ = write!(out, ",\"@{}\":", setting.key);
            self.mark(setting.mark, out);
            let _ = write!(out, ",\"{}\":", setting.key);
            setting.value.write(out);
        }
        self.shared.jobs[index].settings = settings;
        out.push('}');
    }

    fn mark(&mut self, mark: Mark, out: &mut String) {
        let _ = write!(out, "[{},{},{}]", self.shared.files.number_of(mark), mark.line(), mark.column());
    }

    fn needs(&mut self, index: usize, out: &mut String) {
        let needs = std::mem::take(&mut self.shared.jobs[index].needs);
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
                out.push_str(if std::mem::take(&mut is_first) { ",\"needs\":[{\"@\":" } else { ",{\"@\":" });
                self.mark(need.mark, out);
                out.push_str(",\"job\":");
                crate::json::write_text(&name, out);
                if need.ending != "success" {
                    let _ = write!(out, ",\"on\":\"{}\"", need.ending);
                }
                out.push('}');
            }
        }
        if !is_first {
            out.push(']');
        }
        self.shared.jobs[index].needs = needs;
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
