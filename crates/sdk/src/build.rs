//! Builds that jobs ask for: children of the build, of the same project.
//!
//! A child is a job of one step, `build: {…}`: YAML says the same. Nothing of it is decided here.

use std::panic::Location;

use crate::ci::Ci;
use crate::event::EventKind;
use crate::fields::Fill;
use crate::inputs::{FIELD_OF_VALUE, Output};
use crate::job::Job;
use crate::json::Json;
use crate::step::Step;
use crate::texts::Texts;
use crate::words::Reuse;

/// A build to ask for: which pipeline, and what its event says. What is not said is as with the build that asks; the kind is
/// [`EventKind::Build`], that of a command [`EventKind::Command`].
#[derive(Clone, Debug)]
pub struct Child {
    /// What is said of it, by the keys of the format.
    said: Vec<(&'static str, Json)>,
    parameters: Vec<Parameter>,
    /// The job's output, and `JOB.OUTPUT`.
    handed_on: Vec<(String, String)>,
    secrets: Vec<String>,
    waits: Waits,
}

#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    /// May hold `${{ }}`.
    value: String,
    /// The job that the value comes from.
    of: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    ForVerdict,
    No,
}

impl Child {
    /// The pipeline of this file, relative to the repository's root.
    #[must_use]
    pub fn file(path: impl Into<String>) -> Self {
        Self::whole().say("file", path.into())
    }

    /// What the repository's pipeline has under this command's name: `on(command("release"))`.
    #[must_use]
    pub fn command(name: impl Into<String>) -> Self {
        Self::whole().say("command", name.into())
    }

    /// What the repository's pipeline runs for an event of this kind: `on(schedule(…))`.
    #[must_use]
    pub fn event(kind: EventKind) -> Self {
        Self::whole().kind(kind)
    }

    fn whole() -> Self {
        let (said, parameters, handed_on, secrets) = Default::default();
        Self { said, parameters, handed_on, secrets, waits: Waits::ForVerdict }
    }

    fn say(mut self, key: &'static str, value: String) -> Self {
        self.said.retain(|(other, _)| *other != key);
        self.said.push((key, Json::Text(value)));
        self
    }

    /// The kind of its event.
    #[must_use]
    pub fn kind(self, kind: EventKind) -> Self {
        self.say("event", kind.name().to_owned())
    }

    /// The branch in its event; what is built are the files of this build all the same.
    #[must_use]
    pub fn branch(self, name: impl Into<String>) -> Self {
        self.say("branch", name.into())
    }

    /// The tag in its event. Without a kind, the event is that of a tag.
    #[must_use]
    pub fn tag(self, name: impl Into<String>) -> Self {
        self.say("tag", name.into())
    }

    /// A parameter; a text may hold `${{ }}`.
    #[must_use]
    pub fn param(self, name: &str, value: impl Into<Json>) -> Self {
        let value = match value.into() {
            Json::Text(text) => text,
            value => value.to_string(),
        };
        self.put(Parameter { name: name.to_owned(), value, of: None })
    }

    /// A parameter that is an output of a job, which must pass first. `T` is a type that a person could fill in, see [`crate::field`];
    /// another does not compile.
    #[must_use]
    pub fn param_of<T: Fill>(self, name: &str, output: &Output<T>) -> Self {
        let job = &output.source.job;
        let value = match output.source.output.as_deref() {
            Some(FIELD_OF_VALUE) => format!("fromJSON(needs['{job}'].outputs.value).value.value"),
            Some(output) => format!("needs['{job}'].outputs['{output}']"),
            None => format!("fromJSON(needs['{job}'].outputs.value).value"),
        };
        let value = format!("${{{{ {value} }}}}");
        self.put(Parameter { name: name.to_owned(), value, of: Some(job.clone()) })
    }

    /// The last value of a parameter counts.
    fn put(mut self, parameter: Parameter) -> Self {
        self.parameters.retain(|other| other.name != parameter.name);
        self.parameters.push(parameter);
        self
    }

    /// Secrets of the job that the child may use on a laptop, by name. A build on a server has those of its project.
    #[must_use]
    pub fn secrets(mut self, names: impl Texts) -> Self {
        self.secrets.extend(names.texts());
        self
    }

    /// Hands an output of one of the child's jobs on, under the same name: `ci.build(…).output::<Version>("version")`. A child that is
    /// not waited for hands on nothing.
    #[must_use]
    pub fn hand_on(mut self, job: &str, output: &str) -> Self {
        self.handed_on.retain(|(name, _)| name != output);
        self.handed_on.push((output.to_owned(), format!("{job}.{output}")));
        self
    }

