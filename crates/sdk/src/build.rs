//! Builds that jobs ask for: children of the build, of the same project.
//!
//! A child is an ordinary job of one step, `"$ROPEWALK_BINARY" run …`: YAML can say the same. Nothing of it is decided here.

use std::panic::Location;

use crate::ci::Ci;
use crate::event::EventKind;
use crate::fields::Fill;
use crate::inputs::Output;
use crate::job::Job;
use crate::json::Json;
use crate::step::Step;
use crate::texts::Texts;
use crate::words::Reuse;

/// A build to ask for: which pipeline, and what its event says. What is not said is as with the build that asks; the kind is
/// [`EventKind::Build`], that of a command [`EventKind::Command`].
#[derive(Clone, Debug)]
pub struct Child {
    /// The pipeline's file; `None` is all that the repository has.
    file: Option<String>,
    /// Flags of `ropewalk run`, each with its value.
    flags: Vec<(&'static str, String)>,
    parameters: Vec<Parameter>,
    /// `JOB.OUTPUT=NAME`, and NAME.
    handed_on: Vec<(String, String)>,
    secrets: Vec<String>,
    waits: Waits,
}

#[derive(Clone, Debug)]
struct Parameter {
    /// `NAME=VALUE`; may hold `${{ }}`.
    text: String,
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
        Self { file: Some(path.into()), ..Self::whole() }
    }

    /// What the repository's pipeline has under this command's name: `on(command("release"))`.
    #[must_use]
    pub fn command(name: impl Into<String>) -> Self {
        Self::whole().flag("--command", name.into())
    }

    /// What the repository's pipeline runs for an event of this kind: `on(schedule(…))`.
    #[must_use]
    pub fn event(kind: EventKind) -> Self {
        Self::whole().kind(kind)
    }

    fn whole() -> Self {
        let (flags, parameters, handed_on, secrets) = Default::default();
        Self { file: None, flags, parameters, handed_on, secrets, waits: Waits::ForVerdict }
    }

    fn flag(mut self, name: &'static str, value: String) -> Self {
        self.flags.retain(|(other, _)| *other != name);
        self.flags.push((name, value));
        self
    }

    /// The kind of its event.
    #[must_use]
    pub fn kind(self, kind: EventKind) -> Self {
        self.flag("--event", kind.name().to_owned())
    }

    /// The branch in its event; what is built are the files of this build all the same.
    #[must_use]
    pub fn branch(self, name: impl Into<String>) -> Self {
        self.flag("--branch", name.into())
    }

    /// The tag in its event. Without a kind, the event is that of a tag.
    #[must_use]
    pub fn tag(self, name: impl Into<String>) -> Self {
        self.flag("--tag", name.into())
    }

    /// A parameter; a text may hold `${{ }}`.
    #[must_use]
    pub fn param(mut self, name: &str, value: impl Into<Json>) -> Self {
        let value = match value.into() {
            Json::Text(text) => text,
            value => value.to_string(),
        };
        self.parameters.push(Parameter { text: format!("{name}={value}"), of: None });
        self
    }

    /// A parameter that is an output of a job, which must pass first. `T` is a type that a person could fill in, see [`crate::field`];
    /// another does not compile.
    #[must_use]
    pub fn param_of<T: Fill>(mut self, name: &str, output: &Output<T>) -> Self {
        let job = &output.source.job;
        let value = match &output.source.output {
            Some(output) => format!("needs['{job}'].outputs['{output}']"),
            None => format!("fromJSON(needs['{job}'].outputs.value).value"),
        };
        self.parameters.push(Parameter { text: format!("{name}=${{{{ {value} }}}}"), of: Some(job.clone()) });
        self
    }

    /// Secrets of the job that the child may use, by name.
    #[must_use]
    pub fn secrets(mut self, names: impl Texts) -> Self {
        self.secrets.extend(names.texts());
        self
    }

