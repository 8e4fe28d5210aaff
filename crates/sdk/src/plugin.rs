//! Plugins: crates whose jobs programs and config files use, and that extend the jobs of others.
//!
//! A plugin is a value that [`Ci::plugin`] takes. Its jobs have names, so that a config file beside the program can say
//! `use: cargo.clippy` with options under `with`; its extensions are called at once. When the program has added its own
//! jobs, those of the files that use a plugin's are completed: what the file says of a job stands in place of what the plugin
//! says, key by key, and places keep pointing into the file. Rust needs no names: a plugin has functions for its jobs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe, Location};
use std::rc::Rc;

use crate::ci::{AtBound, Ci, Evaluation, NeedOn};
use crate::data::Data;
use crate::inputs::Run;
use crate::job::Job;
use crate::json::Json;
use crate::mark::Mark;

/// Names longer than this are not compared with what was mistyped.
const COMPARED_CHARACTERS_MAX: usize = 64;

/// The plugins that Ropewalk brings.
const BROUGHT: [&str; 2] = ["cargo", "git"];

/// What a crate gives to pipelines: jobs by name, and extensions of jobs that others wrote.
#[derive(Clone)]
pub struct Plugin {
    name: String,
    jobs: Vec<(String, Rc<Complete>)>,
    extensions: Vec<Rc<Extension>>,
}

/// Writes a plugin's part of a job.
type Complete = dyn Fn(Job, &With);

/// What a plugin does to a pipeline.
type Extension = dyn Fn(&Ci);

/// A plugin that a program has.
pub(crate) struct Known {
    name: String,
    jobs: Vec<(String, Rc<Complete>)>,
    mark: Mark,
}

impl Plugin {
    /// A plugin of this name, without jobs yet: files name it by it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), jobs: Vec::new(), extensions: Vec::new() }
    }

    /// The same under another name, for files.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// A job that files use as `PLUGIN.NAME`. The closure gets the file's job, still without keys, and the options of `with`; what it
    /// does not ask for there is told as a mistake.
    #[must_use]
    pub fn job<O, V>(mut self, name: impl Into<String>, complete: impl Fn(Job, &With) -> Job<O, V> + 'static) -> Self {
        let complete = move |job: Job, with: &With| drop(complete(job, with));
        self.jobs.push((name.into(), Rc::new(complete)));
        self
    }

    /// What the plugin does to every pipeline that has it, such as steps around jobs ([`Ci::before`]).
    #[must_use]
    pub fn extend(mut self, extension: impl Fn(&Ci) + 'static) -> Self {
        self.extensions.push(Rc::new(extension));
        self
    }
}

impl Ci {
    /// Takes a plugin: config files beside the program may use its jobs, and its extensions are called.
    #[track_caller]
    pub fn plugin(&self, plugin: Plugin) {
        let mark = Location::caller();
        let Plugin { name, jobs, extensions } = plugin;
        let mut shared = self.shared.borrow_mut();
        match shared.plugins.iter().find(|known| known.name == name).map(|known| known.mark) {
            None => shared.plugins.push(Known { name, jobs, mark }),
            Some(first) => {
                let message = format!("the program has two plugins of the name `{name}`");
                let help = "give one of them another name with `.named(…)`";
                shared.fault("plugin-twice", message, "the second one", help, mark, &[(first, "the first one")]);
                return;
            }
        }
        drop(shared);
        extensions.iter().for_each(|extension| extension(self));
    }
}

/// The options of a job that uses a plugin's: `with` of the file.
///
/// Every option that is asked for is known; a file that names another is told the nearest one. So ask for all of them,
/// whatever their values are.
#[derive(Debug)]
pub struct With {
    options: Vec<(String, Json)>,
    asked: RefCell<Vec<String>>,
    faults: RefCell<Vec<(String, String)>>,
}

impl With {
    /// These options, as a file would say them.
    #[must_use]
    pub fn new<'a, V: Into<Json>>(options: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        Self::of(options.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }

    fn of(options: Vec<(String, Json)>) -> Self {
        Self { options, asked: RefCell::default(), faults: RefCell::default() }
    }

    /// The value of an option, read as this type; `None` if the file does not say it. One that does not fit is told as a mistake.
    pub fn get<T: Data>(&self, name: &str) -> Option<T> {
        match T::from_json(self.value(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// Whether an option is `true`; one that the file does not say is not.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).unwrap_or_default()
    }

    /// A text; whole numbers are taken as texts.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Json::Int(number) => Some(number.to_string()),
            _ => self.get(name),
        }
    }