    /// The job passes as soon as the child is asked for. On a server it begins at once, on a laptop when the build has ended.
    #[must_use]
    pub fn no_wait(mut self) -> Self {
        self.waits = Waits::No;
        self
    }

    /// The step, as the format says it.
    #[track_caller]
    fn step(&self) -> Step {
        let said = self.said.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        let mut said: Vec<(String, Json)> = said.collect();
        let mut map = |key: &str, entries: Vec<(String, Json)>| {
            if !entries.is_empty() {
                said.push((key.to_owned(), Json::Object(entries)));
            }
        };
        let text = |name: &String, value: &String| (name.clone(), Json::Text(value.clone()));
        map("params", self.parameters.iter().map(|parameter| text(&parameter.name, &parameter.value)).collect());
        if self.waits == Waits::ForVerdict {
            map("hand_on", self.handed_on.iter().map(|(name, from)| text(name, from)).collect());
        } else {
            said.push(("wait".to_owned(), Json::Bool(false)));
        }
        Step::build(Json::Object(said))
    }
}

impl Ci {
    /// Adds a job that runs another build and ends as it does; or, with [`Child::no_wait`], only asks for it. The child builds the
    /// files of this build, with those that its needs hand on, in the same project, with a number of its own. It is run each time: the child's
    /// own jobs are reused where nothing changed.
    #[track_caller]
    pub fn build(&self, name: impl AsRef<str>, child: Child) -> Job {
        let mark = Location::caller();
        let mut job = self.job(name).reuse(Reuse::Never).step(child.step());
        for parameter in &child.parameters {
            if let Some(of) = &parameter.of {
                job = job.needs(of);
            }
        }
        if !child.secrets.is_empty() {
            job = job.secrets(child.secrets);
        }
        let names: Vec<String> = child.handed_on.into_iter().map(|(name, _)| name).collect();
        if names.is_empty() {
            return job;
        }
        if child.waits == Waits::No {
            let help = "leave out `no_wait`, or what is handed on";
            let message = "nothing is handed on by a build that nobody waits for";
            self.shared.borrow_mut().fault("hand-on-later", message, "not waited for", help, mark, &[]);
        }
        job.outputs(names)
    }
}

#[cfg(test)]
mod tests {
    use super::Child;
    use crate::ci::Ci;
    use crate::json::Json;

    /// Takes the marks of places out.
    fn bare(json: &mut Json) {
        if let Json::Object(entries) = json {
            entries.retain(|(name, _)| !name.starts_with('@'));
            entries.iter_mut().for_each(|(_, value)| bare(value));
        }
    }

    /// What the job `ship` comes to: keys that a child sets, its needs, and what is wrong.
    #[track_caller]
    fn check(pipeline: impl FnOnce(&Ci), expected: &[&str]) {
        let ci = Ci::new(Json::Null, Default::default(), vec![0]);
        pipeline(&ci);
        let mut shared = ci.shared.borrow_mut();
        let ship = shared.by_name["ship"];
        let mut lines = Vec::new();
        let steps = shared.jobs[ship].settings.entry("run", Json::Null, std::panic::Location::caller()).clone();
        for step in steps.items() {
            let mut build = step.get("build").cloned().unwrap_or(Json::Null);
            bare(&mut build);
            lines.push(build.to_string());
        }
        lines.extend(shared.jobs[ship].needs.iter().map(|need| format!("needs {:?}", need.on)));
        lines.extend(shared.diagnostics.iter().filter_map(|it| Some(it.get("message")?.as_str()?.to_owned())));
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_file_and_a_command() {
        check(|ci| drop(ci.build("ship", Child::file("-it's.yaml"))), &[r#"{"file":"-it's.yaml"}"#]);
        check(
            |ci| drop(ci.build("ship", Child::command("release").no_wait())),
            &[r#"{"command":"release","wait":false}"#],
        );
    }

    #[test]
    fn parameters_come_from_the_program_and_from_jobs() {
        let pipeline = |ci: &Ci| {
            let version = ci.job("build").run("./build").output::<String>("version");
            let child = Child::command("release").param("dry", true).param_of("version", &version);
            ci.build("ship", child.hand_on("pack", "url")).output::<String>("url");
        };
        check(
            pipeline,
            &[
                r#"{"command":"release","params":{"dry":"true","version":"${{ needs['build'].outputs['version'] }}"},"hand_on":{"url":"pack.url"}}"#,
                r#"needs Name("build")"#,
            ],
        );
    }

    #[test]
    fn nothing_is_handed_on_without_waiting() {
        check(
            |ci| drop(ci.build("ship", Child::file("a.yaml").hand_on("pack", "url").no_wait())),
            &[r#"{"file":"a.yaml","wait":false}"#, "nothing is handed on by a build that nobody waits for"],
        );
    }
}
