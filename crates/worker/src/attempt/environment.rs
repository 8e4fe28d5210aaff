//! What steps find in their environment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use graph::{AskedTests, Step, Text, quarantine};

use super::Attempt;
use crate::file_commands::CommandFiles;
use crate::place::Place;
use crate::variables::Variables;

impl Attempt<'_> {
    /// What every step finds, under the variables that are there already.
    pub(super) fn base_environment(&self, place: &Place) -> Variables {
        let mut environment = match &self.contained {
            Some(contained) => contained.variables(self.worker, &self.spec.job.environment),
            None => place.inherited(self.worker),
        };
        let event = &self.spec.event;
        let mut set = |name: &str, value: &str| environment.insert(name, value);
        set("ROPEWALK_BUILD", &self.spec.build.to_string());
        set("ROPEWALK_JOB", self.spec.name.as_str());
        set("ROPEWALK_EVENT", event.kind.name());
        let optional = [
            ("ROPEWALK_BRANCH", event.branch.as_deref()),
            ("ROPEWALK_TAG", event.tag.as_deref()),
            ("ROPEWALK_COMMIT", Some(event.commit.as_str()).filter(|commit| !commit.is_empty())),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                set(name, value);
            }
        }
        match &self.spec.asked {
            Some(asked) => environment.insert(AskedTests::VARIABLE, asked.variable()),
            // A build inside a job that was asked for some tests is not.
            None => environment.remove(AskedTests::VARIABLE),
        }
        match &*self.spec.quarantine {
            [] => environment.remove(quarantine::VARIABLE),
            tests => environment.insert(quarantine::VARIABLE, quarantine::variable(tests)),
        }
        environment.insert("ROPEWALK_WORKSPACE", place.root());
        for (file, place) in self.slot.iter().flat_map(CommandFiles::places) {
            environment.insert(file.variable(), place);
        }
        for (name, value) in self.environment.iter() {
            environment.insert(name, value);
        }
        environment
    }

    /// Evaluates the pipeline's variables, then the job's, which see the pipeline's: before all that may read them, as an
    /// image's name. They stand in the environment alone until [`Attempt::base_environment`] lays them over its own.
    pub(super) async fn evaluate_variables(&mut self) -> Result<(), ()> {
        let job = Arc::clone(&self.spec.job);
        let is_of_pipeline = |(name, _): &(&String, &Text)| job.env_of_pipeline.contains(*name);
        let (of_pipeline, of_job): (Vec<_>, Vec<_>) = job.env.iter().partition(is_of_pipeline);
        for map in [of_pipeline, of_job] {
            let names: BTreeSet<&str> = map.iter().map(|(name, _)| name.as_str()).collect();
            for &(name, text) in &map {
                let value = self.variable(text, &names).await;
                let value = value.map_err(|fault| self.break_word(format!("env `{name}`: {fault}")))?;
                self.environment.insert(name, value);
            }
            self.visible.extend(names.into_iter().map(OsString::from));
            self.show_environment();
        }
        Ok(())
    }

    pub(super) fn add_secrets(&mut self) {
        // Logins for registries are not the steps'.
        let all = self.spec.job.all_secrets();
        let is_login = |name: &String| all.contains(name) && !self.spec.job.secrets.contains(name);
        for (name, value) in self.secrets.values.iter().filter(|(name, _)| !is_login(name)) {
            self.environment.insert(name, value);
        }
        self.show_environment();
    }

    /// Adds a step's variables: those that it declares, which see the variables around the step, then those that stand for
    /// what its script reads, which see the declared ones too.
    pub(super) async fn add_variables_of_step(&self, step: &Step, environment: &mut Variables) -> Result<(), String> {
        let is_made = |(name, _): &(&String, &Text)| name.starts_with(Step::EXPRESSION_VARIABLE);
        let (made, declared): (Vec<_>, Vec<_>) = step.env.iter().partition(is_made);
        let names: BTreeSet<&str> = declared.iter().map(|(name, _)| name.as_str()).collect();
        let fault = |name: &str, fault: String| format!("env `{name}`: {fault}");
        for (name, text) in declared {
            let value = self.variable(text, &names).await.map_err(|cause| fault(name, cause))?;
            environment.insert(name, value);
        }
        let mut contexts = self.contexts.clone();
        if let Some(contexts) = contexts.as_mut().filter(|_| !names.is_empty() && !made.is_empty()) {
            let visible = self.visible.iter().cloned().chain(names.into_iter().map(OsString::from));
            contexts.set_env(&values_of(visible, environment));
        }
        for (name, text) in made {
            let value = match &contexts {
                Some(contexts) => contexts.text(text).await.map_err(|cause| fault(name, cause))?,
                None => text.as_written().to_owned(),
            };
            environment.insert(name, value);
        }
        Ok(())
    }

    /// The value of a variable of one map, in which stand these names. The variables of a map do not see each other.
    async fn variable(&self, text: &Text, beside: &BTreeSet<&str>) -> Result<String, String> {
        if let Text::Template(written) = text
            && let Ok(template) = expression::Template::parse(written)
        {
            let paths = template.context_paths();
            let read = paths.iter().filter(|path| &*path.context == "env").filter_map(|path| path.name(0));
            let is_hidden = |name: &&str| beside.contains(name) && !self.visible.contains(OsStr::new(name));
            if let Some(name) = read.into_iter().find(is_hidden) {
                return Err(format!(
                    "it reads `env.{name}`, which is set beside it, and variables of one `env` do not see each other: \
                     write its value here, or set it under a name of its own in the `env` around this one"
                ));
            }
        }
        self.evaluate(text).await
    }

    /// Shows the variables that the pipeline and its steps set to `${{ env }}`.
    pub(super) fn show_environment(&mut self) {
        if let Some(contexts) = &mut self.contexts {
            contexts.set_env(&values_of(self.visible.iter().cloned(), &self.environment));
        }
    }
}

fn values_of(names: impl Iterator<Item = OsString>, environment: &Variables) -> BTreeMap<OsString, OsString> {
    names.filter_map(|name| Some((name.clone(), environment.get(&name)?.into()))).collect()
}
