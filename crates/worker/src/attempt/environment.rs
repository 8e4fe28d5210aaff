//! What steps find in their environment, and what of it is kept for a person.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use super::Attempt;
use crate::file_commands::CommandFiles;
use crate::place::Place;
use crate::variables::Variables;

impl Attempt<'_> {
    pub(super) fn base_environment(&self, place: &Place) -> Variables {
        let mut environment = place.inherited(self.worker);
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
        for (name, value) in &self.secrets.values {
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

    /// Keeps what the last step found around it, without secrets, beside the workspace's files.
    pub(super) fn keep_environment(&mut self) {
        let Some((environment, directory)) = self.left.take() else { return };
        let data = &self.worker.settings.data;
        let path = crate::place::environment_file(data, self.spec.build, self.spec.attempt);
        let text = |value: &OsStr| self.secrets.hide(value.to_string_lossy().into_owned());
        let variables = environment
            .iter()
            .filter(|(name, _)| !self.secrets.values.contains_key(&*name.to_string_lossy()))
            .map(|(name, value)| (name.to_string_lossy().into_owned(), text(value)))
            .collect();
        let left = LeftBehind { variables, directory };
        let written =
            serde_json::to_vec(&left).map_err(std::io::Error::from).and_then(|text| std::fs::write(&path, text));
        if let Err(error) = written {
            self.note(format!("a shell in this workspace will lack the job's variables: {error}"));
        }
    }
}

/// What the last step of an attempt found around it; kept for a person's shell. Holds no secret.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct LeftBehind {
    /// Its environment.
    pub variables: BTreeMap<String, String>,
    /// Its directory, as seen inside the workspace.
    pub directory: PathBuf,
}