    /// Texts: one, or a list of them. Empty if the file does not say the option.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            None => Vec::new(),
            Some(Json::List(_)) => self.get(name).unwrap_or_default(),
            Some(_) => self.text(name).into_iter().collect(),
        }
    }

    /// Tells that the value of an option is wrong, in a sentence; the file's line is shown.
    pub fn refuse(&self, name: &str, why: impl Into<String>) {
        self.faults.borrow_mut().push((name.to_owned(), why.into()));
    }

    fn value(&self, name: &str) -> Option<&Json> {
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|other| other == name) {
            asked.push(name.to_owned());
        }
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value)
    }
}

/// A job of a file that uses a plugin's.
struct Use {
    id: String,
    /// As the file has it, with marks.
    body: Json,
}

impl Use {
    /// What the file names: `PLUGIN.JOB`.
    fn name(&self) -> &str {
        self.body.get("use").and_then(Json::as_str).unwrap_or_default()
    }

    /// Where the file says so.
    fn place(&self) -> Json {
        self.body.get("@use").cloned().unwrap_or_default()
    }

    fn options(&self) -> Vec<(String, Json)> {
        let entries = self.body.get("with").map(Json::entries).unwrap_or_default().iter();
        let entries = entries.filter(|(key, _)| !key.starts_with('@'));
        entries.map(|(key, value)| (key.clone(), without_marks(value))).collect()
    }

    fn option_place(&self, name: &str) -> Json {
        let with = self.body.get("with");
        with.and_then(|with| with.get(&format!("@{name}"))).cloned().unwrap_or_else(|| self.place())
    }

    /// What a worker needs to find the job's function again: all that decides what the plugin says.
    fn document(&self) -> Json {
        let of_job = Json::object([("use", self.name().into()), ("with", Json::Object(self.options()))]);
        Json::object([("jobs", Json::Object(vec![(self.id.clone(), of_job)]))])
    }
}

/// The value without the marks in it.
fn without_marks(value: &Json) -> Json {
    match value {
        Json::List(items) => Json::List(items.iter().map(without_marks).collect()),
        Json::Object(entries) => {
            let entries = entries.iter().filter(|(key, _)| !key.starts_with('@'));
            Json::Object(entries.map(|(key, value)| (key.clone(), without_marks(value))).collect())
        }
        value => value.clone(),
    }
}

/// Completes the jobs of files that use a plugin's, now that the program has added what it adds. What is wrong is told.
pub(crate) fn complete_jobs_of_files(ci: &Ci) {
    let uses: Vec<Use> = {
        let mut shared = ci.shared.borrow_mut();
        // A program that nothing calls has no plugins either.
        if shared.hooks.is_empty() {
            return;
        }
        shared.tell_missing_plugins();
        let jobs = shared.document.get("jobs").map(Json::entries).unwrap_or_default().iter();
        let jobs = jobs.filter(|(id, body)| !id.starts_with('@') && body.get("use").is_some());
        // One that the program replaces is told elsewhere, or meant.
        let jobs = jobs.filter(|(id, _)| !shared.by_name.contains_key(id));
        jobs.map(|(id, body)| Use { id: id.clone(), body: body.clone() }).collect()
    };
    let mut completed = HashMap::new();
    for of_file in &uses {
        let complete = ci.shared.borrow_mut().job_of_plugin(of_file);
        if let Some(body) = complete.and_then(|complete| complete_job(ci, of_file, &*complete)) {
            completed.insert(of_file.id.as_str(), body);
        }
    }
    ci.shared.borrow_mut().put_completed(completed);
}

/// The whole job, as the plugin and the file say it.
fn complete_job(ci: &Ci, of_file: &Use, complete: &Complete) -> Option<Json> {
    let with = With::of(of_file.options());
    let outside = Ci { scope: crate::ci::Scope::default(), ..ci.clone() };
    let index = ci.shared.borrow().jobs.len();
    let ended = ci.aside(|| panic::catch_unwind(AssertUnwindSafe(|| complete(outside.job(&of_file.id), &with))));
    let mut shared = ci.shared.borrow_mut();
    if shared.jobs.len() == index {
        // At the bound on jobs, which has been told.
        return None;
    }
    if let Err(payload) = ended {
        if !payload.is::<AtBound>() {
            let said = payload.downcast_ref::<&str>().copied();
            let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
            let message = format!("`{}` panicked: {said}", of_file.name());
            shared.tell("plugin-panicked", message, "used here", "this is a mistake of the plugin", of_file.place());
        }
    } else {
        shared.tell_options(of_file, &with);
    }
    shared.take_completed(index, of_file)
}