    /// Hands an output of one of the child's jobs on, under the same name: `ci.build(…).output::<Version>("version")`. A child that is
    /// not waited for hands on nothing.
    #[must_use]
    pub fn hand_on(mut self, job: &str, output: &str) -> Self {
        self.handed_on.push((format!("{job}.{output}={output}"), output.to_owned()));
        self
    }

    /// The job passes as soon as the child is asked for. It begins when the build has ended.
    #[must_use]
    pub fn no_wait(mut self) -> Self {
        self.waits = Waits::No;
        self
    }

    /// What it is called where it failed: `build of the command release`.
    fn title(&self) -> String {
        let flag = |wanted: &str| self.flags.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
        match (&self.file, flag("--command"), flag("--event")) {
            (Some(file), ..) => format!("build of {file}"),
            (None, Some(command), _) => format!("build of the command {command}"),
            (None, None, Some(kind)) => format!("build of the event {kind}"),
            (None, None, None) => "build of this pipeline".to_owned(),
        }
    }

    /// The step, with every text from outside in a variable: none of them is read by the shell.
    #[track_caller]
    fn step(&self) -> Step {
        let mut script = r#"exec "$ROPEWALK_BINARY" run"#.to_owned();
        let mut variables = Vec::new();
        let mut word = |flag: &str, value: &str| {
            let variable = format!("CHILD_{}", variables.len() + 1);
            script.push_str(&format!(" {flag}\"${variable}\""));
            variables.push((variable, value.to_owned()));
        };
        self.flags.iter().for_each(|(flag, value)| word(&format!("{flag}="), value));
        self.parameters.iter().for_each(|parameter| word("--param=", &parameter.text));
        if self.waits == Waits::ForVerdict {
            self.handed_on.iter().for_each(|(wanted, _)| word("--hand-on=", wanted));
        }
        if let Some(file) = &self.file {
            word("-- ", file);
        }
        if self.waits == Waits::No {
            script = script.replacen(" run", " run --later", 1);
        }
        let step = Step::sh(script).name(self.title());
        variables.into_iter().fold(step, |step, (name, value)| step.env(name, value))
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
        let names: Vec<String> = child.handed_on.into_iter().map(|(_, name)| name).collect();
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
            lines.push(step.get("run").and_then(Json::as_str).unwrap_or_default().to_owned());
            if let Some(Json::Object(variables)) = step.get("env") {
                let is_mark = |name: &str| name.starts_with('@');
                let shown = variables.iter().filter(|(name, _)| !is_mark(name));
                lines.extend(shown.map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or("no text"))));
            }
        }
        lines.extend(shared.jobs[ship].needs.iter().map(|need| format!("needs {:?}", need.on)));
        lines.extend(shared.diagnostics.iter().filter_map(|it| Some(it.get("message")?.as_str()?.to_owned())));
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_file_and_a_command() {
        check(
            |ci| drop(ci.build("ship", Child::file("-it's.yaml"))),
            &[r#"exec "$ROPEWALK_BINARY" run -- "$CHILD_1""#, "CHILD_1: -it's.yaml"],
        );
        check(
            |ci| drop(ci.build("ship", Child::command("release").no_wait())),
            &[r#"exec "$ROPEWALK_BINARY" run --later --command="$CHILD_1""#, "CHILD_1: release"],
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
                r#"exec "$ROPEWALK_BINARY" run --command="$CHILD_1" --param="$CHILD_2" --param="$CHILD_3" --hand-on="$CHILD_4""#,
                "CHILD_1: release",
                "CHILD_2: dry=true",
                "CHILD_3: version=${{ needs['build'].outputs['version'] }}",
                "CHILD_4: pack.url=url",
                r#"needs Name("build")"#,
            ],
        );
    }

    #[test]
    fn nothing_is_handed_on_without_waiting() {
        check(
            |ci| drop(ci.build("ship", Child::file("a.yaml").hand_on("pack", "url").no_wait())),
            &[
                r#"exec "$ROPEWALK_BINARY" run --later -- "$CHILD_1""#,
                "CHILD_1: a.yaml",
                "nothing is handed on by a build that nobody waits for",
            ],
        );
    }
}
