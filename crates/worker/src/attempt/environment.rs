//! What steps find in their environment.

use std::ffi::OsString;
use std::sync::Arc;

use graph::{AskedTests, quarantine};

use super::Attempt;
use crate::file_commands::CommandFiles;
use crate::place::Place;
use crate::variables::Variables;

impl Attempt<'_> {
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
        environment
    }

    pub(super) async fn add_job_environment(&mut self) -> Result<(), ()> {
        let job = Arc::clone(&self.spec.job);
        for (name, text) in &job.env {
            let value = self.evaluate(text).await.map_err(|fault| self.break_word(format!("env `{name}`: {fault}")))?;
            self.environment.insert(name, value);
        }
        // Logins for registries are not the steps'.
        let all = job.all_secrets();
        let is_login = |name: &String| all.contains(name) && !job.secrets.contains(name);
        for (name, value) in self.secrets.values.iter().filter(|(name, _)| !is_login(name)) {
            self.environment.insert(name, value);
        }
        self.visible.extend(job.env.keys().map(OsString::from));
        self.show_environment();
        Ok(())
    }

    /// Shows the variables that the pipeline and its steps set to `${{ env }}`.
    pub(super) fn show_environment(&mut self) {
        if let Some(contexts) = &mut self.contexts {
            let visible =
                self.visible.iter().filter_map(|name| Some((name.clone(), self.environment.get(name)?.into())));
            contexts.set_env(&visible.collect());
        }
    }
}