/// The function of a job of a file, with the names of its outputs.
pub(crate) struct FunctionOfFile {
    pub job: String,
    pub run: Run,
    pub outputs: Vec<String>,
}

impl Evaluation {
    fn tell(&mut self, code: &str, message: String, label: &str, help: &str, place: Json) {
        self.diagnostic(Json::object([
            ("code", code.into()),
            ("message", message.into()),
            ("label", label.into()),
            ("help", help.into()),
            ("@", place),
        ]));
    }

    /// Tells which plugins the files name and the program does not have.
    fn tell_missing_plugins(&mut self) {
        let named = self.document.get("plugins").map(Json::entries).unwrap_or_default().iter();
        let missing = named.filter_map(|(key, place)| {
            let name = key.strip_prefix('@')?;
            let is_known = self.plugins.iter().any(|known| known.name == name);
            (!is_known).then(|| (name.to_owned(), place.clone()))
        });
        for (name, place) in missing.collect::<Vec<_>>() {
            let message = format!("the program beside this file does not have the plugin `{name}`");
            let help = self.help_to_plugin(&name);
            self.tell("unknown-plugin", message, "not there", &help, place);
        }
    }

    /// What to do about a plugin that the program does not have: which one was meant, or how it gets this one.
    fn help_to_plugin(&self, name: &str) -> String {
        let of_program = nearest(name, self.plugins.iter().map(|known| known.name.as_str()));
        let (meant, brought) = match (nearest(name, BROUGHT.into_iter()), of_program) {
            (Some(brought), _) if brought == name => (String::new(), brought),
            (_, Some(near)) => return format!("did you mean `{near}`?"),
            (Some(near), None) => (format!("did you mean `{near}`? Then "), near),
            (None, None) => (String::new(), name),
        };
        let module = brought.replace('-', "_");
        format!(
            "{meant}add `ci.plugin(ropewalk_{module}::plugin());` to the program, and the crate to its dependencies"
        )
    }

    /// The plugin's job that a file names; tells if there is none.
    fn job_of_plugin(&mut self, of_file: &Use) -> Option<Rc<Complete>> {
        let (plugin, job) = of_file.name().split_once('.').unwrap_or((of_file.name(), ""));
        let Some(known) = self.plugins.iter().find(|known| known.name == plugin) else {
            // Told already if the file names the plugin.
            let is_named = self.document.get("plugins").is_some_and(|named| named.get(plugin).is_some());
            if !is_named {
                let message = format!("the job `{}` uses a plugin that is not there: `{plugin}`", of_file.id);
                let help = self.help_to_plugin(plugin);
                self.tell("unknown-plugin", message, "named here", &help, of_file.place());
            }
            return None;
        };
        match known.jobs.iter().find(|(name, _)| name == job) {
            Some((_, complete)) => Some(Rc::clone(complete)),
            None => {
                let message = format!("the plugin `{plugin}` has no job `{job}`");
                let help = did_you_mean(job, known.jobs.iter().map(|(name, _)| name.as_str()));
                self.tell("unknown-plugin-job", message, "named here", &help, of_file.place());
                None
            }
        }
    }

    /// Tells which options the plugin does not know, and which it refused.
    fn tell_options(&mut self, of_file: &Use, with: &With) {
        let asked = with.asked.borrow();
        for (name, _) in with.options.iter().filter(|(name, _)| !asked.contains(name)) {
            let message = format!("`{}` has no option `{name}`", of_file.name());
            let help = did_you_mean(name, asked.iter().map(String::as_str));
            self.tell("unknown-option", message, "not known", &help, of_file.option_place(name));
        }
        for (name, why) in with.faults.take() {
            let message = format!("the option `{name}` of `{}` is wrong: {why}", of_file.name());
            self.tell("bad-option", message, "not taken", "", of_file.option_place(&name));
        }
    }

