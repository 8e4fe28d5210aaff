//! Which files of the repository a pipeline names, for who has the repository and can say which are not there.
//!
//! Nothing here reads a file. What only a run can know is left out: what an expression makes, and the inputs of a job that
//! works in the tree behind others, who may have written them there. So is what programs and plugins compute.
//!
//! Apart from lowering, which every run pays and which needs none of it.

use expression::Template;
use graph::{Location, WorkspaceKind};

use super::files::{self, Merged, Source};
use super::{Faults, SourceFile, nodes};
use crate::tree::Node;

/// A file, or a glob for some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The job that names it, by the id under which it was written; `None` for the defaults of all.
    pub job: Option<String>,
    /// What it is to the job.
    pub role: FileRole,
    /// As it was written: relative to the project.
    pub text: String,
    /// Where it is written.
    pub location: Location,
}

/// What a file is to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// A glob of `inputs`, of a job that sees the files so.
    Input(WorkspaceKind),
    /// Its image is built from it.
    Dockerfile,
    /// A build that it asks for runs this pipeline.
    Pipeline,
}

/// All that the jobs of these files name, in the order of the text, whatever event they answer to.
#[must_use]
pub fn named_files(files: &[SourceFile]) -> Vec<NamedFile> {
    // A lowering tells what is wrong with the files.
    let mut faults = Faults::default();
    let (sources, roots) = super::read(files, &mut faults);
    let merged = files::merge(&roots, None, &sources, &mut faults);
    let mut named = Vec::new();
    let mut add = |job: Option<&str>, role: FileRole, node: &Node| {
        let Some(text) = node.scalar_text().filter(|text| !text.is_empty() && !Template::is_needed(text)) else {
            return;
        };
        let location = sources.location(node.span);
        named.push(NamedFile { job: job.map(str::to_owned), role, text: text.to_owned(), location });
    };
    let dockerfile_of_all = merged.defaults.get("environment").and_then(|environment| environment.get("dockerfile"));
    if let Some(node) = dockerfile_of_all {
        add(None, FileRole::Dockerfile, node);
    }
    for job in &merged.jobs {
        if let Some(workspace) = workspace_at_start(job, &merged) {
            let globs = job.body.get("inputs").map(nodes::list).unwrap_or_default();
            let takes = |glob: &&Node| glob.scalar_text().is_some_and(|text| !text.starts_with('!'));
            globs.iter().filter(takes).for_each(|glob| add(Some(job.id), FileRole::Input(workspace), glob));
        }
        if let Some(node) = job.body.get("environment").and_then(|environment| environment.get("dockerfile")) {
            add(Some(job.id), FileRole::Dockerfile, node);
        }
        let steps = job.body.get("run").and_then(Node::items).unwrap_or_default();
        let files = steps.iter().filter_map(|step| step.get("build")?.get("file"));
        files.for_each(|file| add(Some(job.id), FileRole::Pipeline, file));
    }
    named
}

/// How the job sees the files, if they are those of the start.
fn workspace_at_start(job: &Source<'_>, merged: &Merged<'_>) -> Option<WorkspaceKind> {
    let said = job.body.get("workspace").or_else(|| merged.defaults.get("workspace").copied());
    let is_in_place = said.and_then(Node::as_str) == Some("in_place");
    let is_behind_others =
        !job.after.is_empty() || job.body.get("needs").is_some_and(|needs| !nodes::list(needs).is_empty());
    match (is_in_place, is_behind_others) {
        (false, _) => Some(WorkspaceKind::Isolated),
        (true, false) => Some(WorkspaceKind::InPlace),
        (true, true) => None,
    }
}