    /// Takes the job that a plugin wrote out of the program's, and puts it under what the file says of it.
    fn take_completed(&mut self, index: usize, of_file: &Use) -> Option<Json> {
        // A plugin that holds on to a `Ci` could have added others.
        while self.jobs.len() > index + 1 {
            let other = self.jobs.len() - 1;
            self.functions.remove(&other);
            if let Some(entry) = self.jobs.pop()
                && self.by_name.get(&entry.name) == Some(&other)
            {
                self.by_name.remove(&entry.name);
            }
        }
        let entry = self.jobs.pop()?;
        self.by_name.remove(&entry.name);
        let mut keys: Vec<(String, Json)> = Vec::with_capacity(entry.settings.0.len() + 1);
        let needs = entry.needs.into_iter().filter_map(|need| match need.on {
            NeedOn::Name(name) => Some(Json::object([("job", name.into()), ("on", need.ending.into())])),
            NeedOn::Growth(_) | NeedOn::Values(_) => None,
        });
        let needs: Vec<Json> = needs.collect();
        if !needs.is_empty() {
            keys.push(("needs".to_owned(), Json::List(needs)));
        }
        // What the plugin wrote has the place where the file uses it.
        keys.extend(
            entry.settings.0.into_iter().map(|setting| (setting.key.to_owned(), without_marks(&setting.value))),
        );
        let of_file_keys = of_file.body.entries().iter().map(|(key, _)| key.as_str());
        let of_file_keys: Vec<&str> = of_file_keys.filter(|key| !key.starts_with('@')).collect();
        keys.retain(|(key, _)| !of_file_keys.contains(&key.as_str()));
        let run = self.functions.remove(&index);
        if let Some((_, Json::List(steps))) = keys.iter_mut().find(|(key, _)| key == "run")
            && let Some(run) = run
        {
            steps.iter_mut().for_each(|step| add_document(step, of_file));
            let outputs = keys.iter().find(|(key, _)| key == "outputs").map(|(_, names)| names.items());
            let outputs = outputs.unwrap_or_default().iter().filter_map(Json::as_str).map(str::to_owned).collect();
            self.functions_of_files.push(FunctionOfFile { job: of_file.id.clone(), run, outputs });
        }
        let own =
            of_file.body.entries().iter().filter(|(key, _)| !matches!(key.as_str(), "use" | "@use" | "with" | "@with"));
        let place = of_file.place();
        let marked = |(key, value): (String, Json)| [(format!("@{key}"), place.clone()), (key, value)];
        Some(Json::Object(keys.into_iter().flat_map(marked).chain(own.cloned()).collect()))
    }

    /// Puts the completed jobs into the files' document, in the places of those that were not.
    fn put_completed(&mut self, mut completed: HashMap<&str, Json>) {
        let Json::Object(entries) = &mut self.document else { return };
        let jobs = entries.iter_mut().find(|(key, _)| key == "jobs");
        let Some((_, Json::Object(jobs))) = jobs else { return };
        for (id, body) in jobs {
            if let Some(whole) = completed.remove(id.as_str()) {
                *body = whole;
                self.changed.insert(id.clone());
            }
        }
    }
}

/// Says in a step that is a function by what the program finds it again.
fn add_document(step: &mut Json, of_file: &Use) {
    let Json::Object(entries) = step else { return };
    if let Some((_, Json::Object(payload))) = entries.iter_mut().find(|(key, _)| key == "function") {
        payload.push(("document".to_owned(), of_file.document()));
    }
}

/// The sentence for a help line: the nearest known name, or all of them.
fn did_you_mean<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    if let Some(near) = nearest(name, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let known: Vec<String> = known.map(|known| format!("`{known}`")).collect();
    if known.is_empty() { "there are none".to_owned() } else { format!("there are: {}", known.join(", ")) }
}

/// The known name that was meant, if one is near.
fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let near = known.filter_map(|known| Some((distance(name, known)?, known)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// How many letters differ, if a slip of the fingers may have led from one to the other: at most a third. Two neighbours in each
/// other's place are one slip.
fn distance(first: &str, second: &str) -> Option<usize> {
    let (first, second): (Vec<char>, Vec<char>) = (first.chars().collect(), second.chars().collect());
    let longer = first.len().max(second.len());
    if longer > COMPARED_CHARACTERS_MAX {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=second.len()).collect();
    for (at, letter) in first.iter().enumerate() {
        let mut row = vec![at + 1];
        for (left, other) in second.iter().enumerate() {
            let replaced = above[left] + usize::from(letter != other);
            let mut least = replaced.min(above[left + 1] + 1).min(row[left] + 1);
            if at > 0 && left > 0 && first[at - 1] == *other && second[left - 1] == *letter {
                least = least.min(before[left - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    let distance = above[second.len()];
    (distance <= (longer / 3).max(1) && distance < longer).then_some(distance)
}

#[cfg(test)]
mod tests;
